//! Scoring as a pump: what is scored comes in, transactions go out.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::Partition;
use undertone_proto::v1::outcome;
use undertone_sinks::pump::{Batch, EpochSource, ReadLimit};
use undertone_sinks::{Epoch, Positions, Sink, Written};
use undertone_stream::kafka::{KafkaOutcome, Limit, ScoreWriter, ScoredChunks};

use super::feed::{Ends, Ours};
use crate::run::model::Model;

/// Outcomes of the events of `posts.raw`.
pub(super) struct Scores {
    ours: Ours,
    chunks: ScoredChunks<Model>,
    ends: Ends,
}

impl Scores {
    pub(super) fn new(ours: Ours, chunks: ScoredChunks<Model>, exact: CancellationToken) -> Self {
        Self { ours, chunks, ends: Ends::new(exact) }
    }
}

#[async_trait]
impl EpochSource for Scores {
    type Record = Arc<KafkaOutcome>;

    async fn starts(&mut self) -> Result<Positions> {
        self.ends.forget();
        self.chunks.reader().is_same().await?;
        let partitions = self.ours.take().await?;
        let bounds = self.chunks.reader().bounds(partitions).await?;
        Ok(self.ours.positions(bounds.into_iter().map(|(number, (start, _))| (number, start))))
    }

    async fn ends(&mut self) -> Result<Positions> {
        self.ours.unchanged()?;
        self.ends.ask(&self.ours, self.chunks.reader()).await
    }

    async fn read(&mut self, from: &Positions, limit: ReadLimit) -> Result<Batch<Arc<KafkaOutcome>>> {
        self.ours.unchanged()?;
        let from = self.ours.offsets(from)?;
        if from.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(limit.wait) => {}
                () = self.ours.changed() => {}
            }
            return Ok(Batch::default());
        }
        let limit = Limit { records: limit.events, bytes: limit.bytes, wait: limit.wait };
        let scored = tokio::select! {
            scored = self.chunks.read(&from, limit) => scored?,
            () = self.ours.changed() => return Ok(Batch::default()),
        };
        let ingested_at_us = |outcome: &KafkaOutcome| match outcome.outcome.kind.as_ref()? {
            outcome::Kind::Scored(post) => Some(post.ingested_at_us),
            outcome::Kind::Dead(letter) => Some(letter.ingested_at_us),
        };
        Ok(Batch {
            bytes: scored.outcomes.iter().map(|outcome| outcome.size).sum(),
            oldest_us: scored.outcomes.iter().filter_map(ingested_at_us).min(),
            epoch: self.ours.epoch(&from, &scored.next, scored.outcomes.into_iter().map(Arc::new).collect())?,
        })
    }
}

/// The topics that outcomes go to; the position is the group's.
pub(super) struct ScoredTopics {
    ours: Ours,
    writer: ScoreWriter,
    /// Where this writer last read or wrote the positions of its partitions.
    stands: Positions,
}

impl ScoredTopics {
    pub(super) fn new(ours: Ours, writer: ScoreWriter) -> Self {
        Self { ours, writer, stands: Positions::new() }
    }
}

#[async_trait]
impl Sink for ScoredTopics {
    type Record = Arc<KafkaOutcome>;

    fn name(&self) -> &str {
        "score"
    }

    async fn positions(&mut self) -> Result<Positions> {
        let partitions = self.ours.take().await?;
        let committed = self.writer.committed(partitions.iter().copied().collect()).await?;
        // Where the stream begins was written down for every partition that there was: another one appeared later.
        let position = |number: i32| (number, committed.get(&number).copied().unwrap_or(0));
        self.stands = self.ours.positions(partitions.into_iter().map(position));
        Ok(self.stands.clone())
    }

    async fn write(&mut self, epoch: &Epoch<Arc<KafkaOutcome>>) -> Result<Written> {
        let elsewhere =
            |(partition, range): &(&Partition, &Range<i64>)| self.stands.get(*partition) != Some(&range.start);
        if let Some((partition, range)) = epoch.ranges.iter().find(elsewhere) {
            let error = Error::new(ErrorKind::Conflict, "epoch does not begin where the group stands");
            return Err(error
                .with("partition", partition.partition)
                .with("epoch", format!("{}..{}", range.start, range.end)));
        }
        let ranges = epoch.ranges.iter().map(|(partition, range)| (partition.partition, range.clone())).collect();
        self.writer.write(self.ours.version(), ranges, epoch.records.clone()).await?;
        self.stands.extend(epoch.ends());
        Ok(Written { rows: epoch.records.len() as u64, positions: epoch.ends() })
    }
}
