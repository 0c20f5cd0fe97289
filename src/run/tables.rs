//! One pump for each table: each has its own durable position, so a table that cannot be written stops itself alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};
use undertone_gateway::{Part, live::StageLag};
use undertone_proto::Event;
use undertone_proto::v1::ScoredPost;
use undertone_sinks::Positions;
use undertone_sinks::iceberg::{Grain, IcebergSink, IcebergStore};
use undertone_sinks::pump::{EpochSource, Policy, Pump, Shutdown, SinkStatus};

use super::health::sink_part;
use crate::config::CommitConfig;

/// How long the tables may take to store the rest when somebody wants the process to end.
const GRACE: Duration = Duration::from_secs(15);

/// The running pumps of all tables.
pub(super) struct Tables {
    pub(super) shutdown: Shutdown,
    pub(super) statuses: Statuses,
    pumps: JoinSet<Result<()>>,
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
        let policy = Policy { max_age: commit.interval, max_events: commit.max_rows as u64, ..Policy::default() };
        let shutdown = Shutdown::default();
        let mut pumps = JoinSet::new();

        let bronze = spawn(&mut pumps, store.bronze(), events(), &policy, &shutdown);
        let sinks: [IcebergSink<ScoredPost>; 5] = [
            store.silver(),
            store.gold_sentiment(Grain::Minute),
            store.gold_sentiment(Grain::Hour),
            store.gold_tags(Grain::Minute),
            store.gold_tags(Grain::Hour),
        ];
        let scored = sinks.into_iter().map(|sink| spawn(&mut pumps, sink, scored(), &policy, &shutdown)).collect();
        Self { shutdown, statuses: Statuses { bronze, scored }, pumps }
    }

    /// Stores what the logs hold and ends every pump. Once `hurry` is cancelled they have [`GRACE`] left; what they then
    /// lack stays in the logs for the next start.
    ///
    /// # Errors
    /// The first failure of a pump; the others went on.
    pub(super) async fn finish(mut self, hurry: &CancellationToken) -> Result<()> {
        self.shutdown.finish.cancel();
        let stop = self.shutdown.stop.clone();
        let patience = async {
            hurry.cancelled().await;
            tokio::time::sleep(GRACE).await;
            stop.cancel();
            std::future::pending::<()>().await;
        };
        let all = async {
            let mut outcome = Ok(());
            while let Some(ended) = self.pumps.join_next().await {
                let ended = ended.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, "sink panicked").source(e)));
                outcome = outcome.and(ended);
            }
            outcome
        };
        tokio::select! {
            outcome = all => outcome,
            () = patience => Ok(()),
        }
    }
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
            StageLag { stage: snapshot.sink, posts: status.lag_to(ends), seconds, waiting }
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

fn spawn<R, S>(
    pumps: &mut JoinSet<Result<()>>,
    sink: IcebergSink<R>,
    source: S,
    policy: &Policy,
    shutdown: &Shutdown,
) -> SinkStatus
where
    R: Send + Sync + 'static,
    S: EpochSource<Record = R> + 'static,
{
    let pump = Pump::new(sink, source, policy.clone());
    let (status, shutdown) = (pump.status(), shutdown.clone());
    let name = status.sink().to_owned();
    pumps.spawn(async move {
        let outcome = pump.run(shutdown).await;
        if let Err(error) = &outcome {
            // The other tables go on; readiness and the page say that this one stands still.
            tracing::error!(sink = name, %error, "sink stopped");
        }
        outcome.map(|_| ())
    });
    status
}
