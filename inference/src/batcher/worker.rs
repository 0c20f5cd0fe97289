//! Worker threads: they take work from the queue until it is closed and empty. A worker survives a panic of the model;
//! if a worker thread ends all the same and is the last one, the queue is abandoned so that no caller waits for ever.

mod progress;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::watch;
use undertone_error::{Context, Error, ErrorKind, Result};

use self::progress::Progress;
use super::queue::{Queue, Queued, Work};
use crate::model::Outcome;
use crate::tokenize::Tokens;
use crate::{Scored, telemetry};

/// A text that is ready for a forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) clean_text: String,
    pub(crate) language: Option<&'static str>,
    pub(crate) tokens: Tokens,
}

impl AsRef<[u32]> for Prepared {
    fn as_ref(&self) -> &[u32] {
        &self.tokens.ids
    }
}

/// What a worker works with. Each worker owns one.
pub(crate) trait Backend: Send + 'static {
    /// Called once in the worker's thread, before any other call.
    fn enter(&self) {}
    /// Normalises and tokenises a text.
    fn prepare(&self, text: &str) -> Result<Prepared>;
    /// Runs a batch: one result a text, in order; or an error of the whole batch.
    fn run(&self, batch: &[Prepared]) -> Result<Vec<Result<Outcome>>>;
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) scored: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) tokens: AtomicU64,
}

/// What a worker thread does.
type Body = Box<dyn FnOnce() + Send>;

/// The worker threads of a queue.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: Mutex<Vec<JoinHandle<()>>>,
    alive: watch::Receiver<usize>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) progress: Arc<Progress>,
}

impl Workers {
    /// Starts one thread for each backend, or none: if one cannot be started, those before it have ended when the error
    /// is returned, and the queue is closed.
    ///
    /// # Errors
    /// `Exhausted` if the system gives no thread.
    pub(crate) fn start<B: Backend>(queue: &Arc<Queue>, backends: Vec<B>) -> Result<Self> {
        Self::start_with(queue, backends, |name, body| thread::Builder::new().name(name).spawn(body))
    }

    /// The same, with the threads from `spawn`, which is given a thread's name and body.
    fn start_with<B: Backend>(
        queue: &Arc<Queue>,
        backends: Vec<B>,
        mut spawn: impl FnMut(String, Body) -> io::Result<JoinHandle<()>>,
    ) -> Result<Self> {
        let (alive, watch) = watch::channel(0);
        let counters = Arc::new(Counters::default());
        let progress = Arc::new(Progress::new(backends.len()));
        let mut handles = Vec::new();
        for (i, backend) in backends.into_iter().enumerate() {
            alive.send_modify(|n| *n += 1);
            let guard = Alive { alive: alive.clone(), queue: Arc::clone(queue) };
            let (counters, progress) = (Arc::clone(&counters), Arc::clone(&progress));
            let body = move || work(&guard.queue, &Worker { number: i, backend, counters, progress });
            match spawn(format!("undertone-{i}"), Box::new(body)) {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    queue.close();
                    for handle in handles {
                        let _ = handle.join();
                    }
                    return Err(error).context(ErrorKind::Exhausted, "cannot start a worker thread");
                }
            }
        }
        Ok(Self { handles: Mutex::new(handles), alive: watch, counters, progress })
    }

    /// How many threads run.
    pub(crate) fn alive(&self) -> usize {
        *self.alive.borrow()
    }

    /// Waits until all threads have ended, which they do once the queue is closed and empty.
    pub(crate) async fn ended(&self) {
        let mut alive = self.alive.clone();
        // An error means that the sender is gone, and with it every thread.
        let _ = alive.wait_for(|&n| n == 0).await;
        self.join();
    }

    /// Blocks until all threads have ended, which they do once the queue is closed and empty.
    pub(crate) fn join(&self) {
        let handles = std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner));
        let this = thread::current().id();
        // A worker that answers the last caller may be the one that drops the engine: it must not wait for itself.
        for handle in handles.into_iter().filter(|handle| handle.thread().id() != this) {
            let _ = handle.join();
        }
    }
}

/// Counts a thread as alive until it ends, however it ends.
struct Alive {
    alive: watch::Sender<usize>,
    queue: Arc<Queue>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut left = 0;
        self.alive.send_modify(|n| {
            *n = n.saturating_sub(1);
            left = *n;
        });
        if left == 0 {
            self.queue.abandon();
        }
    }
}

/// A worker's backend, and where it reports what it does.
struct Worker<B> {
    number: usize,
    backend: B,
    counters: Arc<Counters>,
    progress: Arc<Progress>,
}

fn work<B: Backend>(queue: &Queue, worker: &Worker<B>) {
    worker.backend.enter();
    loop {
        match queue.next() {
            Work::Prepare(items) => {
                let busy = worker.progress.begin(worker.number);
                let ready = items.into_iter().filter_map(|item| prepare(worker, item)).collect();
                drop(busy);
                queue.ready(ready);
            }
            Work::Run(items) => run(worker, items),
            Work::Stop => return,
        }
    }
}

