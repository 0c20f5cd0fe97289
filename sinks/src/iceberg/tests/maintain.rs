//! Snapshots expire and files go, while rows and positions stay.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use iceberg::TableIdent;
use iceberg::transaction::{ApplyTransactionAction, Transaction};
use undertone_error::ErrorKind;

use super::protocol::roll_back;
use super::*;
use crate::Positions;
use crate::iceberg::{MIN_ORPHAN_AGE, Maintained, Tally, Upkeep};

const ALL: Upkeep = Upkeep { older_than: Duration::ZERO, retain_last: 1, orphan_age: MIN_ORPHAN_AGE, apply: true };

fn bronze() -> TableIdent {
    TableIdent::from_strs(["bronze", "posts"]).unwrap()
}

async fn maintain(home: &Data, upkeep: Upkeep) -> Maintained {
    home.store.maintain(&bronze(), &upkeep).await.unwrap()
}

/// A data folder with five commits in Bronze.
struct Data {
    folder: TempDir,
    store: IcebergStore,
}

impl Data {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = IcebergStore::open(&StoreConfig::embedded(folder.path())).await.unwrap();
        let mut sink = store.bronze();
        for n in 0..5 {
            sink.write(&epoch(0, n * 10, n * 10 + 10)).await.unwrap();
        }
        Self { folder, store }
    }

    fn table(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("warehouse/bronze/posts")
    }

    /// A file of nobody's, so many hours old.
    fn litter(&self, name: &str, hours: u64) -> PathBuf {
        let path = self.table().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "litter").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
        path
    }

    async fn rows(&self) -> u64 {
        self.store.reader().row_count("bronze", "posts").await.unwrap()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_is_told_is_what_is_done_and_done_again_it_is_nothing() {
    let data = Data::new().await;
    let before = files(&data.table());
    let told = maintain(&data, Upkeep { apply: false, ..ALL }).await;
    assert_eq!(files(&data.table()), before);
    assert_eq!((told.expired, told.kept, told.orphans), (4, 1, Tally::default()));
    // Four lists of manifests: everything that they name the newest names too.
    assert_eq!(told.superseded.files, 4);

    assert_eq!(maintain(&data, ALL).await, told);
    assert_eq!(files(&data.table()).len(), before.len() - 4 + 1, "the commit made a metadata file");
    assert_eq!(data.rows().await, 50);
    let again = maintain(&data, ALL).await;
    assert_eq!((again.expired, again.superseded, again.orphans), (0, Tally::default(), Tally::default()));
}

#[tokio::test]
async fn writers_go_on_where_they_stood_also_those_that_began_before() {
    let data = Data::new().await;
    let (mut idle, mut busy) = (data.store.bronze(), data.store.bronze());
    idle.positions().await.unwrap();
    busy.positions().await.unwrap();
    busy.write(&epoch(1, 0, 10)).await.unwrap();
    maintain(&data, ALL).await;
    // The commit that this one's position names has expired.
    let at = |number, offset| (partition(number), offset);
    assert_eq!(data.store.bronze().positions().await.unwrap(), Positions::from([at(0, 50), at(1, 10)]));
    idle.write(&epoch(0, 50, 60)).await.unwrap();
    busy.write(&epoch(1, 10, 20)).await.unwrap();
    maintain(&data, ALL).await;
    assert_eq!(data.rows().await, 80);
}

#[tokio::test]
async fn only_old_orphans_go() {
    let data = Data::new().await;
    let old =
        [data.litter("data/ingested_at_day=2026-01-01/part-1.parquet", 73), data.litter("metadata/x-m0.avro", 100)];
    let kept = [
        data.litter("data/part-2.parquet", 71),
        data.litter("metadata/version-hint.text", 1000),
        data.litter("notes/mine.txt", 1000),
    ];
    let done = maintain(&data, ALL).await;
    assert_eq!((done.orphans.files, done.orphans.bytes, done.young.files), (2, 12, 1));
    assert!(old.iter().all(|path| !path.exists()) && kept.iter().all(|path| path.exists()));
    for (upkeep, word) in [
        (Upkeep { orphan_age: MIN_ORPHAN_AGE - Duration::from_secs(1), ..ALL }, "72h"),
        (Upkeep { retain_last: 0, ..ALL }, "--retain-last"),
    ] {
        let error = data.store.maintain(&bronze(), &upkeep).await.unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn what_a_crash_left_after_the_commit_is_found_again() {
    let data = Data::new().await;
    let before = files(&data.table());
    maintain(&data, ALL).await;
    let removed: Vec<_> = before.iter().filter(|path| !path.exists()).collect();
    assert_eq!(removed.len(), 4);
    // As if it had been killed before it removed any of them, and the disk had kept none of their bytes. Of the four the
    // newest is read, whichever name it has.
    for path in &removed {
        std::fs::write(path, "").unwrap();
    }
    let error = data.store.maintain(&bronze(), &ALL).await.unwrap_err();
    assert!(error.to_string().contains("list of manifests"), "an empty file is no list: {error}");
    for path in &removed {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(maintain(&data, ALL).await.superseded.files, 0);
}

#[tokio::test]
async fn a_table_that_was_rolled_back_is_left_for_a_person() {
    let data = Data::new().await;
    let catalog = open_embedded(data.folder.path()).await.unwrap();
    let table = catalog.load_table(&bronze()).await.unwrap();
    let parent = table.metadata().current_snapshot().unwrap().parent_snapshot_id().unwrap();
    roll_back(data.folder.path(), &table, parent).await;
    let error = data.store.maintain(&bronze(), &ALL).await.unwrap_err();
    assert!(error.to_string().contains("rolled back"), "{error}");
}

#[tokio::test]
async fn files_that_others_may_share_are_not_removed() {
    let data = Data::new().await;
    let catalog = open_embedded(data.folder.path()).await.unwrap();
    let table = catalog.load_table(&bronze()).await.unwrap();
    let transaction = Transaction::new(&table);
    let set = transaction.update_table_properties().set("gc.enabled".to_owned(), "false".to_owned());
    set.apply(transaction).unwrap().commit(catalog.as_ref()).await.unwrap();
    let error = data.store.maintain(&bronze(), &ALL).await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidConfig && error.to_string().contains("gc.enabled"), "{error}");
}
