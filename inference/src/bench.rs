//! Measuring an engine as its users see it. The loop is closed: a new text is sent when an answer comes, so the engine
//! is never asked for more than it gives, and latency is what a caller waits at that load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use undertone_error::{Error, ErrorKind, Result};

use crate::{Engine, Lane, Request};

/// What a closed loop measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// Texts scored.
    pub texts: u64,
    /// Tokens scored.
    pub tokens: u64,
    /// Wall time.
    pub seconds: f64,
    /// Texts a second.
    pub texts_per_s: f64,
    /// Tokens a second.
    pub tokens_per_s: f64,
    /// How many texts were in flight at any time.
    pub in_flight: usize,
    /// Median latency of a text, in milliseconds.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The slowest text.
    pub max_ms: f64,
}

/// Keeps `in_flight` texts in flight for `duration`, going round `texts`, after one unmeasured round of `in_flight`
/// texts. One text in flight measures latency; a few dozen a worker measure throughput.
///
/// # Errors
/// `InvalidInput` if there is no text or nothing is to be in flight; otherwise the first error of the engine.
pub async fn closed_loop(
    engine: &Engine,
    texts: &[String],
    in_flight: usize,
    duration: Duration,
) -> Result<BenchReport> {
    if texts.is_empty() || in_flight == 0 {
        return Err(Error::new(ErrorKind::InvalidInput, "nothing to measure with")
            .help("give at least one text, and one in flight"));
    }
    let warm_up = texts.iter().cycle().take(in_flight).cloned().collect();
    for result in engine.score_all(warm_up, Lane::Bulk).await {
        result?;
    }
    let texts: Arc<[String]> = texts.into();
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        callers.spawn(caller(engine.clone(), Arc::clone(&texts), Arc::clone(&next), started + duration));
    }
    let (mut latencies, mut tokens) = (Vec::new(), 0);
    while let Some(joined) = callers.join_next().await {
        let (times, count) =
            joined.map_err(|error| Error::new(ErrorKind::Internal, "caller of the loop failed").source(error))??;
        latencies.extend(times);
        tokens += count;
    }
    Ok(report(latencies, tokens, started.elapsed(), in_flight))
}

/// Sends one text after the other until `end`. Answers their latencies and the sum of their tokens.
async fn caller(
    engine: Engine,
    texts: Arc<[String]>,
    next: Arc<AtomicUsize>,
    end: Instant,
) -> Result<(Vec<Duration>, u64)> {
    let (mut latencies, mut tokens) = (Vec::new(), 0);
    while Instant::now() < end {
        let index = next.fetch_add(1, Ordering::Relaxed) % texts.len();
        let text = texts.get(index).cloned().unwrap_or_default();
        let sent = Instant::now();
        let scored = engine.score(Request { text, lane: Lane::Bulk, deadline: None }).await?;
        latencies.push(sent.elapsed());
        tokens += u64::from(scored.tokens);
    }
    Ok((latencies, tokens))
}

fn report(mut latencies: Vec<Duration>, tokens: u64, wall: Duration, in_flight: usize) -> BenchReport {
    latencies.sort_unstable();
    let seconds = wall.as_secs_f64();
    let texts = latencies.len() as u64;
    let percentile = |p: f64| milliseconds(nearest_rank(&latencies, p));
    BenchReport {
        texts,
        tokens,
        seconds,
        texts_per_s: texts as f64 / seconds,
        tokens_per_s: tokens as f64 / seconds,
        in_flight,
        p50_ms: percentile(0.5),
        p90_ms: percentile(0.9),
        p99_ms: percentile(0.99),
        max_ms: percentile(1.0),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The nearest-rank percentile of sorted values; zero if there is none.
fn nearest_rank(sorted: &[Duration], p: f64) -> Duration {
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        for (p, expected) in [(0.0, 1), (0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100)] {
            assert_eq!(nearest_rank(&sorted, p), Duration::from_millis(expected), "{p}");
        }
        assert_eq!(nearest_rank(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn a_report_counts_per_second() {
        let report = report(vec![Duration::from_millis(4), Duration::from_millis(2)], 30, Duration::from_secs(2), 1);
        assert_eq!(
            (report.texts, report.texts_per_s, report.tokens_per_s, report.p50_ms, report.max_ms),
            (2, 1.0, 15.0, 2.0, 4.0)
        );
    }
}
