//! The closed loop: as many texts in flight as are asked for, for a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use undertone_error::{Error, ErrorKind, Result};

use super::Latencies;
use crate::engine::estimate_tokens;
use crate::{Engine, Lane, Request};

/// Texts in flight for each worker when all are to be busy, at least.
const IN_FLIGHT: usize = 64;

/// Batches in flight for each worker when all are to be busy, at least: a GPU's are large.
const BATCHES_IN_FLIGHT: usize = 3;

/// How many of these texts in flight keep all workers of an engine busy.
pub fn in_flight(engine: &Engine, texts: &[String]) -> usize {
    let bytes: usize = texts.iter().map(String::len).sum();
    let tokens_a_text = estimate_tokens(bytes / texts.len().max(1), usize::MAX) as usize;
    (BATCHES_IN_FLIGHT * engine.token_budget() / tokens_a_text).max(IN_FLIGHT) * engine.stats().workers
}

/// What a closed loop measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClosedReport {
    /// Texts scored.
    pub texts: u64,
    /// Tokens scored.
    pub tokens: u64,
    /// The sum of the squares of the texts' lengths in tokens, which attention's cost goes by.
    pub token_pairs: u64,
    /// Wall time.
    pub seconds: f64,
    /// Texts a second.
    pub texts_per_s: f64,
    /// Tokens a second.
    pub tokens_per_s: f64,
    /// How many texts were in flight at any time.
    pub in_flight: usize,
    /// From sending a text to its answer.
    #[serde(flatten)]
    pub latencies: Latencies,
}

/// Keeps `in_flight` texts of a lane in flight for `duration`, going round `texts`. One text in flight measures latency;
/// a few dozen a worker measure throughput. Run it once for a moment first: it counts what the first texts cost, too.
///
/// # Errors
/// `InvalidInput` if there is no text or nothing is to be in flight; otherwise the first error of the engine.
pub async fn closed_loop(
    engine: &Engine,
    texts: &Arc<[String]>,
    lane: Lane,
    in_flight: usize,
    duration: Duration,
) -> Result<ClosedReport> {
    if texts.is_empty() || in_flight == 0 {
        return Err(Error::new(ErrorKind::InvalidInput, "nothing to measure with")
            .help("give at least one text, and one in flight"));
    }
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        callers.spawn(caller(engine.clone(), Arc::clone(texts), lane, Arc::clone(&next), started + duration));
    }
    let mut answered = Answered::default();
    while let Some(joined) = callers.join_next().await {
        let more =
            joined.map_err(|error| Error::new(ErrorKind::Internal, "caller of the loop failed").source(error))??;
        answered.latencies.extend(more.latencies);
        answered.tokens += more.tokens;
        answered.token_pairs += more.token_pairs;
    }
    Ok(report(answered, started.elapsed(), in_flight))
}

#[derive(Default)]
struct Answered {
    latencies: Vec<Duration>,
    tokens: u64,
    token_pairs: u64,
}

/// Sends one text after the other until `end`.
async fn caller(
    engine: Engine,
    texts: Arc<[String]>,
    lane: Lane,
    next: Arc<AtomicUsize>,
    end: Instant,
) -> Result<Answered> {
    let mut answered = Answered::default();
    while Instant::now() < end {
        let index = next.fetch_add(1, Ordering::Relaxed) % texts.len();
        let text = texts.get(index).cloned().unwrap_or_default();
        let sent = Instant::now();
        let scored = engine.score(Request { lane, ..Request::new(text) }).await?;
        answered.latencies.push(sent.elapsed());
        let tokens = u64::from(scored.tokens);
        answered.tokens += tokens;
        answered.token_pairs += tokens * tokens;
    }
    Ok(answered)
}

fn report(answered: Answered, wall: Duration, in_flight: usize) -> ClosedReport {
    let seconds = wall.as_secs_f64();
    let texts = answered.latencies.len() as u64;
    ClosedReport {
        texts,
        tokens: answered.tokens,
        token_pairs: answered.token_pairs,
        seconds,
        texts_per_s: texts as f64 / seconds,
        tokens_per_s: answered.tokens as f64 / seconds,
        in_flight,
        latencies: answered.latencies.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_per_second() {
        let latencies = vec![Duration::from_millis(4), Duration::from_millis(2)];
        let report = report(Answered { latencies, tokens: 30, token_pairs: 500 }, Duration::from_secs(2), 1);
        assert_eq!((report.texts, report.texts_per_s, report.tokens_per_s), (2, 1.0, 15.0));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((json["p50_ms"].as_f64(), json["max_ms"].as_f64()), (Some(2.0), Some(4.0)));
    }
}
