//! The scoring stage as something to read from: events go in behind it, outcomes come out in order.
//!
//! The guarantee: outcomes come out once each, in the order of their events within a partition, from the offsets that the
//! caller names. Events are read and scored ahead, several chunks at once, while the caller writes earlier ones: the
//! encoder never waits for a commit, nor a commit for the encoder, as long as there is [room](super::room).
//!
//! Where the process died before, posts are scored in groups, and then one by one, until the one that kills is found (see
//! [`super::ledger`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::Outcome;
use undertone_proto::{Event, Headers};

use super::client::Kafka;
use super::describe::Topic;
use super::ledger::Ledger;
use super::reader::{Fetched, Limit, Offsets, Record, TopicReader, header_bytes};
use super::replay::REPLAY_OF;
use super::room::{Held, Room};
use super::transaction::ScoreWriter;
use crate::score::{Plan, ScoreConfig, Scorer, Watched, give_up, score_chunk};

/// Larger headers would make a scored record larger than its topic takes.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// How long a reader waits for events before it looks up.
const IDLE: Duration = Duration::from_millis(250);

/// What became of one event, and what its record carried along.
#[derive(Clone, Debug)]
pub struct KafkaOutcome {
    /// The outcome; its origin says of which event.
    pub outcome: Outcome,
    /// The headers of the event's record.
    pub headers: Headers,
    /// Bytes of the event's record, about.
    pub size: usize,
}

/// Outcomes that are ready.
#[derive(Debug, Default)]
pub struct ScoredBatch {
    /// In order within each partition.
    pub outcomes: Vec<KafkaOutcome>,
    /// The next offset of every partition that was read on.
    pub next: Offsets,
    /// Whether it must be written before the next is asked for.
    pub alone: bool,
}

/// Scores what a reader reads.
pub struct ScoredChunks<S> {
    kafka: Kafka,
    reader: TopicReader,
    /// Counts the attempts.
    writer: ScoreWriter,
    scorer: Arc<Watched<S>>,
    config: Arc<ScoreConfig>,
    shutdown: CancellationToken,
    running: Option<Running>,
}

struct Running {
    /// What was handed out.
    at: Offsets,
    chunks: mpsc::UnboundedReceiver<Result<Chunk>>,
    /// The first of `chunks`, while it is not finished.
    first: Option<Chunk>,
    room: Arc<Room>,
    _reading: AbortOnDropHandle<()>,
}

/// Outcomes of some events; `None` if the shutdown came first.
type Scoring = AbortOnDropHandle<Result<Option<Vec<Outcome>>>>;

/// Some events that are being scored.
struct Chunk {
    next: Offsets,
    carried: Vec<Carried>,
    outcomes: Scoring,
    _room: Held,
}

struct Carried {
    headers: Headers,
    size: usize,
}

impl Carried {
    fn with(self, outcome: Outcome) -> KafkaOutcome {
        KafkaOutcome { outcome, headers: self.headers, size: self.size }
    }
}

