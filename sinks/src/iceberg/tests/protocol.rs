//! Rows and positions land together, whatever the catalog says and whoever else writes.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use iceberg::MetadataLocation;
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention, TableMetadata};
use iceberg::transaction::{ApplyTransactionAction, Transaction};
use proptest::prelude::*;
use sqlx::ConnectOptions;
use undertone_error::ErrorKind;

use super::*;
use crate::Positions;
use crate::iceberg::SetBack;
use crate::iceberg::position::{Track, stored_positions};
use crate::pump::{Batch, EpochSource, Ingested, Policy, Pump, ReadLimit, Shutdown};

fn at(number: i32, offset: i64) -> Positions {
    Positions::from([(partition(number), offset)])
}

fn all(from: i64, to: i64) -> Vec<i64> {
    (from..to).collect()
}

#[tokio::test]
async fn rows_and_positions_land_in_one_commit_with_or_without_rows() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    assert_eq!(sink.positions().await.unwrap(), Positions::new());
    let written = sink.write(&epoch(0, 0, 50)).await.unwrap();
    assert_eq!((written.rows, written.positions), (50, at(0, 50)));

    // Dead letters only: nothing to add, and the position moves on a snapshot of its own all the same.
    let written = sink.write(&Epoch::of(partition(0), 50..60, vec![])).await.unwrap();
    assert_eq!((written.rows, written.positions), (0, at(0, 60)));

    let table = home.table("bronze", "posts").await;
    assert_eq!(table.metadata().snapshots().count(), 2);
    assert!(table.metadata().location().starts_with("file:///"), "{}", table.metadata().location());
    assert_eq!(home.offsets(0).await, all(0, 50));
    assert_eq!(home.bronze().positions().await.unwrap(), at(0, 60));
    assert_eq!(home.store().reader().row_count("bronze", "posts").await.unwrap(), 50);
}

