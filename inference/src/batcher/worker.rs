//! Worker threads: they take work from the queue until it is closed and empty.
//!
//! Each begins by running the canary, a known-good text, which warms the model up and shows that it works. A worker survives
//! a panic of the model, and restarts a device that fell ill. One that cannot is given up; if it is the last one, the queue
//! is abandoned, so that no caller waits for ever. Beside workers with a GPU, which only run, there are readers, which only
//! prepare.

mod attend;
mod pause;
mod prepare;
mod progress;

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use tokio::sync::watch;
use undertone_error::{Context, ErrorKind, Result};

use self::attend::{Ill, surviving};
pub(crate) use self::prepare::{Normalized, Prepared, Reader};
use self::progress::Progress;
use super::cache::Cache;
use super::faults::{Budget, Illness, RecoveryRules};
use super::pace::Backlog;
use super::queue::Queue;
use super::state::Work;
use crate::model::Outcome;
use crate::{ModelInfo, telemetry};

/// Any model scores this; if it does not, the device is ill, not the text.
const CANARY: &str = "The coffee here is good today.";

/// What a worker works with. Each worker owns one.
pub(crate) trait Backend: Reader {
    /// Called once in the worker's thread, before any other call.
    fn enter(&mut self) -> Result<()> {
        Ok(())
    }
    /// Whether it pauses while it runs a batch, often enough that what came meanwhile hardly waits.
    fn pauses(&self) -> bool {
        false
    }
    /// Runs a batch: one result a text, in order; or an error of the whole batch. `Exhausted` says that there was not
    /// enough memory, and that fewer tokens may fit. In a `pause` it may be called again.
    fn run(&self, batch: &[Prepared], pause: &mut dyn FnMut()) -> Result<Vec<Result<Outcome>>>;
    /// Restarts what the batches run on, after the canary failed. The default has nothing to restart, which suits a
    /// processor; the canary is run again in any case.
    fn recover(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Counts since the start, and what waits.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) scored: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) tokens: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
    /// What waits or runs, whichever model it is for.
    pub(crate) backlog: Arc<Backlog>,
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
    /// Starts one thread for each backend and each reader, and returns when each backend has run the canary. Fails if none
    /// could; what fails for some only is left to them to mend. After an error all threads have ended, and the queue is
    /// closed. The queue must be split if there are readers.
    ///
    /// # Errors
    /// `Exhausted` if the system gives no thread; what the canary failed with, if it failed everywhere.
    pub(crate) fn start<B: Backend>(
        queue: &Arc<Queue>,
        shared: Arc<Shared>,
        backends: Vec<B>,
        readers: Vec<Box<dyn Reader>>,
    ) -> Result<Self> {
        Self::start_with(queue, shared, backends, readers, |name, body| thread::Builder::new().name(name).spawn(body))
    }

    /// The same, with the threads from `spawn`, which is given a thread's name and body.
    fn start_with<B: Backend>(
        queue: &Arc<Queue>,
        shared: Arc<Shared>,
        backends: Vec<B>,
        readers: Vec<Box<dyn Reader>>,
        mut spawn: impl FnMut(String, Body) -> io::Result<JoinHandle<()>>,
    ) -> Result<Self> {
        let (alive, watch) = watch::channel(0);
        let (report, reports) = mpsc::channel();
        let workers = Self { handles: Mutex::default(), alive: watch, shared };
        let mut bodies: Vec<(String, Body)> = Vec::new();
        let first_reader = backends.len();
        for (number, backend) in backends.into_iter().enumerate() {
            alive.send_modify(|n| *n += 1);
            let guard = Alive { alive: alive.clone(), queue: Arc::clone(queue) };
            let (shared, report) = (Arc::clone(&workers.shared), report.clone());
            let budget = Budget::new(queue.rules().token_budget);
            let illness = Illness::default();
            let worker = Worker { number, backend, canary: None, budget, illness, shared };
            bodies.push((format!("undertone-{number}"), Box::new(move || worker.work(&guard.queue, report))));
        }
        for (number, reader) in readers.into_iter().enumerate() {
            let (queue, shared) = (Arc::clone(queue), Arc::clone(&workers.shared));
            let body = move || prepare::work(&queue, &shared, first_reader + number, &*reader);
            bodies.push((format!("undertone-r{number}"), Box::new(body)));
        }
        for (name, body) in bodies {
            match spawn(name, body).context(ErrorKind::Exhausted, "cannot start a worker thread") {
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
            match queue.next(queue.runner(), self.budget.tokens()) {
                Work::Prepare(items) => queue.prepared(self.shared.prepare_all(self.number, items, &self.backend)),
                Work::Run(items) => {
                    if let Err(Ill { error, lost_alone, back }) = self.run(queue, items) {
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
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fake::{Fake, info, rules};
    use super::super::plan::Role;
    use super::*;

    #[test]
    fn a_start_that_fails_leaves_no_thread_behind() {
        let counters = Arc::new(Counters::default());
        let queue = Arc::new(Queue::new(rules(8), Arc::clone(&counters), false));
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
            let _ = done.send(Workers::start_with(&theirs, shared, backends, Vec::new(), spawn).map(drop));
        });
        let result = result.recv_timeout(Duration::from_secs(10)).expect("the threads that were started must end");
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Exhausted);
        assert_eq!(Arc::strong_count(&fake.batches), 1, "a thread still has its backend");
        assert!(matches!(queue.next(Role::All, 8), Work::Stop), "nothing would work off what is put in");
    }

    #[test]
    fn a_start_fails_with_what_ails_every_worker() {
        let counters = Arc::new(Counters::default());
        let queue = Arc::new(Queue::new(rules(8), Arc::clone(&counters), false));
        let shared = Arc::new(Shared::new(Arc::new(info("0")), counters, 0, 2, RecoveryRules::default()));
        let fake = Fake { dies_at_start: true, ..Fake::default() };
        let error = Workers::start(&queue, shared, vec![fake.clone(); 2], Vec::new()).unwrap_err();
        assert!(error.to_string().contains("this worker dies"), "{error}");
        assert_eq!(Arc::strong_count(&fake.batches), 1, "a thread still has its backend");
    }
}
