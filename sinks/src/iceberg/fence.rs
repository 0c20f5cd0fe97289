//! The fence: only a writer that stands where the table stands may commit.
//!
//! Several members of a consumer group append to one table, so not the table's head but the positions of the commit's
//! own partitions are compared, each with what this writer read ("absent" is a value). The comparison is made on the
//! metadata that the commit is about to be based on, again at every rebase. What it hands out is a [`CommitPermit`],
//! and without one no commit reaches the catalog. Since every move of a position adds a snapshot, the catalog's own
//! requirement (the branch's head is the one that was checked) covers the moment between check and commit.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use iceberg::table::Table;
use iceberg::{Catalog, Error, ErrorKind, Result, TableCommit, TableIdent};
use undertone_error::failpoint;
use undertone_proto::Partition;
use uuid::Uuid;

use super::intercept::Intercept;
use super::position::{Ancestry, Standing, StoredPosition, StoredPositions, Track, stored_positions};

/// An epoch older than this is abandoned: orphan files are removed after days, and a writer that slept through them
/// must not point the table at files that are gone.
const MAX_EPOCH_AGE: Duration = Duration::from_secs(3600);

/// The protocol's safeguards. Only a test build can switch one off, to show that it is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Safeguards {
    /// The fence, and the look-up of the own commit after an unknown outcome.
    pub(super) position_check: bool,
    /// Reading the table back after the catalog reported a commit.
    pub(super) read_back: bool,
}

impl Safeguards {
    pub(super) fn of_this_process() -> Self {
        Self {
            position_check: !failpoint::sabotaged("no-position-check"),
            read_back: !failpoint::sabotaged("no-read-back"),
        }
    }
}

/// What one commit does to the positions of its partitions.
#[derive(Clone, Debug)]
pub(super) struct Advance {
    /// Whose positions they are.
    pub(super) track: Track,
    /// The commit's id, the same for every attempt at it.
    pub(super) commit_id: Uuid,
    /// Where this writer read each partition.
    pub(super) from: BTreeMap<Partition, Option<StoredPosition>>,
    /// Where it moves each.
    pub(super) to: BTreeMap<Partition, i64>,
    /// When the epoch was begun.
    pub(super) begun: Begun,
}

/// A moment on both clocks: the monotonic one stands still while the machine sleeps, the other may be set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    monotonic: Instant,
    wall: SystemTime,
}

impl Begun {
    pub(super) fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    fn age(&self) -> Duration {
        self.monotonic.elapsed().max(self.wall.elapsed().unwrap_or_default())
    }
}

/// The right to commit once.
#[derive(Debug)]
pub(super) struct CommitPermit(());

/// Why a commit may not happen.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refusal {
    /// Another writer moved a partition.
    Moved { partition: Partition, expected: Option<StoredPosition>, found: Option<StoredPosition> },
    /// The commit that moved a partition is no longer part of the table.
    RolledBack { partition: Partition, position: StoredPosition },
    /// The epoch is too old.
    Overslept { age: Duration },
}

/// Compares what this writer expects with what the table says.
pub(super) fn check(
    advance: &Advance,
    found: &StoredPositions,
    ancestry: &Ancestry,
    age: Duration,
    safeguards: Safeguards,
) -> std::result::Result<CommitPermit, Refusal> {
    if !safeguards.position_check {
        return Ok(CommitPermit(()));
    }
    if age > MAX_EPOCH_AGE {
        return Err(Refusal::Overslept { age });
    }
    for (partition, &expected) in &advance.from {
        let found = found.get(partition).copied();
        if let Some(position) = found.filter(|found| ancestry.standing(&found.commit_id) == Standing::Missing) {
            return Err(Refusal::RolledBack { partition: partition.clone(), position });
        }
        if found != expected {
            return Err(Refusal::Moved { partition: partition.clone(), expected, found });
        }
    }
    Ok(CommitPermit(()))
}

/// Stands in front of the catalog during one attempt at a commit.
#[derive(Debug)]
pub(super) struct Fence {
    advance: Advance,
    safeguards: Safeguards,
    permit: Mutex<Option<CommitPermit>>,
    refusal: Mutex<Option<Refusal>>,
}

impl Fence {
    pub(super) fn new(advance: Advance, safeguards: Safeguards) -> Self {
        Self { advance, safeguards, permit: Mutex::default(), refusal: Mutex::default() }
    }

    /// Why the commit was refused, if the fence refused it.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn check(&self, table: &Table) -> Result<()> {
        let metadata = table.metadata();
        let refused = |why: String| Error::new(ErrorKind::PreconditionFailed, why);
        let found = stored_positions(&self.advance.track, metadata.properties()).map_err(|e| refused(e.to_string()))?;
        let (ancestry, age) = (Ancestry::of(metadata), self.advance.begun.age());
        match check(&self.advance, &found, &ancestry, age, self.safeguards) {
            Ok(permit) => {
                *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
                Ok(())
            }
            Err(refusal) => {
                let error = refused(format!("the fence refuses the commit: {refusal:?}"));
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
                Err(error)
            }
        }
    }
}