#[tokio::test]
async fn a_zombie_is_fenced_and_goes_on_from_where_the_table_stands() {
    let home = Home::new().await;
    let (mut zombie, mut heir) = (home.bronze(), home.bronze());
    zombie.positions().await.unwrap();
    heir.positions().await.unwrap();
    heir.write(&epoch(0, 0, 30)).await.unwrap();
    let error = zombie.write(&epoch(0, 0, 20)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(zombie.positions().await.unwrap(), at(0, 30));
    zombie.write(&epoch(0, 30, 40)).await.unwrap();
    assert_eq!(home.offsets(0).await, all(0, 40));
}

#[tokio::test]
async fn an_epoch_that_does_not_begin_at_the_position_is_refused() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    sink.write(&epoch(0, 0, 5)).await.unwrap();
    for (from, to) in [(6, 9), (4, 9)] {
        assert_eq!(sink.write(&epoch(0, from, to)).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert_eq!(home.offsets(0).await, all(0, 5));
}

#[tokio::test]
async fn writers_of_different_partitions_do_not_disturb_one_another() {
    let home = Home::new().await;
    let (mut zero, mut one) = (home.bronze(), home.bronze());
    zero.positions().await.unwrap();
    one.positions().await.unwrap();
    let many = |sink: IcebergSink<Event>, number| async move {
        let mut sink = sink;
        for n in 0..8 {
            sink.write(&epoch(number, n * 10, n * 10 + 10)).await.unwrap();
        }
    };
    tokio::join!(many(zero, 0), many(one, 1));
    assert_eq!((home.offsets(0).await, home.offsets(1).await), (all(0, 80), all(0, 80)));
}

#[tokio::test]
async fn a_writer_that_is_faster_between_check_and_commit_conflicts_only_on_its_own_partition() {
    let home = Home::new().await;
    home.fail([Fault::Faster((1, 0, 7)), Fault::None, Fault::Faster((0, 10, 15))]);
    let mut sink = home.bronze();
    sink.write(&epoch(0, 0, 10)).await.unwrap();
    assert_eq!((home.offsets(0).await, home.offsets(1).await), (all(0, 10), all(0, 7)));
    assert_eq!(sink.write(&epoch(0, 10, 20)).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(home.offsets(0).await, all(0, 15));
}

#[tokio::test]
async fn a_commit_that_the_catalog_lost_is_seen_by_reading_back() {
    let home = Home::new().await;
    home.fail([Fault::LostCommit]);
    home.bronze().write(&epoch(0, 0, 10)).await.unwrap();
    assert_eq!(home.offsets(0).await, all(0, 10));
}

#[tokio::test]
async fn a_commit_that_the_database_did_not_keep_is_not_believed() {
    let home = Home::new().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(home.folder.path().join("catalog.db"));
    let mut sqlite = options.connect().await.unwrap();
    // The statement has changed a row, and the row is as it was.
    let trigger = "CREATE TRIGGER undone AFTER UPDATE ON iceberg_tables BEGIN \
        UPDATE iceberg_tables SET metadata_location = OLD.metadata_location WHERE rowid = OLD.rowid; END";
    sqlx::query(trigger).execute(&mut sqlite).await.unwrap();
    let mut sink = home.bronze();
    let error = sink.write(&epoch(0, 0, 10)).await.unwrap_err();
    assert!(error.retryable() && error.to_string().contains("did not take the commit"), "{error}");
    sqlx::query("DROP TRIGGER undone").execute(&mut sqlite).await.unwrap();
    sink.write(&epoch(0, 0, 10)).await.unwrap();
    assert_eq!(home.offsets(0).await, all(0, 10));
}

#[tokio::test]
async fn without_the_read_back_a_lost_commit_is_reported_as_done() {
    let home = Home::new().await;
    home.fail([Fault::LostCommit]);
    let mut sink = home.store_with(Safeguards { read_back: false, ..SAFE }).bronze();
    let written = sink.write(&epoch(0, 0, 10)).await.unwrap();
    assert_eq!((written.rows, home.offsets(0).await.len()), (10, 0));
}

#[tokio::test]
async fn a_commit_whose_reply_was_lost_counts_once() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    home.fail([Fault::LostReply]);
    sink.write(&epoch(0, 0, 10)).await.unwrap();
    // The own commit is found beneath another's, too.
    home.fail([Fault::LostReplyBeneath((1, 0, 7))]);
    sink.write(&epoch(0, 10, 20)).await.unwrap();
    // Even beneath one that has moved the same partition on.
    home.fail([Fault::LostReplyBeneath((0, 30, 35))]);
    sink.write(&epoch(0, 20, 30)).await.unwrap();
    assert_eq!((home.offsets(0).await, home.offsets(1).await), (all(0, 35), all(0, 7)));
}

#[tokio::test]
async fn without_the_position_check_a_lost_reply_doubles_rows() {
    let home = Home::new().await;
    home.fail([Fault::LostReply]);
    home.store_with(Safeguards { position_check: false, ..SAFE }).bronze().write(&epoch(0, 0, 10)).await.unwrap();
    assert_eq!(home.offsets(0).await.len(), 20);
}

#[tokio::test]
async fn without_the_position_check_a_zombie_doubles_rows() {
    let home = Home::new().await;
    let mut zombie = home.store_with(Safeguards { position_check: false, ..SAFE }).bronze();
    zombie.positions().await.unwrap();
    home.bronze().write(&epoch(0, 0, 10)).await.unwrap();
    zombie.write(&epoch(0, 0, 10)).await.unwrap();
    assert_eq!(home.offsets(0).await.len(), 20);
}

#[tokio::test]
async fn a_catalog_that_stays_ill_is_an_outside_fault_and_the_epoch_can_be_written_later() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    home.fail(vec![Fault::Fails; 3]);
    let error = sink.write(&epoch(0, 0, 10)).await.unwrap_err();
    assert!(error.retryable() && error.to_string().contains("answer was lost"), "{error}");
    sink.write(&epoch(0, 0, 10)).await.unwrap();
    assert_eq!(home.offsets(0).await, all(0, 10));
}

/// Bronze's data files on the disk.
fn data_files(home: &Home) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
    }
    count(&home.folder.path().join("warehouse/bronze/posts/data"))
}

