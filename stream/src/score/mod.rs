//! The scoring stage: from the input log to the scored log.
//!
//! The guarantee: each event becomes exactly one outcome, in order, at its own offset. The stage starts at the scored
//! log's end, so what is durable there is never scored again, and what is not durable is. Nothing is dead-lettered
//! because the model is full, down or ill, or the disk is full: the stage waits. Only a malformed event (stage `parse`)
//! and an event that is itself at fault (stage `score`) become dead letters.
//!
//! Events are scored in chunks, several under way at once, while finished ones are appended: the encoder never waits for
//! a sync, nor a sync for the encoder, until the bound on chunks in flight is reached.

mod attempts;
#[cfg(test)]
mod fake;
mod judge;
mod outcome;
mod record;
mod scorer;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use undertone_error::{Error, ErrorKind, Result, failpoint};
use undertone_proto::v1::{self, Outcome};
use undertone_proto::{Event, EventTime, PostReader};

use self::attempts::Attempts;
pub(crate) use self::attempts::{Plan, Record, plan};
use self::judge::{Verdict, judge};
use self::outcome::{Prepared, Reading};
pub use self::record::{RecordLimit, fit};
pub use self::scorer::{Scorer, Scores, Watched};
use crate::backoff::persist;
use crate::durable::blocking;
use crate::input::InputLog;
use crate::scored::{ScoredLog, origin};
use crate::telemetry;

/// Stands for a text that kills the process, where the fail point `score.deadly-text` is armed.
const DEADLY: &str = "undertone-test-deadly";

/// What the stage takes for posts, and how much it has under way.
#[derive(Clone, Debug)]
pub struct ScoreConfig {
    /// Where events have the fields of a post.
    pub posts: PostReader,
    /// The most events in one chunk.
    pub chunk_events: usize,
    /// About the most bytes of payload in one chunk.
    pub chunk_bytes: usize,
    /// The most chunks that are scored, or wait to be appended, at once.
    pub chunks_in_flight: usize,
    /// The most outcomes in one append.
    pub append_events: usize,
    /// Dead letters leave out payloads with more bytes; Bronze has them.
    pub max_dead_payload_bytes: usize,
    /// How large an outcome may be, if it goes where that is limited.
    pub record_limit: Option<RecordLimit>,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        Self {
            posts: PostReader::default(),
            chunk_events: 256,
            chunk_bytes: 1 << 20,
            chunks_in_flight: 16,
            append_events: 4096,
            max_dead_payload_bytes: 1 << 20,
            record_limit: None,
        }
    }
}

impl ScoreConfig {
    /// How many events may be under way at once.
    pub(crate) fn in_flight(&self) -> i64 {
        i64::try_from(self.chunk_events.saturating_mul(self.chunks_in_flight + 2)).unwrap_or(i64::MAX)
    }

    fn fit(&self, outcome: Outcome, event: &Event) -> Result<Outcome> {
        match self.record_limit {
            Some(limit) => fit(outcome, event, limit),
            None => Ok(outcome),
        }
    }
}

/// Scores one input log into one scored log. At most one stage may run on them.
#[derive(Debug)]
pub struct ScoreStage<S> {
    input: InputLog,
    scored: ScoredLog,
    scorer: Arc<Watched<S>>,
    config: Arc<ScoreConfig>,
    attempts: Option<Attempts>,
}

/// Outcomes of one chunk; `None` if the shutdown came first.
type Chunk = AbortOnDropHandle<Result<Option<Vec<Outcome>>>>;

impl<S: Scorer> ScoreStage<S> {
    /// A stage that is not yet running.
    pub fn new(input: InputLog, scored: ScoredLog, scorer: Arc<S>, config: ScoreConfig) -> Self {
        Self { input, scored, scorer: Arc::new(Watched::new(scorer)), config: Arc::new(config), attempts: None }
    }

    /// Counts starts in the file at `path`, so that a post that kills the process, or the last device of it, while it is
    /// scored is found and given up. Only deaths during scoring lead to that, never those while outcomes are written.
    #[must_use]
    pub fn count_attempts(mut self, path: &Path) -> Self {
        self.attempts = Some(Attempts::new(path));
        self
    }

