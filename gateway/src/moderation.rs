//! Looking for calls less often while they can only be refused, as a network card under load interrupts less often.
//!
//! A thread that waits for calls is woken for each one. Where calls come ten times as fast as they are scored, and the cores are
//! those that score, waking costs more than refusing. So a thread that has refused calls and has nothing left to do rests before
//! it looks again, and then refuses many at once. The guarantee: it rests only after a refusal, only when it would wait anyway,
//! for twelve milliseconds at most, and for a small part of what waits in the queue, so that the core does not run out of texts.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The longest rest: an answer to a refused call is due within fifty.
const LONGEST: Duration = Duration::from_millis(12);
/// A shorter one is no rest: it takes as long to fall asleep.
const SHORTEST: Duration = Duration::from_micros(300);
/// A rest is this part of what a new text would wait.
const PART: u32 = 64;

/// Of this process, whose threads and cores are one.
static PROCESS: Moderation = Moderation(AtomicU64::new(0));

/// How long the next thread may rest that has nothing left to do, in microseconds.
struct Moderation(AtomicU64);

impl Moderation {
    fn refused(&self, wait: Option<Duration>) {
        let micros = u64::try_from(rest_of(wait).as_micros()).unwrap_or(u64::MAX);
        self.0.store(micros, Ordering::Relaxed);
    }

    fn rest(&self) {
        match self.0.swap(0, Ordering::Relaxed) {
            0 => {}
            micros => std::thread::sleep(Duration::from_micros(micros)),
        }
    }
}

/// How long a thread rests while a new text would wait so long.
fn rest_of(wait: Option<Duration>) -> Duration {
    let rest = wait.map_or(Duration::ZERO, |wait| (wait / PART).min(LONGEST));
    if rest < SHORTEST { Duration::ZERO } else { rest }
}

/// A call was refused because the places for calls are taken, while a new text would wait so long.
pub(crate) fn refused(wait: Option<Duration>) {
    PROCESS.refused(wait);
}

/// To be called by each thread of the runtime before it waits for something to do
/// ([`on_thread_park`](https://docs.rs/tokio/latest/tokio/runtime/struct.Builder.html#method.on_thread_park)).
pub fn rest() {
    PROCESS.rest();
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_rest_is_a_part_of_what_waits_and_never_long() {
        let us = Duration::from_micros;
        for (wait, rest) in [
            (None, 0),
            (Some(0), 0),
            (Some(8_000), 0), // a GPU's queue: there is no time to rest
            (Some(64_000), 1_000),
            (Some(768_000), 12_000),
            (Some(60_000_000), 12_000),
        ] {
            assert_eq!(rest_of(wait.map(us)), us(rest), "{wait:?}");
        }
    }

    #[test]
    fn one_thread_rests_once_after_refusals() {
        let moderation = Moderation(AtomicU64::new(0));
        moderation.refused(Some(Duration::from_secs(1)));
        moderation.refused(Some(Duration::from_secs(1)));
        let began = Instant::now();
        moderation.rest();
        assert!(began.elapsed() >= LONGEST);
        assert_eq!(moderation.0.load(Ordering::Relaxed), 0);
    }
}
