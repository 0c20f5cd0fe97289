//! Running a batch and answering it: bisection, canary and token budget, as [`super::super::faults`] decides.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use undertone_error::{Error, ErrorKind, Result};

use super::super::cache::Kept;
use super::super::faults::{Facts, Failure, Next, judge};
use super::super::plan::Concession;
use super::super::queue::Queue;
use super::super::state::Queued;
use super::{Backend, Normalized, Prepared, Shared, Worker};
use crate::model::Outcome;
use crate::{Scored, Times, telemetry};

/// A batch that ended because its device is ill.
#[derive(Debug)]
pub(crate) struct Ill {
    pub(crate) error: Error,
    /// Whether it was lost while the first of these texts ran alone.
    pub(crate) lost_alone: bool,
    /// The texts that have no answer yet.
    pub(crate) back: Vec<Queued<Prepared>>,
}

/// What ails the device, and whether it was lost while one text ran alone.
struct Ailment {
    error: Error,
    lost_alone: bool,
}

impl<B: Backend> Worker<B> {
    /// Runs a batch and answers its callers, all but those of an ill device.
    pub(crate) fn run(&mut self, queue: &Queue, items: Vec<Queued<Prepared>>) -> std::result::Result<(), Ill> {
        let now = Instant::now();
        waited(&items, now);
        let concession = self.concession(queue, &items);
        let (batch, parts): (Vec<_>, Vec<_>) = items.into_iter().map(Queued::split).unzip();
        let shared = Arc::clone(&self.shared);
        let busy = shared.progress.begin(self.number);
        let mut results = Vec::with_capacity(batch.len());
        let ended = self.attend(queue, &batch, concession, &mut results);
        let forward = now.elapsed();
        // Over before the callers can know, so that an answered engine is seen to be idle.
        drop(busy);
        let mut results = results.into_iter();
        let mut back = Vec::new();
        for (prepared, item) in batch.into_iter().zip(parts) {
            match results.next() {
                Some(result) => {
                    let queue = now.saturating_duration_since(item.ticket.submitted);
                    self.answer(prepared, item, result, Times { queue, forward });
                }
                None => back.push(item.with(prepared)),
            }
        }
        ended.map_err(|Ailment { error, lost_alone }| Ill { error, lost_alone, back })
    }

    /// Runs a batch that failed in halves, down to single texts: the culprits fail alone and the others get their scores.
    /// Appends one result a text, in order; fewer if the device turns out to be ill. In the pauses of the first pass others
    /// have what `concession` gives them.
    ///
    /// # Errors
    /// What ails the device.
    fn attend(
        &mut self,
        queue: &Queue,
        batch: &[Prepared],
        mut concession: Concession,
        results: &mut Vec<Result<Outcome>>,
    ) -> Result<(), Ailment> {
        let outcome = self.pass(batch, &mut || self.pause(queue, &mut concession));
        let failure = match &outcome {
            Ok(answers) => answers.iter().any(Result::is_err).then_some(Failure::Texts),
            Err(error) => Some(Failure::Batch(error.kind())),
        };
        let mut facts = Facts { texts: batch.len(), failure, canary: None };
        let mut next = judge(&facts);
        let mut ailment = None;
        if next == Next::AskCanary {
            ailment = self.ask_canary().err();
            facts.canary = Some(ailment.is_none());
            next = judge(&facts);
        }
        match (next, outcome) {
            (Next::GiveBack | Next::AskCanary, outcome) => {
                let error = ailment.or(outcome.err());
                let error = error.unwrap_or_else(|| Error::new(ErrorKind::Internal, "device is ill"));
                Err(Ailment { error, lost_alone: facts.lost_alone() })
            }
            (Next::Answer, Ok(answers)) => {
                if failure.is_none() {
                    self.budget = self.budget.good();
                    self.illness = self.illness.good();
                    telemetry::budget(self.number, self.budget.tokens());
                }
                results.extend(answers);
                Ok(())
            }
            (Next::Answer, Err(error)) => {
                results.push(Err(error));
                Ok(())
            }
            (Next::Halve | Next::Shrink, outcome) => {
                let tokens = tokens(batch);
                if next == Next::Shrink {
                    let longest = batch.iter().map(|item| item.tokens.ids.len()).max().unwrap_or(0);
                    self.budget = self.budget.exhausted(tokens, longest);
                    telemetry::budget(self.number, self.budget.tokens());
                }
                let error = outcome.err().map(|error| error.to_string());
                let budget = self.budget.tokens();
                tracing::warn!(error, texts = batch.len(), tokens, budget, "batch failed, running its halves");
                let (left, right) = batch.split_at(batch.len() / 2);
                self.attend(queue, left, Concession::NONE, results)?;
                self.attend(queue, right, Concession::NONE, results)
            }
        }
    }

