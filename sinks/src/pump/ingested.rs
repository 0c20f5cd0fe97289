//! When the records of an epoch were ingested: what lag in seconds and freshness are told from.
//!
//! The guarantee: the oldest record of each partition is exact. How the records spread over time is kept in steps of
//! [`STEP_US`], so that a record costs two look-ups and an epoch a few hundred bytes, however many records it has.

use std::collections::BTreeMap;

use undertone_proto::EventTime;

/// Times that are nearer to each other than this are one.
const STEP_US: i64 = 50_000;

/// When some records were ingested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// The oldest of each partition, by its number.
    oldest: BTreeMap<i32, EventTime>,
    /// How many there are in each step.
    steps: BTreeMap<i64, u64>,
}

impl Ingested {
    /// Takes one record in.
    pub fn add(&mut self, partition: i32, at_us: EventTime) {
        self.oldest.entry(partition).and_modify(|oldest| *oldest = at_us.min(*oldest)).or_insert(at_us);
        *self.steps.entry(at_us.div_euclid(STEP_US)).or_default() += 1;
    }

    /// Takes in what another has.
    pub fn extend(&mut self, other: Self) {
        for (partition, at_us) in other.oldest {
            self.oldest.entry(partition).and_modify(|oldest| *oldest = at_us.min(*oldest)).or_insert(at_us);
        }
        for (step, records) in other.steps {
            *self.steps.entry(step).or_default() += records;
        }
    }

    /// The oldest record of each partition.
    pub(super) fn oldest(&self) -> &BTreeMap<i32, EventTime> {
        &self.oldest
    }

    /// At most about `most` times that stand for all records alike, each with how many of those times it is. With no more
    /// records than `most`, each record is one.
    pub(super) fn sample(&self, most: u64) -> Vec<(EventTime, u64)> {
        let all: u64 = self.steps.values().sum();
        let kept = all.min(most.max(1));
        let mut passed = 0;
        // Of every `all / kept` records one is kept, whichever step it falls into.
        let kept_below = |records: u64| (u128::from(records) * u128::from(kept)).div_ceil(u128::from(all.max(1)));
        let mut sample = Vec::new();
        for (step, &records) in &self.steps {
            let times = kept_below(passed + records) - kept_below(passed);
            passed += records;
            if times > 0 {
                sample.push((step * STEP_US, u64::try_from(times).unwrap_or(0)));
            }
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(records: impl IntoIterator<Item = (i32, EventTime)>) -> Ingested {
        let mut ingested = Ingested::default();
        records.into_iter().for_each(|(partition, at_us)| ingested.add(partition, at_us));
        ingested
    }

    #[test]
    fn the_oldest_is_exact_and_few_records_are_each_counted() {
        let ingested = of([(0, 200_001), (1, 49_999), (0, 130_000), (0, 149_000)]);
        assert_eq!(ingested.oldest(), &BTreeMap::from([(0, 130_000), (1, 49_999)]));
        assert_eq!(ingested.sample(100), [(0, 1), (100_000, 2), (200_000, 1)]);
        assert_eq!(Ingested::default().sample(100), []);
    }

    proptest! {
        #[test]
        fn two_parts_are_one_whole(a in prop::collection::vec((0i32..3, 0i64..2_000_000), 0..50), b in prop::collection::vec((0i32..3, 0i64..2_000_000), 0..50)) {
            let mut parts = of(a.clone());
            parts.extend(of(b.clone()));
            prop_assert_eq!(parts, of(a.into_iter().chain(b)));
        }

        #[test]
        fn a_sample_has_every_steps_share(counts in prop::collection::vec(1u64..5000, 1..40), most in 1u64..300) {
            let steps: BTreeMap<i64, u64> = (0..).zip(counts).collect();
            let ingested = Ingested { steps: steps.clone(), ..Ingested::default() };
            let (all, sample) = (steps.values().sum::<u64>(), ingested.sample(most));
            let kept = sample.iter().map(|(_, times)| times).sum::<u64>();
            prop_assert_eq!(kept, all.min(most));
            for (step, records) in steps {
                let times = sample.iter().find(|(at, _)| *at == step * STEP_US).map_or(0, |(_, times)| *times);
                let fair = records as f64 * kept as f64 / all as f64;
                prop_assert!((times as f64 - fair).abs() <= 1.0, "{times} times of {fair}");
            }
        }
    }
}
