//! The open loop: texts are sent when they are due, and each waits from then on, whoever is to blame.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use undertone_error::{Context, Error, ErrorKind, Result};

use super::Latencies;
use crate::{Engine, Lane, Request};

/// What an open loop measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpenReport {
    /// Texts scored.
    pub texts: u64,
    /// Texts that found their lane full and were refused.
    pub refused: u64,
    /// Texts that arrived, for each second.
    pub arrivals_per_s: f64,
    /// From the time at which a text was due to its answer.
    #[serde(flatten)]
    pub latencies: Latencies,
    /// By how much a text was sent later than it was due, in milliseconds, 99th percentile: the part of the latencies
    /// that is the measuring's own, because the processor had no time for it.
    pub send_lag_p99_ms: f64,
}

/// Sends a text of a lane at each of `arrivals` (counted from now, in ascending order), going round `texts`, and waits
/// for the answers.
///
/// # Errors
/// `InvalidInput` if there is no text or no arrival; `Exhausted` if the system gives no thread; otherwise the first
/// error of the engine that is not a refusal.
pub async fn open_loop(
    engine: &Engine,
    texts: &Arc<[String]>,
    lane: Lane,
    arrivals: Vec<Duration>,
) -> Result<OpenReport> {
    let Some(&last) = arrivals.last() else {
        return Err(Error::new(ErrorKind::InvalidInput, "nothing to measure with")
            .help("raise the rate or the time, so that at least one text arrives"));
    };
    if texts.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "nothing to measure with").help("give at least one text"));
    }
    let (count, engine, texts, runtime) = (arrivals.len(), engine.clone(), Arc::clone(texts), Handle::current());
    let send = move || {
        let started = Instant::now();
        let mut sent = Vec::with_capacity(arrivals.len());
        for (due, text) in arrivals.into_iter().map(|at| started + at).zip(texts.iter().cycle()) {
            // A thread of its own: the runtime's timer has a grain of a millisecond.
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let request = Request { lane, ..Request::new(text.clone()) };
            sent.push((due.elapsed(), runtime.spawn(ask(engine.clone(), request, due))));
        }
        sent
    };
    let sending = tokio::task::spawn_blocking(send);
    let sent = sending.await.context(ErrorKind::Internal, "sender of the loop failed")?;
    collect(sent, count, last).await
}

/// The time from `due` to the answer; `None` for a text that was refused.
async fn ask(engine: Engine, request: Request, due: Instant) -> Result<Option<Duration>> {
    match engine.score(request).await {
        Ok(_) => Ok(Some(due.elapsed())),
        Err(error) if error.kind() == ErrorKind::Busy => Ok(None),
        Err(error) => Err(error),
    }
}

type Sent = (Duration, JoinHandle<Result<Option<Duration>>>);

async fn collect(sent: Vec<Sent>, count: usize, last: Duration) -> Result<OpenReport> {
    let (mut lags, mut latencies, mut refused) = (Vec::new(), Vec::new(), 0);
    for (lag, answer) in sent {
        lags.push(lag);
        match answer.await.context(ErrorKind::Internal, "caller of the loop failed")?? {
            Some(latency) => latencies.push(latency),
            None => refused += 1,
        }
    }
    let lags: Latencies = lags.into_iter().collect();
    Ok(OpenReport {
        texts: latencies.len() as u64,
        refused,
        arrivals_per_s: count as f64 / last.as_secs_f64().max(f64::MIN_POSITIVE),
        latencies: latencies.into_iter().collect(),
        send_lag_p99_ms: lags.percentile_ms(0.99),
    })
}
