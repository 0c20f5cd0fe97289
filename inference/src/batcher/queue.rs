//! The queue's state behind one lock: callers put texts in, workers take work out.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use undertone_error::{Error, ErrorKind, Result};

use super::faults::Returned;
use super::plan::{Fate, Rules};
use super::state::{Closed, Queued, State, Ticket, Useless, Work};
use super::worker::{Counters, Prepared};
use crate::{Lane, telemetry};

/// How much waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueCounts {
    pub(crate) interactive: usize,
    pub(crate) bulk: usize,
}

/// The queue: callers put texts in, workers take work out.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    rules: Rules,
    counters: Arc<Counters>,
}

impl Queue {
    /// An open, empty queue that counts in `counters` what it turns away.
    pub(crate) fn new(rules: Rules, counters: Arc<Counters>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), rules, counters }
    }

    /// The state is consistent between any two statements that could panic, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits of its batches.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Puts a text in.
    ///
    /// # Errors
    /// `Unavailable` once the queue is closed.
    pub(crate) fn submit(&self, text: String, ticket: Ticket) -> Result<()> {
        self.lock().submit(text, ticket)?;
        self.changed.notify_one();
        Ok(())
    }

    /// Puts prepared texts in, in the order in which they were submitted.
    pub(crate) fn ready(&self, items: Vec<Queued<Prepared>>) {
        self.lock().ready(items);
        self.changed.notify_all();
    }

    /// Takes texts back from an ill device, to where they were in their lanes; `lost_alone` says that it was lost while the
    /// first of them ran alone. Those that came back too often are answered as [`super::faults::Returns::judge`] decides.
    pub(crate) fn give_back(&self, items: Vec<Queued<Prepared>>, lost_alone: bool) {
        let given_up = self.lock().give_back(items, lost_alone);
        self.changed.notify_all();
        self.counters.failed.fetch_add(given_up.len() as u64, Ordering::Relaxed);
        telemetry::items("failed", given_up.len() as u64);
        for (ticket, returned) in given_up {
            ticket.answer(Err(match returned {
                Returned::Blamed => Error::new(ErrorKind::Internal, "device was lost each time this text ran alone")
                    .help("do not send the text again; see the log for what it does to the device"),
                _ => Error::new(ErrorKind::Unavailable, "device fell ill each time this text was run")
                    .help("send the text again later; see the log for what ails the device"),
            }));
        }
    }

    /// Waits until there is something to do for a worker that dares to run `budget` tokens. Texts that are of no use any
    /// more are answered here and never returned.
    pub(crate) fn next(&self, budget: usize) -> Work {
        let mut state = self.lock();
        loop {
            let (work, useless) = state.next(Instant::now(), budget, &self.rules);
            if useless.is_empty() && matches!(work, Work::Wait) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            for lane in [Lane::Interactive, Lane::Bulk] {
                telemetry::depth(lane, state.waiting(lane));
            }
            // Answering wakes callers: not under the lock.
            drop(state);
            self.turn_away(useless);
            if !matches!(work, Work::Wait) {
                return work;
            }
            state = self.lock();
        }
    }

    fn turn_away(&self, useless: Useless) {
        if useless.is_empty() {
            return;
        }
        let count = useless.len() as u64;
        self.counters.dropped.fetch_add(count, Ordering::Relaxed);
        telemetry::items("dropped", count);
        for (ticket, fate) in useless {
            if fate == Fate::Expired {
                ticket.answer(Err(expired()));
            }
        }
    }

    /// Waits for `time`, for a worker that is ill. Not at all once the queue is closed: what waits must not wait longer than
    /// it takes to find out whether the worker gets well. False if there is nothing left that the worker could do.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let state = self.lock();
        let paused = self.changed.wait_timeout_while(state, time, |state| state.closed().is_none());
        let (mut state, _) = paused.unwrap_or_else(PoisonError::into_inner);
        match state.closed() {
            None => true,
            Some(Closed::NoWorker) => false,
            Some(Closed::ShuttingDown) => state.waiting(Lane::Interactive) + state.waiting(Lane::Bulk) > 0,
        }
    }

    /// Takes no more texts. What waits is still worked off.
    pub(crate) fn close(&self) {
        self.lock().close();
        self.changed.notify_all();
    }

    /// Closes, and tells everybody who waits that there is no worker left.
    pub(crate) fn abandon(&self) {
        let waiting = self.lock().abandon();
        self.changed.notify_all();
        for ticket in waiting {
            ticket.answer(Err(Closed::NoWorker.error()));
        }
    }

    /// Closes, and moves the texts that no worker has looked at to another queue, which nobody has put a text into yet.
    pub(crate) fn hand_over(&self, to: &Self) {
        self.lock().hand_over(&mut to.lock());
        self.changed.notify_all();
        to.changed.notify_all();
    }

    pub(crate) fn counts(&self) -> QueueCounts {
        let mut state = self.lock();
        QueueCounts { interactive: state.waiting(Lane::Interactive), bulk: state.waiting(Lane::Bulk) }
    }
}

/// The error of a text whose deadline has passed.
pub(crate) fn expired() -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "deadline passed before the text was scored")
}
