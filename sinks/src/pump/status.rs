//! How a sink is doing: one record that readiness, metrics and the page all read.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge, histogram};
use serde::Serialize;
use undertone_error::{Error, ErrorKind};
use undertone_proto::EventTime;

use super::source::Batch;
use super::telemetry::{EPOCH_BYTES, EPOCH_COUNT, FRESHNESS_SECONDS, report_lag, report_position};
use crate::{Positions, Written};

/// How often metrics are brought up to date: lag grows while nothing else happens.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// So many posts of an epoch stand for all of them in the histogram of freshness.
const FRESHNESS_SAMPLES: u64 = 256;

/// A shared handle on one sink's status. Cloning it is cheap; reading it never waits for the sink.
#[derive(Clone, Debug)]
pub struct SinkStatus {
    sink: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    committed: Positions,
    ends: Positions,
    /// The oldest event of each partition that was read and is not stored.
    oldest: BTreeMap<i32, EventTime>,
    /// Partitions that metrics tell of.
    reported: BTreeSet<i32>,
    waiting: Option<Waiting>,
    last_commit: Option<LastCommit>,
    stopped: Option<String>,
    finished: bool,
}

/// One sink's status at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SinkSnapshot {
    /// The sink's name.
    pub sink: String,
    /// The next offset to store, summed over partitions.
    pub position: i64,
    /// Durable events that are not yet stored.
    pub lag_posts: u64,
    /// The age of the oldest event that was read and is not yet stored; 0 if there is none.
    pub lag_seconds: f64,
    /// Set while the sink waits for something outside to get well.
    pub waiting: Option<Waiting>,
    /// The last commit of this process.
    pub last_commit: Option<LastCommit>,
    /// Set when the sink has given up and needs a person.
    pub stopped: Option<String>,
    /// Whether everything was stored and the sink ended, as it was asked to.
    pub finished: bool,
}

/// Why a sink waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Since when, in milliseconds since 1970-01-01T00:00:00Z.
    pub since_ms: i64,
    /// What is the matter.
    pub reason: String,
}

