//! The queue's state, behind one lock. It carries out what [`super::plan`] decides.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use undertone_error::{Error, ErrorKind, Result};

use super::plan::{self, Fate, Load, QueueView, Rules, Step, Waiting};
use super::worker::Prepared;
use crate::{Lane, Scored, telemetry};

/// A chunk of texts is prepared in a millisecond or two, so that a batch is never long in coming.
const CHUNK_TEXTS: usize = 32;
/// The same, for long texts.
const CHUNK_BYTES: usize = 64 << 10;

/// A text's way back to its caller. Dropping it unanswered tells the caller that the work was lost.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) lane: Lane,
    pub(crate) submitted: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) reply: oneshot::Sender<Result<Scored>>,
    /// The room that the text takes in its lane, given back with the ticket.
    pub(crate) room: OwnedSemaphorePermit,
}

impl Ticket {
    /// Answers the caller, who may have gone.
    pub(crate) fn answer(self, result: Result<Scored>) {
        // The room must be free before the caller can know, or a caller that sends its next text at once may find it taken.
        drop(self.room);
        let _ = self.reply.send(result);
    }
}

/// A text and its ticket, with its place in the order of submission.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    number: u64,
    pub(crate) payload: T,
    pub(crate) ticket: Ticket,
}

impl<T> Queued<T> {
    /// The same text, one stage further.
    pub(crate) fn with<U>(self, payload: U) -> Queued<U> {
        Queued { number: self.number, payload, ticket: self.ticket }
    }

    fn fate(&self, now: Instant) -> Fate {
        plan::fate(self.ticket.reply.is_closed(), self.ticket.deadline, now)
    }
}

impl Waiting for Queued<Prepared> {
    fn tokens(&self) -> usize {
        self.payload.tokens.ids.len()
    }
    fn submitted(&self) -> Instant {
        self.ticket.submitted
    }
    fn deadline(&self) -> Option<Instant> {
        self.ticket.deadline
    }
    fn abandoned(&self) -> bool {
        self.ticket.reply.is_closed()
    }
}

/// What a worker is given to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// Prepare these texts and hand them back with [`Queue::ready`].
    Prepare(Vec<Queued<String>>),
    /// Run these texts.
    Run(Vec<Queued<Prepared>>),
    /// End.
    Stop,
}

/// How much waits, and what was dropped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueCounts {
    pub(crate) interactive: usize,
    pub(crate) bulk: usize,
    pub(crate) dropped: u64,
}

#[derive(Debug)]
struct Lanes<T> {
    interactive: VecDeque<Queued<T>>,
    bulk: VecDeque<Queued<T>>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { interactive: VecDeque::new(), bulk: VecDeque::new() }
    }
}

impl<T> Lanes<T> {
    fn of(&mut self, lane: Lane) -> &mut VecDeque<Queued<T>> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    raw: Lanes<String>,
    ready: Lanes<Prepared>,
    ready_bulk_tokens: usize,
    next_number: u64,
    passed_over: u32,
    dropped: u64,
    closed: bool,
}

/// The queue: callers put texts in, workers take work out.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    rules: Rules,
}