#[tokio::test]
async fn an_epoch_that_is_tried_again_is_not_written_again() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    home.fail(vec![Fault::Fails; 6]);
    sink.write(&epoch(0, 0, 10)).await.unwrap_err();
    let once = data_files(&home);
    sink.write(&epoch(0, 0, 10)).await.unwrap_err();
    sink.write(&epoch(0, 0, 10)).await.unwrap();
    assert_eq!((once, data_files(&home)), (1, 1));
    assert_eq!(home.offsets(0).await, all(0, 10));

    // One that grew meanwhile is another epoch, and so is one after the positions were read again.
    home.fail(vec![Fault::Fails; 6]);
    sink.write(&epoch(0, 10, 12)).await.unwrap_err();
    sink.write(&epoch(0, 10, 14)).await.unwrap_err();
    sink.positions().await.unwrap();
    sink.write(&epoch(0, 10, 14)).await.unwrap();
    assert_eq!(data_files(&home), 4);
    assert_eq!(home.offsets(0).await, all(0, 14));
}

#[tokio::test]
async fn a_writer_that_was_cut_off_finds_the_commit_that_landed() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    home.fail([Fault::LandsUnanswered]);
    let epoch = epoch(0, 0, 10);
    let cut_off = tokio::time::timeout(Duration::from_secs(2), sink.write(&epoch)).await;
    assert!(cut_off.is_err());
    sink.write(&epoch).await.unwrap();
    assert_eq!((home.offsets(0).await, data_files(&home)), (all(0, 10), 1));
}

#[tokio::test]
async fn a_table_that_was_rolled_back_beneath_its_positions_stops_its_writers() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    sink.write(&epoch(0, 0, 10)).await.unwrap();
    let old = home.table("bronze", "posts").await.metadata().current_snapshot_id().unwrap();
    sink.write(&epoch(0, 10, 20)).await.unwrap();
    roll_back(home.folder.path(), &home.table("bronze", "posts").await, old).await;

    for error in [sink.write(&epoch(0, 20, 30)).await.unwrap_err(), home.bronze().positions().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("rolled back"), "{error}");
    }
    assert_eq!(home.offsets(0).await, all(0, 10));
}

#[tokio::test]
async fn a_rollback_that_is_accepted_has_what_it_took_away_stored_again_and_nothing_else() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    sink.write(&epoch(0, 0, 10)).await.unwrap();
    sink.write(&epoch(1, 5, 9)).await.unwrap();
    other_appends(&home).await;
    let old = home.table("bronze", "posts").await.metadata().current_snapshot_id().unwrap();
    let mut later = epoch(0, 10, 20);
    later.append(epoch(2, 0, 3)).unwrap();
    sink.positions().await.unwrap();
    sink.write(&later).await.unwrap();
    assert_eq!(sink.rollback().await.unwrap().0, []);
    let head = home.table("bronze", "posts").await.metadata().current_snapshot_id().unwrap();
    roll_back(home.folder.path(), &home.table("bronze", "posts").await, old).await;

    let (found, positions) = sink.rollback().await.unwrap();
    let shown = |found: &[SetBack]| -> Vec<_> {
        found.iter().map(|back| (back.partition.partition, back.from, back.to)).collect()
    };
    assert_eq!(shown(&found), [(0, 20, 10), (2, 3, 0)]);
    let back: Positions = [(partition(0), 10), (partition(1), 9), (partition(2), 0)].into();
    assert_eq!(positions, back);
    // The catalog's answer may be lost; what happened counts.
    home.fail([Fault::LostReply]);
    sink.accept_rollback(&found).await.unwrap();
    assert_eq!(sink.accept_rollback(&found).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(sink.positions().await.unwrap(), back);

    // Rolled forward again, after all: what is there is not stored once more.
    roll_back(home.folder.path(), &home.table("bronze", "posts").await, head).await;
    let (forward, _) = sink.rollback().await.unwrap();
    assert_eq!(shown(&forward), [(0, 10, 20), (2, 0, 3)]);
    roll_back(home.folder.path(), &home.table("bronze", "posts").await, old).await;
    let (again, positions) = sink.rollback().await.unwrap();
    assert_eq!(positions, back);
    sink.accept_rollback(&again).await.unwrap();
    sink.positions().await.unwrap();
    sink.write(&later).await.unwrap();
    assert_eq!((home.offsets(0).await, home.offsets(2).await), (all(0, 20), all(0, 3)));
}

