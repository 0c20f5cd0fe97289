//! The one loop that feeds a sink.
//!
//! It guarantees that a sink sees every event of its source in order, each in one epoch that was committed, and that it
//! ends only when it was asked to or when a person is needed. It keeps no state that a crash could lose: where to go on
//! is always what the sink's store tells. An ill store makes it wait, with a reason that people can read, and nothing
//! else.

mod gap;
mod goal;
mod ingested;
pub(crate) mod policy;
mod source;
mod status;
mod telemetry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use undertone_error::{Error, Result, failpoint};

pub use gap::{Gap, gaps};
pub use ingested::Ingested;
pub use policy::{Mode, Policy};
pub use source::{Batch, EpochSource, ReadLimit};
pub use status::{LastCommit, SinkSnapshot, SinkStatus, Waiting};
pub use telemetry::{EPOCH_BYTES, EPOCH_COUNT, FRESHNESS_SECONDS, describe_metrics, report_lag};

use goal::{Goal, Verdict};
use policy::{Facts, Recovery, Step, next_step, recover, resume};

use crate::{Epoch, Positions, Sink};

/// The ways to end a pump. Cancel `finish` once nothing more will be appended to the source.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Store everything up to the source's end, however long the store makes it wait, and wait until other processes have
    /// stored what is theirs (see [`goal`]). Then return.
    pub finish: CancellationToken,
    /// Somebody waits for the end: what is ours is still stored, others are not waited for any more.
    pub hurry: CancellationToken,
    /// Commit what was read, trying once, and return promptly; the rest is stored by the next start.
    pub stop: CancellationToken,
}

impl Shutdown {
    fn mode(&self) -> Mode {
        match (self.stop.is_cancelled(), self.finish.is_cancelled()) {
            (true, _) => Mode::Stop,
            (false, true) => Mode::Finish,
            (false, false) => Mode::Run,
        }
    }