impl Queue {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), rules }
    }

    /// The state is consistent between any two statements that could panic, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a text in.
    ///
    /// # Errors
    /// `Unavailable` once the queue is closed.
    pub(crate) fn submit(&self, text: String, ticket: Ticket) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(closed());
        }
        let number = state.next_number;
        state.next_number += 1;
        state.raw.of(ticket.lane).push_back(Queued { number, payload: text, ticket });
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Puts prepared texts in. Two workers may hand back two chunks in the wrong order; the lanes stay in order.
    pub(crate) fn ready(&self, items: Vec<Queued<Prepared>>) {
        let mut state = self.lock();
        for item in items {
            if item.ticket.lane == Lane::Bulk {
                state.ready_bulk_tokens += item.tokens();
            }
            let lane = state.ready.of(item.ticket.lane);
            let at = match lane.back() {
                Some(last) if last.number > item.number => lane.partition_point(|other| other.number < item.number),
                _ => lane.len(),
            };
            lane.insert(at, item);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until there is something to do. Texts that are of no use any more are answered here and never returned.
    pub(crate) fn next(&self) -> Work {
        let mut state = self.lock();
        loop {
            let load = Load {
                raw_interactive: state.raw.interactive.len(),
                raw_bulk: state.raw.bulk.len(),
                ready: state.ready.interactive.len() + state.ready.bulk.len(),
                ready_bulk_tokens: state.ready_bulk_tokens,
                closed: state.closed,
            };
            let mut useless = Vec::new();
            let work = match plan::step(&load, &self.rules) {
                Step::Prepare(lane) => Work::Prepare(take_chunk(&mut state, lane, &mut useless)),
                Step::Run => Work::Run(take_batch(&mut state, &self.rules, &mut useless)),
                Step::Stop => return Work::Stop,
                Step::Wait => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            state.dropped += useless.len() as u64;
            for lane in [Lane::Interactive, Lane::Bulk] {
                telemetry::depth(lane, state.raw.of(lane).len() + state.ready.of(lane).len());
            }
            let empty = matches!(&work, Work::Prepare(items) if items.is_empty())
                || matches!(&work, Work::Run(items) if items.is_empty());
            if useless.is_empty() && !empty {
                return work;
            }
            // Answering wakes callers: not under the lock.
            drop(state);
            telemetry::items("dropped", useless.len() as u64);
            for (ticket, fate) in useless {
                if fate == Fate::Expired {
                    ticket.answer(Err(expired()));
                }
            }
            if !empty {
                return work;
            }
            state = self.lock();
        }
    }

    /// Takes no more texts. What waits is still worked off.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Closes the queue and drops what waits: its callers learn that the work was lost.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = (std::mem::take(&mut state.raw), std::mem::take(&mut state.ready));
        state.ready_bulk_tokens = 0;
        drop(state);
        self.changed.notify_all();
        drop(waiting);
    }

    pub(crate) fn counts(&self) -> QueueCounts {
        let state = self.lock();
        QueueCounts {
            interactive: state.raw.interactive.len() + state.ready.interactive.len(),
            bulk: state.raw.bulk.len() + state.ready.bulk.len(),
            dropped: state.dropped,
        }
    }
}

fn take_chunk(state: &mut State, lane: Lane, useless: &mut Vec<(Ticket, Fate)>) -> Vec<Queued<String>> {
    let now = Instant::now();
    let queue = state.raw.of(lane);
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while chunk.len() < CHUNK_TEXTS && bytes < CHUNK_BYTES {
        let Some(item) = queue.pop_front() else { break };
        match item.fate(now) {
            Fate::Run => {
                bytes += item.payload.len();
                chunk.push(item);
            }
            fate => useless.push((item.ticket, fate)),
        }
    }
    chunk
}

fn take_batch(state: &mut State, rules: &Rules, useless: &mut Vec<(Ticket, Fate)>) -> Vec<Queued<Prepared>> {
    let view =
        QueueView { interactive: &state.ready.interactive, bulk: &state.ready.bulk, passed_over: state.passed_over };
    let batch = plan::plan(&view, Instant::now(), rules);
    state.passed_over = plan::passed_over(state.passed_over, !state.ready.bulk.is_empty(), &batch);
    let mut run = Vec::new();
    for (lane, fates) in [(Lane::Interactive, batch.interactive), (Lane::Bulk, batch.bulk)] {
        for fate in fates {
            let Some(item) = state.ready.of(lane).pop_front() else { break };
            if lane == Lane::Bulk {
                state.ready_bulk_tokens = state.ready_bulk_tokens.saturating_sub(item.tokens());
            }
            match fate {
                Fate::Run => run.push(item),
                fate => useless.push((item.ticket, fate)),
            }
        }
    }
    run
}

/// The error of a text whose deadline has passed.
pub(crate) fn expired() -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "deadline passed before the text was scored")
}

/// The error of a text that comes too late.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "engine is shutting down")
        .help("send the text to another instance, or again after the restart")
}
