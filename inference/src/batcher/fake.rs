//! A model for tests of the batcher: what a text says is what happens to it.

use std::sync::{Arc, Condvar, Mutex};

use undertone_error::{Error, ErrorKind, Result};

use super::{Backend, Prepared};
use crate::model::{Outcome, Verdict};
use crate::tokenize::Tokens;

/// `poison` fails the whole batch, `panic` panics in the forward pass, `unreadable` fails and `unreadable panic` panics
/// while it is prepared, `ill` fails alone; everything else is embedded as its length. A text has a token a byte.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake {
    pub(crate) gate: Gate,
    /// The texts of every batch that was run.
    pub(crate) batches: Arc<Mutex<Vec<Vec<String>>>>,
    pub(crate) dies_at_start: bool,
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

impl Backend for Fake {
    fn enter(&self) {
        assert!(!self.dies_at_start, "this worker dies");
    }

    fn prepare(&self, text: &str) -> Result<Prepared> {
        assert!(text != "unreadable panic", "asked to panic");
        if text == "unreadable" {
            return Err(Error::new(ErrorKind::InvalidInput, "unreadable"));
        }
        let tokens = Tokens { ids: vec![7; text.len().max(1)], truncated: false, empty: text.is_empty() };
        Ok(Prepared { clean_text: text.to_owned(), language: None, tokens })
    }

    fn run(&self, batch: &[Prepared]) -> Result<Vec<Result<Outcome>>> {
        self.gate.pass();
        let texts: Vec<String> = batch.iter().map(|item| item.clean_text.clone()).collect();
        self.batches.lock().unwrap().push(texts.clone());
        assert!(!texts.iter().any(|text| text == "panic"), "asked to panic");
        if texts.iter().any(|text| text == "poison") {
            return Err(Error::new(ErrorKind::Internal, "poisoned"));
        }
        let outcome = |text: &String| match text.as_str() {
            "ill" => Err(Error::new(ErrorKind::Internal, "ill")),
            text => Ok(Outcome {
                embedding: vec![text.len() as f32],
                verdict: Verdict { heads: Vec::new(), sentiment: None },
            }),
        };
        Ok(texts.iter().map(outcome).collect())
    }
}