    /// Returns once more is asked for than `mode`.
    async fn beyond(&self, mode: Mode) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.finish.cancelled(), if mode == Mode::Run => {}
        }
    }

    async fn pause(&self, delay: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// Feeds one sink from one source.
#[derive(Debug)]
pub struct Pump<K, S: EpochSource> {
    sink: K,
    source: S,
    policy: Policy,
    status: SinkStatus,
    /// Absent before the store has told where it stands, and after a conflict.
    progress: Option<Progress<S::Record>>,
    /// What it waits for, once it is to finish and everything of its own is stored.
    goal: Option<Goal>,
}

#[derive(Debug)]
struct Progress<R> {
    /// What the store holds.
    committed: Positions,
    /// What was read and is not committed.
    pending: Batch<R>,
    /// When the first of it was read.
    since: Instant,
}

enum Turn {
    Went,
    /// For others; there is nothing that could be done meanwhile.
    Waits,
    /// Waiting for them.
    GaveUp(Error),
    Done,
}

impl<K: Sink, S: EpochSource<Record = K::Record>> Pump<K, S> {
    /// A pump that has not begun.
    pub fn new(sink: K, source: S, policy: Policy) -> Self {
        let status = SinkStatus::new(sink.name());
        Self { sink, source, policy, status, progress: None, goal: None }
    }

    /// A handle on the sink's status, which stays readable after the pump has ended.
    pub fn status(&self) -> SinkStatus {
        self.status.clone()
    }

    /// Runs until `shutdown` asks for the end, and returns the durable positions.
    ///
    /// # Errors
    /// What only a person can mend: a position that the source does not hold, a table that was rolled back or dropped,
    /// a bug. When stopped, also the failure of the last commit. The events are safe in the source in each case.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<Positions> {
        let outcome = self.turns(&shutdown).await;
        self.status.ended(outcome.as_ref().err());
        outcome
    }

    async fn turns(&mut self, shutdown: &Shutdown) -> Result<Positions> {
        let mut failures = 0;
        loop {
            let error = match self.turn(shutdown).await {
                Ok(Turn::Done) => return Ok(self.status.committed()),
                Ok(Turn::Waits) => {
                    failures = 0;
                    continue;
                }
                Ok(Turn::GaveUp(error)) => return Err(error),
                Ok(Turn::Went) => {
                    failures = 0;
                    self.status.is_well();
                    continue;
                }
                Err(error) => error,
            };
            let delay = match recover(&self.policy, &error, failures, shutdown.mode()) {
                Recovery::GiveUp => return Err(error),
                Recovery::Retry(delay) => delay,
                Recovery::Reload(delay) => {
                    self.progress = None;
                    delay
                }
            };
            failures = failures.saturating_add(1);
            let retry_in_ms = delay.as_millis();
            tracing::warn!(sink = self.status.sink(), failures, retry_in_ms, %error, "sink waits");
            self.status.waits(&error);
            shutdown.pause(delay).await;
        }
    }

    /// One step. Whatever fails in it can be done again.
    async fn turn(&mut self, shutdown: &Shutdown) -> Result<Turn> {
        let mode = shutdown.mode();
        let Some(progress) = &mut self.progress else {
            if mode == Mode::Stop {
                return Ok(Turn::Done);
            }
            self.progress = Some(self.resume().await?);
            return Ok(Turn::Went);
        };

        let ends = self.source.ends().await?;
        let read = progress.read();
        let facts = Facts {
            mode,
            events: progress.pending.epoch.offsets(),
            bytes: progress.pending.bytes,
            age: progress.since.elapsed(),
            drained: ends.iter().all(|(partition, &end)| {
                let end = self.goal.as_ref().map_or(end, |goal| goal.end_of(partition, end));
                read.get(partition).is_none_or(|&read| read >= end)
            }),
        };
        self.status.observed(ends, progress.pending.ingested.oldest());
        match next_step(&self.policy, &facts) {
            // Only who is to finish waits for others. A test shows with the switch that it must.
            Step::Done if mode == Mode::Finish && !failpoint::sabotaged("no-wait-for-others") => {
                return self.wait_for_others(shutdown, &read).await;
            }
            Step::Done => return Ok(Turn::Done),
            Step::Commit => {
                let written = commit(&mut self.sink, &progress.pending, &self.status).await?;
                progress.committed.extend(written);
                progress.pending = Batch::default();
            }
            Step::Read { events, bytes, wait } => {
                let batch = tokio::select! {
                    biased;
                    () = shutdown.beyond(mode) => return Ok(Turn::Went),
                    batch = self.source.read(&read, ReadLimit { events, bytes, wait }) => batch?,
                };
                progress.add(batch)?;
            }
        }
        Ok(Turn::Went)
    }

    /// Everything that is ours, up to `ours`, is stored: done, unless other processes have partitions of which something is
    /// not.
    async fn wait_for_others(&mut self, shutdown: &Shutdown, ours: &Positions) -> Result<Turn> {
        let goal = match &mut self.goal {
            Some(goal) => goal,
            None => {
                let others = self.source.others().await?;
                self.goal.insert(Goal::new(ours, others, self.policy.max_age))
            }
        };
        let left = goal.left_to_others(ours);
        let stored = if left.is_empty() { Positions::new() } else { self.sink.others(&left).await? };
        match goal.judge(&left, stored, self.policy.idle_wait) {
            Verdict::Done => return Ok(Turn::Done),
            Verdict::GiveUp(error) => return Ok(Turn::GaveUp(error)),
            Verdict::Wait { first: true } => {
                let (sink, partitions) =
                    (self.status.sink(), left.keys().map(|each| each.partition).collect::<Vec<_>>());
                tracing::info!(sink, ?partitions, "other processes have not stored their partitions yet");
            }
            Verdict::Wait { first: false } => {}
        }
        self.status.waits_for_others();
        tokio::select! {
            () = shutdown.hurry.cancelled() => return Ok(Turn::Done),
            () = shutdown.pause(self.policy.idle_wait) => {}
        }
        Ok(Turn::Waits)
    }

    async fn resume(&mut self) -> Result<Progress<S::Record>> {
        let stored = self.sink.positions().await?;
        let starts = self.source.starts().await?;
        let ends = self.source.ends().await?;
        let committed = resume(&stored, &starts, &ends)?;
        if self.policy.pin_starts {
            let new = committed.iter().filter(|(partition, _)| !stored.contains_key(partition));
            let ranges: BTreeMap<_, _> = new.map(|(partition, &at)| (partition.clone(), at..at)).collect();
            if !ranges.is_empty() {
                self.sink.write(&Epoch { ranges, records: Vec::new() }).await?;
            }
        }
        tracing::info!(sink = self.status.sink(), positions = ?committed.values().collect::<Vec<_>>(), "sink goes on");
        self.status.resumed(&committed);
        Ok(Progress { committed, pending: Batch::default(), since: Instant::now() })
    }
}

async fn commit<K: Sink>(sink: &mut K, pending: &Batch<K::Record>, status: &SinkStatus) -> Result<Positions> {
    let (began, epoch) = (Instant::now(), &pending.epoch);
    let written = sink.write(epoch).await.inspect_err(|error: &Error| status.failed_epoch(error, began.elapsed()))?;
    status.committed_epoch(&written, pending, began.elapsed());
    let (sink, took_ms) = (status.sink(), began.elapsed().as_millis());
    tracing::debug!(sink, rows = written.rows, offsets = epoch.offsets(), took_ms, "epoch committed");
    Ok(written.positions)
}

impl<R> Progress<R> {
    /// Where the next read begins.
    fn read(&self) -> Positions {
        let mut read = self.committed.clone();
        read.extend(self.pending.epoch.ends());
        read
    }

    fn add(&mut self, batch: Batch<R>) -> Result<()> {
        if batch.epoch.is_empty() {
            return Ok(());
        }
        if self.pending.epoch.is_empty() {
            self.since = Instant::now();
        }
        self.pending.epoch.append(batch.epoch)?;
        self.pending.bytes = self.pending.bytes.saturating_add(batch.bytes);
        self.pending.ingested.extend(batch.ingested);
        Ok(())
    }
}
