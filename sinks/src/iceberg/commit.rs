//! One commit: rows and positions together, and the certainty of what became of it.
//!
//! An answer of the catalog is not believed either way. After "done" the table is read back, because a SQL catalog can
//! report a commit whose transaction failed (`iceberg-catalog-sql` 0.10.1 drops the error of its `COMMIT`). After an
//! error or a time-out it is read back too, because the commit may have happened and only the answer was lost. In both
//! cases the own commit id, in the position's property or in the branch's ancestry beneath later commits, is the proof.
//! Attempts repeat with the same files and the same id, so however many of them reach the catalog, one counts. Files of
//! a commit whose outcome stays unknown are left alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use iceberg::Catalog;
use iceberg::spec::DataFile;
use iceberg::table::Table;
use iceberg::transaction::{ApplyTransactionAction, Transaction};
use undertone_error::{Context, Error, ErrorKind, Result};

use super::failure::{Doing, needs_a_person, text};
use super::fence::{Advance, Fence, Refusal, Safeguards};
use super::intercept::Intercepted;
use super::position::{
    Ancestry, COMMIT_ID, MOVED, Standing, StoredPosition, StoredPositions, property, stored_positions, written_moves,
};
use super::schema::DELETE_OLD_METADATA;

/// How patient a commit is before it hands the epoch back to be tried again later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one attempt, rebases included. What did not answer by then may still happen.
    pub(super) attempt: Duration,
    /// Attempts at the commit, and looks at what became of each.
    pub(super) tries: u32,
    /// Between them.
    pub(super) pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempt: Duration::from_secs(60), tries: 4, pause: Duration::from_millis(100) }
    }
}

/// What came back from one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Done,
    /// The fence let nothing through.
    Refused,
    /// The fence let nothing through because the epoch is too old.
    Overslept,
    /// An error or no answer in time: anything may have happened.
    Unclear,
}

/// What the table says afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Where our commit is.
    own: Standing,
    /// Whether a position names our commit.
    own_position: bool,
    /// Whether every partition is still where this writer read it.
    unmoved: bool,
    /// Whether the commit that a position names is missing from the table.
    rolled_back: bool,
}

impl Seen {
    /// What a table with these positions and this history says about a commit.
    pub(super) fn of(advance: &Advance, found: &StoredPositions, ancestry: &Ancestry) -> Self {
        let named = || advance.from.keys().filter_map(|partition| found.get(partition));
        Self {
            own: ancestry.standing(&advance.commit_id),
            own_position: named().any(|position| position.commit_id == advance.commit_id),
            unmoved: advance.from.iter().all(|(partition, expected)| found.get(partition) == expected.as_ref()),
            rolled_back: named().any(|position| ancestry.standing(&position.commit_id) == Standing::Missing),
        }
    }
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    Committed,
    NotCommitted,
    /// Another writer was faster, or the epoch is too old: make it again.
    Conflict,
    /// The table's branch was set back beneath its positions. Only a person knows what was meant.
    StopRollback,
}

/// Decides what became of an attempt.
pub(super) fn decide(safeguards: Safeguards, answer: Answer, seen: Seen) -> Verdict {
    match (answer, seen) {
        (Answer::Done, _) if !safeguards.read_back => Verdict::Committed,
        (Answer::Unclear, _) if !safeguards.position_check => Verdict::NotCommitted,
        (_, Seen { own: Standing::InAncestry, .. }) => Verdict::Committed,
        (_, Seen { own: Standing::Expired, own_position: true, .. }) => Verdict::Committed,
        (_, Seen { own_position: true, .. } | Seen { rolled_back: true, .. }) => Verdict::StopRollback,
        (_, Seen { unmoved: false, .. }) if safeguards.position_check => Verdict::Conflict,
        (Answer::Overslept, _) => Verdict::Conflict,
        (Answer::Done | Answer::Refused | Answer::Unclear, _) => Verdict::NotCommitted,
    }
}

/// Commits to the tables of one catalog.
#[derive(Clone, Debug)]
pub(super) struct Committer {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) safeguards: Safeguards,
    pub(super) patience: Patience,
    /// Whether metadata files that have left the table's log are removed here, since the catalog leaves them.
    pub(super) drops_old_metadata: bool,
}

