//! One loaded model with its queue, its workers and its cache; and how one takes over from another.
//!
//! The guarantee: at any moment exactly one generation takes texts. When another takes over, it gets the texts that no
//! worker has looked at, at the front of its lanes and in their order; what is tokenised already is scored by the model that
//! it was tokenised for. So nothing is refused, lost, or scored with the wrong tokens.

use std::sync::Arc;

use undertone_error::{Error, ErrorKind, Result};

use super::EngineConfig;
use crate::ModelInfo;
use crate::batcher::{Backend, Counters, Queue, Reader, RecoveryRules, Rules, Shared, Workers};

#[derive(Debug)]
pub(super) struct Generation {
    pub(super) model: Arc<ModelInfo>,
    pub(super) queue: Arc<Queue>,
    pub(super) workers: Workers,
}

impl Generation {
    /// Starts the workers, and returns when the model has shown that it works.
    ///
    /// # Errors
    /// As [`Workers::start`].
    pub(super) fn start<B: Backend>(
        model: ModelInfo,
        config: &EngineConfig,
        recovery: RecoveryRules,
        counters: &Arc<Counters>,
        backends: Vec<B>,
        readers: Vec<Box<dyn Reader>>,
    ) -> Result<Self> {
        let rules = Rules {
            token_budget: config.token_budget,
            bulk_tokens: config.bulk_tokens,
            pauses: backends.first().is_some_and(Backend::pauses),
            interactive_window: config.interactive_window,
            bulk_ageing: config.bulk_ageing,
        };
        let model = Arc::new(model);
        let queue = Arc::new(Queue::new(rules, Arc::clone(counters), !readers.is_empty()));
        let (shown, counters) = (Arc::clone(&model), Arc::clone(counters));
        let shared = Shared::new(shown, counters, config.cache_bytes, backends.len() + readers.len(), recovery);
        let workers = Workers::start(&queue, Arc::new(shared), backends, readers)?;
        Ok(Self { model, queue, workers })
    }
}

impl Drop for Generation {
    /// Ends the workers and waits for them. libtorch destructs its globals when the process exits, and a thread that is
    /// still inside a forward pass then crashes. What waits has no callers any more, so it is dropped, not scored: this
    /// takes as long as the forward passes in progress.
    fn drop(&mut self) {
        self.queue.abandon();
        self.workers.join();
    }
}

/// Whether `new` may take over from `old` under the eyes of callers: it must say everything that `old` says, in the same
/// shape. It may say more.
///
/// # Errors
/// `InvalidConfig`, naming what would be missing.
pub(super) fn check_successor(old: &ModelInfo, new: &ModelInfo) -> Result<()> {
    let refuse = |what: &'static str, old: String, new: String| {
        Err(Error::new(ErrorKind::InvalidConfig, "model cannot take over from the one that runs")
            .with("differs", what)
            .with("runs", old)
            .with("new", new)
            .help("callers and stored records rely on what the model says: restart to serve this one"))
    };
    if old.dimensions != new.dimensions {
        return refuse("dimensions", old.dimensions.to_string(), new.dimensions.to_string());
    }
    if old.sentiment_head.is_some() && old.sentiment_head != new.sentiment_head {
        return refuse("sentiment_head", format!("{:?}", old.sentiment_head), format!("{:?}", new.sentiment_head));
    }
    for head in &old.heads {
        let same = new.heads.iter().find(|other| other.name == head.name);
        if same.is_none_or(|same| same.labels != head.labels || same.kind != head.kind) {
            let found = same.map_or_else(|| "no such head".to_owned(), |same| format!("{:?}", same.labels));
            return refuse("head", format!("{} {:?}", head.name, head.labels), found);
        }
    }
    Ok(())
}
