//! Where the group stands, and how often scoring was begun there without getting past it; no I/O.
//!
//! The guarantee: a post that kills the process is found and given up alone, whichever member of the group has its
//! partition (see [`crate::score::plan`]). A start is counted in the metadata of the partition's committed offset, in a
//! transaction that leaves the offset where it is. So the count goes with the partition to the member that takes over,
//! and whoever no longer owns the partition counts nothing.
//!
//! A start is counted once when a process begins to read, and only where there is something to score; the first
//! transaction that goes past it forgets it, and so does a clean end. Posts that are scored alone are scored one at a
//! time in the whole process, so that a death says of which of them it is: each is counted before it is begun and
//! acquitted before its outcome is written.

use std::collections::BTreeMap;

use undertone_error::{Error, ErrorKind, Result};

use super::reader::Offsets;
use crate::score::{Plan, Record, plan};

/// What one partition's committed offset and its metadata say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    next: i64,
    record: Option<Record>,
    /// Whether this process has counted the start that the record counts last.
    counted: bool,
    /// Whether a record stands beside the group's offset that is of no use any more.
    stale: bool,
    /// What this process tried to count with a transaction of which it never learned what became.
    tried: Option<Record>,
}

impl Standing {
    fn new(next: i64, record: Option<Record>, counted: bool) -> Self {
        Self { next, record, counted, stale: false, tried: None }
    }

    /// Nothing that was suspected here is suspected any more.
    fn release(&mut self) {
        self.stale |= self.record.is_some();
        (self.record, self.counted) = (None, false);
    }

    /// Whether the last start that the group's record counts is one of this process: none is counted twice.
    fn is_of(&self, next: i64, record: Option<Record>) -> bool {
        let known = (self.counted && self.record == record) || self.tried == record;
        self.next == next && record.is_some() && known
    }
}

/// What this process knows of the partitions of its assignment.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    version: u64,
    partitions: BTreeMap<i32, Standing>,
    crashed: bool,
}

impl Ledger {
    /// Takes what the group says of the partitions of an assignment. What was known before is kept only as far as the
    /// group still says so.
    pub(super) fn learn(&mut self, version: u64, committed: impl IntoIterator<Item = (i32, i64, Option<Record>)>) {
        let before = std::mem::take(&mut self.partitions);
        let standing = |(partition, next, record)| {
            let counted = before.get(&partition).is_some_and(|before| before.is_of(next, record));
            (partition, Standing::new(next, record, counted))
        };
        self.partitions = committed.into_iter().map(standing).collect();
        self.version = version;
        self.crashed = self.partitions.values().any(|standing| standing.record.is_some() && !standing.counted);
    }

    /// Whether a process died while it scored one of the partitions, as it seemed when they were learnt.
    pub(super) fn has_crashed(&self) -> bool {
        self.crashed
    }

    /// Of which assignment the partitions are.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// # Errors
    /// [`ErrorKind::Conflict`] if the group stands elsewhere, as far as this process knows.
    pub(super) fn expect(&self, partition: i32, offset: i64) -> Result<()> {
        let stands = self.partitions.get(&partition).map(|standing| standing.next);
        if stands == Some(offset) {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Conflict, "epoch does not begin where the group stands");
        let error = error.with("partition", partition).with("epoch begins", offset);
        Err(error.with("group stands", stands.map_or_else(|| "elsewhere".to_owned(), |next| next.to_string())))
    }

    /// The partition whose next post is to be scored alone, if there is one; that at which the process died comes first.
    pub(super) fn suspect(&self, from: &Offsets, in_flight: i64) -> Option<i32> {
        let suspects = from.iter().filter_map(|(&partition, &at)| {
            let standing = self.partitions.get(&partition).filter(|standing| standing.next == at)?;
            let alone = self.decide(partition, in_flight).is_some_and(|(plan, _)| plan != Plan::Together);
            alone.then_some((!standing.record.is_some_and(|record| record.accuses(at)), partition))
        });
        suspects.min().map(|(_, partition)| partition)
    }

    /// How to go on with a partition, and what must be durable before scoring begins there; `None` if it is.
    pub(super) fn decide(&self, partition: i32, in_flight: i64) -> Option<(Plan, Option<Record>)> {
        let &Standing { next, record, counted, .. } = self.partitions.get(&partition)?;
        if counted {
            let alone = record.is_some_and(|record| record.accuses(next));
            return Some((if alone { Plan::Alone } else { Plan::Together }, None));
        }
        let (plan, record) = plan(record, next, in_flight);
        Some((plan, (plan != Plan::GiveUp).then_some(record)))
    }

    /// The starts to count before the partitions `begun` are scored together from where they stand.
    pub(super) fn starts(&self, begun: impl IntoIterator<Item = i32>, in_flight: i64) -> BTreeMap<i32, Record> {
        let start = |partition| Some((partition, self.decide(partition, in_flight)?.1?));
        begun.into_iter().filter_map(start).collect()
    }

