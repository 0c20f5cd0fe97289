//! What is ahead of a new text, and how long that will take: learnt from how fast the queue empties while something waits.
//!
//! The guarantee: no forecast without knowledge. The pace is unknown until the queue was backlogged for long enough, and
//! again some seconds after it last was; a stall is no pace; and of several recent measurements the best one counts, so that
//! a forecast errs on the side of those who ask. What is ahead are the texts whose callers still wait, in tokens as estimated when
//! they came; the pace is that of texts that were scored, by a forward pass or out of the repeat cache. Texts that were given up
//! are neither: if they counted as progress, a queue of nothing but late texts would pass for a fast one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Lane;

/// A measurement takes at least so long, and so many batches.
const SHORTEST: Duration = Duration::from_millis(500);
const BATCHES: u32 = 4;
/// One that took longer says that a worker stood still, not how fast it works.
const LONGEST: Duration = Duration::from_secs(5);
/// So many measurements are kept, and for so long.
const KEPT: usize = 4;
const FRESH: Duration = Duration::from_secs(10);

/// What waits or runs, in both lanes of an engine, and how fast it goes.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    interactive: AtomicU64,
    bulk: AtomicU64,
    /// Tokens that were scored, since the start.
    scored: AtomicU64,
    pace: Mutex<Pace>,
}

impl Backlog {
    /// Counts a text of so many tokens as waiting, until what is returned is dropped.
    pub(crate) fn enter(self: &Arc<Self>, lane: Lane, tokens: u32) -> Place {
        self.lane(lane).fetch_add(u64::from(tokens), Ordering::Relaxed);
        Place { backlog: Arc::clone(self), lane, tokens: u64::from(tokens) }
    }

    /// A worker takes a batch now, and leaves something waiting (`backlogged`) or nothing.
    pub(crate) fn taken(&self, now: Instant, backlogged: bool) {
        let scored = self.scored.load(Ordering::Relaxed);
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).observe(now, scored, backlogged);
    }

    /// How long a text of this lane would wait that came now, if that is known. Bulk waits for both lanes; what comes later
    /// into the interactive one is not foreseen.
    pub(crate) fn wait(&self, lane: Lane, now: Instant) -> Option<Duration> {
        let per_second = self.pace.lock().unwrap_or_else(PoisonError::into_inner).per_second(now)?;
        let interactive = self.interactive.load(Ordering::Relaxed);
        let ahead = match lane {
            Lane::Interactive => interactive,
            Lane::Bulk => interactive + self.bulk.load(Ordering::Relaxed),
        };
        Some(Duration::try_from_secs_f64(ahead as f64 / per_second).unwrap_or(Duration::MAX))
    }

    fn lane(&self, lane: Lane) -> &AtomicU64 {
        match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        }
    }
}

/// A text's place in the count of what waits or runs. Its caller has it, not the queue: who goes away leaves at once.
#[derive(Debug)]
pub(crate) struct Place {
    backlog: Arc<Backlog>,
    lane: Lane,
    tokens: u64,
}

impl Place {
    /// Its text was scored.
    pub(crate) fn scored(self) {
        self.backlog.scored.fetch_add(self.tokens, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.backlog.lane(self.lane).fetch_sub(self.tokens, Ordering::Relaxed);
    }
}

/// How fast texts are scored while something waits.
#[derive(Debug, Default)]
struct Pace {
    /// The measurement under way: something has waited ever since it began.
    running: Option<Running>,
    /// Tokens a second, the latest last, each with its time.
    measured: VecDeque<(Instant, f64)>,
}

#[derive(Debug)]
struct Running {
    since: Instant,
    left: u64,
    batches: u32,
}

impl Pace {
    /// A batch was taken when so many tokens had left in all; something still waits, or nothing.
    fn observe(&mut self, now: Instant, left: u64, backlogged: bool) {
        let begun = || Running { since: now, left, batches: 0 };
        let Some(running) = &mut self.running else {
            self.running = backlogged.then(begun);
            return;
        };
        running.batches += 1;
        let time = now.saturating_duration_since(running.since);
        let tokens = left.saturating_sub(running.left);
        let complete = time >= SHORTEST && running.batches >= BATCHES;
        if complete && time <= LONGEST && tokens > 0 {
            self.measured.push_back((now, tokens as f64 / time.as_secs_f64()));
            if self.measured.len() > KEPT {
                self.measured.pop_front();
            }
        }
        if complete || !backlogged || time > LONGEST {
            self.running = backlogged.then(begun);
        }
    }

