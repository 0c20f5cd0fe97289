//! Where the group stands, and how often scoring was begun there without getting past it; no I/O.
//!
//! The guarantee: a post that kills the process is found and given up alone, whichever member of the group has its
//! partition (see [`crate::score::plan`]). A start is counted in the metadata of the partition's committed offset, in a
//! transaction that leaves the offset where it is. So the count goes with the partition to the member that takes over,
//! and whoever no longer owns the partition counts nothing.
//!
//! A start is counted once when a process begins to read, and only where there is something to score; the first
//! transaction that goes past it forgets it, and so does a clean end. Once two processes died at one place, its posts are
//! scored in groups, of one partition at a time and nothing beside them in the whole process, so that a death says of which
//! group it is. Each is counted by the transaction that writes the one before. In the group that killed, each post is
//! counted before it is begun and acquitted before its outcome is written.

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
    /// What this process tried to write, counting a start, with a transaction of which it never learned what became.
    tried: Option<(i64, Record)>,
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
        let known = self.counted && (self.next, self.record) == (next, record);
        record.is_some_and(|record| known || self.tried == Some((next, record)))
    }
}

/// What this process knows of the partitions of its assignment.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    version: u64,
    partitions: BTreeMap<i32, Standing>,
    /// What was last known of partitions that were ours in earlier assignments: a member that was thought dead, and has its
    /// partitions again, has not died near the posts that it had begun.
    earlier: BTreeMap<i32, Standing>,
    crashed: bool,
}

