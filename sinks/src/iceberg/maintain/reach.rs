//! Which files the snapshots of a table reach, and which they reached once.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{ManifestFile, SnapshotRef, TableMetadata};
use iceberg::table::Table;
use undertone_error::Result;

use super::AT_ONCE;
use crate::iceberg::failure::Doing;
use crate::iceberg::position::COMMIT_ID;
use crate::iceberg::storage::TableStorage;

/// What a file is, in the order in which files are removed: what names others goes after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Data,
    Manifest,
    List,
}

/// The files of a table, by their keys in the storage.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// What the table needs.
    pub(super) needed: HashSet<String>,
    /// What was part of it once. Most of it still is.
    pub(super) once: HashMap<String, Place>,
}

impl Files {
    /// Reads what the snapshots of `table` reach, and those that its log of metadata files still tells of.
    ///
    /// # Errors
    /// [`undertone_error::ErrorKind::Unavailable`] if one of them cannot be read.
    pub(super) async fn of(table: &Table, storage: &TableStorage) -> Result<Self> {
        let metadata = table.metadata();
        let kept: Vec<SnapshotRef> = metadata.snapshots().cloned().collect();
        let past = past_snapshots(table).await?;
        let mut files = Self::default();
        for path in table.metadata_location().into_iter().chain(beside(metadata)) {
            files.needed.insert(storage.key(path));
        }

        let mut manifests = HashMap::new();
        for snapshot in &kept {
            files.needed.insert(storage.key(snapshot.manifest_list()));
        }
        for list in lists(table, to_read(&kept), false).await? {
            for manifest in list {
                files.needed.insert(storage.key(&manifest.manifest_path));
                manifests.insert(manifest.manifest_path.clone(), (manifest, true));
            }
        }
        for snapshot in &past {
            files.once.insert(storage.key(snapshot.manifest_list()), Place::List);
        }
        for list in lists(table, to_read(&past), true).await? {
            for manifest in list {
                files.once.insert(storage.key(&manifest.manifest_path), Place::Manifest);
                manifests.entry(manifest.manifest_path.clone()).or_insert((manifest, false));
            }
        }

        let reads = manifests.into_values().map(|(manifest, kept)| entries(table, manifest, kept));
        let mut reads = futures::stream::iter(reads).buffer_unordered(AT_ONCE);
        while let Some((entries, kept)) = reads.try_next().await? {
            for (path, alive) in entries {
                let key = storage.key(&path);
                if kept && alive {
                    files.needed.insert(key.clone());
                }
                files.once.insert(key, Place::Data);
            }
        }
        Ok(files)
    }
}

/// Files that the metadata itself names.
fn beside(metadata: &TableMetadata) -> impl Iterator<Item = &str> {
    let log = metadata.metadata_log().iter().map(|log| log.metadata_file.as_str());
    let statistics = metadata.statistics_iter().map(|file| file.statistics_path.as_str());
    let by_partition = metadata.partition_statistics_iter().map(|file| file.statistics_path.as_str());
    log.chain(statistics).chain(by_partition)
}

/// Snapshots that earlier metadata of the table had and this has no more.
async fn past_snapshots(table: &Table) -> Result<Vec<SnapshotRef>> {
    let (metadata, io) = (table.metadata(), table.file_io());
    let mut past = HashMap::new();
    for log in metadata.metadata_log() {
        // What a catalog has removed meanwhile tells nothing.
        if !io.exists(&log.metadata_file).await.doing("cannot look for earlier metadata")? {
            continue;
        }
        let earlier = TableMetadata::read_from(io, &log.metadata_file).await.doing("cannot read earlier metadata")?;
        for snapshot in earlier.snapshots() {
            if metadata.snapshot_by_id(snapshot.snapshot_id()).is_none() {
                past.insert(snapshot.snapshot_id(), snapshot.clone());
            }
        }
    }
    Ok(past.into_values().collect())
}

