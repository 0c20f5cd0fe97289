//! A table as a sink.
//!
//! The table's own properties say where it stands, and every move rides on the commit of its rows, so what this keeps
//! between epochs is only what it last read or wrote: the fence compares it with the table at each commit.

use std::sync::Arc;

use async_trait::async_trait;
use iceberg::TableIdent;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::DataFile;
use iceberg::table::Table;
use undertone_error::{Error, ErrorKind, Result, failpoint};
use uuid::Uuid;

use super::columns::ToBatch;
use super::commit::{Committer, rolled_back};
use super::failure::Doing;
use super::fence::{Advance, Begun};
use super::position::{Ancestry, Standing, StoredPosition, StoredPositions, property, stored_positions};
use super::writer::write_files;
use crate::{Epoch, Positions, Sink, Written};

/// One Iceberg table, fed with epochs of `R`.
pub struct IcebergSink<R> {
    name: String,
    ident: TableIdent,
    rows: Box<dyn ToBatch<R>>,
    committer: Committer,
    /// The table and its positions as this writer last read or wrote them.
    stands: Option<(Table, StoredPositions)>,
}

impl<R> IcebergSink<R> {
    pub(super) fn new(ident: TableIdent, rows: impl ToBatch<R> + 'static, committer: Committer) -> Self {
        let name = format!("{}.{}", ident.namespace().to_url_string(), ident.name());
        Self { name, ident, rows: Box::new(rows), committer, stands: None }
    }

    async fn load(&self) -> Result<(Table, StoredPositions)> {
        let named = |error: Error| error.with("table", &self.name);
        let table = self.committer.catalog.load_table(&self.ident).await.doing("cannot load table").map_err(named)?;
        let positions = stored_positions(table.metadata().properties()).map_err(named)?;
        let ancestry = Ancestry::of(table.metadata());
        if positions.values().any(|position| ancestry.standing(&position.commit_id) == Standing::Missing) {
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
        let advance = advance(epoch, positions)?;

        let schema =
            Arc::new(schema_to_arrow_schema(table.metadata().current_schema()).doing("cannot read table schema")?);
        let rows = self.rows.batch(&schema, &epoch.records)?;
        let files: Vec<DataFile> = if rows.num_rows() == 0 { Vec::new() } else { write_files(table, &rows).await? };
        failpoint::hit("sink.files-closed");
        *table = self.committer.commit(table, &files, &advance).await?;
        failpoint::hit("sink.committed");

        for (partition, &next) in &advance.to {
            positions.insert(partition.clone(), StoredPosition { next, commit_id: advance.commit_id });
        }
        Ok(Written { rows: rows.num_rows() as u64, positions: advance.to })
    }
}

/// What the epoch does to the positions, if it begins where this writer stands.
fn advance<R>(epoch: &Epoch<R>, positions: &StoredPositions) -> Result<Advance> {
    for (partition, range) in &epoch.ranges {
        // A position that could not be stored must be refused before files are written.
        property(partition)?;
        if let Some(position) = positions.get(partition).filter(|position| position.next != range.start) {
            return Err(Error::new(ErrorKind::Conflict, "epoch does not begin where the table stands")
                .with("partition", partition.partition)
                .with("position", position.next)
                .with("epoch", format!("{}..{}", range.start, range.end)));
        }
    }
    Ok(Advance {
        commit_id: Uuid::now_v7(),
        from: epoch.ranges.keys().map(|partition| (partition.clone(), positions.get(partition).copied())).collect(),
        to: epoch.ends(),
        begun: Begun::now(),
    })
}
