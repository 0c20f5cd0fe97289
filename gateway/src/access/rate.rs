//! A bucket of texts that fills at a rate.
//!
//! A call is let in while there is at least one text in the bucket, and is then charged for all of its texts, of which
//! the gateway knows only after reading it: the bucket may go below zero, and later calls wait until that is made up for.

use std::time::{Duration, Instant};

use super::Rate;

pub(super) struct Bucket {
    texts: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn full(burst: f64, now: Instant) -> Self {
        Self { texts: burst, at: now }
    }

    /// Takes one text out, or says how long it is until there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.texts = (self.texts + passed * rate.per_second).min(rate.burst);
        self.at = now;
        if self.texts < 1.0 {
            let wait = (1.0 - self.texts) / rate.per_second;
            return Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX));
        }
        self.texts -= 1.0;
        Ok(())
    }

    pub(super) fn charge(&mut self, texts: usize) {
        self.texts -= texts as f64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { per_second: 2.0, burst: 3.0 };

    #[test]
    fn a_burst_is_let_in_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(RATE.burst, start);
        for _ in 0..3 {
            bucket.take(RATE, start).expect("the burst");
        }
        assert_eq!(bucket.take(RATE, start), Err(Duration::from_millis(500)));
        bucket.take(RATE, start + Duration::from_millis(500)).expect("filled again");
        assert!(bucket.take(RATE, start + Duration::from_millis(501)).is_err());
    }

    #[test]
    fn a_large_call_is_paid_for_afterwards() {
        let start = Instant::now();
        let mut bucket = Bucket::full(RATE.burst, start);
        bucket.take(RATE, start).expect("let in");
        bucket.charge(9);
        assert_eq!(bucket.take(RATE, start), Err(Duration::from_secs(4)));
        bucket.take(RATE, start + Duration::from_secs(4)).expect("made up for");
    }

    proptest! {
        #[test]
        fn no_more_than_burst_and_rate_ever_get_in(gaps in prop::collection::vec(0u64..2000, 1..200)) {
            let start = Instant::now();
            let (mut bucket, mut now, mut taken) = (Bucket::full(RATE.burst, start), start, 0u32);
            for gap in gaps {
                now += Duration::from_millis(gap);
                taken += u32::from(bucket.take(RATE, now).is_ok());
            }
            let allowed = RATE.burst + (now - start).as_secs_f64() * RATE.per_second;
            prop_assert!(f64::from(taken) <= allowed + 1e-6);
        }
    }
}
