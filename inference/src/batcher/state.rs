//! What waits, in which order, and who takes what: the queue without its lock and its clock. It carries out what
//! [`super::plan`] decides, and is driven through whole lives by the simulation in its tests.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use undertone_error::{Error, ErrorKind, Result};

use super::faults::{Returned, Returns};
use super::plan::{self, Concession, Fate, Load, QueueView, Role, Rules, Step, Waiting};
use super::worker::Prepared;
use crate::{Lane, Scored};

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
    pub(super) number: u64,
    pub(crate) payload: T,
    pub(crate) ticket: Ticket,
    returns: Returns,
}

impl<T> Queued<T> {
    /// The same text, one stage further.
    pub(crate) fn with<U>(self, payload: U) -> Queued<U> {
        Queued { number: self.number, payload, ticket: self.ticket, returns: self.returns }
    }

    /// The text, and the rest of it.
    pub(crate) fn split(self) -> (T, Queued<()>) {
        let Self { number, payload, ticket, returns } = self;
        (payload, Queued { number, payload: (), ticket, returns })
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
    fn suspect(&self) -> bool {
        self.returns.suspect()
    }
}

/// What a worker is given to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// Prepare these texts and hand them back as ready.
    Prepare(Vec<Queued<String>>),
    /// Run these texts.
    Run(Vec<Queued<Prepared>>),
    /// Nothing yet.
    Wait,
    /// End.
    Stop,
}

/// Tickets of texts that leave the queue without running, with the reason; to be answered outside the lock.
pub(crate) type Useless = Vec<(Ticket, Fate)>;

/// Why a queue takes no more texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The engine shuts down, or another model has taken over; what waits is worked off.
    ShuttingDown,
    /// No worker is left; nothing waits.
    NoWorker,
}

impl Closed {
    /// What callers are told.
    pub(crate) fn error(self) -> Error {
        match self {
            Self::ShuttingDown => Error::new(ErrorKind::Unavailable, "engine is shutting down")
                .help("send the text to another instance, or again after the restart"),
            Self::NoWorker => Error::new(ErrorKind::Unavailable, "engine has no worker that can run the model")
                .help("see the log for what ails them, and restart the engine or replace its model"),
        }
    }
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

    fn len(&self) -> usize {
        self.interactive.len() + self.bulk.len()
    }
}

/// The queue's state.
#[derive(Debug, Default)]
pub(crate) struct State {
    raw: Lanes<String>,
    ready: Lanes<Prepared>,
    ready_interactive_tokens: usize,
    ready_bulk_tokens: usize,
    /// Chunks that workers are preparing.
    preparing: usize,
    next_number: u64,
    passed_over: u32,
    last_interactive: Option<Instant>,
    closed: Option<Closed>,
}

impl State {
    /// Puts a text in.
    ///
    /// # Errors
    /// `Unavailable` once the queue is closed.
    pub(crate) fn submit(&mut self, text: String, ticket: Ticket) -> Result<()> {
        if let Some(closed) = self.closed {
            return Err(closed.error());
        }
        if ticket.lane == Lane::Interactive {
            self.last_interactive = self.last_interactive.max(Some(ticket.submitted));
        }
        let number = self.next_number;
        self.next_number += 1;
        self.raw.of(ticket.lane).push_back(Queued { number, payload: text, ticket, returns: Returns::default() });
        Ok(())
    }

    /// Puts a prepared chunk in. Two workers may hand back two chunks in the wrong order; the lanes stay in order. Answers
    /// the tickets of texts that nobody is left to run.
    pub(crate) fn prepared(&mut self, items: Vec<Queued<Prepared>>) -> Vec<Ticket> {
        self.preparing = self.preparing.saturating_sub(1);
        self.put_back(items)
    }

    /// Puts texts in that were prepared, or takes them back unharmed. Answers as [`State::prepared`].
    pub(crate) fn put_back(&mut self, items: Vec<Queued<Prepared>>) -> Vec<Ticket> {
        if self.closed == Some(Closed::NoWorker) {
            return items.into_iter().map(|item| item.ticket).collect();
        }
        self.ready(items);
        Vec::new()
    }

    fn ready(&mut self, items: Vec<Queued<Prepared>>) {
        for item in items {
            *self.ready_tokens(item.ticket.lane) += item.tokens();
            let lane = self.ready.of(item.ticket.lane);
            let at = match lane.back() {
                Some(last) if last.number > item.number => lane.partition_point(|other| other.number < item.number),
                _ => lane.len(),
            };
            lane.insert(at, item);
        }
    }

    /// Takes texts back from an ill device, to where they were in their lanes; `lost_alone` says that it was lost while the
    /// first of them ran alone. Answers those that came back too often, and whether they are blamed.
    pub(crate) fn give_back(&mut self, items: Vec<Queued<Prepared>>, lost_alone: bool) -> Vec<(Ticket, Returned)> {
        let (mut again, mut given_up) = (Vec::new(), Vec::new());
        let deserted = self.closed == Some(Closed::NoWorker);
        for (place, mut item) in items.into_iter().enumerate() {
            item.returns = item.returns.and(lost_alone && place == 0);
            match item.returns.judge(deserted) {
                Returned::Again => again.push(item),
                returned => given_up.push((item.ticket, returned)),
            }
        }
        self.ready(again);
        given_up
    }

