//! The engine: a loaded model behind the batcher.
//!
//! Guarantees: every call is answered, with a score or with an error that says what to do; a score does not depend on
//! what else was sent at the same time; no text is scored twice; memory is bounded, because both lanes are.

use std::path::Path;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Semaphore, TryAcquireError, oneshot};
use undertone_error::{Error, ErrorKind, Result};

use crate::batcher::{Backend, Prepared, Queue, Rules, Ticket, Workers, closed, expired};
use crate::model::{ModelFolder, Network, Outcome, revision};
use crate::normalize::{Normalizer, is_blank};
use crate::tokenize::TextTokenizer;
use crate::{HeadInfo, Lane, ModelInfo, Scored, language, telemetry};

/// How an engine is sized.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Worker threads; 0 takes one a core.
    pub workers: usize,
    /// The most tokens in one forward pass. More does not make a CPU faster, but makes interactive texts wait longer.
    pub token_budget: usize,
    /// The room in each lane, in tokens as estimated from a text's length.
    pub queue_tokens: usize,
    /// A bulk text that has waited this long gets a turn of its own even if interactive texts never run out.
    pub bulk_ageing: Duration,
    /// The longest text that is accepted, in bytes of UTF-8. Of an accepted text the engine looks at the first 1,024 bytes
    /// for each token that the model reads, so that no text costs more than a bounded time; the rest only makes it
    /// [`Scored::truncated`].
    pub max_text_bytes: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            workers: 0,
            token_budget: 512,
            queue_tokens: 1 << 16,
            bulk_ageing: Duration::from_secs(1),
            max_text_bytes: 1 << 20,
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
    /// Worker threads that are alive.
    pub workers: usize,
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
    model: ModelInfo,
    config: EngineConfig,
    queue: Arc<Queue>,
    workers: Workers,
    interactive: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    room: usize,
}

impl Drop for Inner {
    /// Ends the workers and waits for them. libtorch destructs its globals when the process exits, and a thread that is
    /// still inside a forward pass then crashes. What waits has no callers any more, so it is dropped, not scored: this
    /// takes as long as the forward passes in progress.
    fn drop(&mut self) {
        self.queue.abandon();
        self.workers.join();
    }
}

/// What a worker of the engine works with.
struct Core {
    normalizer: Normalizer,
    tokenizer: TextTokenizer,
    network: Network,
}

impl Backend for Core {
    fn enter(&self) {
        // One worker a core: a second thread inside a forward pass would only take the core of another worker.
        tch::set_num_threads(1);
    }

    fn prepare(&self, text: &str) -> Result<Prepared> {
        let readable = self.tokenizer.readable(text);
        let clean_text = self.normalizer.apply(readable);
        if is_blank(&clean_text) {
            return Err(Error::new(ErrorKind::InvalidInput, "text is empty")
                .with("bytes", text.len())
                .help("send a text that shows something"));
        }
        let mut tokens = self.tokenizer.encode(&clean_text)?;
        if tokens.empty {
            return Err(Error::new(ErrorKind::InvalidInput, "text has nothing that the model reads")
                .with("bytes", text.len())
                .help("send a text with words, numbers, punctuation or emoji"));
        }
        tokens.truncated |= readable.len() < text.len();
        // The language is told from the text as it came: names of emoji are English in every language.
        Ok(Prepared { language: language::detect(readable), tokens, clean_text })
    }

    fn run(&self, batch: &[Prepared]) -> Result<Vec<Result<Outcome>>> {
        self.network.forward(batch)
    }
}

impl Engine {
    /// Loads a model folder and starts the workers. Blocks for the time that it takes to read the weights (a fraction
    /// of a second for a small model), so call it before serving or from a blocking thread.
    ///
    /// # Errors
    /// `NotFound`, `InvalidConfig`, `Unsupported` or `Corrupt`, naming the file, the key and the mend.
    pub fn start(model_dir: &Path, config: EngineConfig) -> Result<Self> {
        check(&config)?;
        telemetry::describe();
        single_interop_thread();
        let folder = ModelFolder::open(model_dir)?;
        let hashing = {
            let folder = folder.clone();
            thread::spawn(move || revision(&folder))
        };
        let tokenizer = TextTokenizer::new(folder.tokenizer_json(), folder.max_tokens(), folder.vocabulary())?;
        let network = Network::load(&folder)?;
        let revision =
            hashing.join().map_err(|_| Error::new(ErrorKind::Internal, "hashing the model folder panicked"))??;
        let model = describe(&folder, &network, revision);

        let workers = match config.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let normalizer = folder.manifest().normalizer();
        let backends =
            (0..workers).map(|_| Core { normalizer, tokenizer: tokenizer.clone(), network: network.share() }).collect();
        tracing::info!(
            model = model.name,
            revision = model.short_revision(),
            precision = model.precision,
            workers,
            "model loaded"
        );
        Self::with_backends(model, config, backends)
    }

