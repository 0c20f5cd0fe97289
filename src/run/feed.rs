//! The two logs, as sources for the pumps of the tables.
//!
//! Each table begins at offset 0 unless it says otherwise. If a table was made anew after the logs had been trimmed, its
//! pump stops with the offset that is missing: skipping what is gone would be a silent loss.

use async_trait::async_trait;
use prost::Message;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::{ScoredPost, outcome};
use undertone_proto::{Event, Partition};
use undertone_sinks::pump::{Batch, EpochSource, Ingested, ReadLimit};
use undertone_sinks::{Epoch, Positions};
use undertone_stream::input::{EventReader, InputLog};
use undertone_stream::scored::{OutcomeReader, ScoredLog, origin};

/// The input log, for Bronze.
pub(super) struct Events {
    input: InputLog,
    reader: Option<EventReader>,
}

impl Events {
    pub(super) fn new(input: InputLog) -> Self {
        Self { input, reader: None }
    }
}

#[async_trait]
impl EpochSource for Events {
    type Record = Event;

    async fn starts(&mut self) -> Result<Positions> {
        Ok(Positions::from([(self.input.partition().clone(), 0)]))
    }

    async fn ends(&mut self) -> Result<Positions> {
        Ok(Positions::from([(self.input.partition().clone(), self.input.end())]))
    }

    async fn read(&mut self, from: &Positions, limit: ReadLimit) -> Result<Batch<Event>> {
        let partition = self.input.partition().clone();
        let offset = offset_of(from, &partition)?;
        let mut reader = match self.reader.take() {
            Some(reader) if reader.next_offset() == offset => reader,
            _ => self.input.reader(offset),
        };
        // Only the waiting is bounded: what is there is read, however slow the disk.
        if let Ok(waited) = tokio::time::timeout(limit.wait, reader.wait()).await {
            waited?;
        }
        let events = reader.read_available(limit.events, limit.bytes).await?;
        if events.is_empty() {
            self.reader = Some(reader);
            return Ok(Batch::default());
        }
        // The event of a replay is in the table already.
        let first_time = |(offset, event): (i64, Event)| (event.origin.offset == offset).then_some(event);
        let events: Vec<Event> = events.into_iter().filter_map(first_time).collect();
        let end = reader.next_offset();
        self.reader = Some(reader);
        let mut ingested = Ingested::default();
        events.iter().for_each(|event| ingested.add(partition.partition, event.ingested_at_us));
        Ok(Batch {
            bytes: events.iter().map(|event| event.payload.len()).sum(),
            ingested,
            epoch: Epoch::of(partition, offset..end, events),
        })
    }
}

/// The scored log, for Silver and Gold: the posts, while the ranges cover dead letters too.
pub(super) struct ScoredPosts {
    scored: ScoredLog,
    partition: Partition,
    reader: Option<OutcomeReader>,
}

impl ScoredPosts {
    pub(super) fn new(scored: ScoredLog, partition: Partition) -> Self {
        Self { scored, partition, reader: None }
    }
}

#[async_trait]
impl EpochSource for ScoredPosts {
    type Record = ScoredPost;

    async fn starts(&mut self) -> Result<Positions> {
        Ok(Positions::from([(self.partition.clone(), 0)]))
    }

    async fn ends(&mut self) -> Result<Positions> {
        Ok(Positions::from([(self.partition.clone(), self.scored.end())]))
    }

    async fn read(&mut self, from: &Positions, limit: ReadLimit) -> Result<Batch<ScoredPost>> {
        let offset = offset_of(from, &self.partition)?;
        let mut reader = match self.reader.take() {
            Some(reader) if reader.next_offset() == offset => reader,
            _ => self.scored.reader(offset),
        };
        if let Ok(waited) = tokio::time::timeout(limit.wait, reader.wait()).await {
            waited?;
        }
        let outcomes = reader.read_available(limit.events, limit.bytes).await?;
        if outcomes.is_empty() {
            self.reader = Some(reader);
            return Ok(Batch::default());
        }
        let mut batch = Batch::default();
        let mut posts = Vec::new();
        for (at, outcome) in outcomes {
            // The event of a replay is old; nobody waits for it since then.
            let is_replay = origin(&outcome).is_some_and(|origin| origin.offset != at);
            // What a post carries beside its text (unknown fields, tags) is as large as its sender likes.
            batch.bytes += outcome.encoded_len();
            match outcome.kind {
                Some(outcome::Kind::Scored(post)) => {
                    if !is_replay {
                        batch.ingested.add(self.partition.partition, post.ingested_at_us);
                    }
                    posts.push(post);
                }
                Some(outcome::Kind::Dead(_)) if is_replay => {}
                Some(outcome::Kind::Dead(letter)) => {
                    batch.ingested.add(self.partition.partition, letter.ingested_at_us);
                }
                None => {
                    return Err(
                        Error::new(ErrorKind::Corrupt, "scored log holds an empty outcome").with("after", offset)
                    );
                }
            }
        }
        batch.epoch = Epoch::of(self.partition.clone(), offset..reader.next_offset(), posts);
        self.reader = Some(reader);
        Ok(batch)
    }
}

fn offset_of(from: &Positions, partition: &Partition) -> Result<i64> {
    from.get(partition).copied().ok_or_else(|| {
        Error::new(ErrorKind::Internal, "asked to read without a position").with("partition", partition.partition)
    })
}
