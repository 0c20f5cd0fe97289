//! When a post arrives: a function of its index that never runs backwards.
//!
//! Index / rate, warped by three waves so that the posts come in bursts some minutes long: the momentary rate stays
//! between 0.69 and 1.82 times the mean, and over many minutes the mean is met. The jitter stays inside a post's own
//! slot, so that the order of times is the order of indices.

use undertone_proto::EventTime;

use super::chance::{Draws, Purpose};

/// (period in seconds, share of the rate that this wave moves). The shares must sum to less than 1.
const WAVES: [(f64, f64); 3] = [(83.0, 0.20), (410.0, 0.15), (1_900.0, 0.10)];

#[derive(Clone, Debug)]
pub(super) struct Clock {
    seed: u64,
    start_us: EventTime,
    rate: f64,
    phases: [f64; WAVES.len()],
}

impl Clock {
    pub(super) fn new(seed: u64, start_us: EventTime, rate: f64) -> Self {
        let mut draws = Draws::new(seed, Purpose::Clock, u64::MAX);
        Self { seed, start_us, rate, phases: WAVES.map(|_| draws.unit()) }
    }

    /// Microseconds from the start of the run to the arrival of post `index`.
    pub(super) fn elapsed_us(&self, index: u64) -> i64 {
        let jitter = Draws::new(self.seed, Purpose::Clock, index).unit();
        let even = (index as f64 + jitter) / self.rate;
        let mut seconds = even;
        for ((period, share), phase) in WAVES.iter().zip(self.phases) {
            seconds += share * period / STEEPEST * (wave(even / period + phase) - wave(phase));
        }
        (seconds * 1e6) as i64
    }

    pub(super) fn at_us(&self, index: u64) -> EventTime {
        self.start_us.saturating_add(self.elapsed_us(index))
    }
}

/// The greatest slope of [`wave`].
const STEEPEST: f64 = 8.0;

/// Like sin(2πx), made of two parabolas: smooth, and the same on every platform.
fn wave(x: f64) -> f64 {
    let x = x - x.floor();
    if x < 0.5 { 16.0 * x * (0.5 - x) } else { -16.0 * (x - 0.5) * (1.0 - x) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn time_never_runs_backwards(seed: u64, rate in 0.01..1e5f64, index in 0u64..1_000_000_000) {
            let clock = Clock::new(seed, 0, rate);
            prop_assert!(clock.at_us(index) <= clock.at_us(index + 1));
            prop_assert!(clock.at_us(index) >= 0);
        }
    }

    #[test]
    fn the_mean_rate_is_met_and_the_momentary_rate_moves() {
        let clock = Clock::new(3, 0, 20.0);
        let hours = clock.at_us(20 * 7_200) as f64 / 3_600e6;
        assert!((1.97..2.03).contains(&hours), "{hours}");
        let per_half_minute: Vec<i64> = (0..200).map(|i| clock.at_us(600 * (i + 1)) - clock.at_us(600 * i)).collect();
        let (least, most) = (per_half_minute.iter().min(), per_half_minute.iter().max());
        assert!(most > least.map(|least| least * 3 / 2).as_ref(), "{per_half_minute:?}");
    }
}
