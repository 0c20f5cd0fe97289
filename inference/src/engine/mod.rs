//! The engine: a loaded model behind the batcher.
//!
//! Guarantees: every call is answered, with a score or with an error that says what to do; a score does not depend on
//! what else was sent at the same time; no text is answered twice; memory is bounded, because both lanes and the repeat
//! cache are; the model can be replaced while it serves.

mod core;
mod generation;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Semaphore, TryAcquireError, oneshot};
use undertone_error::{Error, ErrorKind, Result};

use self::core::Loaded;
use self::generation::{Generation, check_successor};
use crate::batcher::{Backend, Closed, Counters, Place, Reader, RecoveryRules, Ticket, expired};
use crate::{Device, LabelMap, Lane, ModelInfo, Precision, Scored, telemetry};

/// How an engine is sized.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where the model runs.
    pub device: Device,
    /// The arithmetic of the encoder.
    pub precision: Precision,
    /// Worker threads; 0 takes one a core, or two a GPU, beside which the other cores read texts for them.
    pub workers: usize,
    /// The most tokens in one forward pass. More does not make a CPU faster, but makes interactive texts wait longer.
    pub token_budget: usize,
    /// The most tokens in one forward pass on a GPU, which is idle between small ones.
    pub cuda_token_budget: usize,
    /// The most tokens in a forward pass with interactive and bulk texts in it, while interactive texts come: the former wait
    /// for the latter. Beyond [`EngineConfig::token_budget`] it changes nothing. A GPU, which does not pause for interactive
    /// texts, takes half of its budget instead, and also without such a text in the pass.
    pub bulk_tokens: usize,
    /// For so long after an interactive text the next one is expected, and [`EngineConfig::bulk_tokens`] holds.
    pub interactive_window: Duration,
    /// About the most memory in bytes for scores of texts that may be posted again; 0 switches the repeat cache off. A text
    /// of a model with a 384-wide embedding and five heads takes some 2.5 kB. While a model is replaced there are two caches.
    pub cache_bytes: usize,
    /// The room in each lane, in tokens as estimated from a text's length. On a GPU at least four batches a worker.
    pub queue_tokens: usize,
    /// A bulk text that has waited this long gets a turn of its own even if interactive texts never run out.
    pub bulk_ageing: Duration,
    /// The longest text that is accepted, in bytes of UTF-8. Of an accepted text the engine looks at the first 1,024 bytes
    /// for each token that the model reads, so that no text costs more than a bounded time; the rest only makes it
    /// [`Scored::truncated`].
    pub max_text_bytes: usize,
    /// Whether texts are told their language: most of what preparing a text costs. Without it [`Scored::language`] and
    /// [`Scored::in_domain`] stay empty.
    pub detect_language: bool,
    /// What the model's labels mean, where a configuration says so; it stands over what the model folder says.
    pub labels: Option<LabelMap>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            precision: Precision::Auto,
            workers: 0,
            token_budget: 256,
            cuda_token_budget: 1 << 15,
            bulk_tokens: 48,
            interactive_window: Duration::from_secs(2),
            cache_bytes: 32 << 20,
            queue_tokens: 1 << 16,
            bulk_ageing: Duration::from_secs(1),
            max_text_bytes: 1 << 20,
            detect_language: true,
            labels: None,
        }
    }
}

/// One text to score.
#[derive(Clone, Debug)]
pub struct Request {
    /// The text as it came.
    pub text: String,
    /// Which lane it waits in.
    pub lane: Lane,
    /// When the answer stops being of use.
    pub deadline: Option<Instant>,
}

impl Request {
    /// An interactive request without a deadline.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), lane: Lane::Interactive, deadline: None }
    }
}

/// What waits in one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneStats {
    /// Texts that wait.
    pub waiting: usize,
    /// The room that texts take which wait or run, in estimated tokens.
    pub tokens: usize,
}

