//! Latencies and their percentiles. A percentile is a latency that occurred (nearest rank), never one in between.

use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// Latencies in ascending order. Serialised as `p50_ms`, `p90_ms`, `p99_ms` and `max_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The latency, in milliseconds, that a share `p` (0 to 1) of the texts did not exceed; zero if there is none.
    pub fn percentile_ms(&self, p: f64) -> f64 {
        let rank = (p * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default().as_secs_f64() * 1e3
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(latencies: I) -> Self {
        let mut sorted: Vec<_> = latencies.into_iter().collect();
        sorted.sort_unstable();
        Self { sorted }
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Latencies", 4)?;
        fields.serialize_field("p50_ms", &self.percentile_ms(0.5))?;
        fields.serialize_field("p90_ms", &self.percentile_ms(0.9))?;
        fields.serialize_field("p99_ms", &self.percentile_ms(0.99))?;
        fields.serialize_field("max_ms", &self.percentile_ms(1.0))?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let latencies: Latencies = (1..=100).rev().map(Duration::from_millis).collect();
        for (p, expected) in [(0.0, 1.0), (0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (1.0, 100.0)] {
            assert_eq!(latencies.percentile_ms(p), expected, "{p}");
        }
        assert_eq!(Latencies::default().percentile_ms(0.5), 0.0);
        let two: Latencies = [4, 2].into_iter().map(Duration::from_millis).collect();
        assert_eq!((two.percentile_ms(0.5), two.percentile_ms(0.51)), (2.0, 4.0));
    }

    proptest! {
        #[test]
        fn at_least_that_share_is_no_slower(times in prop::collection::vec(0u64..1000, 1..200), p in 0.0..=1.0f64) {
            let latencies: Latencies = times.iter().copied().map(Duration::from_millis).collect();
            let bound = latencies.percentile_ms(p);
            let within = times.iter().filter(|&&time| time as f64 <= bound + 1e-9).count();
            let below = times.iter().filter(|&&time| (time as f64) < bound - 1e-9).count();
            prop_assert!(within as f64 >= p * times.len() as f64 - 1e-9);
            prop_assert!(below as f64 <= p * times.len() as f64);
        }
    }
}