impl<S> std::fmt::Debug for ScoredChunks<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScoredChunks").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl<S: Scorer> ScoredChunks<S> {
    /// Scores the events of `reader`, whose outcomes `writer` writes. Scoring ends with `shutdown`.
    pub fn new(
        kafka: &Kafka,
        reader: TopicReader,
        writer: ScoreWriter,
        scorer: Arc<S>,
        config: ScoreConfig,
        shutdown: CancellationToken,
    ) -> Self {
        let (scorer, config) = (Arc::new(Watched::new(scorer)), Arc::new(config));
        Self { kafka: kafka.clone(), reader, writer, scorer, config, shutdown, running: None }
    }

    /// What to call once nothing is scored any more.
    pub fn ending(&self) -> ScoringEnd<S> {
        ScoringEnd { writer: self.writer.clone(), scorer: Arc::clone(&self.scorer) }
    }

    /// The reader of the events.
    pub fn reader(&self) -> &TopicReader {
        &self.reader
    }

    /// The next outcomes from `from` on; waits at most `limit.wait` for the first. Reading on where the last read ended
    /// costs nothing; from elsewhere, what is in flight is thrown away. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`TopicReader::read`] and [`ScoreWriter::write`]; the scorer's error if it stays ill.
    pub async fn read(&mut self, from: &Offsets, limit: Limit) -> Result<ScoredBatch> {
        if self.running.as_ref().is_none_or(|running| running.at != *from) {
            self.running = None;
            if let Some(partition) = self.writer.suspect(from.clone(), self.config.in_flight()).await? {
                return self.read_alone(partition, from, limit).await;
            }
            self.begin(from).await?;
            self.running = Some(self.start(from.clone()));
        }
        let Some(running) = &mut self.running else { return Ok(ScoredBatch::default()) };
        let taken = running.take(limit).await;
        if taken.is_err() {
            self.running = None;
        }
        taken
    }

    /// Counts the start of the partitions that have something to score.
    async fn begin(&self, from: &Offsets) -> Result<()> {
        let bounds = self.reader.bounds(from.keys().copied().collect()).await?;
        let waits = |(partition, at): (&i32, &i64)| bounds.get(partition).is_some_and(|(_, end)| at < end);
        let begun = from.iter().filter(|each| waits(*each)).map(|(partition, _)| *partition).collect();
        self.writer.begin(from.clone(), begun, self.config.in_flight()).await
    }

    /// Scores the next post of one partition, or the next few, and nothing beside them.
    async fn read_alone(&self, partition: i32, from: &Offsets, limit: Limit) -> Result<ScoredBatch> {
        let mut batch = ScoredBatch { alone: true, ..ScoredBatch::default() };
        let Some(&at) = from.get(&partition) else { return Ok(batch) };
        let in_flight = self.config.in_flight();
        let most = self.writer.with_ledger(|ledger| ledger.most(partition, in_flight));
        let few = Limit { records: most, bytes: self.config.chunk_bytes, wait: limit.wait };
        let mut fetched = self.reader.read(Offsets::from([(partition, at)]), few).await?;
        if fetched.records.is_empty() {
            if fetched.ended.contains(&partition) && fetched.next.get(&partition).is_none_or(|next| *next == at) {
                self.writer.with_ledger(|ledger| ledger.release(partition));
            }
            batch.next = fetched.next;
            return Ok(batch);
        }
        let plan = self.writer.begin_alone(partition, at, in_flight).await?;
        keep(&mut fetched, partition, at, plan.most(in_flight));
        let offset = fetched.records.first().map(|record| record.offset);
        let carry = |record| carry(&self.kafka, self.reader.topic(), record);
        let (carried, events): (Vec<_>, Vec<_>) = fetched.records.into_iter().map(carry).unzip();
        let outcomes = match plan {
            Plan::Together => return Ok(batch),
            Plan::Group | Plan::Alone => {
                tracing::warn!(partition, offset, posts = events.len(), "looking for the post that kills the process");
                // In a task of its own, like every chunk: a panic is an error here, and the post's doing.
                let Some(outcomes) = self.score(events).await.map_err(panicked)?? else { return Ok(batch) };
                if plan == Plan::Alone {
                    self.writer.acquit(partition, at).await?;
                }
                outcomes
            }
            Plan::GiveUp => {
                tracing::error!(partition, offset, "gave up a post: the process died each time it was scored alone");
                let given_up = events.iter().map(|(_, event)| give_up(event, &self.config)).collect::<Result<_>>()?;
                self.writer.with_ledger(Ledger::release_all);
                given_up
            }
        };
        batch.outcomes = carried.into_iter().zip(outcomes).map(|(carried, outcome)| carried.with(outcome)).collect();
        batch.next = fetched.next;
        Ok(batch)
    }

    fn score(&self, events: Vec<(i64, Event)>) -> Scoring {
        let (scorer, config, shutdown) = (Arc::clone(&self.scorer), Arc::clone(&self.config), self.shutdown.clone());
        let work = async move { score_chunk(&scorer, &config, events, &shutdown).await };
        AbortOnDropHandle::new(tokio::spawn(work))
    }

    fn start(&self, from: Offsets) -> Running {
        let (send, chunks) = mpsc::unbounded_channel();
        let size = self.config.chunk_events.saturating_mul(self.config.chunks_in_flight);
        let room = Arc::new(Room::new(size, self.writer.with_ledger(|ledger| ledger.has_crashed())));
        let reading = Reading {
            room: Arc::clone(&room),
            kafka: self.kafka.clone(),
            reader: self.reader.clone(),
            scorer: Arc::clone(&self.scorer),
            config: Arc::clone(&self.config),
            shutdown: self.shutdown.clone(),
        };
        let begun = from.clone();
        let reading = AbortOnDropHandle::new(tokio::spawn(reading.run(begun, send)));
        Running { at: from, chunks, first: None, room, _reading: reading }
    }
}

impl Running {
    async fn take(&mut self, limit: Limit) -> Result<ScoredBatch> {
        let until = tokio::time::Instant::now() + limit.wait;
        let mut batch = ScoredBatch::default();
        let mut bytes = 0;
        self.room.looked_at();
        while batch.outcomes.len() < limit.records && bytes < limit.bytes {
            let ready = !batch.next.is_empty();
            if self.first.is_none() {
                let received = if ready {
                    self.chunks.try_recv().ok()
                } else {
                    match tokio::time::timeout_at(until, self.chunks.recv()).await {
                        Ok(Some(received)) => Some(received),
                        // It ends by itself only at the shutdown, which whoever waits here is told otherwise.
                        Ok(None) => return Err(Error::new(ErrorKind::Cancelled, "reading ahead has ended")),
                        Err(_) => None,
                    }
                };
                self.first = received.transpose()?;
            }
            let Some(first) = &mut self.first else { break };
            if ready && !first.outcomes.is_finished() {
                break;
            }
            let Ok(outcomes) = tokio::time::timeout_at(until, &mut first.outcomes).await else { break };
            let Some(chunk) = self.first.take() else { break };
            let Some(outcomes) = outcomes.map_err(panicked)?? else { break };
            bytes += chunk.carried.iter().map(|carried| carried.size).sum::<usize>();
            let carried = chunk.carried.into_iter().zip(outcomes);
            batch.outcomes.extend(carried.map(|(carried, outcome)| carried.with(outcome)));
            batch.next.extend(chunk.next);
        }
        self.at.extend(&batch.next);
        Ok(batch)
    }
}

