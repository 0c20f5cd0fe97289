//! The queue's state behind one lock: callers put texts in, workers take work out. Who prepares and who only runs wait at
//! bells of their own, so that a text wakes one that can do something about it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use undertone_error::{Error, ErrorKind, Result};

use super::faults::Returned;
use super::plan::{Concession, Fate, Role, Rules};
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
    /// Rings when there may be something to prepare, and for workers that do everything.
    arrived: Condvar,
    /// Rings when there may be something to run, and for those that are ill.
    prepared: Condvar,
    /// Whether some workers only prepare, and the others only run.
    split: bool,
    rules: Rules,
    counters: Arc<Counters>,
}

impl Queue {
    /// An open, empty queue that counts in `counters` what it turns away. `split` if some workers only prepare texts and the
    /// others only run them.
    pub(crate) fn new(rules: Rules, counters: Arc<Counters>, split: bool) -> Self {
        let (arrived, prepared) = (Condvar::new(), Condvar::new());
        Self { state: Mutex::default(), arrived, prepared, split, rules, counters }
    }

    /// The state is consistent between any two statements that could panic, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits of its batches.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What the workers do that run batches.
    pub(crate) fn runner(&self) -> Role {
        if self.split { Role::Run } else { Role::All }
    }

    fn ring_all(&self) {
        self.arrived.notify_all();
        self.prepared.notify_all();
    }

    /// Puts a text in.
    ///
    /// # Errors
    /// `Unavailable` once the queue is closed.
    pub(crate) fn submit(&self, text: String, ticket: Ticket) -> Result<()> {
        self.lock().submit(text, ticket)?;
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes back a chunk that was prepared, those of its texts that are to be run. If nobody is left who could, they are
    /// answered.
    pub(crate) fn prepared(&self, items: Vec<Queued<Prepared>>) {
        let deserted = self.lock().prepared(items);
        self.ready(deserted);
    }

    /// Takes texts back that were taken in a pause, as if they never had been.
    pub(crate) fn put_back(&self, items: Vec<Queued<Prepared>>) {
        let deserted = self.lock().put_back(items);
        self.ready(deserted);
    }

    /// Rings, and answers those that nobody is left for.
    fn ready(&self, deserted: Vec<Ticket>) {
        match self.split {
            true => self.prepared.notify_all(),
            false => self.arrived.notify_all(),
        }
        for ticket in deserted {
            ticket.answer(Err(Closed::NoWorker.error()));
        }
    }

    /// Takes texts back from an ill device, to where they were in their lanes; `lost_alone` says that it was lost while the
    /// first of them ran alone. Those that came back too often are answered as [`super::faults::Returns::judge`] decides.
    pub(crate) fn give_back(&self, items: Vec<Queued<Prepared>>, lost_alone: bool) {
        let given_up = self.lock().give_back(items, lost_alone);
        self.ring_all();
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
    pub(crate) fn next(&self, role: Role, budget: usize) -> Work {
        let mut state = self.lock();
        loop {
            let (work, useless) = state.next(role, Instant::now(), budget, &self.rules);
            if useless.is_empty() && matches!(work, Work::Wait) {
                let bell = if role == Role::Run { &self.prepared } else { &self.arrived };
                state = bell.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            match (role, &work) {
                // What was taken, to be run or for nothing, leaves room to prepare more.
                (Role::Run, Work::Run(_) | Work::Wait) => self.arrived.notify_all(),
                // Whoever waits to run the last texts must see that there are none.
                (Role::Prepare, Work::Stop) => self.prepared.notify_all(),
                _ => {}
            }
            let mut waiting = 0;
            for lane in [Lane::Interactive, Lane::Bulk] {
                let depth = state.waiting(lane);
                telemetry::depth(lane, depth);
                waiting += depth;
            }
            // Answering wakes callers: not under the lock.
            drop(state);
            if matches!(work, Work::Run(_)) {
                self.counters.backlog.taken(Instant::now(), waiting > 0);
            }
            self.turn_away(useless);
            if !matches!(work, Work::Wait) {
                return work;
            }
            state = self.lock();
        }
    }

    /// What a worker does in a pause of the batch that it runs, which gives others so much. Never waits.
    pub(crate) fn next_in_pause(&self, given: Concession, may_prepare: bool) -> Work {
        if given.tokens == 0 {
            return Work::Wait;
        }
        let mut state = self.lock();
        let (work, useless) = state.next_in_pause(Instant::now(), given, may_prepare);
        if !(useless.is_empty() && matches!(work, Work::Wait)) {
            telemetry::depth(Lane::Interactive, state.waiting(Lane::Interactive));
        }
        drop(state);
        self.turn_away(useless);
        work
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
        let paused = self.prepared.wait_timeout_while(state, time, |state| state.closed().is_none());
        let (state, _) = paused.unwrap_or_else(PoisonError::into_inner);
        match state.closed() {
            None => true,
            Some(Closed::NoWorker) => false,
            Some(Closed::ShuttingDown) => !state.is_done(),
        }
    }

    /// Takes no more texts. What waits is still worked off.
    pub(crate) fn close(&self) {
        self.lock().close();
        self.ring_all();
    }

    /// Closes, and tells everybody who waits that there is no worker left.
    pub(crate) fn abandon(&self) {
        let waiting = self.lock().abandon();
        self.ring_all();
        for ticket in waiting {
            ticket.answer(Err(Closed::NoWorker.error()));
        }
    }

    /// Closes, and moves the texts that no worker has looked at to another queue, which nobody has put a text into yet.
    pub(crate) fn hand_over(&self, to: &Self) {
        self.lock().hand_over(&mut to.lock());
        self.ring_all();
        to.ring_all();
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use tokio::sync::{Semaphore, oneshot};

    use super::super::fake::{prepared, rules};
    use super::*;

    type Receiver = oneshot::Receiver<Result<crate::Scored>>;

    fn submit(queue: &Queue, text: &str) -> Receiver {
        let (reply, receiver) = oneshot::channel();
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let ticket = Ticket { lane: Lane::Bulk, submitted: Instant::now(), deadline: None, reply, room };
        queue.submit(text.to_owned(), ticket).unwrap();
        receiver
    }

    fn prepare(items: Vec<Queued<String>>) -> Vec<Queued<Prepared>> {
        items.into_iter().map(|item| prepared(item, 4)).collect()
    }

    #[test]
    fn texts_that_are_of_no_use_any_more_make_room_for_those_behind_them() {
        // Two batches are ready and abandoned, and behind them lies a text that a reader had no room for.
        let queue = Arc::new(Queue::new(rules(4), Arc::default(), true));
        let gone: Vec<_> = (0..40).map(|_| submit(&queue, "four")).collect();
        let Work::Prepare(items) = queue.next(Role::Prepare, 0) else { panic!("there are texts to prepare") };
        queue.prepared(prepare(items));
        drop(gone);
        let alive = submit(&queue, "live");
        let reader = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                while let Work::Prepare(items) = queue.next(Role::Prepare, 0) {
                    queue.prepared(prepare(items));
                }
            })
        };
        // Long enough for the reader to see that enough is ready, and to wait.
        thread::sleep(Duration::from_millis(100));
        let (done, ran) = mpsc::channel();
        let runner = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                while let Work::Run(items) = queue.next(Role::Run, 4) {
                    done.send(items.len()).unwrap();
                }
            })
        };
        assert_eq!(ran.recv_timeout(Duration::from_secs(10)), Ok(1), "nobody rang for the text behind");
        queue.close();
        reader.join().unwrap();
        runner.join().unwrap();
        drop(alive);
    }
}