impl Committer {
    /// Adds the files to the table and moves the positions, both or neither, and returns the table as it then stands.
    /// `table` is where the writer read its positions.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another writer moved a partition, or the epoch overslept. [`ErrorKind::Unavailable`]
    /// if the commit did not happen, or what happened cannot be read. [`ErrorKind::Corrupt`] if the table was rolled
    /// back. [`ErrorKind::InvalidConfig`] if catalog or storage refuse us.
    pub(super) async fn commit(&self, table: &Table, files: &[DataFile], advance: &Advance) -> Result<Table> {
        let mut cause = None;
        for attempt in 0..self.patience.tries {
            tokio::time::sleep(self.patience.pause * attempt).await;
            let (answer, error) = self.attempt(table, files, advance).await?;
            let (seen, now) = self.look(table, advance).await?;
            let verdict = decide(self.safeguards, answer, seen);
            if answer != Answer::Done || verdict != Verdict::Committed {
                let (table, commit_id) = (table.identifier(), advance.commit_id);
                // Not with Debug, which prints backtraces.
                let error = error.as_ref().map(text);
                tracing::warn!(%table, %commit_id, attempt, ?answer, ?verdict, error, "commit was not plain");
            }
            match verdict {
                Verdict::Committed => {
                    if self.drops_old_metadata {
                        drop_old_metadata(table, &now).await;
                    }
                    return Ok(now);
                }
                Verdict::Conflict => {
                    let what = "another writer moved the table's positions, or the epoch is too old to be committed";
                    return Err(caused(Error::new(ErrorKind::Conflict, what).with("table", table.identifier()), error));
                }
                Verdict::StopRollback => return Err(rolled_back(table)),
                Verdict::NotCommitted => cause = error.or(cause),
            }
        }
        // Keys that were taken back in the middle of it are as wrong as keys that never were right.
        let kind = cause.as_ref().and_then(needs_a_person).unwrap_or(ErrorKind::Unavailable);
        Err(caused(Error::new(kind, "commit did not happen").with("table", table.identifier()), cause))
    }

    async fn attempt(
        &self,
        table: &Table,
        files: &[DataFile],
        advance: &Advance,
    ) -> Result<(Answer, Option<iceberg::Error>)> {
        let transaction = transaction(table, files, advance)?;
        let fence = Fence::new(advance.clone(), self.safeguards);
        let fenced = Intercepted { catalog: Arc::clone(&self.catalog), by: fence };
        let answered = tokio::time::timeout(self.patience.attempt, transaction.commit(&fenced)).await;
        Ok(match answered {
            Ok(Ok(_)) => (Answer::Done, None),
            Ok(Err(error)) => match fenced.by.refusal() {
                Some(Refusal::Overslept { .. }) => (Answer::Overslept, Some(error)),
                Some(Refusal::Moved { .. } | Refusal::RolledBack { .. }) => (Answer::Refused, Some(error)),
                None => (Answer::Unclear, Some(error)),
            },
            Err(_) => {
                let error = iceberg::Error::new(iceberg::ErrorKind::Unexpected, "the catalog did not answer in time");
                (Answer::Unclear, Some(error))
            }
        })
    }

    /// Reads the table, and in it what became of the commit. An epoch whose outcome cannot be read is handed back: the
    /// fence settles it at the next attempt, since a commit that did happen has moved the positions.
    async fn look(&self, table: &Table, advance: &Advance) -> Result<(Seen, Table)> {
        let mut tries = self.patience.tries;
        let now = loop {
            tries = tries.saturating_sub(1);
            match self.catalog.load_table(table.identifier()).await.doing("cannot read back what became of a commit") {
                Ok(now) => break now,
                Err(error) if tries == 0 || !error.retryable() => return Err(error.with("table", table.identifier())),
                Err(_) => tokio::time::sleep(self.patience.pause).await,
            }
        };
        let found = stored_positions(&advance.track, now.metadata().properties())?;
        Ok((Seen::of(advance, &found, &Ancestry::of(now.metadata())), now))
    }
}