    /// Scores until `shutdown`; then appends what is scored already, and returns. Runs for as long as the input log may
    /// grow: watch [`ScoredLog::durable`] to know when it has caught up.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for damaged logs, the scorer's error if it stays ill, and errors of the file system that do
    /// not pass by themselves. What was appended before stays.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let result = async {
            self.search(&shutdown).await?;
            let (send, chunks) = mpsc::channel(self.config.chunks_in_flight.max(1));
            tokio::try_join!(self.read(send, &shutdown), self.append(chunks, &shutdown)).map(|_| ())
        };
        let result = result.await;
        if !self.scorer.may_be_killed()
            && let Some(attempts) = self.attempts.clone()
            && let Err(error) = blocking(move || attempts.end()).await
        {
            tracing::warn!(%error, "could not forget the attempts at scoring: this end may count as a crash");
        }
        result
    }

    /// Scores single events, or a few, for as long as the attempts say so.
    async fn search(&self, shutdown: &CancellationToken) -> Result<()> {
        let Some(attempts) = &self.attempts else { return Ok(()) };
        let in_flight = self.config.in_flight();
        let mut reader = self.input.reader(self.scored.end());
        loop {
            let Some((plan, record)) = decide(attempts, reader.next_offset(), in_flight, shutdown).await? else {
                return Ok(());
            };
            // The events first: a process that dies while there is nothing to score does not count.
            let most = usize::try_from(plan.most(in_flight)).unwrap_or(1);
            let events = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                events = reader.read(most, self.config.chunk_bytes) => events?,
            };
            let Some((offset, event)) = events.first() else { continue };
            if !remember(attempts, record, shutdown).await? {
                return Ok(());
            }
            let outcomes = match plan {
                Plan::Together => return Ok(()),
                Plan::Group | Plan::Alone => {
                    tracing::warn!(offset, posts = events.len(), "looking for the post that kills the process");
                    let outcomes = self.chunk(events, shutdown).await.map_err(panicked)??;
                    // Before the append: a crash in storage is not the post's.
                    if plan == Plan::Alone && outcomes.is_some() && !acquit(attempts, shutdown).await? {
                        return Ok(());
                    }
                    outcomes
                }
                Plan::GiveUp => {
                    tracing::error!(offset, "gave up a post: process or device died each time it was scored alone");
                    Some(vec![give_up(event, &self.config)?])
                }
            };
            let Some(outcomes) = outcomes else { return Ok(()) };
            if !self.commit(&outcomes, shutdown).await? {
                return Ok(());
            }
        }
    }

    async fn read(&self, chunks: mpsc::Sender<Chunk>, shutdown: &CancellationToken) -> Result<()> {
        let mut reader = self.input.reader(self.scored.end());
        loop {
            // Room first: while there is none, the next chunk grows.
            let read = async {
                let Ok(room) = chunks.reserve().await else { return Ok(None) };
                let events = reader.read(self.config.chunk_events, self.config.chunk_bytes).await?;
                Ok(Some((room, events)))
            };
            let read = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                read = read => read?,
            };
            let Some((room, events)) = read else { return Ok(()) };
            room.send(self.chunk(events, shutdown));
        }
    }

    fn chunk(&self, events: Vec<(i64, Event)>, shutdown: &CancellationToken) -> Chunk {
        let (scorer, config) = (Arc::clone(&self.scorer), Arc::clone(&self.config));
        let shutdown = shutdown.clone();
        let work = async move { score_chunk(&*scorer, &config, events, &shutdown).await };
        AbortOnDropHandle::new(tokio::spawn(work))
    }

    /// Appends finished chunks in order; those that are ready together share a sync.
    async fn append(&self, mut chunks: mpsc::Receiver<Chunk>, shutdown: &CancellationToken) -> Result<()> {
        let mut next: Option<Chunk> = None;
        loop {
            let chunk = match next.take() {
                Some(chunk) => chunk,
                None => match chunks.recv().await {
                    Some(chunk) => chunk,
                    None => return Ok(()),
                },
            };
            let Some(mut outcomes) = chunk.await.map_err(panicked)?? else { return Ok(()) };
            let mut stopped = false;
            while !stopped && outcomes.len() < self.config.append_events {
                match chunks.try_recv() {
                    Ok(chunk) if chunk.is_finished() => match chunk.await.map_err(panicked)?? {
                        Some(more) => outcomes.extend(more),
                        None => stopped = true,
                    },
                    Ok(chunk) => {
                        next = Some(chunk);
                        break;
                    }
                    Err(_) => break,
                }
            }
            if !self.commit(&outcomes, shutdown).await? || stopped {
                return Ok(());
            }
        }
    }

    /// Makes outcomes durable; answers false if the shutdown came first.
    async fn commit(&self, outcomes: &[Outcome], shutdown: &CancellationToken) -> Result<bool> {
        let first = self.scored.end();
        let append = || self.scored.append(outcomes);
        if persist("appending to the scored log", shutdown, append).await?.is_none() {
            return Ok(false);
        }
        let is_replay = |(at, outcome)| (outcome, origin(outcome).is_some_and(|origin| origin.offset != at));
        observe((first..).zip(outcomes).map(is_replay));
        Ok(true)
    }
}

