//! A table as a sink.
//!
//! The table's own properties say where it stands, and every move rides on the commit of its rows, so what this keeps
//! between epochs is only what it last read or wrote: the fence compares it with the table at each commit.
//!
//! An epoch whose commit failed keeps its closed files and its commit id for the next try, so a catalog that stays ill
//! does not fill the disk with copies. The same id also proves a commit that landed after all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::TableIdent;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::DataFile;
use iceberg::table::Table;
use undertone_error::{Error, ErrorKind, Result, failpoint};
use undertone_proto::Partition;
use uuid::Uuid;

use super::columns::ToBatch;
use super::commit::{Committer, rolled_back};
use super::failure::Doing;
use super::fence::{Advance, Begun};
use super::position::{StoredPosition, StoredPositions, Track, is_rolled_back, property, stored_positions};
use super::rollback::{SetBack, accept, set_back};
use super::writer::write_files;
use crate::{Epoch, Positions, Sink, Written};

/// One Iceberg table, fed with epochs of `R`.
pub struct IcebergSink<R> {
    name: String,
    ident: TableIdent,
    rows: Box<dyn ToBatch<R>>,
    track: Track,
    committer: Committer,
    /// The table and its positions as this writer last read or wrote them.
    stands: Option<(Table, StoredPositions)>,
    /// The last epoch whose commit has not succeeded and may be tried again.
    prepared: Option<Prepared>,
}

/// An epoch in files, which nothing but its commit may refer to. They are never removed here: once a commit was tried
/// the table may hold them.
struct Prepared {
    ranges: BTreeMap<Partition, Range<i64>>,
    records: usize,
    rows: u64,
    files: Vec<DataFile>,
    /// From when the files were begun, so that the fence still refuses them once they are too old.
    advance: Advance,
}

impl Prepared {
    /// Whether it is this epoch. Offsets name the records: what the log holds at an offset never changes.
    fn is<R>(&self, epoch: &Epoch<R>) -> bool {
        self.ranges == epoch.ranges && self.records == epoch.records.len()
    }
}

impl<R> IcebergSink<R> {
    pub(super) fn new(ident: TableIdent, rows: impl ToBatch<R> + 'static, committer: Committer) -> Self {
        let (name, rows) = (name(&ident), Box::new(rows));
        Self { name, ident, rows, track: Track::Live, committer, stands: None, prepared: None }
    }

    /// The sink with positions of its own, for the rows of a re-scoring run.
    #[must_use]
    pub fn on(self, track: Track) -> Self {
        Self { track, ..self }
    }

    /// The positions that a rollback has left elsewhere than the table's branch has them, of whatever track (none for a table that was
    /// not rolled back), and the positions of the stream's own once they are set back.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the branch no longer says where a position was; those of the catalog.
    pub async fn rollback(&self) -> Result<(Vec<SetBack>, Positions)> {
        let named = |error: Error| error.with("table", &self.name);
        let table = self.committer.catalog.load_table(&self.ident).await.doing("cannot load table").map_err(named)?;
        let found = set_back(table.metadata()).map_err(named)?;
        let stored = stored_positions(&Track::Live, table.metadata().properties()).map_err(named)?;
        let mut positions: Positions =
            stored.into_iter().map(|(partition, position)| (partition, position.next)).collect();
        positions.extend(found.iter().filter(|back| back.run.is_none()).map(|back| (back.partition.clone(), back.to)));
        Ok((found, positions))
    }

    /// Sets back what [`IcebergSink::rollback`] found, all or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the table has changed since then; those of the catalog.
    pub async fn accept_rollback(&mut self, found: &[SetBack]) -> Result<()> {
        (self.stands, self.prepared) = (None, None);
        accept(&self.committer.catalog, &self.ident, found).await.map_err(|error| error.with("table", &self.name))
    }