    /// The record of a partition as it is once the model has answered for its post.
    pub(super) fn acquitted(&self, partition: i32) -> Option<Record> {
        self.partitions.get(&partition)?.record.map(Record::acquitted)
    }

    /// What is kept of a partition's record once the group stands at `next`.
    pub(super) fn behind(&self, partition: i32, next: i64) -> Option<Record> {
        self.partitions.get(&partition)?.record?.behind(next)
    }

    /// The partitions beside whose offsets a clean end leaves nothing.
    pub(super) fn left(&self) -> impl Iterator<Item = (i32, i64)> {
        let left = |(_, standing): &(&i32, &Standing)| standing.stale || standing.record.is_some();
        self.partitions.iter().filter(left).map(|(&partition, standing)| (partition, standing.next))
    }

    /// The next offset of a partition, as far as is known.
    pub(super) fn next(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition).map(|standing| standing.next)
    }

    /// A transaction of ours has written this. `counted` tells whether it counted a start.
    pub(super) fn wrote(&mut self, partition: i32, next: i64, record: Option<Record>, counted: bool) {
        self.partitions.insert(partition, Standing::new(next, record, counted));
    }

    /// A transaction of ours is about to count a start.
    pub(super) fn tries(&mut self, partition: i32, record: Option<Record>) {
        if let Some(standing) = self.partitions.get_mut(&partition) {
            standing.tried = record;
        }
    }

    /// Nothing is left to be scored in a partition: what killed was not there.
    pub(super) fn release(&mut self, partition: i32) {
        if let Some(standing) = self.partitions.get_mut(&partition) {
            standing.release();
        }
    }

    /// The killer is found: what else was suspected is innocent until the process dies again.
    pub(super) fn release_all(&mut self) {
        self.partitions.values_mut().for_each(Standing::release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IN_FLIGHT: i64 = 8;

    /// The group's offsets and metadata, which survive every process.
    type Group = BTreeMap<i32, (i64, Option<Record>)>;

    /// One process that owns `ours`. It ends by dying (true), or because everything is scored.
    struct Life<'a> {
        group: &'a mut Group,
        ends: &'a BTreeMap<i32, i64>,
        killers: &'a [(i32, i64)],
        given_up: &'a mut Vec<(i32, i64)>,
        scored: &'a mut Vec<(i32, i64)>,
    }

    impl Life<'_> {
        fn run(&mut self, ours: &[i32], slow: usize) -> bool {
            let mut ledger = Ledger::default();
            ledger.learn(1, ours.iter().map(|p| (*p, self.group[p].0, self.group[p].1)));
            loop {
                let from: Offsets = ours.iter().map(|p| (*p, self.group[p].0)).collect();
                let Some(partition) = ledger.suspect(&from, IN_FLIGHT) else { break };
                let at = from[&partition];
                if at == self.ends[&partition] {
                    ledger.release(partition);
                    continue;
                }
                let (plan, record) = ledger.decide(partition, IN_FLIGHT).expect("ours");
                if plan == Plan::Alone {
                    if let Some(record) = record {
                        self.write(&mut ledger, partition, at, Some(record), true);
                    }
                    if self.killers.contains(&(partition, at)) {
                        return true;
                    }
                    let acquitted = ledger.acquitted(partition);
                    self.write(&mut ledger, partition, at, acquitted, false);
                    self.scored.push((partition, at));
                } else {
                    self.given_up.push((partition, at));
                    ledger.release_all();
                }
                let left = ledger.behind(partition, at + 1);
                self.write(&mut ledger, partition, at + 1, left, false);
            }
            let begun = ours.iter().copied().filter(|p| self.group[p].0 < self.ends[p]);
            for (partition, record) in ledger.starts(begun, IN_FLIGHT) {
                self.write(&mut ledger, partition, self.group[&partition].0, Some(record), true);
            }
            // Some of what lies before the killers gets through; how much is chance.
            let dies = ours.iter().any(|p| self.killers.iter().any(|k| k.0 == *p && k.1 >= self.group[p].0));
            for &partition in ours {
                let from = self.group[&partition].0;
                let killer = self.killers.iter().filter(|k| k.0 == partition && k.1 >= from).map(|k| k.1).min();
                let most = killer.unwrap_or(self.ends[&partition]);
                // What is under way ends with the first death: at most so much was written behind it.
                let to = if dies { (from + i64::try_from(slow).unwrap()).min(most) } else { most };
                if to > from {
                    self.scored.extend((from..to).map(|offset| (partition, offset)));
                    let left = ledger.behind(partition, to);
                    self.write(&mut ledger, partition, to, left, false);
                }
            }
            dies
        }

        fn write(&mut self, ledger: &mut Ledger, partition: i32, next: i64, record: Option<Record>, counted: bool) {
            self.group.insert(partition, (next, record));
            ledger.wrote(partition, next, record, counted);
        }
    }

    proptest! {
        /// Two members share three partitions, and one that dies leaves them to the other. Whichever posts kill, they
        /// alone are given up, and everything else is scored once.
        #[test]
        fn only_killers_are_given_up_whoever_has_their_partitions(
            ends in prop::collection::vec(0_i64..30, 3),
            killers in prop::collection::btree_set((0_i32..3, 0_i64..30), 0..3),
            turns in prop::collection::vec((0_usize..4, 0_usize..3), 1..6),
        ) {
            let ends: BTreeMap<i32, i64> = (0..).zip(ends).collect();
            let killers: Vec<_> = killers.into_iter().filter(|(p, at)| *at < ends[p]).collect();
            let mut group: Group = (0..3).map(|p| (p, (0, None))).collect();
            let (mut given_up, mut scored) = (Vec::new(), Vec::new());
            let shares: [&[i32]; 4] = [&[0, 1, 2], &[0, 1], &[2], &[1, 2]];
            let mut lives = 0;
            while group.iter().any(|(p, (next, _))| *next < ends[p]) {
                prop_assert!(lives < 200, "it goes on for ever: {group:?}");
                // After the first turns one member has everything, so that every partition gets its turn.
                let (share, slow) = turns.get(lives).copied().unwrap_or((0, 0));
                let killers: Vec<_> = killers.iter().copied().filter(|k| !given_up.contains(k)).collect();
                let mut life = Life { group: &mut group, ends: &ends, killers: &killers, given_up: &mut given_up, scored: &mut scored };
                life.run(shares[share], slow);
                lives += 1;
            }
            given_up.sort_unstable();
            prop_assert_eq!(&given_up, &killers);
            scored.sort_unstable();
            let all = ends.iter().flat_map(|(&p, &end)| (0..end).map(move |at| (p, at)));
            let wanted: Vec<_> = all.filter(|each| !killers.contains(each)).collect();
            prop_assert_eq!(scored, wanted);
        }
    }

    #[test]
    fn a_start_is_counted_once_by_a_process_and_again_by_the_next() {
        let mut ledger = Ledger::default();
        ledger.learn(1, [(0, 5, None)]);
        let first = ledger.starts([0], IN_FLIGHT)[&0];
        ledger.wrote(0, 5, Some(first), true);
        assert!(ledger.starts([0], IN_FLIGHT).is_empty());
        // A rebalance that leaves us the partition.
        ledger.learn(2, [(0, 5, Some(first)), (1, 0, None)]);
        assert_eq!(ledger.starts([0, 1], IN_FLIGHT).into_keys().collect::<Vec<_>>(), [1]);
        assert_eq!(ledger.left().collect::<Vec<_>>(), [(0, 5)]);
        // Somebody else had it meanwhile, or this is another process.
        let mut other = Ledger::default();
        other.learn(1, [(0, 5, Some(first))]);
        assert_ne!(other.starts([0], IN_FLIGHT)[&0], first);
    }

    #[test]
    fn a_start_whose_transaction_was_not_answered_is_counted_once() {
        let mut ledger = Ledger::default();
        ledger.learn(1, [(0, 5, None)]);
        for _ in 0..9 {
            let record = ledger.starts([0], IN_FLIGHT)[&0];
            ledger.tries(0, Some(record));
            // It did not happen.
            ledger.learn(1, [(0, 5, None)]);
            assert_eq!(ledger.starts([0], IN_FLIGHT)[&0], record);
            ledger.tries(0, Some(record));
            // It did happen.
            ledger.learn(1, [(0, 5, Some(record))]);
            assert!(ledger.starts([0], IN_FLIGHT).is_empty());
            ledger.learn(1, [(0, 5, None)]);
        }
    }

    #[test]
    fn what_goes_past_a_count_forgets_it() {
        let mut ledger = Ledger::default();
        ledger.learn(1, [(0, 5, None)]);
        let record = ledger.starts([0], IN_FLIGHT)[&0];
        ledger.wrote(0, 5, Some(record), true);
        assert_eq!(ledger.behind(0, 9), None);
        ledger.wrote(0, 9, None, false);
        assert_eq!(ledger.left().next(), None);
        // A search that found nothing here leaves its record to a clean end.
        ledger.wrote(0, 9, Some(record), false);
        ledger.release(0);
        assert_eq!(ledger.left().collect::<Vec<_>>(), [(0, 9)]);
        assert!(ledger.expect(0, 9).is_ok());
        for (partition, offset) in [(0, 5), (1, 9)] {
            assert_eq!(ledger.expect(partition, offset).unwrap_err().kind(), ErrorKind::Conflict);
        }
    }
}