/// Decides how to go on at `start`, and what is to be remembered before that; `None` if the shutdown came first.
async fn decide(
    attempts: &Attempts,
    start: i64,
    in_flight: i64,
    shutdown: &CancellationToken,
) -> Result<Option<(Plan, Record)>> {
    let decide = || {
        let attempts = attempts.clone();
        blocking(move || attempts.decide(start, in_flight))
    };
    persist("reading the attempts at scoring", shutdown, decide).await
}

/// Makes a decision durable; false if the shutdown came first. It counts a start, once, however often the writing is tried.
async fn remember(attempts: &Attempts, record: Record, shutdown: &CancellationToken) -> Result<bool> {
    let remember = || {
        let attempts = attempts.clone();
        blocking(move || attempts.remember(&record))
    };
    Ok(persist("counting an attempt at scoring", shutdown, remember).await?.is_some())
}

/// Takes the count from a post that was scored; false if the shutdown came first.
async fn acquit(attempts: &Attempts, shutdown: &CancellationToken) -> Result<bool> {
    let acquit = || {
        let attempts = attempts.clone();
        blocking(move || attempts.acquit())
    };
    Ok(persist("clearing an attempt at scoring", shutdown, acquit).await?.is_some())
}

/// The outcome of a post that killed the process each time it was scored alone.
pub(crate) fn give_up(event: &Event, config: &ScoreConfig) -> Result<Outcome> {
    let error = Error::new(ErrorKind::Internal, "process or device died each time this post was scored alone");
    let limit = config.max_dead_payload_bytes;
    config.fit(outcome::dead(event, "score", &error, attempts::CRASHES, limit, now()), event)
}

/// Outcomes of some events, in order; `None` if the shutdown came first.
pub async fn score_chunk(
    scorer: &Watched<impl Scorer>,
    config: &ScoreConfig,
    events: Vec<(i64, Event)>,
    shutdown: &CancellationToken,
) -> Result<Option<Vec<Outcome>>> {
    // Parsing and looking for entities would hold up the runtime's own threads.
    let (posts, at_work) = (config.posts.clone(), scorer.at_work());
    let prepare = move || {
        let _at_work = at_work;
        Ok(events.into_iter().map(|(_, event)| Prepared::new(event, &posts)).collect::<Vec<_>>())
    };
    let prepared = blocking(prepare).await?;
    let _at_work = scorer.at_work();
    let texts: Vec<_> = prepared.iter().filter_map(Prepared::text).collect();
    failpoint::hit_if("score.deadly-text", || texts.iter().any(|text| text.contains(DEADLY)));
    let Some(verdicts) = judge(scorer, &texts, shutdown).await? else { return Ok(None) };

    let now = now();
    let mut verdicts = verdicts.into_iter();
    let mut outcomes = Vec::with_capacity(prepared.len());
    for Prepared { event, reading } in prepared {
        let limit = config.max_dead_payload_bytes;
        let outcome = match reading {
            Reading::Malformed(error) => outcome::dead(&event, "parse", &error, 1, limit, now),
            Reading::Tombstone(post) => outcome::tombstone(&event, *post, now),
            Reading::Text(post, entities) => match verdicts.next() {
                Some(Verdict::Scored(scores)) => outcome::scored(&event, *post, entities, *scores, now),
                Some(Verdict::Poison { error, attempts }) => {
                    outcome::dead(&event, "score", &error, attempts, limit, now)
                }
                None => return Err(Error::new(ErrorKind::Internal, "a text has no verdict")),
            },
        };
        outcomes.push(config.fit(outcome, &event)?);
    }
    Ok(Some(outcomes))
}

/// Counts outcomes that became durable just now, and for each whether it is that of a replay, whose event was long ago.
pub(crate) fn observe<'a>(outcomes: impl IntoIterator<Item = (&'a Outcome, bool)>) {
    let (now, event_to_scored) = (now(), metrics::histogram!(telemetry::EVENT_TO_SCORED_SECONDS));
    let mut scored = 0;
    for (outcome, replayed) in outcomes {
        let ingested_at_us = match &outcome.kind {
            Some(v1::outcome::Kind::Scored(post)) => {
                scored += 1;
                post.ingested_at_us
            }
            Some(v1::outcome::Kind::Dead(letter)) => {
                let reason = crate::dead::class(&letter.reason);
                metrics::counter!(telemetry::DEAD, "stage" => letter.stage.clone(), "reason" => reason).increment(1);
                letter.ingested_at_us
            }
            None => continue,
        };
        if !replayed {
            event_to_scored.record((now - ingested_at_us) as f64 / 1e6);
        }
    }
    metrics::counter!(telemetry::SCORED).increment(scored);
}

fn now() -> EventTime {
    Timestamp::now().as_microsecond()
}

fn panicked(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "scoring a chunk panicked").source(error)
}
