//! The stream on Kafka: the roles of this process, each fed by its own consumer group.
//!
//! Roles share nothing but the topics: any of them can run in a process of its own, several times. Each table's position
//! is in the table, scoring's is in its group.

mod feed;
mod lags;
mod latest;
mod live;
mod score;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use undertone_error::Result;
use undertone_gateway::{Live, Part};
use undertone_inference::Engine;
use undertone_sinks::iceberg::{IcebergStore, Reader};
use undertone_sinks::pump::{Policy, SinkStatus};
use undertone_stream::data::DataFolder;
use undertone_stream::kafka::{
    Kafka, Membership, ScoreWriter, ScoredChunks, ScoringEnd, TopicReader, Topics, end_earlier, pin_start,
};
use undertone_stream::score::ScoreConfig;

use self::feed::{AsEvent, AsScored, Feed, Ours};
use self::score::{ScoredTopics, Scores};
use super::health::sink_part;
use super::model::{self, Model};
use super::pumps::Pumps;
use super::stores;
use super::stream::Ended;
use super::tables::{gold, table_policy};
use crate::config::{Config, Role};

/// How often `--once` looks whether everything is done.
const LOOK: Duration = Duration::from_millis(100);

/// The running roles.
pub(super) struct KafkaStream {
    /// Holds the lock of the folder that an embedded catalog is in.
    _data: Option<DataFolder>,
    /// Scoring, which the tables wait for at the end.
    scoring: Pumps,
    tables: Pumps,
    statuses: Arc<[SinkStatus]>,
    /// Of the tables, if it writes any.
    reader: Option<Reader>,
    scoring_stop: CancellationToken,
    scoring_end: Option<ScoringEnd<Model>>,
    /// What keeps the page up to date.
    _live: Vec<AbortOnDropHandle<()>>,
}

/// What `/readyz` and the page ask.
#[derive(Clone)]
pub(super) struct KafkaHealth {
    statuses: Arc<[SinkStatus]>,
}

impl KafkaStream {
    /// Joins the groups of all roles that this process plays and starts their pumps.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if a topic is missing; those of the cluster and of the catalog.
    pub(super) async fn start(
        config: &Config,
        kafka: Kafka,
        data: Option<DataFolder>,
        engine: &Engine,
        live: &Live,
    ) -> Result<Self> {
        let plays = |role| config.roles.contains(&role);
        let scores = plays(Role::Score);
        let topics = Topics::find(&kafka).await?;
        if scores {
            end_earlier(&kafka, "score", &topics).await?;
            pin_start(&kafka, "score", &topics.raw, &topics.scored, &topics.dead).await?;
        }

        let (mut scoring, mut tables, mut statuses) = (Pumps::default(), Pumps::default(), Vec::new());
        let scoring_stop = CancellationToken::new();
        let mut scoring_end = None;
        if scores {
            let (status, end) = start_scoring(config, &kafka, &topics, engine, &mut scoring, &scoring_stop)?;
            statuses.push(status);
            scoring_end = Some(end);
        }
        let store = match &config.tables {
            Some(tables) => Some(IcebergStore::open(tables).await?),
            None => None,
        };
        if let Some(store) = &store {
            let policy = Policy { pin_starts: true, ..table_policy(&config.commit) };
            let exact = tables.shutdown.finish.clone();
            if plays(Role::Bronze) {
                let ours = Ours::new(&kafka, &topics.raw, Membership::join(&kafka, "bronze", &topics.raw.name)?);
                let reader = TopicReader::new(&kafka, "bronze", &topics.raw)?;
                statuses.push(tables.spawn(
                    store.bronze(),
                    Feed::new(ours, reader, exact.clone(), AsEvent),
                    policy.clone(),
                ));
            }
            let mut scored = Vec::new();
            if plays(Role::Silver) {
                scored.push(("silver", vec![store.silver()]));
            }
            if plays(Role::Gold) {
                scored.push(("gold", gold(store).into()));
            }
            for (role, sinks) in scored {
                let membership = Membership::join(&kafka, role, &topics.scored.name)?;
                for sink in sinks {
                    let ours = Ours::new(&kafka, &topics.scored, membership.clone());
                    let reader = TopicReader::new(&kafka, role, &topics.scored)?;
                    let feed = Feed::new(ours, reader, exact.clone(), AsScored);
                    statuses.push(tables.spawn(sink, feed, policy.clone()));
                }
            }
        }
        for (role, store) in stores::open(&config.stores, &engine.model())? {
            let letter_bytes = config.kafka.as_ref().map_or(0, |settings| settings.topics.dead_payload_bytes());
            let limits = latest::Limits { rejected: config.stores.max_rejected, letter_bytes };
            statuses.push(latest::start(&kafka, &topics, role, store, limits, &mut tables)?);
        }
        let statuses: Arc<[SinkStatus]> = statuses.into();
        let mut shown = Vec::new();
        if config.serves() {
            let follower = live::Follower::new(&kafka, &topics, live.clone()).await?;
            shown.push(AbortOnDropHandle::new(tokio::spawn(follower.follow())));
            let lags = lags::Lags::new(&kafka, &topics, live.clone(), Arc::clone(&statuses))?;
            shown.push(AbortOnDropHandle::new(tokio::spawn(lags.watch())));
        }
        let reader = store.as_ref().map(IcebergStore::reader);
        Ok(Self { _data: data, scoring, tables, statuses, reader, scoring_stop, scoring_end, _live: shown })
    }

