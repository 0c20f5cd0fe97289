//! One pump for each table: each has its own durable position, so a table that cannot be written stops itself alone.

use std::sync::Arc;

use undertone_gateway::{Part, live::StageLag};
use undertone_proto::Event;
use undertone_proto::v1::ScoredPost;
use undertone_sinks::Positions;
use undertone_sinks::iceberg::{Grain, IcebergSink, IcebergStore};
use undertone_sinks::pump::{EpochSource, Policy, SinkStatus};

use super::health::sink_part;
use super::pumps::Pumps;
use crate::config::CommitConfig;

/// The running pumps of all tables.
pub(super) struct Tables {
    pub(super) pumps: Pumps,
    pub(super) statuses: Statuses,
}

/// How every table is doing. Cheap to clone.
#[derive(Clone)]
pub(super) struct Statuses {
    /// Reads the input log.
    pub(super) bronze: SinkStatus,
    /// Read the scored log.
    pub(super) scored: Arc<[SinkStatus]>,
}

impl Tables {
    /// Starts a pump for every table. `events` and `scored` make a source each time they are called.
    pub(super) fn start<E, S>(
        store: &IcebergStore,
        commit: &CommitConfig,
        events: impl Fn() -> E,
        scored: impl Fn() -> S,
    ) -> Self
    where
        E: EpochSource<Record = Event> + 'static,
        S: EpochSource<Record = ScoredPost> + 'static,
    {
        let policy = table_policy(commit);
        let mut pumps = Pumps::default();
        let bronze = pumps.spawn(store.bronze(), events(), policy.clone());
        let sinks = std::iter::once(store.silver()).chain(gold(store));
        let scored = sinks.map(|sink| pumps.spawn(sink, scored(), policy.clone())).collect();
        Self { pumps, statuses: Statuses { bronze, scored } }
    }
}

/// When a table commits.
pub(super) fn table_policy(commit: &CommitConfig) -> Policy {
    Policy { max_age: commit.interval, max_events: commit.max_rows as u64, ..Policy::default() }
}

/// The tables of aggregates.
pub(super) fn gold(store: &IcebergStore) -> [IcebergSink<ScoredPost>; 4] {
    [
        store.gold_sentiment(Grain::Minute),
        store.gold_sentiment(Grain::Hour),
        store.gold_tags(Grain::Minute),
        store.gold_tags(Grain::Hour),
    ]
}

impl Statuses {
    fn all(&self) -> impl Iterator<Item = &SinkStatus> {
        std::iter::once(&self.bronze).chain(self.scored.iter())
    }

    /// What `/readyz` says about the tables.
    pub(super) fn parts(&self) -> Vec<Part> {
        self.all().map(|status| sink_part(&status.snapshot())).collect()
    }

    /// What the page says about the tables.
    /// `events` and `scored` are the ends of the two logs now: a table that has stopped reads them no more.
    pub(super) fn lags(&self, events: &Positions, scored: &Positions) -> Vec<StageLag> {
        let lag = |status: &SinkStatus, ends: &Positions| {
            let snapshot = status.snapshot();
            let seconds = if snapshot.stopped.is_some() { None } else { Some(snapshot.lag_seconds) };
            let waiting = snapshot.stopped.or(snapshot.waiting.map(|waiting| waiting.reason));
            StageLag { stage: snapshot.sink, posts: status.lag_to(ends), seconds, waiting, scope: None }
        };
        std::iter::once(lag(&self.bronze, events)).chain(self.scored.iter().map(|status| lag(status, scored))).collect()
    }

    /// The offset below which no table needs the input log.
    pub(super) fn bronze_floor(&self) -> i64 {
        floor(&self.bronze)
    }

    /// The offset below which no table needs the scored log.
    pub(super) fn scored_floor(&self) -> i64 {
        self.scored.iter().map(floor).min().unwrap_or(0)
    }
}

/// The embedded mode has one partition; before the store has answered, everything is needed.
fn floor(status: &SinkStatus) -> i64 {
    status.committed().values().copied().min().unwrap_or(0)
}