/// The rows and the positions as one transaction. Without rows it adds an empty snapshot all the same, so that no move
/// of a position leaves the branch's head where it was.
fn transaction(table: &Table, files: &[DataFile], advance: &Advance) -> Result<Transaction> {
    let transaction = Transaction::new(table);
    let names = advance.to.iter().map(|(partition, &next)| Ok((property(&advance.track, partition)?, next)));
    let names = names.collect::<Result<Vec<_>>>()?;
    let summary = HashMap::from([
        (COMMIT_ID.to_owned(), advance.commit_id.to_string()),
        (MOVED.to_owned(), written_moves(names.iter().map(|(name, next)| (name.as_str(), *next)))?),
    ]);
    let append = transaction
        .fast_append()
        // Looking for duplicates reads every manifest of the table; that no epoch is added twice is the fence's work.
        .with_check_duplicate(false)
        .set_snapshot_properties(summary)
        .add_data_files(files.iter().cloned());
    let transaction = append.apply(transaction).doing("cannot prepare the rows of a commit")?;
    let mut properties = transaction.update_table_properties();
    for (name, next) in names {
        let position = StoredPosition { next, commit_id: advance.commit_id };
        let json = serde_json::to_string(&position).context(ErrorKind::Internal, "cannot write a position as JSON")?;
        properties = properties.set(name, json);
    }
    properties.apply(transaction).doing("cannot prepare the positions of a commit")
}

/// The error for a table whose branch was set back beneath its positions.
pub(super) fn rolled_back(table: &Table) -> Error {
    Error::new(ErrorKind::Corrupt, "table was rolled back beneath its positions").with("table", table.identifier()).help(
        "roll it forward again; or, of a stream on Kafka, let `undertone accept-gap` set the positions back: what was taken away is then \
         stored again",
    )
}

fn caused(error: Error, cause: Option<iceberg::Error>) -> Error {
    match cause {
        Some(cause) => error.source(text(&cause)),
        None => error,
    }
}

/// Removes the metadata files that have left the table's metadata log, which `iceberg` 0.10 and its SQL catalog leave to
/// the writer. What
/// cannot be removed now is an orphan that costs only its space.
pub(super) async fn drop_old_metadata(before: &Table, now: &Table) {
    if now.metadata().properties().get(DELETE_OLD_METADATA).is_none_or(|enabled| enabled != "true") {
        return;
    }
    let kept: HashSet<&str> = now.metadata().metadata_log().iter().map(|log| log.metadata_file.as_str()).collect();
    for log in before.metadata().metadata_log() {
        if kept.contains(log.metadata_file.as_str()) {
            continue;
        }
        if let Err(error) = now.file_io().delete(&log.metadata_file).await {
            tracing::debug!(file = log.metadata_file, %error, "old metadata file stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: Safeguards = Safeguards { position_check: true, read_back: true };
    const NOTHING: Seen = Seen { own: Standing::Missing, own_position: false, unmoved: true, rolled_back: false };

    #[test]
    fn the_table_says_what_happened_whatever_the_catalog_answered() {
        let landed = Seen { own: Standing::InAncestry, own_position: true, unmoved: false, rolled_back: false };
        let beneath = Seen { own_position: false, ..landed };
        let expired_since = Seen { own: Standing::Expired, ..landed };
        let faster = Seen { unmoved: false, ..NOTHING };
        let landed_then_rolled_back = Seen { own_position: true, unmoved: false, rolled_back: true, ..NOTHING };
        let rolled_back = Seen { rolled_back: true, ..NOTHING };
        for answer in [Answer::Done, Answer::Refused, Answer::Unclear, Answer::Overslept] {
            let cases = [
                (landed, Verdict::Committed),
                (beneath, Verdict::Committed),
                (expired_since, Verdict::Committed),
                (faster, Verdict::Conflict),
                (landed_then_rolled_back, Verdict::StopRollback),
                (rolled_back, Verdict::StopRollback),
            ];
            for (seen, wanted) in cases {
                assert_eq!(decide(ON, answer, seen), wanted, "{answer:?} {seen:?}");
            }
        }
    }

    #[test]
    fn a_commit_that_left_no_trace_is_tried_again_unless_its_epoch_is_too_old() {
        for (answer, wanted) in [
            (Answer::Done, Verdict::NotCommitted),
            (Answer::Unclear, Verdict::NotCommitted),
            (Answer::Refused, Verdict::NotCommitted),
            (Answer::Overslept, Verdict::Conflict),
        ] {
            assert_eq!(decide(ON, answer, NOTHING), wanted, "{answer:?}");
        }
    }

    #[test]
    fn each_safeguard_is_what_tells_the_truth() {
        let landed = Seen { own: Standing::InAncestry, own_position: true, unmoved: false, rolled_back: false };
        let gullible = Safeguards { read_back: false, ..ON };
        assert_eq!(decide(gullible, Answer::Done, NOTHING), Verdict::Committed);
        let forgetful = Safeguards { position_check: false, ..ON };
        assert_eq!(decide(forgetful, Answer::Unclear, landed), Verdict::NotCommitted);
    }
}
