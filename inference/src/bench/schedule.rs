//! When texts arrive in an open loop: a Poisson process, fixed by its seed, so that two engines meet the same arrivals.

use std::time::Duration;

/// The most arrivals that are planned: more are no measurement but a way to run out of memory.
const MOST: f64 = 1e8;

/// The arrivals, in ascending order, of a Poisson process with `rate` arrivals a second over `duration`. The same seed
/// gives the same arrivals. A rate that is not a positive number gives none.
pub fn poisson(seed: u64, rate: f64, duration: Duration) -> Vec<Duration> {
    let end = duration.as_secs_f64();
    if !(rate.is_finite() && rate > 0.0 && rate * end < MOST) {
        return Vec::new();
    }
    let mut draws = SplitMix64(seed);
    let mut at = 0.0;
    let gaps = std::iter::repeat_with(move || {
        // The unit draw is below 1, so the logarithm is finite.
        at -= (1.0 - draws.unit()).ln() / rate;
        at
    });
    gaps.take_while(|&at| at < end).map(Duration::from_secs_f64).collect()
}

/// Steele, Lea and Flood's generator (2014): ten lines that never change, where a crate's distributions may.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_in_order_at_the_rate_and_follow_the_seed() {
        let hour = Duration::from_secs(3600);
        let arrivals = poisson(1, 20.0, hour);
        assert!(arrivals.is_sorted() && arrivals.iter().all(|&at| at < hour));
        // 72,000 expected, with a standard deviation of 268.
        assert!(arrivals.len().abs_diff(72_000) < 5 * 268, "{}", arrivals.len());
        assert_eq!(arrivals, poisson(1, 20.0, hour));
        assert_ne!(arrivals, poisson(2, 20.0, hour));
    }

    #[test]
    fn gaps_are_exponential_so_arrivals_come_in_bursts() {
        let arrivals = poisson(7, 10.0, Duration::from_secs(10_000));
        let gaps: Vec<f64> = arrivals.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let longer = |seconds: f64| gaps.iter().filter(|&&gap| gap > seconds).count() as f64 / gaps.len() as f64;
        for seconds in [0.01, 0.1, 0.3] {
            assert!((longer(seconds) - (-10.0 * seconds).exp()).abs() < 0.01, "{seconds}: {}", longer(seconds));
        }
    }

    #[test]
    fn no_rate_gives_no_arrivals() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(poisson(1, rate, Duration::from_secs(10)).is_empty(), "{rate}");
        }
    }
}
