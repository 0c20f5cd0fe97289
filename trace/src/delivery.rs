//! From ended spans to the collector.
//!
//! The guarantee: ending a span never waits. At most [`WAITING`] spans wait; a collector that is slow or gone costs those
//! that come on top, and those that it did not take, each counted. It is told once in the log, and once more when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::{counter, describe_counter};
use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Spans that were to be delivered; label `outcome`.
pub const SPANS: &str = "undertone_trace_spans_total";

/// Spans that may wait.
const WAITING: usize = 2048;
/// Spans of one request.
const BATCH: usize = 512;
/// How long a span waits for others to go with.
const PERIOD: Duration = Duration::from_secs(1);
/// How long the last ones may take when the process ends.
const LAST: Duration = Duration::from_secs(2);

/// Tells the recorder what the metrics mean. Call once, after installing it.
pub fn describe() {
    describe_counter!(SPANS, "spans by what became of them");
}

fn count(outcome: &'static str, spans: usize) {
    counter!(SPANS, "outcome" => outcome).increment(spans as u64);
}

/// Where ended spans wait.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    was_full: AtomicBool,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            count("dropped", 1);
            if !self.was_full.swap(true, Ordering::Relaxed) {
                tracing::warn!(metric = SPANS, "more spans than can be delivered: some are dropped, and counted");
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The task that delivers.
#[derive(Debug)]
pub struct Delivery {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Delivery {
    /// Delivers what waits, if that can be done quickly, and nothing after it.
    pub async fn end(self) {
        self.stop.cancel();
        let mut task = self.task;
        if timeout(LAST, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// A queue, and what empties it.
pub(super) fn begin(exporter: impl SpanExporter + 'static) -> (Queue, Delivery) {
    let (send, spans) = mpsc::channel(WAITING);
    let stop = CancellationToken::new();
    let task = tokio::spawn(deliver(Arc::new(exporter), spans, stop.clone()));
    (Queue { spans: send, was_full: AtomicBool::new(false) }, Delivery { stop, task })
}

async fn deliver(exporter: Arc<impl SpanExporter>, mut spans: mpsc::Receiver<SpanData>, stop: CancellationToken) {
    let mut well = true;
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            () = fill(&mut batch, &mut spans) => {}
            () = stop.cancelled() => {
                spans.close();
                fill(&mut batch, &mut spans).await;
            }
        }
        let size = batch.len();
        if size == 0 {
            return;
        }
        match exporter.export(batch).await {
            Ok(()) => {
                count("delivered", size);
                if !well {
                    tracing::info!("spans are delivered again");
                }
                well = true;
            }
            Err(error) => {
                count("failed", size);
                if well {
                    tracing::warn!(%error, "spans cannot be delivered, and are dropped until they can");
                }
                well = false;
            }
        }
    }
}

/// Waits for a span, and for others to go with it; adds none if there will be no more.
async fn fill(batch: &mut Vec<SpanData>, spans: &mut mpsc::Receiver<SpanData>) {
    if batch.is_empty() {
        match spans.recv().await {
            Some(first) => batch.push(first),
            None => return,
        }
    }
    let others = async {
        while batch.len() < BATCH {
            match spans.recv().await {
                Some(span) => batch.push(span),
                None => return,
            }
        }
    };
    // What is there by then goes.
    let _ = timeout(PERIOD, others).await;
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use tokio::sync::Semaphore;

    use super::*;

    /// Keeps how many spans came in each request; answers none without a permit.
    #[derive(Clone, Debug)]
    pub(crate) struct Kept {
        requests: Arc<Mutex<Vec<usize>>>,
        permits: Arc<Semaphore>,
        fails: bool,
    }

    impl Default for Kept {
        fn default() -> Self {
            Self { requests: Arc::default(), permits: Arc::new(Semaphore::new(1000)), fails: false }
        }
    }

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.permits.acquire().await.expect("open").forget();
            self.requests.lock().expect("the lock").push(batch.len());
            if self.fails { Err(OTelSdkError::InternalFailure("gone".to_owned())) } else { Ok(()) }
        }
    }

    fn span() -> SpanData {
        let now = std::time::SystemTime::now();
        SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "a".into(),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: Default::default(),
        }
    }

    #[tokio::test]
    async fn spans_go_together_and_the_last_ones_at_the_end() {
        for fails in [false, true] {
            let kept = Kept { fails, ..Kept::default() };
            let (queue, delivery) = begin(kept.clone());
            for _ in 0..BATCH + 3 {
                queue.on_end(span());
            }
            tokio::time::sleep(PERIOD * 2).await;
            assert_eq!(*kept.requests.lock().expect("the lock"), [BATCH, 3], "fails: {fails}");
            queue.on_end(span());
            queue.on_end(span());
            delivery.end().await;
            assert_eq!(*kept.requests.lock().expect("the lock"), [BATCH, 3, 2], "fails: {fails}");
            queue.on_end(span());
        }
    }

    #[tokio::test]
    async fn a_collector_that_hangs_holds_nobody_up_and_keeps_no_more_than_fits() {
        let kept = Kept { permits: Arc::new(Semaphore::new(0)), ..Kept::default() };
        let (queue, delivery) = begin(kept.clone());
        for _ in 0..4 * WAITING {
            queue.on_end(span());
        }
        assert_eq!(queue.spans.capacity(), 0);
        let began = tokio::time::Instant::now();
        delivery.end().await;
        assert!(began.elapsed() >= LAST && began.elapsed() < LAST * 2);
        assert!(kept.requests.lock().expect("the lock").is_empty());
    }
}
