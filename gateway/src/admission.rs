//! Refusing at once what could only be late.
//!
//! The guarantee: a call is refused because of its deadline only if what is ahead of it in the queue would, at the best pace
//! that was lately seen, take more than four fifths of the time that the call has left; and then it is told after how many seconds
//! the same call would be let in. The last fifth is for the call itself, and for a forecast that errs on its side: a full queue
//! stays at the limit, so without it every call would be let in that is late by its own forward pass, and none would be in time. While the pace is unknown (the server has just started, or nothing waits) nobody is refused.

use std::time::Duration;

use tokio::time::Instant;
use undertone_inference::Lane;

use crate::{Gateway, errors::ProblemCode, problem::Problem, telemetry};

/// The longest that a caller is told to wait: a forecast of more is none.
const LONGEST: Duration = Duration::from_secs(3600);

/// By how much what is ahead of a call, which takes `wait`, is too long for a call that has `left` until its deadline; nothing
/// if it may be in time.
fn late_by(wait: Option<Duration>, left: Duration) -> Option<Duration> {
    wait?.checked_sub(left * 4 / 5).filter(|late| !late.is_zero())
}

/// The seconds of `Retry-After`: by then so much of the queue is worked off that the call would be in time.
fn retry_after(late: Duration) -> u32 {
    let late = late.min(LONGEST);
    let seconds = late.as_secs() + u64::from(late.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

impl Gateway {
    /// Whether a call that goes to this lane may be in time. Cheap: to be asked before anything is done for the call.
    ///
    /// # Errors
    /// `queue-full`, saying when the call would be.
    pub(crate) fn foresee(&self, lane: Lane, deadline: Instant) -> Result<(), Problem> {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(late) = late_by(self.scorer.wait(lane), left) else { return Ok(()) };
        telemetry::refused("deadline");
        let seconds = retry_after(late);
        let detail = format!(
            "the call has {:.1} s left and would wait longer in the {} lane; wait {seconds} s, or give it more time",
            left.as_secs_f64(),
            lane.name()
        );
        Err(Problem::new(ProblemCode::QueueFull, detail).retry_after(seconds))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn a_call_is_refused_only_when_it_is_known_to_be_late() {
        for (wait, left, wanted) in [
            (None, 0, None),
            (None, 1000, None),
            (Some(0), 0, None),
            (Some(799), 1000, None),
            (Some(800), 1000, None),
            (Some(801), 1000, Some(1)),
            (Some(1800), 1000, Some(1)),
            (Some(1801), 1000, Some(2)),
            (Some(60_800), 1000, Some(60)),
            (Some(u64::MAX), 0, Some(3600)),
        ] {
            let late = late_by(wait.map(ms), ms(left));
            assert_eq!(late.map(retry_after), wanted, "{wait:?} ms ahead, {left} ms left");
        }
    }

    proptest! {
        #[test]
        fn who_comes_again_when_told_is_in_time(wait in 0u64..3_600_000, left in 0u64..600_000) {
            match late_by(Some(ms(wait)), ms(left)) {
                None => prop_assert!(5 * wait <= 4 * left),
                Some(late) => {
                    let seconds = u64::from(retry_after(late));
                    let then = wait.saturating_sub(seconds * 1000);
                    prop_assert!(5 * then <= 4 * left && seconds >= 1);
                    prop_assert!(5 * (wait - (seconds - 1) * 1000) > 4 * left, "no longer than it must be");
                }
            }
        }
    }
}