/// The task that reads ahead.
struct Reading<S> {
    room: Arc<Room>,
    kafka: Kafka,
    reader: TopicReader,
    scorer: Arc<Watched<S>>,
    config: Arc<ScoreConfig>,
    shutdown: CancellationToken,
}

impl<S: Scorer> Reading<S> {
    async fn run(self, mut at: Offsets, chunks: mpsc::UnboundedSender<Result<Chunk>>) {
        loop {
            // Room first: while there is none, nothing is read.
            let read = async {
                let records = self.room.wait(self.config.chunk_events).await;
                let limit = Limit { records, bytes: self.config.chunk_bytes, wait: IDLE };
                self.reader.read(at.clone(), limit).await
            };
            let read = tokio::select! {
                () = self.shutdown.cancelled() => return,
                read = read => read,
            };
            let chunk = match read {
                Ok(fetched) if fetched.next.is_empty() => continue,
                Ok(fetched) => {
                    at.extend(&fetched.next);
                    Ok(self.chunk(fetched.records, fetched.next))
                }
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            if chunks.send(chunk).is_err() || failed {
                return;
            }
        }
    }

    fn chunk(&self, records: Vec<Record>, next: Offsets) -> Chunk {
        let (held, scoring) = self.room.take(records.len(), records.iter().map(Record::size).sum());
        let carry = |record| carry(&self.kafka, self.reader.topic(), record);
        let (carried, events) = records.into_iter().map(carry).unzip();
        let (scorer, config, shutdown) = (Arc::clone(&self.scorer), Arc::clone(&self.config), self.shutdown.clone());
        let work = async move {
            let _scoring = scoring;
            score_chunk(&scorer, &config, events, &shutdown).await
        };
        Chunk { next, carried, outcomes: AbortOnDropHandle::new(tokio::spawn(work)), _room: held }
    }
}

fn panicked(error: JoinError) -> Error {
    Error::new(ErrorKind::Internal, "scoring a chunk panicked").source(error)
}

/// Keeps the first record, and of those after it what lies within `most` offsets of `at`: what is counted there.
fn keep(fetched: &mut Fetched, partition: i32, at: i64, most: i64) {
    let end = at.saturating_add(most);
    let within = fetched.records.iter().skip(1).take_while(|record| record.offset < end).count();
    if let Some(left) = fetched.records.drain(fetched.records.len().min(1 + within)..).next() {
        fetched.next.insert(partition, left.offset);
    }
}

/// A record as an event, and what goes on with its outcome.
fn carry(kafka: &Kafka, topic: &Topic, record: Record) -> (Carried, (i64, Event)) {
    let (offset, size, partition) = (record.offset, record.size(), kafka.partition(topic, record.partition));
    let mut event = record.into_event(&partition);
    let mut headers = std::mem::take(&mut event.envelope.headers);
    if header_bytes(&headers) > MAX_HEADER_BYTES {
        tracing::warn!(offset, "headers are too large to go on with the score, and are left out");
        headers.retain(|(name, _)| name == REPLAY_OF);
    }
    (Carried { headers, size }, (offset, event))
}

/// What remains to be done when nothing is scored any more.
pub struct ScoringEnd<S> {
    writer: ScoreWriter,
    scorer: Arc<Watched<S>>,
}

impl<S> std::fmt::Debug for ScoringEnd<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScoringEnd").field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl<S: Scorer> ScoringEnd<S> {
    /// Forgets the attempts at scoring, since this end is no crash; unless a post may have brought it.
    pub async fn forget(self) {
        if !self.scorer.may_be_killed()
            && let Err(error) = self.writer.forget().await
        {
            tracing::warn!(%error, "could not forget the attempts at scoring: this end may count as a crash");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn fetched(offsets: &[i64]) -> Fetched {
        let record = |&offset| Record {
            partition: 3,
            offset,
            timestamp_ms: None,
            key: None,
            payload: None,
            headers: Headers::default(),
        };
        let records = offsets.iter().map(record).collect();
        Fetched {
            records,
            ended: BTreeSet::new(),
            next: Offsets::from([(3, offsets.last().map_or(0, |last| last + 1))]),
        }
    }

    #[test]
    fn a_group_takes_no_post_beyond_the_offsets_that_are_counted() {
        for (offsets, most, kept, next) in [
            (&[7, 8, 9][..], 4, 3, 10),
            (&[7, 8, 9], 2, 2, 9),
            // Markers of transactions lie between.
            (&[7, 9, 10, 12], 4, 3, 12),
            (&[7, 8], 1, 1, 8),
            (&[30, 31, 32], 4, 1, 31),
        ] {
            let mut fetched = fetched(offsets);
            keep(&mut fetched, 3, 7, most);
            assert_eq!((fetched.records.len(), fetched.next[&3]), (kept, next), "{offsets:?}");
        }
    }
}