    async fn load(&self) -> Result<(Table, StoredPositions)> {
        let named = |error: Error| error.with("table", &self.name);
        let table = self.committer.catalog.load_table(&self.ident).await.doing("cannot load table").map_err(named)?;
        let positions = stored_positions(&self.track, table.metadata().properties()).map_err(named)?;
        if is_rolled_back(&self.track, table.metadata()).map_err(named)? {
            return Err(rolled_back(&table));
        }
        Ok((table, positions))
    }
}

#[async_trait]
impl<R: Send + Sync + 'static> Sink for IcebergSink<R> {
    type Record = R;

    fn name(&self) -> &str {
        &self.name
    }

    async fn positions(&mut self) -> Result<Positions> {
        self.stands = None;
        self.prepared = None;
        let (table, positions) = self.load().await?;
        let nexts = positions.iter().map(|(partition, position)| (partition.clone(), position.next)).collect();
        self.stands = Some((table, positions));
        Ok(nexts)
    }

    async fn write(&mut self, epoch: &Epoch<R>) -> Result<Written> {
        let (table, positions) = match self.stands.take() {
            Some(stands) => stands,
            None => self.load().await?,
        };
        let (table, positions) = self.stands.insert((table, positions));
        let prepared = match self.prepared.take().filter(|prepared| prepared.is(epoch)) {
            Some(prepared) => prepared,
            None => prepare(epoch, &self.track, self.rows.as_ref(), table, positions).await?,
        };
        // Kept before the commit begins, since its outcome is unknown to a caller that does not wait for it.
        let prepared = self.prepared.insert(prepared);
        let committed = self.committer.commit(table, &prepared.files, &prepared.advance).await;
        let (rows, commit_id, to) = (prepared.rows, prepared.advance.commit_id, prepared.advance.to.clone());
        if committed.as_ref().err().is_none_or(|error| !error.retryable()) {
            self.prepared = None;
        }
        *table = committed?;
        failpoint::hit("sink.committed");

        for (partition, &next) in &to {
            positions.insert(partition.clone(), StoredPosition { next, commit_id });
        }
        Ok(Written { rows, positions: to })
    }
}

/// What people call a table: "silver.posts".
pub(super) fn name(ident: &TableIdent) -> String {
    format!("{}.{}", ident.namespace().to_url_string(), ident.name())
}

/// Writes the epoch's rows to files.
async fn prepare<R>(
    epoch: &Epoch<R>,
    track: &Track,
    columns: &dyn ToBatch<R>,
    table: &Table,
    positions: &StoredPositions,
) -> Result<Prepared> {
    let advance = advance(epoch, track, positions, Uuid::now_v7())?;
    let schema = Arc::new(schema_to_arrow_schema(table.metadata().current_schema()).doing("cannot read table schema")?);
    let rows = columns.batch(&schema, &epoch.records)?;
    let files = if rows.num_rows() == 0 { Vec::new() } else { write_files(table, &rows).await? };
    failpoint::hit("sink.files-closed");
    Ok(Prepared {
        ranges: epoch.ranges.clone(),
        records: epoch.records.len(),
        rows: rows.num_rows() as u64,
        files,
        advance,
    })
}

/// What the epoch does to the positions, if it begins where this writer stands.
pub(super) fn advance<R>(
    epoch: &Epoch<R>,
    track: &Track,
    positions: &StoredPositions,
    commit_id: Uuid,
) -> Result<Advance> {
    for (partition, range) in &epoch.ranges {
        // A position that could not be stored must be refused before files are written.
        property(track, partition)?;
        if let Some(position) = positions.get(partition).filter(|position| position.next != range.start) {
            return Err(Error::new(ErrorKind::Conflict, "epoch does not begin where the table stands")
                .with("partition", partition.partition)
                .with("position", position.next)
                .with("epoch", format!("{}..{}", range.start, range.end)));
        }
    }
    Ok(Advance {
        track: track.clone(),
        commit_id,
        from: epoch.ranges.keys().map(|partition| (partition.clone(), positions.get(partition).copied())).collect(),
        to: epoch.ends(),
        begun: Begun::now(),
    })
}