/// Prepares one text; a text that cannot be prepared is answered here.
fn prepare<B: Backend>(worker: &Worker<B>, item: Queued<String>) -> Option<Queued<Prepared>> {
    let started = Instant::now();
    let result = surviving(|| worker.backend.prepare(&item.payload));
    telemetry::stage("tokenize", started.elapsed());
    match result {
        Ok(prepared) => Some(item.with(prepared)),
        Err(error) => {
            worker.counters.failed.fetch_add(1, Ordering::Relaxed);
            telemetry::items("failed", 1);
            item.ticket.answer(Err(error));
            None
        }
    }
}

fn run<B: Backend>(worker: &Worker<B>, items: Vec<Queued<Prepared>>) {
    let counters = &worker.counters;
    let (batch, tickets): (Vec<_>, Vec<_>) = items.into_iter().map(|item| (item.payload, item.ticket)).unzip();
    let now = Instant::now();
    for ticket in &tickets {
        telemetry::stage("queue", now.saturating_duration_since(ticket.submitted));
    }
    let busy = worker.progress.begin(worker.number);
    let results = run_halving(&worker.backend, &batch, counters);
    // Over before the callers can know, so that an answered engine is seen to be idle.
    drop(busy);
    for ((prepared, ticket), result) in batch.into_iter().zip(tickets).zip(results) {
        let (counter, outcome) =
            if result.is_ok() { (&counters.scored, "scored") } else { (&counters.failed, "failed") };
        counter.fetch_add(1, Ordering::Relaxed);
        telemetry::items(outcome, 1);
        ticket.answer(result.map(|outcome| assemble(prepared, outcome)));
    }
}

/// Runs a batch. If it fails as a whole, its halves are run one after the other, down to single texts: the culprits fail
/// alone and the others get their scores.
fn run_halving<B: Backend>(backend: &B, batch: &[Prepared], counters: &Counters) -> Vec<Result<Outcome>> {
    let tokens: usize = batch.iter().map(|item| item.tokens.ids.len()).sum();
    counters.batches.fetch_add(1, Ordering::Relaxed);
    counters.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    telemetry::batch(tokens);
    let complete = |results: Vec<Result<Outcome>>| match results.len() == batch.len() {
        true => Ok(results),
        false => Err(Error::new(ErrorKind::Internal, "model answered for another number of texts than it was given")),
    };
    let error = match surviving(|| backend.run(batch)).and_then(complete) {
        Ok(results) => return results,
        Err(error) => error,
    };
    if batch.len() <= 1 {
        return vec![Err(error)];
    }
    tracing::warn!(%error, texts = batch.len(), tokens, "batch failed, running its halves");
    let (left, right) = batch.split_at(batch.len() / 2);
    let mut results = run_halving(backend, left, counters);
    results.extend(run_halving(backend, right, counters));
    results
}

/// Turns a panic into an error: the worker goes on with the next text.
fn surviving<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        Err(Error::new(ErrorKind::Internal, "model panicked").with("panic", panic_message(panic.as_ref())))
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown")
}

fn assemble(prepared: Prepared, outcome: Outcome) -> Scored {
    let sentiment = outcome.verdict.sentiment;
    Scored {
        heads: outcome.verdict.heads,
        sentiment: sentiment.map(|s| s.side.name().to_owned()),
        polarity: sentiment.map(|s| s.polarity),
        confidence: sentiment.map(|s| s.confidence),
        embedding: outcome.embedding,
        clean_text: prepared.clean_text,
        language: prepared.language,
        tokens: u32::try_from(prepared.tokens.ids.len()).unwrap_or(u32::MAX),
        truncated: prepared.tokens.truncated,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::Rules;
    use super::super::fake::Fake;
    use super::*;

    #[test]
    fn a_start_that_fails_leaves_no_thread_behind() {
        let queue = Arc::new(Queue::new(Rules { token_budget: 8, bulk_ageing: Duration::from_secs(1) }));
        let fake = Fake::default();
        let (done, result) = mpsc::channel();
        let (theirs, backends) = (Arc::clone(&queue), vec![fake.clone(); 4]);
        thread::spawn(move || {
            let mut started = 0;
            let spawn = |name: String, body: Body| match started {
                2 => Err(io::Error::from(io::ErrorKind::WouldBlock)),
                _ => {
                    started += 1;
                    thread::Builder::new().name(name).spawn(body)
                }
            };
            let _ = done.send(Workers::start_with(&theirs, backends, spawn).map(drop));
        });
        let result = result.recv_timeout(Duration::from_secs(10)).expect("the threads that were started must end");
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Exhausted);
        assert_eq!(Arc::strong_count(&fake.batches), 1, "a thread still has its backend");
        assert!(matches!(queue.next(), Work::Stop), "nothing would work off what is put in");
    }
}
