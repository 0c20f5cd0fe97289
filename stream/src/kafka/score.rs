//! The scoring stage as something to read from: events go in behind it, outcomes come out in order.
//!
//! The guarantee: outcomes come out once each, in the order of their events within a partition, from the offsets that the
//! caller names. Events are read and scored ahead, several chunks at once, while the caller writes earlier ones: the
//! encoder never waits for a commit, nor a commit for the encoder, until the bound on chunks in flight is reached.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::Event;
use undertone_proto::v1::Outcome;

use super::client::Kafka;
use super::reader::{Limit, Offsets, Record, TopicReader};
use super::replay::REPLAY_OF;
use crate::score::{ScoreConfig, Scorer, Watched, score_chunk};

/// Larger headers would make a scored record larger than its topic takes.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// How long a reader waits for events before it looks up.
const IDLE: Duration = Duration::from_millis(250);

fn header_bytes(headers: &[(String, Option<Vec<u8>>)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

/// What became of one event, and what its record carried along.
#[derive(Clone, Debug)]
pub struct KafkaOutcome {
    /// The outcome; its origin says of which event.
    pub outcome: Outcome,
    /// The headers of the event's record.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
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
}

/// Scores what a reader reads.
pub struct ScoredChunks<S> {
    kafka: Kafka,
    reader: TopicReader,
    scorer: Arc<Watched<S>>,
    config: Arc<ScoreConfig>,
    shutdown: CancellationToken,
    running: Option<Running>,
}

struct Running {
    /// What was handed out.
    at: Offsets,
    chunks: mpsc::Receiver<Result<Chunk>>,
    /// The first of `chunks`, while it is not finished.
    first: Option<Chunk>,
    _reading: AbortOnDropHandle<()>,
}

/// Some events that are being scored.
struct Chunk {
    next: Offsets,
    carried: Vec<Carried>,
    outcomes: AbortOnDropHandle<Result<Option<Vec<Outcome>>>>,
}

struct Carried {
    headers: Vec<(String, Option<Vec<u8>>)>,
    size: usize,
}

impl<S> std::fmt::Debug for ScoredChunks<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScoredChunks").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl<S: Scorer> ScoredChunks<S> {
    /// Scores the events of `reader`. Scoring ends with `shutdown`.
    pub fn new(
        kafka: &Kafka,
        reader: TopicReader,
        scorer: Arc<S>,
        config: ScoreConfig,
        shutdown: CancellationToken,
    ) -> Self {
        let (scorer, config) = (Arc::new(Watched::new(scorer)), Arc::new(config));
        Self { kafka: kafka.clone(), reader, scorer, config, shutdown, running: None }
    }

    /// The reader of the events.
    pub fn reader(&self) -> &TopicReader {
        &self.reader
    }

    /// The next outcomes from `from` on; waits at most `limit.wait` for the first. Reading on where the last read ended
    /// costs nothing; from elsewhere, what is in flight is thrown away. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`TopicReader::read`]; the scorer's error if it stays ill.
    pub async fn read(&mut self, from: &Offsets, limit: Limit) -> Result<ScoredBatch> {
        if self.running.as_ref().is_none_or(|running| running.at != *from) {
            self.running = Some(self.start(from.clone()));
        }
        let Some(running) = &mut self.running else { return Ok(ScoredBatch::default()) };
        let taken = running.take(limit).await;
        if taken.is_err() {
            self.running = None;
        }
        taken
    }

    fn start(&self, from: Offsets) -> Running {
        let (send, chunks) = mpsc::channel(self.config.chunks_in_flight.max(1));
        let reading = Reading {
            kafka: self.kafka.clone(),
            reader: self.reader.clone(),
            scorer: Arc::clone(&self.scorer),
            config: Arc::clone(&self.config),
            shutdown: self.shutdown.clone(),
        };
        let begun = from.clone();
        let reading = AbortOnDropHandle::new(tokio::spawn(reading.run(begun, send)));
        Running { at: from, chunks, first: None, _reading: reading }
    }
}

impl Running {
    async fn take(&mut self, limit: Limit) -> Result<ScoredBatch> {
        let until = tokio::time::Instant::now() + limit.wait;
        let mut batch = ScoredBatch::default();
        let mut bytes = 0;
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
            let panicked = |e| Error::new(ErrorKind::Internal, "scoring a chunk panicked").source(e);
            let Some(outcomes) = outcomes.map_err(panicked)?? else { break };
            bytes += chunk.carried.iter().map(|carried| carried.size).sum::<usize>();
            batch.outcomes.extend(outcomes.into_iter().zip(chunk.carried).map(|(outcome, carried)| KafkaOutcome {
                outcome,
                headers: carried.headers,
                size: carried.size,
            }));
            batch.next.extend(chunk.next);
        }
        self.at.extend(&batch.next);
        Ok(batch)
    }
}

/// The task that reads ahead.
struct Reading<S> {
    kafka: Kafka,
    reader: TopicReader,
    scorer: Arc<Watched<S>>,
    config: Arc<ScoreConfig>,
    shutdown: CancellationToken,
}

impl<S: Scorer> Reading<S> {
    async fn run(self, mut at: Offsets, chunks: mpsc::Sender<Result<Chunk>>) {
        let limit = Limit { records: self.config.chunk_events, bytes: self.config.chunk_bytes, wait: IDLE };
        // Room first: while there is none, nothing is read.
        while let Ok(room) = chunks.reserve().await {
            let read = tokio::select! {
                () = self.shutdown.cancelled() => return,
                read = self.reader.read(at.clone(), limit) => read,
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
            room.send(chunk);
            if failed {
                return;
            }
        }
    }

    fn chunk(&self, records: Vec<Record>, next: Offsets) -> Chunk {
        let mut events: Vec<(i64, Event)> = Vec::with_capacity(records.len());
        let mut carried = Vec::with_capacity(records.len());
        for record in records {
            let partition = self.kafka.partition(self.reader.topic(), record.partition);
            let (size, offset) = (record.size(), record.offset);
            let (event, mut headers) = record.into_parts(&partition);
            if header_bytes(&headers) > MAX_HEADER_BYTES {
                tracing::warn!(offset, "headers are too large to go on with the score, and are left out");
                headers.retain(|(name, _)| name == REPLAY_OF);
            }
            carried.push(Carried { size, headers });
            events.push((offset, event));
        }
        let (scorer, config, shutdown) = (Arc::clone(&self.scorer), Arc::clone(&self.config), self.shutdown.clone());
        let work = async move { score_chunk(&*scorer, &config, events, &shutdown).await };
        Chunk { next, carried, outcomes: AbortOnDropHandle::new(tokio::spawn(work)) }
    }
}
