//! What a source no longer holds of what a store needs next; pure. Nothing goes past it but a person's word.

use undertone_proto::Partition;

use super::policy::remade;
use crate::Positions;

/// Offsets of one partition that a store lacks and will never get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The partition as it is now.
    pub partition: Partition,
    /// The first that is gone; `None` if the store was fed from an earlier topic of this name, of which nobody can say how
    /// much is gone.
    pub from: Option<i64>,
    /// The first that is still there.
    pub to: i64,
}

/// Every gap between where a store stands and where the partitions of its source begin now. A store that never was
/// written has none.
pub fn gaps(stored: &Positions, starts: &Positions) -> Vec<Gap> {
    let was_remade = starts.keys().any(|ours| remade(stored, ours).is_some());
    let gap = |(partition, &to): (&Partition, &i64)| {
        let from = stored.get(partition).copied();
        let gone = was_remade || from.is_some_and(|from| from < to);
        gone.then(|| Gap { partition: partition.clone(), from, to })
    };
    starts.iter().filter_map(gap).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::policy::resume;
    use super::*;

    fn positions(topic: &str, offsets: &[Option<i64>]) -> Positions {
        let partition = |number| Partition { cluster: "c".to_owned(), topic: topic.to_owned(), partition: number };
        (0..).zip(offsets).filter_map(|(number, offset)| Some((partition(number), (*offset)?))).collect()
    }

    proptest! {
        /// A sink stops for a gap if and only if one is found here, and goes on once it is accepted.
        #[test]
        fn what_is_accepted_is_what_stops_a_sink(
            stored in prop::collection::vec(prop::option::of(0_i64..20), 0..4),
            starts in prop::collection::vec(0_i64..20, 1..4),
            before: bool,
        ) {
            let starts = positions("t", &starts.into_iter().map(Some).collect::<Vec<_>>());
            let mut stored = positions(if before { "an earlier one" } else { "t" }, &stored);
            // Nothing is ahead of its source here.
            let ends = starts.keys().map(|partition| (partition.clone(), 100)).collect();
            let found = gaps(&stored, &starts);
            prop_assert_eq!(found.is_empty(), resume(&stored, &starts, &ends).is_ok());
            stored.extend(found.into_iter().map(|gap| (gap.partition, gap.to)));
            let resumed = resume(&stored, &starts, &ends).expect("nothing is missing any more");
            prop_assert!(starts.iter().all(|(partition, start)| resumed[partition] >= *start));
            prop_assert!(gaps(&stored, &starts).is_empty());
        }
    }
}
