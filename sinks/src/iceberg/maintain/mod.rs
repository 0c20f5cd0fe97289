//! Keeping tables small: snapshots that nobody reads any more, and files that nothing refers to.
//!
//! It guarantees that a file is removed only if no kept snapshot reaches it, and only if one of two things is sure: it was
//! part of the table once, so that no commit under way can be about to add it; or it is older than any epoch that the fence
//! still lets through, by days. What is looked at comes from the table after the files were listed, so that a commit in
//! the middle of it is seen. Positions stay where they are, and a writer that works meanwhile notices nothing.
//!
//! ```text
//! expire snapshots (one commit) ─▶ list files ─▶ read what the kept snapshots reach ─▶ remove the rest, lists last
//! ```
//!
//! It may be killed anywhere. What the commit let go of is found again by the next run: the table's log of metadata
//! files names the snapshots that were, and their lists of manifests are removed after all that they name.

mod fate;
mod reach;

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::transaction::{ApplyTransactionAction, Transaction};
use iceberg::{Catalog, TableCommit, TableIdent};
use undertone_error::{Error, ErrorKind, Result, failpoint};

use self::fate::{Fate, Folder};
use self::reach::{Files, Place};
use super::commit::{drop_old_metadata, rolled_back};
use super::failure::{Doing, needs_a_person, text, wrap};
use super::intercept::{Intercept, Intercepted};
use super::position::{Track, is_rolled_back};
use super::storage::{Listed, TableStorage};
use super::store::IcebergStore;

/// Orphans younger than this are never removed: an epoch may be an hour old when it is committed, and a commit whose
/// outcome is not known yet may be settled by a person much later.
pub const MIN_ORPHAN_AGE: Duration = Duration::from_hours(72);

/// Files that are read or removed at once.
const AT_ONCE: usize = 16;

/// What to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upkeep {
    /// Snapshots younger than this are kept.
    pub older_than: Duration,
    /// So many of the newest snapshots of each branch are kept, however old; at least 1.
    pub retain_last: usize,
    /// Files that were never part of the table are kept until they are this old; at least [`MIN_ORPHAN_AGE`].
    pub orphan_age: Duration,
    /// Whether to do it. If not, only what would be done is told.
    pub apply: bool,
}

/// What was done to a table, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// "silver.posts"
    pub table: String,
    /// Snapshots that expired.
    pub expired: usize,
    /// Snapshots that are left.
    pub kept: usize,
    /// Files that only expired snapshots reach.
    pub superseded: Tally,
    /// Files that were never part of the table, and are old.
    pub orphans: Tally,
    /// Files that are not part of the table, and are too young to be judged.
    pub young: Tally,
}

/// How many, and how large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub files: u64,
    /// How large together.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, file: &Listed) {
        self.files += 1;
        self.bytes += file.size;
    }
}

impl Upkeep {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the mend, if it would let go of what may be needed.
    pub fn validated(self) -> Result<Self> {
        let wrong = |what: &str, help: &str| Err(Error::new(ErrorKind::InvalidInput, what).help(help));
        if self.retain_last == 0 {
            return wrong("a table keeps at least its newest snapshot", "give --retain-last 1 or more");
        }
        if self.orphan_age < MIN_ORPHAN_AGE {
            let help = "give --orphans-older-than 72h or more: a commit under way may still refer to younger files";
            return wrong("files of unknown commits are kept for three days", help);
        }
        Ok(self)
    }