    /// Reads the tables that it writes.
    pub(super) fn reader(&self) -> Option<Reader> {
        self.reader.clone()
    }

    /// How the stream is doing.
    pub(super) fn health(&self) -> KafkaHealth {
        KafkaHealth { statuses: Arc::clone(&self.statuses) }
    }

    /// Runs until `drain` is cancelled; with `once`, until everything that the topics hold is scored and stored.
    ///
    /// # Errors
    /// The first failure that only a person can mend, once the others have ended too.
    pub(super) async fn run(self, once: bool, drain: &CancellationToken) -> Result<Ended> {
        if once {
            // In order: what scoring writes is what the tables read.
            let scored = self.scoring.finish(drain).await;
            self.scoring_stop.cancel();
            forget(self.scoring_end).await;
            let stored = self.tables.finish(drain).await;
            scored.and(stored)?;
            return Ok(if drain.is_cancelled() { Ended::Stopped } else { Ended::UsedUp });
        }
        let health = self.health();
        loop {
            tokio::select! {
                () = drain.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
            }
            if health.all_stopped() {
                break;
            }
        }
        // Both at once: each commits what it has read, and leaves the rest to whoever goes on.
        self.scoring.shutdown.stop.cancel();
        self.tables.shutdown.stop.cancel();
        self.scoring_stop.cancel();
        let scoring = async {
            let ended = self.scoring.finish(drain).await;
            forget(self.scoring_end).await;
            ended
        };
        let (scored, stored) = tokio::join!(scoring, self.tables.finish(drain));
        scored.and(stored).map(|()| Ended::Stopped)
    }
}

impl KafkaHealth {
    /// What `/readyz` says about the stream.
    pub(super) fn parts(&self) -> Vec<Part> {
        self.statuses.iter().map(|status| sink_part(&status.snapshot())).collect()
    }

    /// Whether there is nothing left that runs.
    fn all_stopped(&self) -> bool {
        !self.statuses.is_empty() && self.statuses.iter().all(|status| status.snapshot().stopped.is_some())
    }
}

fn start_scoring(
    config: &Config,
    kafka: &Kafka,
    topics: &Topics,
    engine: &Engine,
    pumps: &mut Pumps,
    stop: &CancellationToken,
) -> Result<(SinkStatus, ScoringEnd<Model>)> {
    let membership = Membership::join(kafka, "score", &topics.raw.name)?;
    let reader = TopicReader::new(kafka, "score", &topics.raw)?;
    // As in the embedded stream; how much is under way grows with the speed of the device.
    let mut scoring =
        ScoreConfig { posts: config.posts.clone(), chunk_events: 64, chunks_in_flight: 4, ..ScoreConfig::default() };
    if let Some(settings) = &config.kafka {
        scoring.max_dead_payload_bytes = settings.topics.dead_payload_bytes();
        scoring.record_limit = Some(settings.topics.record_limit(topics.scored_json.is_some()));
    }
    let writer = ScoreWriter::new(kafka, membership.clone(), topics.clone());
    let chunks = ScoredChunks::new(kafka, reader, writer.clone(), model::scorer(engine), scoring, stop.clone());
    let end = chunks.ending();
    let source = Scores::new(Ours::new(kafka, &topics.raw, membership.clone()), chunks, pumps.shutdown.finish.clone());
    let sink = ScoredTopics::new(Ours::new(kafka, &topics.raw, membership), writer);
    // A transaction as soon as there is something to write: it is what posts wait for.
    // Small enough to be written well within the time that the broker gives one, also over a slow line.
    let policy = Policy { max_age: Duration::ZERO, max_events: 2048, max_bytes: 4 << 20, ..Policy::default() };
    Ok((pumps.spawn(sink, source, policy), end))
}

async fn forget(end: Option<ScoringEnd<Model>>) {
    if let Some(end) = end {
        end.forget().await;
    }
}
