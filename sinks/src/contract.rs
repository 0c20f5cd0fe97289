//! The contract of a sink, and all that one must know to write another.
//!
//! A sink guarantees that the rows of an epoch and the positions it ends at become durable together or not at all, and
//! that a writer whose position is no longer the store's is refused. So whoever feeds it may stop, crash or repeat at
//! any moment: asking [`Sink::positions`] and going on from there neither loses nor doubles a record.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::Partition;

/// The next offset of each partition. A partition that is absent has never been written.
pub type Positions = BTreeMap<Partition, i64>;

/// What is written at once: consecutive events of some partitions, or rather what became of them. Offsets may have gaps
/// (transaction markers occupy some), and a range can have fewer records than offsets, or none (all were dead letters).
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch<R> {
    /// The offsets that this epoch settles, per partition. None is empty, but in an epoch that only says where partitions
    /// begin.
    pub ranges: BTreeMap<Partition, Range<i64>>,
    /// The records, in the order of their offsets within each partition.
    pub records: Vec<R>,
}

/// What a sink made durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// Rows added to the store: as many as records, or fewer where the sink aggregates.
    pub rows: u64,
    /// Where the written partitions stand now.
    pub positions: Positions,
}

/// A store that remembers how far it is.
#[async_trait]
pub trait Sink: Send {
    /// What it stores.
    type Record: Send + Sync + 'static;

    /// The name in logs, metrics and dead letters: "silver.posts".
    fn name(&self) -> &str;

    /// Reads the durable positions from the store, and takes them as where this writer stands.
    ///
    /// # Errors
    /// [`undertone_error::Fault::Outside`] while the store is ill; any other fault needs a person.
    async fn positions(&mut self) -> Result<Positions>;

    /// Where the store stands in `partitions` that other writers write. By default that is among [`Sink::positions`]; a store
    /// that tells of this writer's own alone has another answer.
    ///
    /// # Errors
    /// As [`Sink::positions`].
    async fn others(&mut self, partitions: &Positions) -> Result<Positions> {
        let mut stored = self.positions().await?;
        stored.retain(|partition, _| partitions.contains_key(partition));
        Ok(stored)
    }

    /// Makes the epoch's records durable and moves the positions of its partitions to the ends of their ranges, both or
    /// neither. After an error it may be called again with the same epoch.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the store's positions are not where this writer stands: read [`Sink::positions`] and
    /// make another epoch. [`undertone_error::Fault::Outside`] while the store is ill; any other fault needs a person.
    async fn write(&mut self, epoch: &Epoch<Self::Record>) -> Result<Written>;
}

impl<R> Default for Epoch<R> {
    fn default() -> Self {
        Self { ranges: BTreeMap::new(), records: Vec::new() }
    }
}

impl<R> Epoch<R> {
    /// An epoch of one partition.
    pub fn of(partition: Partition, range: Range<i64>, records: Vec<R>) -> Self {
        Self { ranges: BTreeMap::from([(partition, range)]), records }
    }

    /// Whether it settles no offset at all.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many offsets it settles.
    pub fn offsets(&self) -> u64 {
        self.ranges.values().map(|range| range.end.abs_diff(range.start)).sum()
    }

    /// Where each of its partitions stands once it is written.
    pub fn ends(&self) -> Positions {
        self.ranges.iter().map(|(partition, range)| (partition.clone(), range.end)).collect()
    }

    /// Appends what follows.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if a range of `next` is empty or does not begin where this epoch's ends.
    pub fn append(&mut self, next: Self) -> Result<()> {
        for (partition, range) in &next.ranges {
            let follows = self.ranges.get(partition).is_none_or(|mine| mine.end == range.start);
            if !follows || range.is_empty() {
                let stands = self.ranges.get(partition).map_or(range.start, |mine| mine.end);
                return Err(Error::new(ErrorKind::Internal, "events do not follow the epoch they were read for")
                    .with("partition", partition.partition)
                    .with("expected", stands)
                    .with("got", format!("{}..{}", range.start, range.end)));
            }
        }
        for (partition, range) in next.ranges {
            self.ranges.entry(partition).and_modify(|mine| mine.end = range.end).or_insert(range);
        }
        self.records.extend(next.records);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> Partition {
        Partition { cluster: "c".to_owned(), topic: "t".to_owned(), partition: number }
    }

    #[test]
    fn epochs_grow_at_their_ends_and_ranges_may_hold_fewer_records_than_offsets() {
        let mut epoch = Epoch::of(partition(0), 3..5, vec!['a']);
        epoch.append(Epoch::of(partition(1), 0..9, vec![])).expect("another partition begins anywhere");
        epoch.append(Epoch::of(partition(0), 5..8, vec!['b', 'c'])).expect("it follows");
        assert_eq!((epoch.offsets(), epoch.records.as_slice()), (14, ['a', 'b', 'c'].as_slice()));
        assert_eq!(epoch.ends(), Positions::from([(partition(0), 8), (partition(1), 9)]));
    }

    #[test]
    fn a_gap_a_repeat_or_an_empty_range_is_refused_and_changes_nothing() {
        let whole = Epoch::of(partition(0), 3..5, vec!['a']);
        for wrong in [6..7, 4..6, 5..5] {
            let mut epoch = whole.clone();
            assert!(epoch.append(Epoch::of(partition(0), wrong.clone(), vec!['x'])).is_err(), "{wrong:?}");
            assert_eq!(epoch, whole);
        }
    }
}
