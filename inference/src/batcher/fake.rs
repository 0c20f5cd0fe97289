//! A model and a device for tests of the batcher: what a text says is what happens to it, and the device can run out of
//! memory or be lost.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use undertone_error::{Error, ErrorKind, Result};

use super::state::Queued;
use super::worker::{Backend, Normalized, Prepared, Reader};
use super::{RecoveryRules, Rules};
use crate::ModelInfo;
use crate::language::Reading;
use crate::model::{Outcome, Verdict};
use crate::tokenize::Tokens;

/// The canary is longer than what these tests send; it is not recorded among the batches.
pub(crate) const CANARY: &str = "The coffee here is good today.";

/// `poison` fails the whole batch, `panic` panics in the forward pass, `unreadable` fails and `unreadable panic` panics
/// while it is prepared, `ill` fails alone, `killer` takes the device with it; everything else is embedded as its length.
/// A text has a token a byte.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake {
    pub(crate) gate: Gate,
    /// The texts of every batch that was run, the canary's left out.
    pub(crate) batches: Arc<Mutex<Vec<Vec<String>>>>,
    /// The same texts, in the order in which their batches ended.
    pub(crate) ended: Arc<Mutex<Vec<String>>>,
    /// Whether a batch pauses once, when it has begun.
    pub(crate) pauses: bool,
    pub(crate) dies_at_start: bool,
    /// Added to what every text is embedded as: which model scored.
    pub(crate) shift: f32,
    pub(crate) device: Arc<FakeDevice>,
}

/// What a fake runs on. Clones of a fake share it; see [`Fake::on_own_device`].
#[derive(Debug, Default)]
pub(crate) struct FakeDevice {
    /// Everything fails, the canary too, until it is restarted.
    pub(crate) lost: AtomicBool,
    /// So many forward passes lose it, whatever they run, but for the canary's.
    pub(crate) losses: AtomicU32,
    /// So many restarts do not help.
    pub(crate) stubborn: AtomicU32,
    /// Restarts that were tried.
    pub(crate) restarts: AtomicU32,
    /// How many tokens fit; 0 for any number.
    pub(crate) memory: AtomicUsize,
}

impl Fake {
    /// The same model on a device of its own.
    pub(crate) fn on_own_device(&self) -> Self {
        Self { device: Arc::default(), ..self.clone() }
    }

    /// So many readers for it.
    pub(crate) fn readers(&self, count: usize) -> Vec<Box<dyn Reader>> {
        (0..count).map(|_| Box::new(self.clone()) as Box<dyn Reader>).collect()
    }
}

/// While it is closed, forward passes wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    closed: bool,
    waiting: usize,
}

impl Gate {
    pub(crate) fn set_closed(&self, closed: bool) {
        self.0.0.lock().unwrap().closed = closed;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.waiting += 1;
        self.0.1.notify_all();
        while state.closed {
            state = self.0.1.wait(state).unwrap();
        }
        state.waiting -= 1;
    }

    /// Blocks until a forward pass waits at the gate.
    pub(crate) fn wait_for_one(&self) {
        let mut state = self.0.0.lock().unwrap();
        while state.waiting == 0 {
            state = self.0.1.wait(state).unwrap();
        }
    }
}

impl Reader for Fake {
    fn normalize(&self, text: &str) -> Result<Normalized> {
        assert!(text != "unreadable panic", "asked to panic");
        match text {
            "unreadable" => Err(Error::new(ErrorKind::InvalidInput, "unreadable")),
            _ => Ok(Normalized {
                clean_text: text.trim_end().to_owned(),
                reading: Reading::default(),
                cut: text.ends_with(' '),
            }),
        }
    }

    fn tokenize(&self, text: &Normalized) -> Result<Tokens> {
        let text = &text.clean_text;
        Ok(Tokens { ids: vec![7; text.len().max(1)], truncated: false, empty: text.is_empty() })
    }
}

impl Backend for Fake {
    fn enter(&mut self) -> Result<()> {
        assert!(!self.dies_at_start, "this worker dies");
        Ok(())
    }

    fn pauses(&self) -> bool {
        self.pauses
    }

    fn run(&self, batch: &[Prepared], pause: &mut dyn FnMut()) -> Result<Vec<Result<Outcome>>> {
        let texts: Vec<String> = batch.iter().map(|item| item.text.clean_text.clone()).collect();
        if texts != [CANARY] {
            self.gate.pass();
            self.batches.lock().unwrap().push(texts.clone());
            if self.pauses {
                pause();
            }
            self.ended.lock().unwrap().extend(texts.clone());
        }
        let device = &self.device;
        let take =
            |count: &AtomicU32| count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if texts.iter().any(|text| text == "killer") || (texts != [CANARY] && take(&device.losses)) {
            device.lost.store(true, Ordering::SeqCst);
        }
        if device.lost.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Internal, "device is lost"));
        }
        let (tokens, memory): (usize, _) =
            (batch.iter().map(|item| item.tokens.ids.len()).sum(), device.memory.load(Ordering::SeqCst));
        if memory > 0 && tokens > memory && texts != [CANARY] {
            return Err(Error::new(ErrorKind::Exhausted, "out of memory"));
        }
        assert!(!texts.iter().any(|text| text == "panic"), "asked to panic");
        if texts.iter().any(|text| text == "poison") {
            return Err(Error::new(ErrorKind::Internal, "poisoned"));
        }
        let outcome = |text: &String| match text.as_str() {
            "ill" => Err(Error::new(ErrorKind::Internal, "ill")),
            text => Ok(Outcome {
                embedding: vec![text.len() as f32 + self.shift],
                verdict: Verdict { heads: Vec::new(), sentiment: None },
            }),
        };
        Ok(texts.iter().map(outcome).collect())
    }

    fn recover(&mut self) -> Result<()> {
        let device = &self.device;
        device.restarts.fetch_add(1, Ordering::SeqCst);
        let stubborn = &device.stubborn;
        if stubborn.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            device.lost.store(false, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// A text as if it had been prepared, with so many tokens.
pub(crate) fn prepared(item: Queued<String>, tokens: usize) -> Queued<Prepared> {
    let text = Normalized { clean_text: item.payload.clone(), reading: Reading::default(), cut: false };
    item.with(Prepared { text, tokens: Tokens { ids: vec![7; tokens], truncated: false, empty: false } })
}

/// A model of which only the revision matters.
pub(crate) fn info(revision: &str) -> ModelInfo {
    ModelInfo {
        name: "fake".to_owned(),
        revision: revision.repeat(64),
        precision: "fp32".to_owned(),
        device: "cpu".to_owned(),
        kernels: "fake".to_owned(),
        dimensions: 1,
        heads: Vec::new(),
        sentiment_head: None,
        max_tokens: 64,
        normalizer: "none".to_owned(),
        languages: None,
        parameters: 0,
        layers: 0,
    }
}

/// Rules with this budget for all batches.
pub(crate) fn rules(token_budget: usize) -> Rules {
    Rules {
        token_budget,
        bulk_tokens: token_budget,
        pauses: false,
        interactive_window: Duration::from_secs(1),
        bulk_ageing: Duration::from_secs(1),
    }
}

/// Restarts that take no time to speak of.
pub(crate) fn quick() -> RecoveryRules {
    RecoveryRules { first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(4), attempts: 4 }
}