#[tokio::test]
async fn a_rollback_to_where_nobody_knows_the_positions_is_not_accepted() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    sink.write(&epoch(0, 0, 10)).await.unwrap();
    let old = home.table("bronze", "posts").await.metadata().current_snapshot_id().unwrap();
    sink.write(&epoch(0, 10, 20)).await.unwrap();
    let table = home.table("bronze", "posts").await;
    let mut json = serde_json::to_value(table.metadata()).unwrap();
    for snapshot in json["snapshots"].as_array_mut().unwrap() {
        snapshot["summary"].as_object_mut().unwrap().remove("undertone.moved").unwrap();
    }
    replace_metadata(home.folder.path(), &table, &serde_json::from_value(json).unwrap()).await;
    roll_back(home.folder.path(), &home.table("bronze", "posts").await, old).await;
    let error = home.bronze().rollback().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("roll it forward"), "{error}");
}

#[tokio::test]
async fn a_table_whose_old_snapshots_expired_goes_on_also_if_the_head_forgot_its_parent() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    for n in 0..3 {
        sink.write(&epoch(0, n * 10, n * 10 + 10)).await.unwrap();
    }
    // Somebody else's snapshot is the only one that stays: it moves no position.
    let mut other = other_appends(&home).await;
    for keep_parent in [true, false] {
        // They stand in no order.
        let (snapshots, current) = (other["snapshots"].as_array().unwrap(), &other["current-snapshot-id"]);
        let mut head = snapshots.iter().find(|snapshot| snapshot["snapshot-id"] == *current).unwrap().clone();
        if !keep_parent {
            head.as_object_mut().unwrap().remove("parent-snapshot-id").unwrap();
        }
        other["snapshots"] = serde_json::json!([head]);
        let entries = other["snapshot-log"].as_array().unwrap();
        other["snapshot-log"] = serde_json::json!([entries.last().unwrap()]);
        let table = home.table("bronze", "posts").await;
        replace_metadata(home.folder.path(), &table, &serde_json::from_value(other.clone()).unwrap()).await;
        assert_eq!(home.bronze().positions().await.unwrap(), at(0, 30), "parent kept: {keep_parent}");
    }
    let mut sink = home.bronze();
    sink.positions().await.unwrap();
    sink.write(&epoch(0, 30, 40)).await.unwrap();
    assert_eq!(home.offsets(0).await, all(0, 40));
}

/// The table's metadata as they are after another engine's empty append on top of ours.
async fn other_appends(home: &Home) -> serde_json::Value {
    let table = home.table("bronze", "posts").await;
    let transaction = Transaction::new(&table);
    let append = transaction.fast_append().with_check_duplicate(false);
    let properties = HashMap::from([("written-by".to_owned(), "somebody else".to_owned())]);
    let transaction = append.set_snapshot_properties(properties).apply(transaction).unwrap();
    let table = transaction.commit(home.catalog.catalog.as_ref()).await.unwrap();
    serde_json::to_value(table.metadata()).unwrap()
}

#[tokio::test]
async fn a_commit_that_is_not_answered_in_time_counts_once() {
    let home = Home::new().await;
    home.fail([Fault::LandsUnanswered, Fault::LandsUnanswered]);
    let patience = Patience { attempt: Duration::from_millis(500), tries: 3, pause: Duration::from_millis(1) };
    let mut sink = IcebergStore::with(home.catalog.clone(), SAFE, patience).bronze();
    sink.write(&epoch(0, 0, 10)).await.unwrap();
    sink.write(&epoch(0, 10, 20)).await.unwrap();
    assert_eq!((home.offsets(0).await, data_files(&home)), (all(0, 20), 2));
}

/// What another engine's `rollback_to_snapshot` does: sets the branch back and leaves the properties.
pub(super) async fn roll_back(data: &Path, table: &Table, snapshot: i64) {
    let head = SnapshotReference::new(snapshot, SnapshotRetention::branch(None, None, None));
    let builder = table.metadata().clone().into_builder(table.metadata_location().map(str::to_owned));
    replace_metadata(data, table, &builder.set_ref(MAIN_BRANCH, head).unwrap().build().unwrap().metadata).await;
}

/// Makes other metadata those of the table, as an engine does that writes its own.
async fn replace_metadata(data: &Path, table: &Table, metadata: &TableMetadata) {
    let next: MetadataLocation = table.metadata_location().unwrap().parse().unwrap();
    let next = next.with_next_version();
    metadata.write_to(table.file_io(), &next).await.unwrap();

    let file = data.join("catalog.db");
    let mut sqlite = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let update = "UPDATE iceberg_tables SET metadata_location = ? WHERE table_namespace = 'bronze'";
    sqlx::query(update).bind(next.to_string()).execute(&mut sqlite).await.unwrap();
}