/// What waits, and counts since the engine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct EngineStats {
    /// Worker threads that are alive; readers beside a GPU are not counted.
    pub workers: usize,
    /// Those of them that are restarting a device that fell ill.
    pub ill: usize,
    /// For how many seconds the oldest work in progress (a forward pass, or the preparing of some texts) has been going
    /// on; 0 when all workers are idle. Work takes well under a second, so one that lasts for many means a stuck worker.
    pub oldest_batch_seconds: f64,
    /// The interactive lane.
    pub interactive: LaneStats,
    /// The bulk lane.
    pub bulk: LaneStats,
    /// Forward passes.
    pub batches: u64,
    /// Texts scored.
    pub scored: u64,
    /// Texts that failed.
    pub failed: u64,
    /// Texts dropped before they cost a forward pass: expired deadlines and callers that left.
    pub dropped: u64,
    /// Tokens that went through the encoder.
    pub tokens: u64,
    /// Texts that were answered from the repeat cache; they count as scored too.
    pub cache_hits: u64,
    /// Texts that were looked for there in vain.
    pub cache_misses: u64,
    /// About the bytes that the repeat cache takes.
    pub cache_bytes: usize,
}

/// A loaded model and the workers that run it. Cloning is cheap: all clones share one queue.
///
/// Dropping the last clone drops what still waits, and blocks until the workers have ended: no longer than the forward
/// passes in progress. [`Engine::shutdown`] scores what waits first, and does not block its thread while the workers do.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: EngineConfig,
    recovery: RecoveryRules,
    serving: RwLock<Serving>,
    /// Held by the one replacement that may be under way.
    replacing: Mutex<()>,
    counters: Arc<Counters>,
    interactive: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    room: usize,
}

/// Which model takes texts.
#[derive(Debug)]
struct Serving {
    current: Arc<Generation>,
    /// The model before it, while it works off what it has.
    retired: Option<Arc<Generation>>,
    closed: bool,
}

impl Inner {
    /// Nothing panics under this lock, so a poisoned one is as good as any.
    fn serving(&self) -> RwLockReadGuard<'_, Serving> {
        self.serving.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn serving_mut(&self) -> RwLockWriteGuard<'_, Serving> {
        self.serving.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Loads a model folder, starts the workers and lets each run a known-good text. Blocks for the time that it takes to
    /// read the weights (a fraction of a second for a small model), so call it before serving or from a blocking thread.
    ///
    /// # Errors
    /// `NotFound`, `InvalidConfig`, `Unsupported` or `Corrupt`, naming the file, the key and the mend; `Internal` if the
    /// model fails on the known-good text.
    pub fn start(model_dir: &Path, config: EngineConfig) -> Result<Self> {
        check(&config)?;
        telemetry::describe();
        let Loaded { model, backends, readers, gpu } = core::load(model_dir, &config)?;
        let config = match gpu {
            // A GPU is through with half a batch in a few milliseconds: all that an interactive text may have to wait.
            true => {
                let token_budget = config.cuda_token_budget;
                // Room for what all workers run and for as much again that is prepared meanwhile.
                let queue_tokens = config.queue_tokens.max(4 * backends.len() * token_budget);
                EngineConfig { token_budget, bulk_tokens: token_budget / 2, queue_tokens, ..config }
            }
            false => config,
        };
        Self::with_backends(model, config, RecoveryRules::default(), backends, readers)
    }