#[async_trait]
impl Intercept for Fence {
    async fn load_table(&self, catalog: &dyn Catalog, table: &TableIdent) -> Result<Table> {
        let table = catalog.load_table(table).await?;
        self.check(&table)?;
        Ok(table)
    }

    async fn update_table(&self, catalog: &dyn Catalog, commit: TableCommit) -> Result<Table> {
        let permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(CommitPermit(())) = permit else {
            return Err(Error::new(ErrorKind::PreconditionFailed, "the commit was not checked"));
        };
        if failpoint::fires("catalog.lost-commit") {
            let table = catalog.load_table(commit.identifier()).await?;
            return commit.apply(table);
        }
        failpoint::hit("catalog.before-commit");
        let table = catalog.update_table(commit).await?;
        failpoint::hit("catalog.after-commit");
        if failpoint::fires("catalog.lost-reply") {
            return Err(Error::new(ErrorKind::Unexpected, "the catalog's answer was lost (fail point)"));
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: Safeguards = Safeguards { position_check: true, read_back: true };

    fn partition(number: i32) -> Partition {
        Partition { cluster: "c".to_owned(), topic: "t".to_owned(), partition: number }
    }

    fn at(next: i64) -> StoredPosition {
        // The id is a function of the offset, so that equal positions are equal and each has its own commit.
        StoredPosition {
            next,
            commit_id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + next.unsigned_abs() as u128),
        }
    }

    fn advance(from: Option<StoredPosition>) -> Advance {
        Advance {
            track: Track::Live,
            commit_id: Uuid::now_v7(),
            from: BTreeMap::from([(partition(0), from)]),
            to: BTreeMap::from([(partition(0), 100)]),
            begun: Begun::now(),
        }
    }

    fn verdict(
        expected: Option<StoredPosition>,
        found: &[(i32, StoredPosition)],
        history: &[StoredPosition],
        age: u64,
        safeguards: Safeguards,
    ) -> &'static str {
        let found = found.iter().map(|&(number, position)| (partition(number), position)).collect();
        let ancestry = Ancestry::holding(history.iter().map(|position| position.commit_id));
        match check(&advance(expected), &found, &ancestry, Duration::from_secs(age), safeguards) {
            Ok(CommitPermit(())) => "permit",
            Err(Refusal::Moved { .. }) => "moved",
            Err(Refusal::RolledBack { .. }) => "rolled back",
            Err(Refusal::Overslept { .. }) => "overslept",
        }
    }

    #[test]
    fn a_permit_needs_every_partition_of_the_commit_where_it_was_read() {
        let cases = [
            (None, vec![], vec![], "permit"), // absent is a value
            (None, vec![(0, at(5))], vec![at(5)], "moved"),
            (Some(at(5)), vec![(0, at(5))], vec![at(5)], "permit"),
            (Some(at(5)), vec![], vec![], "moved"), // somebody removed the property
            (Some(at(5)), vec![(0, at(7))], vec![at(5), at(7)], "moved"),
            (Some(at(7)), vec![(0, at(5))], vec![at(5)], "moved"), // backwards is a move, too
            (Some(at(5)), vec![(0, at(5)), (1, at(9))], vec![at(5), at(9)], "permit"), // others may move
            (Some(at(5)), vec![(0, at(5)), (1, at(9))], vec![at(5)], "permit"), // and are not ours to judge
            (Some(at(5)), vec![(0, at(5))], vec![at(3)], "rolled back"),
            (None, vec![(0, at(5))], vec![], "rolled back"),
        ];
        for (expected, found, history, wanted) in cases {
            assert_eq!(verdict(expected, &found, &history, 0, ON), wanted, "{expected:?} {found:?}");
        }
    }

    #[test]
    fn the_same_offset_by_another_commit_is_a_move() {
        let other = StoredPosition { next: 5, commit_id: at(6).commit_id };
        assert_eq!(verdict(Some(at(5)), &[(0, other)], &[at(5), at(6)], 0, ON), "moved");
    }

    #[test]
    fn an_epoch_that_overslept_is_refused() {
        assert_eq!(verdict(None, &[], &[], 3600, ON), "permit");
        assert_eq!(verdict(None, &[], &[], 3601, ON), "overslept");
    }

    #[test]
    fn without_the_check_everything_is_permitted() {
        let off = Safeguards { position_check: false, ..ON };
        assert_eq!(verdict(Some(at(5)), &[(0, at(7))], &[], 9999, off), "permit");
    }
}