#[tokio::test]
async fn a_position_that_somebody_broke_stops_the_sink() {
    let properties = HashMap::from([("undertone.position.c.t.0".to_owned(), "{\"next\":\"ten\"}".to_owned())]);
    assert_eq!(stored_positions(&Track::Live, &properties).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn metadata_files_do_not_pile_up() {
    let home = Home::new().await;
    let mut sink = home.bronze();
    for n in 0..30 {
        sink.write(&Epoch::of(partition(0), n..n + 1, vec![])).await.unwrap();
    }
    let metadata = home.folder.path().join("warehouse/bronze/posts/metadata");
    let names = std::fs::read_dir(metadata).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let kept = names.filter(|name| name.ends_with(".metadata.json")).count();
    assert!((2..=22).contains(&kept), "{kept} metadata files");
}

#[tokio::test]
async fn several_partitions_move_together() {
    let home = Home::new().await;
    let mut both = epoch(0, 0, 5);
    both.append(epoch(1, 40, 45)).unwrap();
    home.bronze().write(&both).await.unwrap();
    let positions: BTreeMap<_, _> = [(partition(0), 5), (partition(1), 45)].into();
    assert_eq!(home.bronze().positions().await.unwrap(), positions);
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::None),
        1 => Just(Fault::Fails),
        1 => Just(Fault::LostCommit),
        1 => Just(Fault::LostReply),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Every crash is a new writer that knows nothing; it asks the table and goes on.
    #[test]
    fn resuming_after_any_faults_and_crashes_gives_every_row_once(
        epochs in prop::collection::vec((1..40i64, any_fault(), any_fault(), any::<bool>()), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (offsets, events) = runtime.block_on(async {
            let home = Home::new().await;
            let events: i64 = epochs.iter().map(|(length, ..)| length).sum();
            let mut plan = epochs.iter();
            let mut sink = home.bronze();
            loop {
                let from = sink.positions().await.unwrap().get(&partition(0)).copied().unwrap_or(0);
                if from == events {
                    return (home.offsets(0).await, events);
                }
                let rest = (events, Fault::None, Fault::None, false);
                let (length, first, second, crash) = plan.next().copied().unwrap_or(rest);
                home.fail([first, second]);
                let to = events.min(from + length);
                if sink.write(&epoch(0, from, to)).await.is_err() || crash {
                    sink = home.bronze();
                }
            }
        });
        prop_assert_eq!(offsets, all(0, events));
    }
}

/// A log of events of partition 0.
struct Log(i64);

#[async_trait]
impl EpochSource for Log {
    type Record = Event;

    async fn starts(&mut self) -> undertone_error::Result<Positions> {
        Ok(at(0, 0))
    }

    async fn ends(&mut self) -> undertone_error::Result<Positions> {
        Ok(at(0, self.0))
    }

    async fn read(&mut self, from: &Positions, limit: ReadLimit) -> undertone_error::Result<Batch<Event>> {
        let from = from[&partition(0)];
        let to = self.0.min(from + limit.events as i64);
        if from == to {
            tokio::time::sleep(limit.wait).await;
            return Ok(Batch::default());
        }
        Ok(Batch { epoch: epoch(0, from, to), bytes: 1, ingested: Ingested::default() })
    }
}

#[tokio::test]
async fn the_pump_fills_a_table_through_faults_and_a_faster_writer() {
    let home = Home::new().await;
    let ill = [Fault::Fails; 4];
    home.fail(ill.into_iter().chain([Fault::LostReply, Fault::LostCommit, Fault::None, Fault::Faster((0, 70, 80))]));
    let policy = Policy { max_events: 35, retry_min: Duration::from_millis(1), ..Policy::default() };
    let pump = Pump::new(home.bronze(), Log(100), policy);
    let (status, shutdown) = (pump.status(), Shutdown::default());
    shutdown.finish.cancel();
    // Spawned as the program does it, so the pump has to be `Send`.
    assert_eq!(tokio::spawn(pump.run(shutdown)).await.unwrap().unwrap(), at(0, 100));
    assert_eq!(home.offsets(0).await, all(0, 100));
    let end = status.snapshot();
    assert_eq!((end.sink.as_str(), end.position, end.lag_posts, end.finished), ("bronze.posts", 100, 0, true));
}