    /// Tokens a second, as the best of the recent measurements has it.
    fn per_second(&self, now: Instant) -> Option<f64> {
        let fresh = self.measured.iter().filter(|(at, _)| now.saturating_duration_since(*at) <= FRESH);
        fresh.map(|&(_, rate)| rate).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// Batches of 100 tokens, each taken so many milliseconds after the one before it.
    fn after(gaps: &[(u64, bool)]) -> (Pace, Instant) {
        let (mut pace, mut now, mut left) = (Pace::default(), Instant::now(), 0);
        for &(gap, backlogged) in gaps {
            now += ms(gap);
            pace.observe(now, left, backlogged);
            left += 100;
        }
        (pace, now)
    }

    #[test]
    fn a_pace_is_known_only_after_a_backlog_that_lasted() {
        let busy = |gap, batches| vec![(gap, true); batches];
        for (what, gaps, wanted) in [
            ("nothing", vec![], None),
            ("too short", busy(100, 5), None),
            ("long enough", busy(100, 6), Some(1000.0)),
            ("too few batches", busy(400, 3), None),
            ("never backlogged", vec![(100, false); 50], None),
            ("now and then", [(100, true), (100, true), (100, false)].repeat(20), None),
            ("a stall", busy(2000, 9), None),
            ("ends with the measurement", [busy(100, 5), vec![(100, false)]].concat(), Some(1000.0)),
        ] {
            let (pace, now) = after(&gaps);
            assert_eq!(pace.per_second(now).map(f64::round), wanted, "{what}");
        }
    }

    #[test]
    fn the_best_of_the_recent_measurements_counts_until_it_is_old() {
        let (pace, now) = after(&[vec![(10, true); 61], vec![(200, true); 12]].concat());
        assert!(pace.per_second(now).is_some_and(|rate| rate > 9000.0), "{pace:?}");
        let (pace, now) = after(&[vec![(10, true); 61], vec![(200, true); 40]].concat());
        assert!(pace.per_second(now).is_some_and(|rate| rate < 600.0), "{pace:?}");
        // The last measurement took 800 ms or so.
        assert!(pace.per_second(now + FRESH - ms(1000)).is_some());
        assert_eq!(pace.per_second(now + FRESH + ms(1)), None);
    }

    #[test]
    fn what_is_ahead_is_what_waits_or_runs_in_the_lanes_that_go_first() {
        let backlog = Arc::new(Backlog::default());
        let (mut now, mut wait) = (Instant::now(), None);
        let (first, second) = (backlog.enter(Lane::Interactive, 100), backlog.enter(Lane::Bulk, 300));
        for _ in 0..6 {
            assert_eq!(wait, None, "nothing is known yet");
            backlog.taken(now, true);
            backlog.enter(Lane::Bulk, 100).scored();
            drop(backlog.enter(Lane::Bulk, 900));
            wait = backlog.wait(Lane::Interactive, now);
            now += ms(100);
        }
        assert_eq!(wait, Some(ms(100)));
        assert_eq!(backlog.wait(Lane::Bulk, now), Some(ms(400)));
        drop(first);
        assert_eq!(backlog.wait(Lane::Interactive, now), Some(Duration::ZERO));
        drop(second);
        assert_eq!(backlog.wait(Lane::Bulk, now), Some(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn a_pace_is_never_slower_than_the_slowest_gap_nor_known_from_an_idle_queue(
            gaps in prop::collection::vec((1u64..200, prop::bool::weighted(0.9)), 0..200),
        ) {
            let (pace, now) = after(&gaps);
            let slowest = gaps.iter().map(|&(gap, _)| gap).max().unwrap_or(1);
            let fastest = gaps.iter().map(|&(gap, _)| gap).min().unwrap_or(1);
            if let Some(rate) = pace.per_second(now) {
                prop_assert!(rate >= 100_000.0 / slowest as f64 - 1e-6, "{rate}");
                prop_assert!(rate <= 100_000.0 / fastest as f64 + 1e-6, "{rate}");
            }
            let idle: Vec<_> = gaps.iter().map(|&(gap, _)| (gap, false)).collect();
            let (pace, now) = after(&idle);
            prop_assert_eq!(pace.per_second(now), None);
        }
    }
}
