//! Going on with a table that somebody rolled back.
//!
//! The guarantee: positions are set back to where the branch has them, so that what was taken away is stored again, once, and
//! nothing beneath is stored a second time. That is read from the summaries of the snapshots that the branch is made of, each of which
//! says where its commit moved which position; where they no longer reach back far enough nothing is changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iceberg::spec::{SnapshotRef, TableMetadata};
use iceberg::table::Table;
use iceberg::transaction::{ApplyTransactionAction, Transaction};
use iceberg::{Catalog, TableIdent};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_proto::Partition;
use uuid::Uuid;

use super::failure::Doing;
use super::intercept::{Intercept, Intercepted};
use super::position::{Ancestry, COMMIT_ID, MOVED, Standing, StoredPosition, moves, position_of, written_moves};

/// One position of a table that was rolled back beneath it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetBack {
    /// The table's property that holds it.
    property: String,
    /// Of which partition it is.
    pub partition: Partition,
    /// The re-scoring run that it belongs to; absent for the stream's own.
    pub run: Option<String>,
    /// Where it stands.
    pub from: i64,
    /// Where the branch has it; 0 if the branch was never there.
    pub to: i64,
}

/// The positions that a rollback has left elsewhere than the branch has them; empty for a table that was not rolled back. Runs of
/// which the branch no longer says where they were are left as they are.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if the branch no longer says where a position of the stream's own was.
pub(super) fn set_back(metadata: &TableMetadata) -> Result<Vec<SetBack>> {
    let ancestry = Ancestry::of(metadata);
    let positions = metadata.properties().iter().filter_map(|(property, value)| {
        let (run, partition) = position_of(property)?;
        let position: StoredPosition = serde_json::from_str(value).ok()?;
        Some((property, run, partition, position, ancestry.standing(&position.commit_id)))
    });
    let mut left: Vec<_> = positions.filter(|(.., standing)| *standing != Standing::InAncestry).collect();
    if left.iter().all(|(.., standing)| *standing != Standing::Missing) {
        return Ok(Vec::new());
    }
    left.sort_by_key(|(property, ..)| *property);
    let mut found = Vec::new();
    for (property, run, partition, position, standing) in left {
        let to = match on_branch(metadata, property) {
            Ok(to) => to,
            Err(_) if run.is_some() || standing == Standing::Expired => continue,
            Err(error) => return Err(error),
        };
        // One that has expired and that no snapshot names is older than what is kept.
        if to.is_some() || standing == Standing::Missing {
            let to = to.unwrap_or(0);
            found.push(SetBack { property: property.clone(), partition, run, from: position.next, to });
        }
    }
    Ok(found)
}

/// Where the branch last moved a position; `None` if it never did.
fn on_branch(metadata: &TableMetadata, property: &str) -> Result<Option<i64>> {
    let unknown = || {
        let error = Error::new(ErrorKind::Corrupt, "table no longer says where it stood before it was rolled back");
        error
            .with("property", property)
            .help("roll it forward again, while the snapshots that were taken away are kept")
    };
    let mut next = metadata.current_snapshot().cloned();
    while let Some(snapshot) = next {
        let summary = &snapshot.summary().additional_properties;
        match summary.get(MOVED) {
            Some(moved) => {
                if let Some(at) = moves(moved).ok_or_else(unknown)?.remove(property) {
                    return Ok(Some(at));
                }
            }
            // A commit of a version that did not say, or another engine's copy of a commit, with its rows.
            None if summary.contains_key(COMMIT_ID) || summary.contains_key(PICKED) => return Err(unknown()),
            None => {}
        }
        next = parent(metadata, &snapshot).ok_or_else(unknown)?;
    }
    Ok(None)
}

/// The snapshot before this one, if there was one; `None` if it is not known any more.
fn parent(metadata: &TableMetadata, snapshot: &SnapshotRef) -> Option<Option<SnapshotRef>> {
    match snapshot.parent_snapshot_id() {
        Some(parent) => metadata.snapshot_by_id(parent).cloned().map(Some),
        // The first snapshot of a table is known by its number.
        None => (snapshot.sequence_number() <= 1).then_some(None),
    }
}

/// How long an attempt at the commit may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Iceberg's name for the snapshot of which a cherry-picked one is a copy.
const PICKED: &str = "source-snapshot-id";

/// Lets a commit through while the table is as it was looked at.
#[derive(Debug)]
struct AsFound(Vec<SetBack>);

#[async_trait]
impl Intercept for AsFound {
    async fn load_table(&self, catalog: &dyn Catalog, table: &TableIdent) -> iceberg::Result<Table> {
        let table = catalog.load_table(table).await?;
        if set_back(table.metadata()).is_ok_and(|found| found == self.0) {
            return Ok(table);
        }
        Err(iceberg::Error::new(iceberg::ErrorKind::PreconditionFailed, "the table has changed since it was looked at"))
    }
}

/// Sets the positions back, all or none, by a commit without rows.
///
/// # Errors
/// [`ErrorKind::Conflict`] if the table has changed since `found` was; those of the catalog.
pub(super) async fn accept(catalog: &std::sync::Arc<dyn Catalog>, ident: &TableIdent, found: &[SetBack]) -> Result<()> {
    let table = catalog.load_table(ident).await.doing("cannot load table")?;
    let commit_id = Uuid::now_v7();
    let moved = written_moves(found.iter().map(|each| (each.property.as_str(), each.to)))?;
    let summary = HashMap::from([(COMMIT_ID.to_owned(), commit_id.to_string()), (MOVED.to_owned(), moved)]);
    let transaction = Transaction::new(&table);
    let append = transaction.fast_append().with_check_duplicate(false).set_snapshot_properties(summary);
    let transaction = append.apply(transaction).doing("cannot prepare a commit")?;
    let mut properties = transaction.update_table_properties();
    for SetBack { property, to, .. } in found {
        let json = serde_json::to_string(&StoredPosition { next: *to, commit_id });
        let json = json.context(ErrorKind::Internal, "cannot write a position as JSON")?;
        properties = properties.set(property.clone(), json);
    }
    let transaction = properties.apply(transaction).doing("cannot prepare the positions of a commit")?;
    let guarded = Intercepted { catalog: Arc::clone(catalog), by: AsFound(found.to_vec()) };
    let answer = tokio::time::timeout(PATIENCE, transaction.commit(&guarded)).await;
    // Whatever the catalog answered: the table says what happened.
    let now = catalog.load_table(ident).await.doing("cannot read back what became of a commit")?;
    if Ancestry::of(now.metadata()).standing(&commit_id) == Standing::InAncestry {
        return Ok(());
    }
    match answer {
        Ok(Err(error)) if error.kind() == iceberg::ErrorKind::PreconditionFailed => {
            let error = Error::new(ErrorKind::Conflict, "table has changed since it was looked at");
            Err(error.help("look again, and then accept what is shown"))
        }
        Ok(Err(error)) => Err(error).doing("cannot set the positions of a table back"),
        Ok(Ok(_)) | Err(_) => Err(Error::new(ErrorKind::Unavailable, "commit did not happen").help("look again")),
    }
}