    fn with_backends<B: Backend>(
        model: ModelInfo,
        config: EngineConfig,
        recovery: RecoveryRules,
        backends: Vec<B>,
        readers: Vec<Box<dyn Reader>>,
    ) -> Result<Self> {
        // Every text fits into an empty lane.
        let room = config.queue_tokens.clamp(model.max_tokens, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let counters = Arc::new(Counters::default());
        let current = Arc::new(Generation::start(model, &config, recovery, &counters, backends, readers)?);
        telemetry::model(&current.model, true);
        let serving = RwLock::new(Serving { current, retired: None, closed: false });
        let (interactive, bulk) = (Arc::new(Semaphore::new(room)), Arc::new(Semaphore::new(room)));
        let replacing = Mutex::default();
        let inner = Inner { config, recovery, serving, replacing, counters, interactive, bulk, room };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The model that takes texts now. Each [`Scored`] names the one that scored it.
    pub fn model(&self) -> Arc<ModelInfo> {
        Arc::clone(&self.inner.serving().current.model)
    }

    /// Replaces the model by another revision of it, without a caller noticing: the new one is loaded and tried beside the
    /// old one, takes over at once, and the old one works off what it has already tokenised. Answers the model that then
    /// serves; if the folder holds what runs already, nothing happens. Blocks until the old model has ended, so call it from a
    /// blocking thread. For a moment both are in memory. Replacements wait for each other.
    ///
    /// # Errors
    /// As [`Engine::start`]; `InvalidConfig` also if the new model lacks a head or has another width than the old one;
    /// `Unavailable` while shutting down. After an error the old model serves as before.
    pub fn replace(&self, model_dir: &Path) -> Result<Arc<ModelInfo>> {
        let _one_at_a_time = self.inner.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let Loaded { model, backends, readers, .. } = core::load(model_dir, &self.inner.config)?;
        self.replace_with(model, backends, readers)
    }

    fn replace_with<B: Backend>(
        &self,
        model: ModelInfo,
        backends: Vec<B>,
        readers: Vec<Box<dyn Reader>>,
    ) -> Result<Arc<ModelInfo>> {
        let inner = &self.inner;
        let old = self.model();
        if (&old.name, &old.revision, &old.precision) == (&model.name, &model.revision, &model.precision)
            && inner.serving().current.workers.alive() > 0
        {
            return Ok(old);
        }
        check_successor(&old, &model)?;
        let new = Generation::start(model, &inner.config, inner.recovery, &inner.counters, backends, readers)?;
        let new = Arc::new(new);
        let swapped = {
            let mut serving = inner.serving_mut();
            match serving.closed {
                true => None,
                false => {
                    // Nobody submits meanwhile, so nobody finds the old queue closed or overtakes what waited there.
                    serving.current.queue.hand_over(&new.queue);
                    let old = std::mem::replace(&mut serving.current, Arc::clone(&new));
                    serving.retired = Some(Arc::clone(&old));
                    Some(old)
                }
            }
        };
        let Some(old) = swapped else { return Err(Closed::ShuttingDown.error()) };
        telemetry::model(&old.model, false);
        telemetry::model(&new.model, true);
        old.workers.join();
        inner.serving_mut().retired = None;
        Ok(Arc::clone(&new.model))
    }

    /// Scores one text. Dropping the future withdraws the text. A deadline needs a Tokio runtime with its timer enabled.
    ///
    /// # Errors
    /// `InvalidInput` for a text that is empty, shows nothing, or has nothing that the model reads; `TooLarge`; `Busy` if
    /// the interactive lane is full (the bulk lane waits for room instead); `DeadlineExceeded`; `Unavailable` while
    /// shutting down, or if no worker gets its device to run; `Internal` if the model failed on this text and not on a
    /// known-good one, or lost its device each time this text ran alone; `Exhausted` if there is not enough memory even for
    /// this text alone.
    pub async fn score(&self, request: Request) -> Result<Scored> {
        let Request { text, lane, deadline } = request;
        let scoring = async { answer(self.submit(text, lane, deadline).await?).await };
        match deadline {
            // The caller hears at once, however long the queue is; the queue notices that the caller has gone.
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), scoring).await.unwrap_or_else(|_| Err(expired()))
            }
            None => scoring.await,
        }
    }

    /// Scores many texts; results come in the order of the texts, each with its own outcome. The bulk lane waits for
    /// room in the queue; in the interactive lane the texts that find it full are `Busy`.
    pub async fn score_all(&self, texts: Vec<String>, lane: Lane) -> Vec<Result<Scored>> {
        let mut answers = Vec::with_capacity(texts.len());
        for text in texts {
            answers.push(self.submit(text, lane, None).await);
        }
        let mut results = Vec::with_capacity(answers.len());
        for submitted in answers {
            results.push(match submitted {
                Ok(submitted) => answer(submitted).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Puts a text into its lane, waiting for room in the bulk lane.
    async fn submit(&self, text: String, lane: Lane, deadline: Option<Instant>) -> Result<Submitted> {
        let inner = &self.inner;
        if text.len() > inner.config.max_text_bytes {
            return Err(Error::new(ErrorKind::TooLarge, "text is too long")
                .with("bytes", text.len())
                .with("limit", inner.config.max_text_bytes)
                .help("send a shorter text; the model reads only the beginning of a long one"));
        }
        let submitted = Instant::now();
        let cost = estimate_tokens(text.len(), self.model().max_tokens.min(inner.room));
        // Before it waits for room: what waits for that is ahead of what comes later, too.
        let place = inner.counters.backlog.enter(lane, cost);
        let room = match lane {
            Lane::Interactive => {
                Arc::clone(&inner.interactive).try_acquire_many_owned(cost).map_err(|error| match error {
                    TryAcquireError::NoPermits => busy(inner.room),
                    TryAcquireError::Closed => Closed::ShuttingDown.error(),
                })?
            }
            Lane::Bulk => {
                Arc::clone(&inner.bulk).acquire_many_owned(cost).await.map_err(|_| Closed::ShuttingDown.error())?
            }
        };
        let (reply, receiver) = oneshot::channel();
        inner.serving().current.queue.submit(text, Ticket { lane, submitted, deadline, reply, room })?;
        Ok(Submitted { receiver, place })
    }

    /// How long a text of this lane would wait that came now. `None` if that is not known: nothing has waited lately, so
    /// nobody has seen how fast the queue empties. It errs on the side of too short.
    pub fn wait(&self, lane: Lane) -> Option<Duration> {
        self.inner.counters.backlog.wait(lane, Instant::now())
    }

    /// The most tokens in one forward pass, where there is memory for them.
    pub(crate) fn token_budget(&self) -> usize {
        self.inner.config.token_budget
    }

    /// What waits, and what was done since the start.
    pub fn stats(&self) -> EngineStats {
        let inner = &self.inner;
        let serving = inner.serving();
        let counters = &inner.counters;
        let generations = || std::iter::once(&serving.current).chain(&serving.retired);
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let lane = |waiting, room: &Semaphore| LaneStats {
            waiting,
            tokens: inner.room.saturating_sub(room.available_permits()),
        };
        let (mut interactive, mut bulk, mut oldest) = (0, 0, Duration::ZERO);
        let now = Instant::now();
        for generation in generations() {
            let counts = generation.queue.counts();
            interactive += counts.interactive;
            bulk += counts.bulk;
            oldest = oldest.max(generation.workers.shared.progress.oldest(now));
        }
        let shared = &serving.current.workers.shared;
        EngineStats {
            workers: serving.current.workers.alive(),
            ill: shared.ill.load(Ordering::Relaxed),
            oldest_batch_seconds: oldest.as_secs_f64(),
            interactive: lane(interactive, &inner.interactive),
            bulk: lane(bulk, &inner.bulk),
            batches: count(&counters.batches),
            scored: count(&counters.scored),
            failed: count(&counters.failed),
            dropped: count(&counters.dropped),
            tokens: count(&counters.tokens),
            cache_hits: count(&counters.cache_hits),
            cache_misses: count(&counters.cache_misses),
            cache_bytes: shared.cache.bytes(),
        }
    }

    /// Takes no more texts, scores those that wait, and returns when the workers have ended. Callers that wait for room
    /// in the bulk lane are turned away with `Unavailable`.
    pub async fn shutdown(&self) {
        self.inner.interactive.close();
        self.inner.bulk.close();
        let (current, retired) = {
            let mut serving = self.inner.serving_mut();
            serving.closed = true;
            serving.current.queue.close();
            (Arc::clone(&serving.current), serving.retired.clone())
        };
        current.workers.ended().await;
        if let Some(retired) = retired {
            retired.workers.ended().await;
        }
    }
}

/// A text that waits for its answer.
struct Submitted {
    receiver: oneshot::Receiver<Result<Scored>>,
    place: Place,
}

/// The answer to a submitted text.
async fn answer(submitted: Submitted) -> Result<Scored> {
    let Submitted { receiver, place } = submitted;
    let answer = receiver.await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Unavailable, "worker ended before it answered")
            .help("see the log of the engine, and restart it"))
    });
    if answer.is_ok() {
        place.scored();
    }
    answer
}

fn busy(room: usize) -> Error {
    Error::new(ErrorKind::Busy, "engine has no room for more texts")
        .with("queue_tokens", room)
        .help("send the text again in a moment, or send fewer at a time")
}

/// About how many tokens a text will have: WordPiece makes a token of four bytes or so of English.
pub(crate) fn estimate_tokens(bytes: usize, max_tokens: usize) -> u32 {
    u32::try_from((2 + bytes / 4).min(max_tokens)).unwrap_or(u32::MAX)
}

fn check(config: &EngineConfig) -> Result<()> {
    let sizes = [
        ("token_budget", config.token_budget),
        ("cuda_token_budget", config.cuda_token_budget),
        ("bulk_tokens", config.bulk_tokens),
        ("queue_tokens", config.queue_tokens),
        ("max_text_bytes", config.max_text_bytes),
    ];
    match sizes.into_iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => Err(Error::new(ErrorKind::InvalidConfig, "size of the engine must be positive")
            .with("key", key)
            .with("value", 0)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod soak;
#[cfg(test)]
mod tests;