    /// One forward pass: one result a text, in order. A panic is an error: the worker goes on with the next batch.
    pub(super) fn pass(&self, batch: &[Prepared], pause: &mut dyn FnMut()) -> Result<Vec<Result<Outcome>>> {
        let tokens = tokens(batch);
        self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        telemetry::batch(tokens);
        surviving(|| self.backend.run(batch, pause)).and_then(|results| match results.len() == batch.len() {
            true => Ok(results),
            false => {
                Err(Error::new(ErrorKind::Internal, "model answered for another number of texts than it was given"))
            }
        })
    }

    /// Runs the canary alone. Without a canary (the model reads nothing of its text) texts are blamed as they fail.
    ///
    /// # Errors
    /// Those of the forward pass: the device is ill.
    pub(super) fn ask_canary(&self) -> Result<()> {
        let Some(canary) = &self.canary else { return Ok(()) };
        let result =
            self.pass(std::slice::from_ref(canary), &mut || {}).and_then(|results| results.into_iter().collect());
        telemetry::canary(result.is_ok());
        result.map(|_: Vec<Outcome>| ())
    }

    pub(super) fn answer(&self, prepared: Prepared, item: Queued<()>, result: Result<Outcome>, times: Times) {
        let result = result.map(|outcome| {
            let Prepared { text, tokens } = prepared;
            let (count, truncated) = (tokens.ids.len(), tokens.truncated);
            let keep = || Kept { outcome: outcome.clone(), tokens: count, truncated };
            self.shared.cache.insert(&text.clean_text, keep);
            self.shared.assemble(text, outcome, count, truncated, times)
        });
        self.shared.count(result.is_ok());
        item.ticket.answer(result);
    }
}

impl Shared {
    /// Counts a text that leaves with an answer.
    pub(super) fn count(&self, scored: bool) {
        let counters = &self.counters;
        let (counter, outcome) = if scored { (&counters.scored, "scored") } else { (&counters.failed, "failed") };
        counter.fetch_add(1, Ordering::Relaxed);
        telemetry::items(outcome, 1);
    }

    pub(super) fn assemble(
        &self,
        text: Normalized,
        outcome: Outcome,
        tokens: usize,
        truncated: bool,
        times: Times,
    ) -> Scored {
        let sentiment = outcome.verdict.sentiment;
        Scored {
            model: Arc::clone(&self.model),
            heads: outcome.verdict.heads,
            sentiment: sentiment.map(|s| s.side.name().to_owned()),
            polarity: sentiment.map(|s| s.polarity),
            confidence: sentiment.map(|s| s.confidence),
            embedding: outcome.embedding,
            clean_text: text.clean_text,
            language: text.reading.language,
            in_domain: text.reading.in_domain,
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            truncated: truncated || text.cut,
            times,
        }
    }
}

/// Tells how long texts have waited that run now.
pub(super) fn waited(items: &[Queued<Prepared>], now: Instant) {
    for item in items {
        telemetry::stage("queue", now.saturating_duration_since(item.ticket.submitted));
    }
}

fn tokens(batch: &[Prepared]) -> usize {
    batch.iter().map(|item| item.tokens.ids.len()).sum()
}

/// Turns a panic into an error.
pub(super) fn surviving<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        Err(Error::new(ErrorKind::Internal, "model panicked").with("panic", panic_message(panic.as_ref())))
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown")
}
