//! The store against real tables in a temporary folder, with a catalog that fails on demand.

mod files;
mod history;
mod interleavings;
mod maintain;
mod newest;
mod protocol;
mod rows;
mod schema;
pub(super) mod server;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use futures::TryStreamExt;
use iceberg::table::Table;
use iceberg::{Catalog, TableCommit, TableIdent};
use tempfile::TempDir;
use undertone_proto::{Envelope, Event, Partition};

use super::catalog::open_embedded;
use super::commit::Patience;
use super::fence::Safeguards;
use super::intercept::{Intercept, Intercepted};
use super::{IcebergSink, IcebergStore, StoreConfig};
use crate::{Epoch, Sink};

const SAFE: Safeguards = Safeguards { position_check: true, read_back: true };

/// What becomes of one call of `update_table`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// It fails and does nothing.
    Fails,
    /// It reports success and does nothing (what `iceberg-catalog-sql` does if its `COMMIT` fails).
    LostCommit,
    /// It is done, and an error comes back.
    LostReply,
    /// It is done, and no answer ever comes back.
    LandsUnanswered,
    /// It is done, an error comes back, and another writer has committed on top by then.
    LostReplyBeneath(Other),
    /// Another writer is faster by a moment: after the fence's check.
    Faster(Other),
}

/// Another writer's epoch: a partition, and its offsets.
type Other = (i32, i64, i64);

/// A catalog that fails on demand.
#[derive(Debug, Default)]
struct Faults(Mutex<VecDeque<Fault>>);

#[async_trait]
impl Intercept for Faults {
    async fn update_table(&self, catalog: &dyn Catalog, commit: TableCommit) -> iceberg::Result<Table> {
        let fault = self.0.lock().unwrap().pop_front().unwrap_or(Fault::None);
        let lost = || iceberg::Error::new(iceberg::ErrorKind::Unexpected, "answer was lost");
        match fault {
            Fault::None => catalog.update_table(commit).await,
            Fault::Fails => Err(lost()),
            Fault::LostCommit => {
                let table = catalog.load_table(commit.identifier()).await?;
                commit.apply(table)
            }
            Fault::LostReply => {
                catalog.update_table(commit).await?;
                Err(lost())
            }
            Fault::LandsUnanswered => {
                catalog.update_table(commit).await?;
                std::future::pending().await
            }
            Fault::LostReplyBeneath(other) => {
                let table = catalog.update_table(commit).await?;
                other_writer(&table, other).await;
                Err(lost())
            }
            Fault::Faster(other) => {
                let table = catalog.load_table(commit.identifier()).await?;
                other_writer(&table, other).await;
                catalog.update_table(commit).await
            }
        }
    }
}

/// Writes as another process would: through a catalog of its own.
async fn other_writer(table: &Table, (number, from, to): Other) {
    let warehouse = table.metadata().location().strip_prefix("file://").unwrap();
    let data = std::path::Path::new(warehouse).ancestors().nth(3).unwrap();
    let mut sink = IcebergStore::over(open_embedded(data).await.unwrap()).bronze();
    sink.positions().await.unwrap();
    sink.write(&epoch(number, from, to)).await.unwrap();
}

/// A store in a temporary folder.
struct Home {
    folder: TempDir,
    catalog: Arc<Intercepted<Faults>>,
}

impl Home {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = open_embedded(folder.path()).await.unwrap();
        IcebergStore::over(Arc::clone(&catalog)).create_tables().await.unwrap();
        Self { folder, catalog: Arc::new(Intercepted { catalog, by: Faults::default() }) }
    }

    fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut planned = self.catalog.by.0.lock().unwrap();
        planned.clear();
        planned.extend(faults);
    }

    fn store_with(&self, safeguards: Safeguards) -> IcebergStore {
        let patience = Patience { attempt: Duration::from_secs(30), tries: 3, pause: Duration::from_millis(1) };
        IcebergStore::with(self.catalog.clone(), safeguards, patience)
    }

    fn store(&self) -> IcebergStore {
        self.store_with(SAFE)
    }

    fn bronze(&self) -> IcebergSink<Event> {
        self.store().bronze()
    }

    async fn table(&self, namespace: &str, name: &str) -> Table {
        self.catalog.catalog.load_table(&TableIdent::from_strs([namespace, name]).unwrap()).await.unwrap()
    }

    async fn scan(&self, namespace: &str, name: &str) -> Vec<RecordBatch> {
        let table = self.table(namespace, name).await;
        table.scan().build().unwrap().to_arrow().await.unwrap().try_collect().await.unwrap()
    }

    /// The offsets of Bronze's rows of one partition, sorted.
    async fn offsets(&self, number: i32) -> Vec<i64> {
        use arrow_array::cast::AsArray;
        use arrow_array::types::{Int32Type, Int64Type};
        let mut offsets = Vec::new();
        for batch in self.scan("bronze", "posts").await {
            let partitions = batch.column_by_name("partition").unwrap().as_primitive::<Int32Type>();
            let column = batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>();
            let rows = partitions.values().iter().zip(column.values());
            offsets.extend(rows.filter(|&(&partition, _)| partition == number).map(|(_, &offset)| offset));
        }
        offsets.sort_unstable();
        offsets
    }
}

fn partition(number: i32) -> Partition {
    Partition { cluster: "c".to_owned(), topic: "t".to_owned(), partition: number }
}

fn event(number: i32, offset: i64) -> Event {
    Event {
        origin: partition(number).origin(offset),
        payload: format!("{{\"n\":{offset}}}").into_bytes(),
        ingested_at_us: 1_790_000_000_000_000 + offset * 3_600_000_000,
        envelope: Envelope::default(),
    }
}

/// The events of a partition from an offset up to another.
fn epoch(number: i32, from: i64, to: i64) -> Epoch<Event> {
    Epoch::of(partition(number), from..to, (from..to).map(|offset| event(number, offset)).collect())
}