    /// Snapshots before this moment may go.
    fn cutoff_ms(&self, now: SystemTime) -> i64 {
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(self.older_than);
        i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Stands in front of the catalog while snapshots expire. A table that was rolled back is recognised by the snapshots
/// that its branch no longer holds: they must not go before a person has looked at it.
#[derive(Debug)]
struct Expiry {
    /// Whether the catalog is only told about it in earnest.
    rehearsal: bool,
}

#[async_trait]
impl Intercept for Expiry {
    async fn load_table(&self, catalog: &dyn Catalog, table: &TableIdent) -> iceberg::Result<Table> {
        let table = catalog.load_table(table).await?;
        match is_rolled_back(&Track::Live, table.metadata()).map_err(wrap)? {
            true => Err(wrap(rolled_back(&table))),
            false => Ok(table),
        }
    }

    async fn update_table(&self, catalog: &dyn Catalog, commit: TableCommit) -> iceberg::Result<Table> {
        if self.rehearsal {
            let table = catalog.load_table(commit.identifier()).await?;
            return commit.apply(table);
        }
        catalog.update_table(commit).await
    }
}

impl IcebergStore {
    /// Expires snapshots of one of [`IcebergStore::tables`] and removes the files that nothing refers to, or says what
    /// would become of them. It may be run beside writers, and again at any time.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for options that would let go of what is needed; [`ErrorKind::Corrupt`] if the table
    /// was rolled back or is not what its files say; [`ErrorKind::Unavailable`] if catalog or storage do not answer: what
    /// was removed by then stays removed, and the next run does the rest.
    pub async fn maintain(&self, ident: &TableIdent, upkeep: &Upkeep) -> Result<Maintained> {
        let upkeep = upkeep.validated()?;
        self.maintain_table(ident, &upkeep).await.map_err(|error| error.with("table", ident))
    }

    async fn maintain_table(&self, ident: &TableIdent, upkeep: &Upkeep) -> Result<Maintained> {
        let no_storage = || Error::new(ErrorKind::Internal, "store has no storage to list");
        let storage = self.storage().ok_or_else(no_storage)?;
        let began = SystemTime::now();
        let cutoff_ms = upkeep.cutoff_ms(began);
        let before = self.load(ident).await?;
        keeps_no_garbage(before.metadata())?;
        let rehearsed = self.rehearse(&before, cutoff_ms, upkeep.retain_last).await?;
        let expiring = gone(before.metadata(), rehearsed.metadata());
        // The id of a commit carries its writer's time. If clocks differ too much, a position would look as if the table
        // had been rolled back beneath it.
        if is_rolled_back(&Track::Live, rehearsed.metadata())? {
            let error = Error::new(ErrorKind::Conflict, "a position's commit would expire before an older one");
            return Err(error.help("clocks of writers differ by minutes: set them, and keep more with --older-than"));
        }
        if upkeep.apply && !expiring.is_empty() {
            self.expire(&before, &expiring, cutoff_ms, upkeep.retain_last).await?;
            failpoint::hit("maintain.expired");
        }

        let listed = storage.list(before.metadata().location()).await.doing("cannot list the table's files")?;
        // Afterwards, so that what is committed meanwhile is seen.
        let after = match upkeep.apply {
            true => self.load(ident).await?,
            false => self.rehearse(&before, cutoff_ms, upkeep.retain_last).await?,
        };
        let files = Files::of(&after, storage).await?;
        believable(&before, storage, &listed)?;

        let folder = Folder::of(&after, storage, self.drops_old_metadata());
        let old = began.checked_sub(upkeep.orphan_age).unwrap_or(UNIX_EPOCH);
        let mut told = Maintained {
            table: super::sink::name(ident),
            expired: expiring.len(),
            kept: after.metadata().snapshots().count(),
            ..Maintained::default()
        };
        let mut removed: [Vec<&Listed>; 3] = Default::default();
        for file in &listed {
            match folder.fate(file, &files, old) {
                Fate::Needed => {}
                Fate::Young => told.young.add(file),
                Fate::Orphan => {
                    told.orphans.add(file);
                    removed[Place::Data as usize].push(file);
                }
                Fate::Superseded(place) => {
                    told.superseded.add(file);
                    removed[place as usize].push(file);
                }
            }
        }
        if upkeep.apply {
            for files in removed {
                remove(&after, files).await?;
            }
        }
        Ok(told)
    }

    /// The table as it would be without the snapshots that may go.
    async fn rehearse(&self, table: &Table, cutoff_ms: i64, retain_last: usize) -> Result<Table> {
        let catalog = Intercepted { catalog: self.catalog(), by: Expiry { rehearsal: true } };
        expiry(table, cutoff_ms, retain_last)?.commit(&catalog).await.doing("cannot choose snapshots to expire")
    }

    /// Makes the commit, and reads back whether it happened: as for [rows](super::commit), no answer is believed.
    async fn expire(&self, before: &Table, expiring: &HashSet<i64>, cutoff_ms: i64, retain_last: usize) -> Result<()> {
        let patience = self.patience();
        let mut cause = None;
        for attempt in 0..patience.tries {
            tokio::time::sleep(patience.pause * attempt).await;
            let transaction = expiry(before, cutoff_ms, retain_last)?;
            let catalog = Intercepted { catalog: self.catalog(), by: Expiry { rehearsal: false } };
            match tokio::time::timeout(patience.attempt, transaction.commit(&catalog)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if needs_a_person(&error).is_some() => {
                    return Err(error).doing("cannot expire snapshots");
                }
                Ok(Err(error)) => cause = Some(text(&error)),
                Err(_) => cause = Some("the catalog did not answer in time".to_owned()),
            }
            let now = self.load(before.identifier()).await?;
            if now.metadata().snapshots().all(|snapshot| !expiring.contains(&snapshot.snapshot_id())) {
                if self.drops_old_metadata() {
                    drop_old_metadata(before, &now).await;
                }
                return Ok(());
            }
        }
        let error = Error::new(ErrorKind::Unavailable, "snapshots did not expire");
        Err(error.source(cause.unwrap_or_else(|| "the commit was lost".to_owned())))
    }
}

fn expiry(table: &Table, cutoff_ms: i64, retain_last: usize) -> Result<Transaction> {
    let transaction = Transaction::new(table);
    let action = transaction.expire_snapshots().expire_older_than_ms(cutoff_ms).retain_last(retain_last);
    action.apply(transaction).doing("cannot choose snapshots to expire")
}

/// Snapshots of the one that the other has no more.
fn gone(before: &TableMetadata, after: &TableMetadata) -> HashSet<i64> {
    let kept: HashSet<i64> = after.snapshots().map(|snapshot| snapshot.snapshot_id()).collect();
    before.snapshots().map(|snapshot| snapshot.snapshot_id()).filter(|id| !kept.contains(id)).collect()
}

/// Refuses a table whose owner said that its files are not ours to remove.
fn keeps_no_garbage(metadata: &TableMetadata) -> Result<()> {
    match metadata.properties().get("gc.enabled").map(String::as_str) {
        Some("false") => Err(Error::new(ErrorKind::InvalidConfig, "table does not allow that its files are removed")
            .with("property", "gc.enabled")
            .help("another table may share them; set the property to true if not")),
        _ => Ok(()),
    }
}

/// A list of files without the one that the table's head surely has is not the list of this table's files.
fn believable(table: &Table, storage: &TableStorage, listed: &[Listed]) -> Result<()> {
    let metadata = table.metadata();
    let Some(head) = metadata.current_snapshot() else { return Ok(()) };
    let (list, folder) = (storage.key(head.manifest_list()), storage.key(metadata.location()));
    if !list.starts_with(&folder) || listed.iter().any(|file| file.key == list) {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Corrupt, "storage does not list a file that the table's head needs");
    Err(error.with("file", head.manifest_list()).help("nothing was removed; is it there?"))
}

/// Removes the files; those that are gone already are no error.
async fn remove(table: &Table, files: Vec<&Listed>) -> Result<()> {
    let io = table.file_io();
    let locations: Vec<String> = files.into_iter().map(|file| file.location.clone()).collect();
    let removals = locations.into_iter().map(|location| async move {
        io.delete(&location).await.doing("cannot remove a file").map_err(|error| error.with("file", location))?;
        failpoint::hit("maintain.removed");
        Ok::<(), Error>(())
    });
    futures::stream::iter(removals).buffer_unordered(AT_ONCE).try_collect().await
}