/// The snapshots whose lists of manifests must be read to know all manifests of all of them. Our own commits add to
/// what was there, so that of a row of them the last says it all; everyone else may have taken something away. (A table
/// has a snapshot for every half minute, and each lists all manifests: to read every list would take hours.)
fn to_read(snapshots: &[SnapshotRef]) -> Vec<SnapshotRef> {
    let ours = |snapshot: &SnapshotRef| snapshot.summary().additional_properties.contains_key(COMMIT_ID);
    let continued: HashSet<i64> =
        snapshots.iter().filter(|child| ours(child)).filter_map(|child| child.parent_snapshot_id()).collect();
    let said_by_its_child = |snapshot: &SnapshotRef| ours(snapshot) && continued.contains(&snapshot.snapshot_id());
    snapshots.iter().filter(|snapshot| !said_by_its_child(snapshot)).cloned().collect()
}

/// The lists of these snapshots. Of snapshots that are no longer the table's the list may be gone.
async fn lists(table: &Table, snapshots: Vec<SnapshotRef>, may_be_gone: bool) -> Result<Vec<Vec<ManifestFile>>> {
    let reads = snapshots.into_iter().map(|snapshot| async move {
        let path = snapshot.manifest_list();
        if may_be_gone && !table.file_io().exists(path).await.doing("cannot look for a list of manifests")? {
            return Ok(Vec::new());
        }
        let list = table.manifest_list_reader(&snapshot).load().await.doing("cannot read a list of manifests");
        list.map_err(|error| error.with("file", path)).map(|list| list.consume_entries().into_iter().collect())
    });
    futures::stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await
}

/// The files in a manifest, and whether each is in it alive. One that no kept snapshot has may be gone.
async fn entries(table: &Table, manifest: ManifestFile, kept: bool) -> Result<(Vec<(String, bool)>, bool)> {
    let path = &manifest.manifest_path;
    if !kept && !table.file_io().exists(path).await.doing("cannot look for a manifest")? {
        return Ok((Vec::new(), kept));
    }
    let read = manifest.load_manifest(table.file_io()).await.doing("cannot read a manifest");
    let read = read.map_err(|error| error.with("file", path))?;
    Ok((read.entries().iter().map(|entry| (entry.file_path().to_owned(), entry.is_alive())).collect(), kept))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iceberg::spec::{Operation, Snapshot, Summary};

    use super::*;

    fn snapshot(id: i64, parent: Option<i64>, ours: bool) -> SnapshotRef {
        let properties = ours.then(|| (COMMIT_ID.to_owned(), "an id".to_owned()));
        let summary = Summary { operation: Operation::Append, additional_properties: properties.into_iter().collect() };
        let snapshot =
            Snapshot::builder().with_snapshot_id(id).with_parent_snapshot_id(parent).with_sequence_number(id);
        Arc::new(snapshot.with_timestamp_ms(id).with_manifest_list(format!("list-{id}")).with_summary(summary).build())
    }

    /// The ids whose lists are read of a history: (id, parent, whether the commit is ours).
    fn read(history: &[(i64, Option<i64>, bool)]) -> Vec<i64> {
        let snapshots: Vec<_> = history.iter().map(|&(id, parent, ours)| snapshot(id, parent, ours)).collect();
        to_read(&snapshots).iter().map(|snapshot| snapshot.snapshot_id()).collect()
    }

    #[test]
    fn a_list_is_read_unless_a_commit_of_ours_says_the_same_and_more() {
        assert_eq!(read(&[]), Vec::<i64>::new());
        assert_eq!(read(&[(1, None, true), (2, Some(1), true), (3, Some(2), true)]), [3]);
        // A foreign one may have removed something, and so may what follows: before and in it everything counts.
        assert_eq!(read(&[(1, None, true), (2, Some(1), false), (3, Some(2), true), (4, Some(3), true)]), [1, 2, 4]);
        // Two branches from one snapshot, one of them foreign: ours says it.
        assert_eq!(read(&[(1, None, true), (2, Some(1), false), (3, Some(1), true)]), [2, 3]);
        // The child is not there any more.
        assert_eq!(read(&[(1, None, true), (3, Some(2), true)]), [1, 3]);
    }
}
