//! The embedded stream: source, scoring stage, tables and dead letters over the two logs of one data folder.
//!
//! It ends by itself only when the source is used up and every event of it is in the tables or in the dead letters.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};
use undertone_gateway::live::StageLag;
use undertone_gateway::{Live, Part};
use undertone_inference::Engine;
use undertone_proto::PostReader;
use undertone_sinks::Positions;
use undertone_sinks::iceberg::{IcebergStore, Reader, StoreConfig};
use undertone_sinks::pump::report_lag;
use undertone_stream::data::DataFolder;
use undertone_stream::dead::DeadLetterFile;
use undertone_stream::input::InputLog;
use undertone_stream::score::{ScoreConfig, ScoreStage};
use undertone_stream::scored::ScoredLog;

use super::feed::{Events, ScoredPosts};
use super::ingest::{Clerk, into_log};
use super::live::{Feed, Seeded};
use super::source::Intake;
use super::tables::{Statuses, Tables};
use crate::config::{Config, Source};

/// How often lag is reported and logs are trimmed.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How the stream ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The source is used up and everything is committed.
    UsedUp,
    /// It was told to stop; the rest waits in the logs.
    Stopped,
}

/// The logs of a data folder and who follows them. Cheap to clone.
#[derive(Clone)]
struct Logs {
    input: InputLog,
    scored: ScoredLog,
    dead: DeadLetterFile,
}

/// A stream whose tables are being written, and whose source is not yet read.
pub(super) struct Stream {
    /// Holds the folder's lock.
    data: DataFolder,
    logs: Logs,
    posts: PostReader,
    engine: Engine,
    live: Live,
    /// Where the live view goes on.
    seeded: Seeded,
    tables: Tables,
    reader: Reader,
    /// Where callers of the gateway put posts, and who appends them.
    intake: Arc<dyn undertone_gateway::Intake>,
    clerk: Clerk,
}

/// What `/readyz` and the page ask.
#[derive(Clone)]
pub(super) struct Health {
    logs: Logs,
    statuses: Statuses,
}

/// What can end the work before the tables are finished.
enum Task {
    Source,
    Scoring,
    DeadLetters,
}

impl Stream {
    /// Opens logs and tables and starts the pumps.
    ///
    /// # Errors
    /// Those of the logs and of the catalog.
    pub(super) async fn start(config: &Config, data: DataFolder, engine: &Engine, live: &Live) -> Result<Self> {
        let opened = tokio::task::spawn_blocking(move || open_logs(&data).map(|logs| (data, logs))).await;
        let (data, logs) =
            opened.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, "opening the logs panicked").source(e)))?;
        let store =
            IcebergStore::open(&config.tables.clone().unwrap_or_else(|| StoreConfig::embedded(data.root()))).await?;

        let feed = Feed { live: live.clone(), input: logs.input.clone(), scored: logs.scored.clone() };
        let seeded = feed.seed(&store, &logs.dead).await?;
        let partition = logs.input.partition().clone();
        let tables = Tables::start(
            &store,
            &config.commit,
            || Events::new(logs.input.clone()),
            || ScoredPosts::new(logs.scored.clone(), partition.clone()),
        );
        let posts = config.posts.clone();
        let (intake, clerk) = into_log(logs.input.clone(), logs.scored.clone());
        let (engine, live) = (engine.clone(), live.clone());
        let reader = store.reader();
        let stream = Self { data, logs, posts, engine, live: live.clone(), seeded, tables, reader, intake, clerk };
        live.set_lag(stream.health().lags().await?);
        Ok(stream)
    }

    /// Where posts of callers are put.
    pub(super) fn intake(&self) -> Arc<dyn undertone_gateway::Intake> {
        self.intake.clone()
    }

    /// Reads the tables.
    pub(super) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// How the stream is doing.
    pub(super) fn health(&self) -> Health {
        Health { logs: self.logs.clone(), statuses: self.tables.statuses.clone() }
    }

    /// Runs until the source is used up and everything is committed, or `drain` is cancelled.
    ///
    /// # Errors
    /// The first failure that only a person can mend. What was acknowledged is safe.
    pub(super) async fn run(self, source: &Source, drain: &CancellationToken) -> Result<Ended> {
        let halt = CancellationToken::new();
        let mut background = JoinSet::new();
        let feed = Feed { live: self.live.clone(), input: self.logs.input.clone(), scored: self.logs.scored.clone() };
        let followed = feed.follow(self.seeded, halt.clone());
        background.spawn(async move {
            // Only the page suffers; the promise of the stream does not hang on it.
            followed.await.inspect_err(|error| tracing::error!(%error, "live view stopped"))
        });
        background.spawn(housekeeping(self.health(), self.live.clone(), halt.clone()));

        let Self { data, logs, posts, engine, tables, clerk, .. } = self;
        let failure = Work { data, logs, posts, engine }.score_all(source, clerk, drain).await.err();
        let hurry = if failure.is_some() { cancelled() } else { drain.clone() };
        let committed = tables.pumps.finish(&hurry).await;
        halt.cancel();
        while background.join_next().await.is_some() {}

        match failure {
            Some(error) => Err(error),
            None => committed.map(|()| if drain.is_cancelled() { Ended::Stopped } else { Ended::UsedUp }),
        }
    }
}

/// What scoring works with.
struct Work {
    data: DataFolder,
    logs: Logs,
    posts: PostReader,
    engine: Engine,
}

