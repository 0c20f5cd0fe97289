//! Scoring as a pump: what is scored comes in, transactions go out.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use undertone_error::Result;
use undertone_proto::v1::outcome;
use undertone_sinks::pump::{Batch, EpochSource, Ingested, ReadLimit};
use undertone_sinks::{Epoch, Positions, Sink, Written};
use undertone_stream::kafka::{KafkaOutcome, Limit, ScoreWriter, ScoredChunks, is_replay};

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

    async fn others(&mut self) -> Result<Positions> {
        self.ours.others(self.chunks.reader()).await
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
        let mut ingested = Ingested::default();
        for outcome in scored.outcomes.iter().filter(|outcome| !is_replay(&outcome.headers)) {
            let (origin, at_us) = match &outcome.outcome.kind {
                Some(outcome::Kind::Scored(post)) => (&post.origin, post.ingested_at_us),
                Some(outcome::Kind::Dead(letter)) => (&letter.origin, letter.ingested_at_us),
                None => continue,
            };
            ingested.add(origin.as_ref().map_or(0, |origin| origin.partition), at_us);
        }
        let bytes = scored.outcomes.iter().map(|outcome| outcome.size).sum();
        Ok(Batch {
            // What must be written before the next is asked for is an epoch that is full.
            bytes: if scored.alone { usize::MAX } else { bytes },
            ingested,
            epoch: self.ours.epoch(&from, &scored.next, scored.outcomes.into_iter().map(Arc::new).collect())?,
        })
    }
}

/// The topics that outcomes go to; the position is the group's.
pub(super) struct ScoredTopics {
    ours: Ours,
    writer: ScoreWriter,
}

impl ScoredTopics {
    pub(super) fn new(ours: Ours, writer: ScoreWriter) -> Self {
        Self { ours, writer }
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
        let committed = self.writer.committed(self.ours.version(), partitions.into_iter().collect()).await?;
        Ok(self.ours.positions(committed))
    }

    async fn others(&mut self, partitions: &Positions) -> Result<Positions> {
        let numbers = partitions.keys().map(|partition| partition.partition).collect();
        Ok(self.ours.positions(self.writer.settled(numbers).await?))
    }

    async fn write(&mut self, epoch: &Epoch<Arc<KafkaOutcome>>) -> Result<Written> {
        let ranges = epoch.ranges.iter().map(|(partition, range)| (partition.partition, range.clone())).collect();
        self.writer.write(self.ours.version(), ranges, epoch.records.clone()).await?;
        Ok(Written { rows: epoch.records.len() as u64, positions: epoch.ends() })
    }
}
