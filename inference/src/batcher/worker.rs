//! Worker threads: they take work from the queue until it is closed and empty.
//!
//! Each begins by running the canary, a known-good text, which warms the model up and shows that it works. A worker survives
//! a panic of the model, and restarts a device that fell ill. One that cannot is given up; if it is the last one, the queue
//! is abandoned, so that no caller waits for ever.

mod attend;
mod progress;

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::watch;
use undertone_error::{Context, ErrorKind, Result};

use self::attend::{Ill, surviving};
use self::progress::Progress;
use super::cache::Cache;
use super::faults::{Budget, Illness, RecoveryRules};
use super::queue::Queue;
use super::state::{Queued, Work};
use crate::language::Reading;
use crate::model::Outcome;
use crate::tokenize::Tokens;
use crate::{ModelInfo, telemetry};

/// Any model scores this; if it does not, the device is ill, not the text.
const CANARY: &str = "The coffee here is good today.";

/// A text as the model's normaliser leaves it.
#[derive(Clone, Debug)]
pub(crate) struct Normalized {
    pub(crate) clean_text: String,
    pub(crate) reading: Reading,
    /// Whether the raw text was longer than what is looked at.
    pub(crate) cut: bool,
}

/// A text that is ready for a forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) text: Normalized,
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
    fn enter(&mut self) -> Result<()> {
        Ok(())
    }
    /// Normalises a text. Cheap: the repeat cache is asked before the text is tokenised.
    fn normalize(&self, text: &str) -> Result<Normalized>;
    /// Tokenises a normalised text. The same clean text always gives the same tokens.
    fn tokenize(&self, text: &Normalized) -> Result<Tokens>;
    /// Runs a batch: one result a text, in order; or an error of the whole batch. `Exhausted` says that there was not
    /// enough memory, and that fewer tokens may fit.
    fn run(&self, batch: &[Prepared]) -> Result<Vec<Result<Outcome>>>;
    /// Restarts what the batches run on, after the canary failed. The default has nothing to restart, which suits a
    /// processor; the canary is run again in any case.
    fn recover(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) scored: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) tokens: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
}

/// What a worker thread does.
type Body = Box<dyn FnOnce() + Send>;

/// What the workers of a model have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) model: Arc<ModelInfo>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) cache: Cache,
    pub(crate) progress: Progress,
    /// Workers that are trying to get well.
    pub(crate) ill: AtomicUsize,
    pub(crate) recovery: RecoveryRules,
}

impl Shared {
    pub(crate) fn new(
        model: Arc<ModelInfo>,
        counters: Arc<Counters>,
        cache_bytes: usize,
        workers: usize,
        recovery: RecoveryRules,
    ) -> Self {
        let (cache, progress) = (Cache::new(cache_bytes), Progress::new(workers));
        Self { model, counters, cache, progress, ill: AtomicUsize::new(0), recovery }
    }
}

/// The worker threads of a queue.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: Mutex<Vec<JoinHandle<()>>>,
    alive: watch::Receiver<usize>,
    pub(crate) shared: Arc<Shared>,
}

impl Workers {
    /// Starts one thread for each backend, and returns when each has run the canary. Fails if none could; what fails for
    /// some only is left to them to mend. After an error all threads have ended, and the queue is closed.
    ///
    /// # Errors
    /// `Exhausted` if the system gives no thread; what the canary failed with, if it failed everywhere.
    pub(crate) fn start<B: Backend>(queue: &Arc<Queue>, shared: Arc<Shared>, backends: Vec<B>) -> Result<Self> {
        Self::start_with(queue, shared, backends, |name, body| thread::Builder::new().name(name).spawn(body))
    }