    /// What a free worker does now that dares to run `budget` tokens.
    pub(crate) fn next(&mut self, role: Role, now: Instant, budget: usize, rules: &Rules) -> (Work, Useless) {
        let mut useless = Vec::new();
        loop {
            let load = Load {
                raw_interactive: self.raw.interactive.len(),
                raw_bulk: self.raw.bulk.len(),
                ready: self.ready.len(),
                ready_interactive_tokens: self.ready_interactive_tokens,
                ready_bulk_tokens: self.ready_bulk_tokens,
                preparing: self.preparing,
                passed_over: self.passed_over,
                closed: self.closed.is_some(),
            };
            let work = match plan::step(role, &load, rules) {
                Step::Prepare(lane) => Work::Prepare(self.take_chunk(lane, now, &mut useless)),
                Step::Run => Work::Run(self.take_batch(now, budget, rules, &mut useless)),
                Step::Stop => Work::Stop,
                Step::Wait => Work::Wait,
            };
            // If all that was taken was of no use, there may be more behind it.
            match &work {
                Work::Prepare(items) if items.is_empty() => {}
                Work::Run(items) if items.is_empty() => {}
                Work::Prepare(_) => {
                    self.preparing += 1;
                    return (work, useless);
                }
                _ => return (work, useless),
            }
        }
    }

    /// What a worker does in a pause of the batch that it runs: it prepares interactive texts, if it may, or runs some.
    pub(crate) fn next_in_pause(&mut self, now: Instant, given: Concession, may_prepare: bool) -> (Work, Useless) {
        let mut useless = Vec::new();
        if may_prepare && self.ready_interactive_tokens < given.tokens {
            let items = self.take_chunk(Lane::Interactive, now, &mut useless);
            if !items.is_empty() {
                self.preparing += 1;
                return (Work::Prepare(items), useless);
            }
        }
        let fates = plan::in_pause(&self.ready.interactive, now, given);
        let items = self.take_ready(Lane::Interactive, fates, &mut useless);
        (if items.is_empty() { Work::Wait } else { Work::Run(items) }, useless)
    }

    /// Takes no more texts. What waits is still worked off.
    pub(crate) fn close(&mut self) {
        self.closed.get_or_insert(Closed::ShuttingDown);
    }

    /// Closes for want of workers, and takes out everything that waits.
    pub(crate) fn abandon(&mut self) -> Vec<Ticket> {
        self.closed = Some(Closed::NoWorker);
        let (raw, ready) = (std::mem::take(&mut self.raw), std::mem::take(&mut self.ready));
        (self.ready_interactive_tokens, self.ready_bulk_tokens, self.preparing) = (0, 0, 0);
        let raw = raw.interactive.into_iter().chain(raw.bulk).map(|item| item.ticket);
        raw.chain(ready.interactive.into_iter().chain(ready.bulk).map(|item| item.ticket)).collect()
    }

    /// Closes, and moves the texts that no worker has looked at to the front of another queue, which is still empty.
    pub(crate) fn hand_over(&mut self, to: &mut Self) {
        self.close();
        to.raw = std::mem::take(&mut self.raw);
        to.next_number = self.next_number;
        to.last_interactive = self.last_interactive;
    }

    /// Why it takes no more texts.
    pub(crate) fn closed(&self) -> Option<Closed> {
        self.closed
    }

    /// Whether nothing is left to do: nothing waits, and nothing is being prepared.
    pub(crate) fn is_done(&self) -> bool {
        self.raw.len() + self.ready.len() + self.preparing == 0
    }

    /// Texts that wait in a lane.
    pub(crate) fn waiting(&mut self, lane: Lane) -> usize {
        self.raw.of(lane).len() + self.ready.of(lane).len()
    }

    fn ready_tokens(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Interactive => &mut self.ready_interactive_tokens,
            Lane::Bulk => &mut self.ready_bulk_tokens,
        }
    }

    fn take_chunk(&mut self, lane: Lane, now: Instant, useless: &mut Useless) -> Vec<Queued<String>> {
        let queue = self.raw.of(lane);
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

    fn take_batch(
        &mut self,
        now: Instant,
        budget: usize,
        rules: &Rules,
        useless: &mut Useless,
    ) -> Vec<Queued<Prepared>> {
        let view = QueueView {
            interactive: &self.ready.interactive,
            bulk: &self.ready.bulk,
            passed_over: self.passed_over,
            last_interactive: self.last_interactive,
            budget,
        };
        let batch = plan::plan(&view, now, rules);
        let bulk_waits = !(self.ready.bulk.is_empty() && self.raw.bulk.is_empty());
        self.passed_over = plan::passed_over(self.passed_over, bulk_waits, &batch);
        let mut run = Vec::new();
        for (lane, fates) in [(Lane::Interactive, batch.interactive), (Lane::Bulk, batch.bulk)] {
            run.extend(self.take_ready(lane, fates, useless));
        }
        run
    }

    /// Takes the first texts of a lane, each to its fate, and answers those that run.
    fn take_ready(&mut self, lane: Lane, fates: Vec<Fate>, useless: &mut Useless) -> Vec<Queued<Prepared>> {
        let mut run = Vec::new();
        for fate in fates {
            let Some(item) = self.ready.of(lane).pop_front() else { break };
            let tokens = self.ready_tokens(lane);
            *tokens = tokens.saturating_sub(item.tokens());
            match fate {
                Fate::Run => run.push(item),
                fate => useless.push((item.ticket, fate)),
            }
        }
        run
    }
}

#[cfg(test)]
#[path = "simulation.rs"]
mod simulation;