    fn with_backends<B: Backend>(model: ModelInfo, config: EngineConfig, backends: Vec<B>) -> Result<Self> {
        // Every text fits into an empty lane.
        let room = config.queue_tokens.clamp(model.max_tokens, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let queue = Arc::new(Queue::new(Rules { token_budget: config.token_budget, bulk_ageing: config.bulk_ageing }));
        let workers = Workers::start(&queue, backends)?;
        let (interactive, bulk) = (Arc::new(Semaphore::new(room)), Arc::new(Semaphore::new(room)));
        Ok(Self { inner: Arc::new(Inner { model, config, queue, workers, interactive, bulk, room }) })
    }

    /// The model that runs.
    pub fn model(&self) -> &ModelInfo {
        &self.inner.model
    }

    /// Scores one text. Dropping the future withdraws the text. A deadline needs a Tokio runtime with its timer enabled.
    ///
    /// # Errors
    /// `InvalidInput` for a text that is empty, shows nothing, or has nothing that the model reads; `TooLarge`; `Busy` if
    /// the interactive lane is full (the bulk lane waits for room instead); `DeadlineExceeded`; `Unavailable` while
    /// shutting down; `Internal` if the model failed on this text.
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
                Ok(receiver) => answer(receiver).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Puts a text into its lane, waiting for room in the bulk lane.
    async fn submit(
        &self,
        text: String,
        lane: Lane,
        deadline: Option<Instant>,
    ) -> Result<oneshot::Receiver<Result<Scored>>> {
        let inner = &self.inner;
        if text.len() > inner.config.max_text_bytes {
            return Err(Error::new(ErrorKind::TooLarge, "text is too long")
                .with("bytes", text.len())
                .with("limit", inner.config.max_text_bytes)
                .help("send a shorter text; the model reads only the beginning of a long one"));
        }
        let submitted = Instant::now();
        let cost = estimate_tokens(text.len(), inner.model.max_tokens);
        let room = match lane {
            Lane::Interactive => {
                Arc::clone(&inner.interactive).try_acquire_many_owned(cost).map_err(|error| match error {
                    TryAcquireError::NoPermits => busy(inner.room),
                    TryAcquireError::Closed => closed(),
                })?
            }
            Lane::Bulk => Arc::clone(&inner.bulk).acquire_many_owned(cost).await.map_err(|_| closed())?,
        };
        let (reply, receiver) = oneshot::channel();
        inner.queue.submit(text, Ticket { lane, submitted, deadline, reply, room })?;
        Ok(receiver)
    }

    /// What waits, and what was done since the start.
    pub fn stats(&self) -> EngineStats {
        let inner = &self.inner;
        let counts = inner.queue.counts();
        let counters = &inner.workers.counters;
        let lane = |waiting, room: &Semaphore| LaneStats {
            waiting,
            tokens: inner.room.saturating_sub(room.available_permits()),
        };
        EngineStats {
            workers: inner.workers.alive(),
            oldest_batch_seconds: inner.workers.progress.oldest(Instant::now()).as_secs_f64(),
            interactive: lane(counts.interactive, &inner.interactive),
            bulk: lane(counts.bulk, &inner.bulk),
            batches: counters.batches.load(Ordering::Relaxed),
            scored: counters.scored.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            dropped: counts.dropped,
            tokens: counters.tokens.load(Ordering::Relaxed),
        }
    }

    /// Takes no more texts, scores those that wait, and returns when the workers have ended. Callers that wait for room
    /// in the bulk lane are turned away with `Unavailable`.
    pub async fn shutdown(&self) {
        self.inner.interactive.close();
        self.inner.bulk.close();
        self.inner.queue.close();
        self.inner.workers.ended().await;
    }
}

/// The answer to a submitted text.
async fn answer(receiver: oneshot::Receiver<Result<Scored>>) -> Result<Scored> {
    receiver.await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Internal, "worker ended before it answered")
            .help("see the log of the engine, and restart it"))
    })
}

fn busy(room: usize) -> Error {
    Error::new(ErrorKind::Busy, "engine has no room for more texts")
        .with("queue_tokens", room)
        .help("send the text again in a moment, or send fewer at a time")
}

/// About how many tokens a text will have: WordPiece makes a token of four bytes or so of English.
fn estimate_tokens(bytes: usize, max_tokens: usize) -> u32 {
    u32::try_from((2 + bytes / 4).min(max_tokens)).unwrap_or(u32::MAX)
}

fn check(config: &EngineConfig) -> Result<()> {
    let sizes = [
        ("token_budget", config.token_budget),
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

/// Forward passes never use libtorch's inter-op pool, which has a thread a core otherwise. libtorch allows one call.
fn single_interop_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tch::set_num_interop_threads(1));
}

fn describe(folder: &ModelFolder, network: &Network, revision: String) -> ModelInfo {
    let manifest = folder.manifest();
    let heads = manifest.heads();
    ModelInfo {
        name: folder.name(),
        revision,
        precision: "fp32".to_owned(),
        dimensions: network.dimensions(),
        sentiment_head: manifest.sentiment_head().map(str::to_owned),
        heads: heads
            .iter()
            .map(|head| HeadInfo {
                name: head.name.clone(),
                labels: head.labels.clone(),
                kind: head.kind,
                temperature: head.temperature,
            })
            .collect(),
        max_tokens: folder.max_tokens(),
        normalizer: manifest.normalizer().name().to_owned(),
        parameters: network.parameters(),
        layers: folder.layers(),
    }
}

#[cfg(test)]
mod tests;