impl Ledger {
    /// Takes what the group says of the partitions of an assignment. What was known before is kept only as far as the
    /// group still says so.
    pub(super) fn learn(&mut self, version: u64, committed: impl IntoIterator<Item = (i32, i64, Option<Record>)>) {
        self.earlier.append(&mut self.partitions);
        let standing = |(partition, next, record)| {
            let counted = self.earlier.get(&partition).is_some_and(|before| before.is_of(next, record));
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

    /// The partition whose next posts are to be scored beside no others, if there is one; that at which the process died
    /// comes first.
    pub(super) fn suspect(&self, from: &Offsets, in_flight: i64) -> Option<i32> {
        let suspects = from.iter().filter_map(|(&partition, &at)| {
            let standing = self.partitions.get(&partition).filter(|standing| standing.next == at)?;
            let searched = self.decide(partition, in_flight).is_some_and(|(plan, _)| plan != Plan::Together);
            searched.then_some((standing.record.map(|record| record.rank(at)), partition))
        });
        suspects.min().map(|(_, partition)| partition)
    }

    /// How to go on with a partition, and what must be durable before scoring begins there; `None` if it is.
    pub(super) fn decide(&self, partition: i32, in_flight: i64) -> Option<(Plan, Option<Record>)> {
        let &Standing { next, record, counted, .. } = self.partitions.get(&partition)?;
        if counted {
            return Some((record.map_or(Plan::Together, |record| record.stage(next)), None));
        }
        let (plan, record) = plan(record, next, in_flight);
        Some((plan, (plan != Plan::GiveUp).then_some(record)))
    }

    /// How many posts of a partition are scored at once.
    pub(super) fn most(&self, partition: i32, in_flight: i64) -> usize {
        let most = self.decide(partition, in_flight).map_or(1, |(plan, _)| plan.most(in_flight));
        usize::try_from(most).unwrap_or(1)
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

    /// A transaction of ours has written this, and so counted the start that the record counts, if it does.
    pub(super) fn wrote(&mut self, partition: i32, next: i64, record: Option<Record>) {
        self.partitions.insert(partition, Standing::new(next, record, record.is_some_and(Record::is_begun)));
    }

    /// A transaction of ours is about to write this.
    pub(super) fn tries(&mut self, partition: i32, next: i64, record: Option<Record>) {
        if let Some(standing) = self.partitions.get_mut(&partition) {
            standing.tried = record.filter(|record| record.is_begun()).map(|record| (next, record));
        }
    }

    /// A transaction of ours has failed: where the group stands is not known until [`Ledger::learn`] is told. Whoever took the
    /// last known place for it could move the group back.
    pub(super) fn doubt(&mut self, partition: i32) {
        if let Some(standing) = self.partitions.remove(&partition) {
            self.earlier.insert(partition, standing);
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
        writes: &'a mut usize,
        in_flight: i64,
    }

    impl Life<'_> {
        fn run(&mut self, ours: &[i32], slow: i64) -> bool {
            let mut ledger = Ledger::default();
            ledger.learn(1, ours.iter().map(|p| (*p, self.group[p].0, self.group[p].1)));
            loop {
                let from: Offsets = ours.iter().map(|p| (*p, self.group[p].0)).collect();
                let Some(partition) = ledger.suspect(&from, self.in_flight) else { break };
                let (at, end) = (from[&partition], self.ends[&partition]);
                if at == end {
                    ledger.release(partition);
                    continue;
                }
                let (plan, record) = ledger.decide(partition, self.in_flight).expect("ours");
                if let Some(record) = record {
                    self.write(&mut ledger, partition, at, Some(record));
                }
                // No more than a group; how many of them are there already is chance.
                let most = plan.most(self.in_flight);
                let to = (at + (most - slow).max(1)).min(end);
                if plan == Plan::GiveUp {
                    self.given_up.push((partition, at));
                    ledger.release_all();
                } else if self.killers.iter().any(|(p, k)| *p == partition && (at..to).contains(k)) {
                    return true;
                } else {
                    if plan == Plan::Alone {
                        let acquitted = ledger.acquitted(partition);
                        self.write(&mut ledger, partition, at, acquitted);
                    }
                    self.scored.extend((at..to).map(|offset| (partition, offset)));
                }
                let left = ledger.behind(partition, to);
                self.write(&mut ledger, partition, to, left);
            }
            let begun = ours.iter().copied().filter(|p| self.group[p].0 < self.ends[p]);
            for (partition, record) in ledger.starts(begun, self.in_flight) {
                self.write(&mut ledger, partition, self.group[&partition].0, Some(record));
            }
            // Some of what lies before the killers gets through; how much is chance.
            let dies = ours.iter().any(|p| self.killers.iter().any(|k| k.0 == *p && k.1 >= self.group[p].0));
            for &partition in ours {
                let from = self.group[&partition].0;
                let killer = self.killers.iter().filter(|k| k.0 == partition && k.1 >= from).map(|k| k.1).min();
                let most = killer.unwrap_or(self.ends[&partition]);
                // What is under way ends with the first death: at most so much was written behind it.
                let to = if dies { (from + slow).min(most) } else { most };
                if to > from {
                    self.scored.extend((from..to).map(|offset| (partition, offset)));
                    let left = ledger.behind(partition, to);
                    self.write(&mut ledger, partition, to, left);
                }
            }
            dies
        }

        fn write(&mut self, ledger: &mut Ledger, partition: i32, next: i64, record: Option<Record>) {
            self.group.insert(partition, (next, record));
            ledger.wrote(partition, next, record);
            *self.writes += 1;
        }
    }

    proptest! {
        /// Two members share three partitions, and one that dies leaves them to the other. Whichever posts kill, they
        /// alone are given up, and everything else is scored once.
        #[test]
        fn only_killers_are_given_up_whoever_has_their_partitions(
            ends in prop::collection::vec(0_i64..30, 3),
            killers in prop::collection::btree_set((0_i32..3, 0_i64..30), 0..3),
            turns in prop::collection::vec((0_usize..4, 0_i64..3), 1..6),
        ) {
            let ends: BTreeMap<i32, i64> = (0..).zip(ends).collect();
            let killers: Vec<_> = killers.into_iter().filter(|(p, at)| *at < ends[p]).collect();
            let mut group: Group = (0..3).map(|p| (p, (0, None))).collect();
            let (mut given_up, mut scored, mut writes) = (Vec::new(), Vec::new(), 0);
            let shares: [&[i32]; 4] = [&[0, 1, 2], &[0, 1], &[2], &[1, 2]];
            let mut lives = 0;
            while group.iter().any(|(p, (next, _))| *next < ends[p]) {
                prop_assert!(lives < 200, "it goes on for ever: {group:?}");
                // After the first turns one member has everything, so that every partition gets its turn.
                let (share, slow) = turns.get(lives).copied().unwrap_or((0, 0));
                let killers: Vec<_> = killers.iter().copied().filter(|k| !given_up.contains(k)).collect();
                let mut life = Life {
                    group: &mut group, ends: &ends, killers: &killers, given_up: &mut given_up, scored: &mut scored,
                    writes: &mut writes, in_flight: IN_FLIGHT,
                };
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
    fn a_killer_among_all_that_is_under_way_costs_six_deaths_and_few_transactions() {
        let (in_flight, ends) = (384, BTreeMap::from([(0, 400)]));
        for killer in [0, 1, 11, 12, 200, 371, 372, 382, 383] {
            let mut group = Group::from([(0, (0, None))]);
            let (mut given_up, mut scored, mut writes, mut deaths) = (Vec::new(), Vec::new(), 0, 0);
            while group[&0].0 < ends[&0] {
                let left = if given_up.is_empty() { vec![(0, killer)] } else { Vec::new() };
                let mut life = Life {
                    group: &mut group,
                    ends: &ends,
                    killers: &left,
                    given_up: &mut given_up,
                    scored: &mut scored,
                    writes: &mut writes,
                    in_flight,
                };
                deaths += usize::from(life.run(&[0], 0));
            }
            assert_eq!((given_up, scored.len(), deaths), (vec![(0, killer)], 399, 6), "{killer}");
            assert!(writes <= 80, "{writes} transactions for {killer}");
        }
    }

    #[test]
    fn a_group_is_counted_by_the_transaction_before_it() {
        let mut ledger = Ledger::default();
        let died: Record = serde_json::from_str(r#"{"start":5,"starts":2}"#).unwrap();
        ledger.learn(1, [(0, 5, Some(died)), (1, 7, Some(died))]);
        assert_eq!(ledger.suspect(&Offsets::from([(0, 5), (1, 7)]), IN_FLIGHT), Some(0), "it died there, and not at 1");
        let (plan, first) = ledger.decide(0, IN_FLIGHT).unwrap();
        assert_eq!((plan, first.is_some()), (Plan::Group, true));
        ledger.wrote(0, 5, first);
        assert_eq!(ledger.decide(0, IN_FLIGHT), Some((Plan::Group, None)));
        // Of this transaction it is never learned what became; it did happen.
        let second = ledger.behind(0, 7);
        ledger.tries(0, 7, second);
        ledger.learn(2, [(0, 7, second)]);
        assert_eq!(ledger.decide(0, IN_FLIGHT), Some((Plan::Group, None)));
        // To another process it tells of a death there.
        let mut other = Ledger::default();
        other.learn(1, [(0, 7, second)]);
        assert_eq!(other.decide(0, IN_FLIGHT).unwrap().0, Plan::Alone);
    }

    #[test]
    fn a_start_is_counted_once_by_a_process_and_again_by_the_next() {
        let mut ledger = Ledger::default();
        ledger.learn(1, [(0, 5, None)]);
        let first = ledger.starts([0], IN_FLIGHT)[&0];
        ledger.wrote(0, 5, Some(first));
        assert!(ledger.starts([0], IN_FLIGHT).is_empty());
        // A rebalance that leaves us the partition.
        ledger.learn(2, [(0, 5, Some(first)), (1, 0, None)]);
        assert_eq!(ledger.starts([0, 1], IN_FLIGHT).into_keys().collect::<Vec<_>>(), [1]);
        assert_eq!(ledger.left().collect::<Vec<_>>(), [(0, 5)]);
        // One that takes it away and gives it back.
        ledger.learn(3, []);
        assert_eq!(ledger.left().next(), None);
        ledger.learn(4, [(0, 5, Some(first))]);
        assert!(ledger.starts([0], IN_FLIGHT).is_empty());
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
            ledger.tries(0, 5, Some(record));
            // It did not happen.
            ledger.learn(1, [(0, 5, None)]);
            assert_eq!(ledger.starts([0], IN_FLIGHT)[&0], record);
            ledger.tries(0, 5, Some(record));
            // It did happen.
            ledger.learn(1, [(0, 5, Some(record))]);
            assert!(ledger.starts([0], IN_FLIGHT).is_empty());
            ledger.learn(1, [(0, 5, None)]);
        }
    }

    #[test]
    fn after_a_failure_nothing_is_built_on_the_last_known_place() {
        let mut ledger = Ledger::default();
        ledger.learn(1, [(0, 5, None), (1, 7, None)]);
        let record = ledger.starts([0], IN_FLIGHT)[&0];
        ledger.wrote(0, 5, Some(record));
        ledger.tries(0, 9, None);
        ledger.doubt(0);
        assert_eq!(ledger.expect(0, 5).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!((ledger.next(0), ledger.next(1)), (None, Some(7)));
        assert_eq!(ledger.left().next(), None, "a clean end would move the group back");
        assert!(
            ledger.starts([0], IN_FLIGHT).is_empty() && ledger.suspect(&Offsets::from([(0, 5)]), IN_FLIGHT).is_none()
        );
        // It did not happen: the start that was counted before is still this process's own.
        ledger.learn(1, [(0, 5, Some(record)), (1, 7, None)]);
        assert!(ledger.starts([0], IN_FLIGHT).is_empty() && !ledger.has_crashed());
    }

    #[test]
    fn what_goes_past_a_count_forgets_it() {
        let mut ledger = Ledger::default();
        ledger.learn(1, [(0, 5, None)]);
        let record = ledger.starts([0], IN_FLIGHT)[&0];
        ledger.wrote(0, 5, Some(record));
        assert_eq!(ledger.behind(0, 9), None);
        ledger.wrote(0, 9, None);
        assert_eq!(ledger.left().next(), None);
        // A search that found nothing here leaves its record to a clean end.
        ledger.wrote(0, 9, Some(record));
        ledger.release(0);
        assert_eq!(ledger.left().collect::<Vec<_>>(), [(0, 9)]);
        assert!(ledger.expect(0, 9).is_ok());
        for (partition, offset) in [(0, 5), (1, 9)] {
            assert_eq!(ledger.expect(partition, offset).unwrap_err().kind(), ErrorKind::Conflict);
        }
    }
}
