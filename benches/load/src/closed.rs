//! The closed loop: as many calls in flight as are asked for, for a time. A call that is refused or fails is sent again at
//! once, as the next one; what is counted are texts with scores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use undertone_error::{Context, Error, ErrorKind, Result};

use crate::calls::{Calls, Shape};
use crate::http::{Connection, Target};
use crate::latency::Latencies;
use crate::tally::{Ended, Ends};

/// What a closed loop does.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) calls: Arc<Calls>,
    pub(crate) in_flight: usize,
    /// What is done before, and not counted.
    pub(crate) warm: Duration,
    /// The time in which calls are begun. All that were begun are waited for, and their time counts, too.
    pub(crate) time: Duration,
}

/// What a closed loop measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) shape: Shape,
    pub(crate) in_flight: usize,
    /// Texts scored.
    pub(crate) texts: usize,
    /// From the first call to the last answer.
    pub(crate) seconds: f64,
    pub(crate) texts_per_s: f64,
    /// How the calls ended.
    pub(crate) ends: Ends,
    /// Of a call that was scored.
    pub(crate) calls: Latencies,
}

/// What one of the callers has seen.
#[derive(Default)]
struct Seen {
    texts: usize,
    ends: Ends,
    latencies: Vec<Duration>,
    counted: Vec<Ended>,
}

/// Warms up, and measures.
///
/// # Errors
/// `Unavailable` if nothing was scored.
pub(crate) async fn run(target: &Arc<Target>, plan: &Plan) -> Result<Report> {
    warm(target, plan).await?;
    measure(target, plan).await
}

/// Warms up.
///
/// # Errors
/// `Internal` if a caller panics.
pub(crate) async fn warm(target: &Arc<Target>, plan: &Plan) -> Result<()> {
    if !plan.warm.is_zero() {
        keep(target, plan, plan.warm).await?;
    }
    Ok(())
}

/// Measures.
///
/// # Errors
/// As [`run`].
pub(crate) async fn measure(target: &Arc<Target>, plan: &Plan) -> Result<Report> {
    let started = Instant::now();
    let seen = keep(target, plan, plan.time).await?;
    let seconds = started.elapsed().as_secs_f64();
    if seen.texts == 0 {
        let error = Error::new(ErrorKind::Unavailable, "nothing was scored").with("ends", format!("{:?}", seen.ends));
        return Err(error.help("see the server's log"));
    }
    Ok(Report {
        shape: plan.calls.shape,
        in_flight: plan.in_flight,
        texts: seen.texts,
        seconds,
        texts_per_s: seen.texts as f64 / seconds,
        ends: seen.ends,
        calls: seen.latencies.into_iter().collect(),
    })
}

async fn keep(target: &Arc<Target>, plan: &Plan, time: Duration) -> Result<Seen> {
    let next = Arc::new(AtomicUsize::new(0));
    let end = Instant::now() + time;
    let mut callers = JoinSet::new();
    for _ in 0..plan.in_flight {
        callers.spawn(caller(Arc::clone(target), Arc::clone(&plan.calls), Arc::clone(&next), end));
    }
    let mut all = Seen::default();
    while let Some(seen) = callers.join_next().await {
        let seen = seen.context(ErrorKind::Internal, "caller of the loop failed")?;
        all.texts += seen.texts;
        seen.counted.into_iter().for_each(|ended| all.ends.add(ended));
        all.latencies.extend(seen.latencies);
    }
    Ok(all)
}

/// How long a caller waits whose connection failed, so that a server that is gone is not asked a million times.
const PAUSE: Duration = Duration::from_millis(10);

async fn caller(target: Arc<Target>, calls: Arc<Calls>, next: Arc<AtomicUsize>, end: Instant) -> Seen {
    let (mut seen, mut connection) = (Seen::default(), Connection::default());
    while Instant::now() < end {
        let call = calls.at(next.fetch_add(1, Ordering::Relaxed));
        let sent = Instant::now();
        let answer = connection.call(&target, &calls, call, None).await;
        let ended = Ended::of(&answer, call.texts, |body| calls.scored(body));
        seen.counted.push(ended);
        match ended {
            Ended::Scored => {
                seen.latencies.push(sent.elapsed());
                seen.texts += call.texts;
            }
            Ended::Incomplete => seen.texts += answer.map_or(0, |answer| calls.scored(&answer.body)),
            Ended::Broken(_) => tokio::time::sleep(PAUSE).await,
            Ended::Refused | Ended::Status(_) => {}
        }
    }
    seen
}
