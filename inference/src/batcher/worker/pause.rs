//! Running interactive texts in the pauses of another batch, as [`super::super::plan::concession`] allows.
//!
//! The guarantee: nothing that happens to them touches the batch that pauses. What does not go smoothly goes back to the queue
//! unharmed, and runs in a batch of its own, where failures are judged.

use std::time::Instant;

use super::super::plan::{Concession, Waiting, concession};
use super::super::queue::Queue;
use super::super::state::{Queued, Work};
use super::attend::{surviving, waited};
use super::{Backend, Prepared, Worker};
use crate::Times;

impl<B: Backend> Worker<B> {
    /// What these texts give to others while they run.
    pub(super) fn concession(&self, queue: &Queue, items: &[Queued<Prepared>]) -> Concession {
        match self.backend.pauses() {
            true => concession(
                items.iter().map(|item| (item.ticket.lane, item.tokens())),
                self.budget.tokens(),
                queue.rules(),
            ),
            false => Concession::NONE,
        }
    }

    /// Prepares and runs interactive texts, one chunk and one batch at most. Never panics.
    pub(super) fn pause(&self, queue: &Queue, given: &mut Concession) {
        let outcome = surviving(|| {
            self.use_pause(queue, given);
            Ok(())
        });
        if let Err(error) = outcome {
            tracing::error!(%error, worker = self.number, "texts were lost in a pause");
            *given = Concession::NONE;
        }
    }

    fn use_pause(&self, queue: &Queue, given: &mut Concession) {
        let mut work = queue.next_in_pause(*given, true);
        if let Work::Prepare(items) = work {
            queue.prepared(self.shared.prepare_all(self.number, items, &self.backend));
            work = queue.next_in_pause(*given, false);
        }
        if let Work::Run(items) = work {
            self.run_in_pause(queue, given, items);
        }
    }

    fn run_in_pause(&self, queue: &Queue, given: &mut Concession, items: Vec<Queued<Prepared>>) {
        let now = Instant::now();
        waited(&items, now);
        given.take(items.iter().map(Waiting::tokens).sum());
        let mut inner = self.concession(queue, &items).within(*given);
        let offered = inner.tokens;
        let (batch, parts): (Vec<_>, Vec<_>) = items.into_iter().map(Queued::split).unzip();
        let passed = self.pass(&batch, &mut || self.pause(queue, &mut inner));
        given.take(offered - inner.tokens.min(offered));
        let forward = now.elapsed();
        let texts = batch.into_iter().zip(parts);
        match passed {
            Ok(results) if results.iter().all(Result::is_ok) => {
                for ((prepared, item), result) in texts.zip(results) {
                    let queue = now.saturating_duration_since(item.ticket.submitted);
                    self.answer(prepared, item, result, Times { queue, forward });
                }
            }
            _ => {
                *given = Concession::NONE;
                queue.put_back(texts.map(|(prepared, item)| item.with(prepared)).collect());
            }
        }
    }
}