impl Work {
    /// Takes the source in, and what callers send meanwhile, scores it and keeps its dead letters, until all of that is
    /// done or `drain` is cancelled.
    async fn score_all(&self, source: &Source, clerk: Clerk, drain: &CancellationToken) -> Result<()> {
        // Each stage ends when the one before it has ended and it has caught up; a drain or a failure ends all.
        let stop = drain.child_token();
        let (scored_all, lettered_all) = (stop.child_token(), stop.child_token());
        let Logs { input, scored, dead } = self.logs.clone();
        let mut tasks: JoinSet<Result<Task>> = JoinSet::new();

        let intake = Intake { input: input.clone(), scored: scored.clone(), stop: stop.clone() };
        let source = source.clone();
        let closing = stop.child_token();
        let callers = tokio::spawn(clerk.run(closing.clone()));
        tasks.spawn(async move {
            let taken = intake.take_in(&source).await;
            // Before the log's end is looked at: what was answered with its place is scored too.
            closing.cancel();
            let _ = callers.await;
            taken.map(|()| Task::Source)
        });
        // About a second of work on two cores is under way at any time: more would not score faster, but callers of
        // the gateway with many texts, who share the bulk lane, would wait behind it.
        let posts = self.posts.clone();
        let config = ScoreConfig { posts, chunk_events: 64, chunks_in_flight: 4, ..ScoreConfig::default() };
        let stage = ScoreStage::new(input.clone(), scored.clone(), Arc::new(self.engine.clone()), config);
        let stage = stage.count_attempts(&self.data.attempts());
        let until = scored_all.clone();
        tasks.spawn(async move { stage.run(until).await.map(|()| Task::Scoring) });
        let (letters, followed, until) = (dead.clone(), scored.clone(), lettered_all.clone());
        tasks.spawn(async move { letters.run(&followed, until).await.map(|()| Task::DeadLetters) });

        let mut failure = None;
        while let Some(ended) = tasks.join_next().await {
            match ended.unwrap_or_else(|panic| Err(Error::new(ErrorKind::Internal, "task panicked").source(panic))) {
                Ok(Task::Source) => cancel_at(scored.durable(), input.end(), scored_all.clone()),
                Ok(Task::Scoring) => cancel_at(dead.durable(), scored.end(), lettered_all.clone()),
                Ok(Task::DeadLetters) => {}
                Err(error) => {
                    stop.cancel();
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Opens the logs and reads what must be read of them, to see whether a stream could start on this folder.
///
/// # Errors
/// Those that [`Stream::start`] would give.
pub(crate) fn check_logs(data: &DataFolder) -> Result<()> {
    open_logs(data).map(|_| ())
}

fn open_logs(data: &DataFolder) -> Result<Logs> {
    let input = InputLog::open(&data.input(), &data.id())?;
    let scored = ScoredLog::open(&data.scored(), &input)?;
    let dead = DeadLetterFile::open(&data.dead_letters(), input.partition())?;
    Ok(Logs { input, scored, dead })
}

fn cancelled() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

/// Cancels `token` once `position` has reached `end`.
fn cancel_at(mut position: watch::Receiver<i64>, end: i64, token: CancellationToken) {
    tokio::spawn(async move {
        tokio::select! {
            () = token.cancelled() => {}
            _ = position.wait_for(|position| *position >= end) => token.cancel(),
        }
    });
}

/// Reports lag and trims the logs below what everybody has, until `halt`.
async fn housekeeping(health: Health, live: Live, halt: CancellationToken) -> Result<()> {
    while tokio::time::timeout(HOUSEKEEPING, halt.cancelled()).await.is_err() {
        match health.lags().await {
            Ok(lags) => live.set_lag(lags),
            Err(error) => tracing::warn!(%error, "cannot tell the lag"),
        }
        if let Err(error) = health.trim().await {
            tracing::warn!(%error, "cannot trim logs; they grow until this is mended");
        }
    }
    // The process may go on serving: what the page shows last must be what is so.
    live.set_lag(health.lags().await?);
    Ok(())
}

impl Health {
    /// What `/readyz` says about the stream.
    pub(super) fn parts(&self) -> Vec<Part> {
        self.statuses.parts()
    }

    /// What the page says about how far everything is behind.
    ///
    /// # Errors
    /// Those of the input log.
    async fn lags(&self) -> Result<Vec<StageLag>> {
        let number = self.logs.input.partition().partition;
        let behind = |end: i64, position: i64| u64::try_from(end - position).unwrap_or(0);
        let Logs { input, scored, dead } = &self.logs;
        let position = scored.end();
        let oldest = input.reader(position).read_available(1, 0).await?;
        let age = |us: i64| jiff::Timestamp::now().as_microsecond().saturating_sub(us).max(0) as f64 / 1e6;
        let seconds = oldest.first().filter(|(offset, event)| event.origin.offset == *offset);
        let seconds = seconds.map_or(0.0, |(_, event)| age(event.ingested_at_us));
        let stage = |stage: &str, posts, seconds: Option<f64>| {
            report_lag(stage, number, posts, seconds.unwrap_or(0.0));
            StageLag { stage: stage.to_owned(), posts, seconds, waiting: None, scope: None }
        };

        let mut lags = vec![stage("score", behind(input.end(), position), Some(seconds))];
        let ends = |end| Positions::from([(input.partition().clone(), end)]);
        lags.extend(self.statuses.lags(&ends(input.end()), &ends(scored.end())));
        lags.push(stage("dead-letters", behind(scored.end(), dead.position()), None));
        Ok(lags)
    }

    /// Lets the logs forget what every follower has made durable.
    async fn trim(&self) -> Result<()> {
        let Logs { input, scored, dead } = &self.logs;
        input.trim_below(self.statuses.bronze_floor().min(scored.end())).await?;
        scored.trim_below(self.statuses.scored_floor().min(dead.position())).await
    }
}