/// A commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LastCommit {
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: i64,
    /// The rows that it added.
    pub rows: u64,
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl SinkStatus {
    pub(super) fn new(sink: &str) -> Self {
        Self { sink: Arc::from(sink), state: Arc::default() }
    }

    /// The sink's name.
    pub fn sink(&self) -> &str {
        &self.sink
    }

    /// The durable positions, as far as this process knows: below them the source may forget.
    pub fn committed(&self) -> Positions {
        self.state().committed.clone()
    }

    /// How the sink is doing now.
    pub fn snapshot(&self) -> SinkSnapshot {
        let state = self.state();
        let lag = state.lag();
        SinkSnapshot {
            sink: self.sink.to_string(),
            position: state.committed.values().sum(),
            lag_posts: lag.values().map(|lag| lag.posts).sum(),
            lag_seconds: lag.values().map(|lag| lag.seconds).fold(0.0, f64::max),
            waiting: state.waiting.clone(),
            last_commit: state.last_commit,
            stopped: state.stopped.clone(),
            finished: state.finished,
        }
    }

    /// The posts below `ends` that are not stored, for a caller that knows the log's ends itself: unlike the snapshot's
    /// lag it grows on while the sink waits or has stopped. Nothing is known to be stored before the pump has asked the
    /// store, so everything below `ends` counts until then.
    pub fn lag_to(&self, ends: &Positions) -> u64 {
        behind(&self.state().committed, ends).values().sum()
    }

    /// Brings metrics up to date, now and then for as long as it is polled.
    pub async fn report(&self) -> Infallible {
        loop {
            self.report_now();
            tokio::time::sleep(REPORT_EVERY).await;
        }
    }

    pub(super) fn resumed(&self, positions: &Positions) {
        let mut state = self.state();
        state.committed.clone_from(positions);
        // Of what is not ours any more nothing is known.
        state.ends.retain(|partition, _| positions.contains_key(partition));
        state.oldest.clear();
    }

    pub(super) fn observed(&self, ends: Positions, oldest: &BTreeMap<i32, EventTime>) {
        let mut state = self.state();
        state.ends = ends;
        state.oldest.clone_from(oldest);
    }

    pub(super) fn committed_epoch<R>(&self, written: &Written, epoch: &Batch<R>, took: Duration) {
        let mut state = self.state();
        state.committed.extend(written.positions.clone());
        state.last_commit = Some(LastCommit { at_ms: now_us() / 1000, rows: written.rows });
        state.oldest.clear();
        drop(state);
        self.attempted("committed", took);
        counter!("undertone_sink_rows_total", "sink" => self.label()).increment(written.rows);
        histogram!(EPOCH_COUNT[0], "sink" => self.label()).record(written.rows as f64);
        histogram!(EPOCH_COUNT[1], "sink" => self.label()).record(epoch.epoch.offsets() as f64);
        histogram!(EPOCH_BYTES, "sink" => self.label()).record(epoch.bytes as f64);
        let (freshness, now) = (histogram!(FRESHNESS_SECONDS, "sink" => self.label()), now_us());
        for (at_us, times) in epoch.ingested.sample(FRESHNESS_SAMPLES) {
            freshness.record_many(age_s(now, at_us), usize::try_from(times).unwrap_or(usize::MAX));
        }
    }

    pub(super) fn failed_epoch(&self, error: &Error, took: Duration) {
        self.attempted(if error.kind() == ErrorKind::Conflict { "conflict" } else { "failed" }, took);
    }

    pub(super) fn waits(&self, error: &Error) {
        counter!("undertone_sink_retries_total", "sink" => self.label(), "kind" => error.kind().name()).increment(1);
        self.wait(error.to_string());
    }

    pub(super) fn waits_for_others(&self) {
        self.wait("other processes have not stored their partitions yet".to_owned());
    }

    fn wait(&self, reason: String) {
        let mut state = self.state();
        let since_ms = state.waiting.as_ref().map_or_else(|| now_us() / 1000, |waiting| waiting.since_ms);
        state.waiting = Some(Waiting { since_ms, reason });
    }

    pub(super) fn is_well(&self) {
        self.state().waiting = None;
    }

    /// The sink ended by an error that it could not tell of itself.
    pub fn gave_up(&self, error: &Error) {
        self.ended(Some(error));
    }

    pub(super) fn ended(&self, error: Option<&Error>) {
        let mut state = self.state();
        state.stopped = error.map(ToString::to_string);
        state.finished = error.is_none();
        state.waiting = None;
        drop(state);
        self.report_now();
    }

    fn attempted(&self, outcome: &'static str, took: Duration) {
        counter!("undertone_sink_commits_total", "sink" => self.label(), "outcome" => outcome).increment(1);
        histogram!("undertone_sink_commit_seconds", "sink" => self.label()).record(took.as_secs_f64());
    }

    fn report_now(&self) {
        let mut state = self.state();
        let lag = state.lag();
        for (&partition, lag) in &lag {
            report_lag(&self.sink, partition, lag.posts, lag.seconds);
        }
        for (partition, &position) in &state.committed {
            report_position(&self.sink, partition.partition, position);
        }
        for gone in state.reported.iter().filter(|partition| !lag.contains_key(partition)) {
            report_lag(&self.sink, *gone, 0, 0.0);
            report_position(&self.sink, *gone, 0);
        }
        state.reported.extend(lag.keys());
        let flag = |is: bool| if is { 1.0 } else { 0.0 };
        gauge!("undertone_sink_waiting", "sink" => self.label()).set(flag(state.waiting.is_some()));
        let waited_s = state.waiting.as_ref().map_or(0.0, |waiting| age_s(now_us(), waiting.since_ms * 1000));
        gauge!("undertone_sink_waiting_seconds", "sink" => self.label()).set(waited_s);
        gauge!("undertone_sink_stopped", "sink" => self.label()).set(flag(state.stopped.is_some()));
    }

    fn label(&self) -> String {
        self.sink.to_string()
    }

    /// A panic elsewhere leaves the numbers as they were, which is still the best that is known.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far one partition is behind.
struct Lag {
    posts: u64,
    seconds: f64,
}

impl State {
    /// By the number of the partition. An event that is read and not stored has an age; what is not read yet has none.
    fn lag(&self) -> BTreeMap<i32, Lag> {
        let now = now_us();
        let lag = |(partition, posts): (i32, u64)| {
            let oldest = self.oldest.get(&partition).filter(|_| posts > 0);
            (partition, Lag { posts, seconds: oldest.map_or(0.0, |&oldest| age_s(now, oldest)) })
        };
        behind(&self.committed, &self.ends).into_iter().map(lag).collect()
    }
}

/// How long ago a time was, in seconds; 0 for one that has not come yet.
fn age_s(now_us: i64, at_us: EventTime) -> f64 {
    now_us.saturating_sub(at_us).max(0) as f64 / 1e6
}

/// The offsets from `committed` to `ends`. Of a partition that was never committed, everything is missing.
fn behind(committed: &Positions, ends: &Positions) -> BTreeMap<i32, u64> {
    let missing = |(partition, &end): (_, &i64)| end.saturating_sub(committed.get(partition).copied().unwrap_or(0));
    ends.iter()
        .map(|(partition, end)| (partition.partition, u64::try_from(missing((partition, end))).unwrap_or(0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use undertone_proto::Partition;

    use super::*;

    fn positions(offset: i64) -> Positions {
        Positions::from([(Partition { cluster: "c".to_owned(), topic: "t".to_owned(), partition: 0 }, offset)])
    }

    #[test]
    fn lag_is_what_is_durable_and_not_stored_and_its_age() {
        let status = SinkStatus::new("silver.posts");
        status.resumed(&positions(10));
        status.observed(positions(25), &BTreeMap::from([(0, now_us() - 3_000_000)]));
        let behind = status.snapshot();
        assert_eq!((behind.position, behind.lag_posts), (10, 15));
        assert!((3.0..60.0).contains(&behind.lag_seconds), "{}", behind.lag_seconds);

        status.committed_epoch(
            &Written { rows: 14, positions: positions(25) },
            &Batch::<()>::default(),
            Duration::ZERO,
        );
        let level = status.snapshot();
        assert_eq!((level.position, level.lag_posts, level.lag_seconds), (25, 0, 0.0));
        assert_eq!(level.last_commit.map(|commit| commit.rows), Some(14));
    }

    #[test]
    fn lag_to_the_logs_end_is_told_before_the_sink_began_and_after_it_stopped() {
        let status = SinkStatus::new("silver.posts");
        assert_eq!(status.lag_to(&positions(25)), 25);
        status.resumed(&positions(10));
        status.observed(positions(25), &BTreeMap::new());
        status.ended(Some(&Error::new(ErrorKind::Corrupt, "table was rolled back")));
        assert_eq!((status.snapshot().lag_posts, status.lag_to(&positions(40))), (15, 30));
        assert_eq!(status.lag_to(&positions(9)), 0, "an end that was read before the commit");
    }

    #[test]
    fn a_partition_that_moved_away_is_behind_by_nothing_here() {
        let status = SinkStatus::new("silver.posts");
        let two = |offset: i64| -> Positions {
            let second = Partition { cluster: "c".to_owned(), topic: "t".to_owned(), partition: 1 };
            positions(offset).into_iter().chain([(second, offset)]).collect()
        };
        status.resumed(&two(10));
        status.observed(two(25), &BTreeMap::from([(0, 0), (1, 0)]));
        assert_eq!(status.snapshot().lag_posts, 30);
        status.resumed(&positions(12));
        let left = status.snapshot();
        assert_eq!((left.position, left.lag_posts, left.lag_seconds), (12, 13, 0.0));
    }

    #[test]
    fn waiting_keeps_its_beginning_and_tells_the_latest_reason() {
        let status = SinkStatus::new("silver.posts");
        status.waits(&Error::new(ErrorKind::Unavailable, "catalog does not answer"));
        let first = status.snapshot().waiting.expect("it waits");
        status.waits(&Error::new(ErrorKind::Unavailable, "disk is full"));
        let second = status.snapshot().waiting.expect("it waits");
        assert_eq!((second.since_ms, second.reason.as_str()), (first.since_ms, "disk is full"));
        status.is_well();
        assert_eq!(status.snapshot().waiting, None);
    }
}
