//! Preparing texts: normalising, looking up, tokenising.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use undertone_error::Result;

use super::super::cache::Kept;
use super::super::plan::Role;
use super::super::queue::Queue;
use super::super::state::{Queued, Work};
use super::Shared;
use super::attend::surviving;
use crate::language::Reading;
use crate::tokenize::Tokens;
use crate::{Times, telemetry};

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

/// Makes texts ready for the model.
pub(crate) trait Reader: Send + 'static {
    /// Normalises a text. Cheap: the repeat cache is asked before the text is tokenised.
    fn normalize(&self, text: &str) -> Result<Normalized>;
    /// Tokenises a normalised text. The same clean text always gives the same tokens.
    fn tokenize(&self, text: &Normalized) -> Result<Tokens>;
}

/// A reader's thread: prepares texts until the queue is closed and none is left.
pub(super) fn work(queue: &Queue, shared: &Shared, number: usize, reader: &dyn Reader) {
    loop {
        match queue.next(Role::Prepare, 0) {
            Work::Prepare(items) => queue.prepared(shared.prepare_all(number, items, reader)),
            Work::Stop => return,
            Work::Wait | Work::Run(_) => {}
        }
    }
}

/// A text that was looked at.
enum Found {
    New(Prepared),
    Kept(Normalized, Arc<Kept>),
}

impl Shared {
    /// Prepares a chunk; the texts that are to be run, in order. Always returns, since whoever runs waits for the chunk.
    pub(super) fn prepare_all(
        &self,
        worker: usize,
        items: Vec<Queued<String>>,
        reader: &(impl Reader + ?Sized),
    ) -> Vec<Queued<Prepared>> {
        let _busy = self.progress.begin(worker);
        let ready = surviving(|| Ok(items.into_iter().filter_map(|item| self.prepare(item, reader)).collect()));
        ready.unwrap_or_else(|error| {
            tracing::error!(%error, worker, "a chunk of texts was lost while it was prepared");
            Vec::new()
        })
    }

    /// Prepares one text. One that cannot be prepared is answered here, and so is one whose score is known.
    fn prepare(&self, item: Queued<String>, reader: &(impl Reader + ?Sized)) -> Option<Queued<Prepared>> {
        let started = Instant::now();
        let result = surviving(|| {
            let text = reader.normalize(&item.payload)?;
            if let Some(kept) = self.look_up(&text) {
                return Ok(Found::Kept(text, kept));
            }
            let tokens = reader.tokenize(&text)?;
            Ok(Found::New(Prepared { text, tokens }))
        });
        telemetry::stage("tokenize", started.elapsed());
        let result = match result {
            Ok(Found::New(prepared)) => return Some(item.with(prepared)),
            Ok(Found::Kept(text, kept)) => {
                let times = Times { queue: item.ticket.submitted.elapsed(), forward: Duration::ZERO };
                Ok(self.assemble(text, kept.outcome.clone(), kept.tokens, kept.truncated, times))
            }
            Err(error) => Err(error),
        };
        self.count(result.is_ok());
        item.ticket.answer(result);
        None
    }

    fn look_up(&self, text: &Normalized) -> Option<Arc<Kept>> {
        if !self.cache.is_on() {
            return None;
        }
        let kept = self.cache.get(&text.clean_text);
        let counters = &self.counters;
        let counter = if kept.is_some() { &counters.cache_hits } else { &counters.cache_misses };
        counter.fetch_add(1, Ordering::Relaxed);
        telemetry::cache(kept.is_some());
        kept
    }
}