    /// The same, with the threads from `spawn`, which is given a thread's name and body.
    fn start_with<B: Backend>(
        queue: &Arc<Queue>,
        shared: Arc<Shared>,
        backends: Vec<B>,
        mut spawn: impl FnMut(String, Body) -> io::Result<JoinHandle<()>>,
    ) -> Result<Self> {
        let (alive, watch) = watch::channel(0);
        let (report, reports) = mpsc::channel();
        let workers = Self { handles: Mutex::default(), alive: watch, shared };
        for (number, backend) in backends.into_iter().enumerate() {
            alive.send_modify(|n| *n += 1);
            let guard = Alive { alive: alive.clone(), queue: Arc::clone(queue) };
            let (shared, report) = (Arc::clone(&workers.shared), report.clone());
            let budget = Budget::new(queue.rules().token_budget);
            let illness = Illness::default();
            let worker = Worker { number, backend, canary: None, budget, illness, shared };
            let body = move || worker.work(&guard.queue, report);
            let spawned = spawn(format!("undertone-{number}"), Box::new(body))
                .context(ErrorKind::Exhausted, "cannot start a worker thread");
            match spawned {
                Ok(handle) => workers.handles.lock().unwrap_or_else(PoisonError::into_inner).push(handle),
                Err(error) => {
                    queue.abandon();
                    workers.join();
                    return Err(error);
                }
            }
        }
        drop(report);
        let (mut well, mut ailment) = (0, None);
        // A report that never comes is one of a thread that ended.
        for report in reports {
            match report {
                Ok(()) => well += 1,
                Err(error) => ailment = Some(error),
            }
        }
        match ailment {
            Some(error) if well == 0 => {
                queue.abandon();
                workers.join();
                Err(match error.mend() {
                    Some(_) => error,
                    None => error.help("no worker could run a known-good text: look at the model, and at the device"),
                })
            }
            _ => Ok(workers),
        }
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

/// One worker: its backend, and how it has fared.
struct Worker<B> {
    number: usize,
    backend: B,
    canary: Option<Prepared>,
    budget: Budget,
    illness: Illness,
    shared: Arc<Shared>,
}

impl<B: Backend> Worker<B> {
    fn work(mut self, queue: &Queue, report: mpsc::Sender<Result<()>>) {
        telemetry::budget(self.number, self.budget.tokens());
        let warm = self.warm_up();
        let well = warm.is_ok();
        let _ = report.send(warm);
        // Whoever started this worker waits until the last report has come.
        drop(report);
        if !well && !self.recover(queue) {
            return;
        }
        loop {
            match queue.next(self.budget.tokens()) {
                Work::Prepare(items) => {
                    let shared = Arc::clone(&self.shared);
                    let busy = shared.progress.begin(self.number);
                    let ready = items.into_iter().filter_map(|item| self.prepare(item)).collect();
                    drop(busy);
                    queue.ready(ready);
                }
                Work::Run(items) => {
                    if let Err(Ill { error, lost_alone, back }) = self.run(items) {
                        let texts = back.len();
                        tracing::error!(%error, texts, worker = self.number, "device is ill, its texts go back");
                        queue.give_back(back, lost_alone);
                        if !self.recover(queue) {
                            return;
                        }
                    }
                }
                Work::Wait => {}
                Work::Stop => return,
            }
        }
    }

    /// Prepares the canary and runs it.
    fn warm_up(&mut self) -> Result<()> {
        surviving(|| self.backend.enter())?;
        self.canary = match surviving(|| self.prepare_text(CANARY)) {
            Ok(canary) => Some(canary),
            Err(error) => {
                tracing::warn!(%error, "model reads no known-good text: an ill device will pass for ill texts");
                None
            }
        };
        self.ask_canary()
    }

    /// Restarts the backend, with growing pauses, until the canary passes. False if there is nothing more to do here: the
    /// attempts are used up, or the queue has ended.
    fn recover(&mut self, queue: &Queue) -> bool {
        let shared = Arc::clone(&self.shared);
        shared.ill.fetch_add(1, Ordering::Relaxed);
        let well = loop {
            let Some(pause) = self.illness.pause(&shared.recovery) else {
                tracing::error!(worker = self.number, "worker gave up: its device does not get well");
                telemetry::recovery("gave_up");
                break false;
            };
            if !queue.pause(pause) {
                break false;
            }
            let attempt = surviving(|| self.backend.recover()).and_then(|()| match &self.canary {
                Some(_) => self.ask_canary(),
                None => self.warm_up(),
            });
            self.illness = self.illness.attempted(attempt.is_ok());
            match attempt {
                Ok(()) => {
                    tracing::info!(worker = self.number, "device is well again");
                    telemetry::recovery("recovered");
                    break true;
                }
                Err(error) => {
                    tracing::warn!(%error, worker = self.number, "device is still ill");
                    telemetry::recovery("failed");
                }
            }
        };
        shared.ill.fetch_sub(1, Ordering::Relaxed);
        well
    }

    fn prepare_text(&self, text: &str) -> Result<Prepared> {
        let text = self.backend.normalize(text)?;
        let tokens = self.backend.tokenize(&text)?;
        Ok(Prepared { text, tokens })
    }

    /// Prepares one text. One that cannot be prepared is answered here, and so is one whose score is known.
    fn prepare(&self, item: Queued<String>) -> Option<Queued<Prepared>> {
        let started = Instant::now();
        let result = surviving(|| {
            let text = self.backend.normalize(&item.payload)?;
            if let Some(kept) = self.look_up(&text) {
                return Ok(Found::Kept(text, kept));
            }
            let tokens = self.backend.tokenize(&text)?;
            Ok(Found::New(Prepared { text, tokens }))
        });
        telemetry::stage("tokenize", started.elapsed());
        let result = match result {
            Ok(Found::New(prepared)) => return Some(item.with(prepared)),
            Ok(Found::Kept(text, kept)) => Ok(self.assemble(text, kept.outcome.clone(), kept.tokens, kept.truncated)),
            Err(error) => Err(error),
        };
        self.count(result.is_ok());
        item.ticket.answer(result);
        None
    }

    fn look_up(&self, text: &Normalized) -> Option<Arc<super::cache::Kept>> {
        if !self.shared.cache.is_on() {
            return None;
        }
        let kept = self.shared.cache.get(&text.clean_text);
        let counters = &self.shared.counters;
        let counter = if kept.is_some() { &counters.cache_hits } else { &counters.cache_misses };
        counter.fetch_add(1, Ordering::Relaxed);
        telemetry::cache(kept.is_some());
        kept
    }
}

/// A text that was looked at.
enum Found {
    New(Prepared),
    Kept(Normalized, Arc<super::cache::Kept>),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fake::{Fake, info, rules};
    use super::*;

    #[test]
    fn a_start_that_fails_leaves_no_thread_behind() {
        let counters = Arc::new(Counters::default());
        let queue = Arc::new(Queue::new(rules(8), Arc::clone(&counters)));
        let shared = Arc::new(Shared::new(Arc::new(info("0")), counters, 0, 4, RecoveryRules::default()));
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
            let _ = done.send(Workers::start_with(&theirs, shared, backends, spawn).map(drop));
        });
        let result = result.recv_timeout(Duration::from_secs(10)).expect("the threads that were started must end");
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Exhausted);
        assert_eq!(Arc::strong_count(&fake.batches), 1, "a thread still has its backend");
        assert!(matches!(queue.next(8), Work::Stop), "nothing would work off what is put in");
    }

    #[test]
    fn a_start_fails_with_what_ails_every_worker() {
        let counters = Arc::new(Counters::default());
        let queue = Arc::new(Queue::new(rules(8), Arc::clone(&counters)));
        let shared = Arc::new(Shared::new(Arc::new(info("0")), counters, 0, 2, RecoveryRules::default()));
        let fake = Fake { dies_at_start: true, ..Fake::default() };
        let error = Workers::start(&queue, shared, vec![fake.clone(); 2]).unwrap_err();
        assert!(error.to_string().contains("this worker dies"), "{error}");
        assert_eq!(Arc::strong_count(&fake.batches), 1, "a thread still has its backend");
    }
}
