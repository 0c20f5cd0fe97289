//! The decisions of the batcher, as pure functions over what is observed in the queue. Nothing here locks, waits or
//! looks at the clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::Lane;

/// How many batches in a row may leave out a bulk text that has waited long enough.
pub(crate) const MAX_PASSED_OVER: u32 = 3;

/// The part of a batch that aged bulk texts may take ahead of interactive ones: a quarter.
const AGED_SHARE: usize = 4;

/// A text that waits to be run.
pub(crate) trait Waiting {
    /// How many tokens it has.
    fn tokens(&self) -> usize;
    /// When it was submitted.
    fn submitted(&self) -> Instant;
    /// When its answer stops being of use.
    fn deadline(&self) -> Option<Instant>;
    /// Whether its caller has gone.
    fn abandoned(&self) -> bool;
    /// Whether nothing may run beside it: it was there more than once when a device fell ill.
    fn suspect(&self) -> bool;
}

/// What a decision looks at: the ready texts of both lanes, oldest first.
#[derive(Debug)]
pub(crate) struct QueueView<'a, W> {
    pub(crate) interactive: &'a VecDeque<W>,
    pub(crate) bulk: &'a VecDeque<W>,
    /// How many batches in a row ran nothing of the bulk lane although something waited there.
    pub(crate) passed_over: u32,
    /// When an interactive text was last submitted.
    pub(crate) last_interactive: Option<Instant>,
    /// The most tokens that the asking worker has memory for; at most [`Rules::token_budget`].
    pub(crate) budget: usize,
}

/// The limits that decisions keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The most tokens in a batch; a single text with more runs alone.
    pub(crate) token_budget: usize,
    /// The most tokens in a batch with bulk texts in it, while interactive texts may come at any moment: where a batch does
    /// not pause for them, and where some are in it.
    pub(crate) bulk_tokens: usize,
    /// Whether batches pause while they run.
    pub(crate) pauses: bool,
    /// For so long after an interactive text another one is expected.
    pub(crate) interactive_window: Duration,
    /// After this time a bulk text may go ahead of interactive ones.
    pub(crate) bulk_ageing: Duration,
}

/// What becomes of a text that leaves the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs in this batch.
    Run,
    /// Its deadline has passed.
    Expired,
    /// Its caller has gone.
    Abandoned,
}

/// A decision: the fate of the first texts of each lane. Texts behind them stay where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) interactive: Vec<Fate>,
    pub(crate) bulk: Vec<Fate>,
    /// The tokens of the texts that run.
    pub(crate) tokens: usize,
    /// Whether the batch is a single text that nothing may run beside.
    pub(crate) suspect: bool,
}

/// The fate of a text, looked at now.
pub(crate) fn fate(abandoned: bool, deadline: Option<Instant>, now: Instant) -> Fate {
    if abandoned {
        Fate::Abandoned
    } else if deadline.is_some_and(|deadline| deadline <= now) {
        Fate::Expired
    } else {
        Fate::Run
    }
}

/// The most tokens that a batch may have with bulk texts in it, where interactive texts wait for them: those that are in it,
/// and, if it does not pause, the next one that comes. While such texts come, bulk runs in small batches, else in full ones.
pub(crate) fn bulk_limit(last_interactive: Option<Instant>, now: Instant, rules: &Rules) -> usize {
    let expected = last_interactive.is_some_and(|last| now.saturating_duration_since(last) < rules.interactive_window);
    if expected { rules.bulk_tokens.min(rules.token_budget) } else { rules.token_budget }
}

/// Chooses a batch. Interactive texts first, then bulk with the tokens that are left; but when the oldest bulk text that
/// can run has aged and was passed over [`MAX_PASSED_OVER`] times, bulk takes its share (at least one text) ahead of the
/// others.
pub(crate) fn plan<W: Waiting>(view: &QueueView<'_, W>, now: Instant, rules: &Rules) -> Batch {
    let mut batch = Batch::default();
    let budget = view.budget.min(rules.token_budget);
    let bulk_limit = bulk_limit(view.last_interactive, now, rules).min(budget);
    // Not one whose caller has gone: younger texts would be given its turn.
    let oldest = view.bulk.iter().find(|item| fate(item.abandoned(), item.deadline(), now) == Fate::Run);
    let aged = oldest.is_some_and(|oldest| now.saturating_duration_since(oldest.submitted()) >= rules.bulk_ageing);
    if aged && view.passed_over >= MAX_PASSED_OVER {
        take(view.bulk, Lane::Bulk, &mut batch, bulk_limit.min(budget / AGED_SHARE), now);
    }
    take(view.interactive, Lane::Interactive, &mut batch, budget, now);
    // Also not for a text that had no room in the batch.
    let waits = |item: &W| fate(item.abandoned(), item.deadline(), now) == Fate::Run;
    let nobody_waits = rules.pauses && !view.interactive.iter().any(waits);
    take(view.bulk, Lane::Bulk, &mut batch, if nobody_waits { budget } else { bulk_limit }, now);
    batch
}

/// What a batch gives to interactive texts that come while it runs: they run in its pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Concession {
    /// So many tokens in all.
    pub(crate) tokens: usize,
    /// The longest text of those, in tokens.
    pub(crate) longest: usize,
    /// Whether the first text may have more than that: nothing was used, and it would fit nowhere else.
    pub(crate) whole: bool,
}

impl Concession {
    /// Nothing.
    pub(crate) const NONE: Self = Self { tokens: 0, longest: 0, whole: false };

    /// So many tokens of it are used.
    pub(crate) fn take(&mut self, tokens: usize) {
        self.tokens = self.tokens.saturating_sub(tokens);
        self.whole = false;
    }

    /// No more than what is left of another, in whose pause this batch runs.
    pub(crate) fn within(self, other: Self) -> Self {
        Self { tokens: self.tokens.min(other.tokens), ..self }
    }
}

/// An interactive text that is so long alone lets shorter ones run before it ends.
const LONG_TOKENS: usize = 64;

/// What a batch gives while it runs. Bulk gives three batches: as many as may pass it over while it waits. A long
/// interactive text gives half of its tokens, to texts at most half as long: they would wait much longer than it does then.
/// Others give nothing: who is in the same lane waits for its turn, and batches stay full under load.
pub(crate) fn concession(texts: impl IntoIterator<Item = (Lane, usize)>, budget: usize, rules: &Rules) -> Concession {
    let (mut interactive, mut count, mut tokens) = (false, 0, 0);
    for (lane, size) in texts {
        interactive |= lane == Lane::Interactive;
        count += 1;
        tokens += size;
    }
    match (interactive, count) {
        (false, _) => {
            let budget = budget.min(rules.token_budget);
            Concession { tokens: budget.saturating_mul(MAX_PASSED_OVER as usize), longest: budget, whole: true }
        }
        (true, 1) if tokens >= LONG_TOKENS => Concession { tokens: tokens / 2, longest: tokens / 2, whole: false },
        (true, _) => Concession::NONE,
    }
}

/// The fate of the first interactive texts in a pause: as many as fit, and none behind one that does not. No more run at once
/// than the longest text has tokens.
pub(crate) fn in_pause<W: Waiting>(interactive: &VecDeque<W>, now: Instant, given: Concession) -> Vec<Fate> {
    let (mut fates, mut left, mut first) = (Vec::new(), given.tokens.min(given.longest), true);
    for item in interactive {
        let fate = fate(item.abandoned(), item.deadline(), now);
        if fate == Fate::Run {
            if item.suspect() || (item.tokens() > left && !(first && given.whole)) {
                break;
            }
            left = left.saturating_sub(item.tokens());
            first = false;
        }
        fates.push(fate);
    }
    fates
}

/// Takes texts from the front of a lane until the batch would have more than `limit` tokens. The first text of a batch
/// is taken even if it has more: it would never fit.
fn take<W: Waiting>(waiting: &VecDeque<W>, lane: Lane, batch: &mut Batch, limit: usize, now: Instant) {
    let Batch { interactive, bulk, tokens, suspect } = batch;
    let fates = match lane {
        Lane::Interactive => interactive,
        Lane::Bulk => bulk,
    };
    for item in waiting.iter().skip(fates.len()) {
        let fate = fate(item.abandoned(), item.deadline(), now);
        if fate == Fate::Run {
            let with = *tokens + item.tokens();
            if *tokens > 0 && (with > limit || *suspect || item.suspect()) {
                return;
            }
            *tokens = with;
            *suspect = item.suspect();
        }
        fates.push(fate);
    }
}

/// Which steps a worker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// All of them: on a processor, where whoever prepares takes the core of somebody who runs.
    All,
    /// It prepares texts for those that run them.
    Prepare,
    /// It runs batches: a GPU must not wait while its worker tokenises.
    Run,
}

/// What a free worker sees.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Interactive texts that are not prepared.
    pub(crate) raw_interactive: usize,
    /// Bulk texts that are not prepared.
    pub(crate) raw_bulk: usize,
    /// Texts that are ready, of both lanes.
    pub(crate) ready: usize,
    /// Tokens of interactive texts that are ready.
    pub(crate) ready_interactive_tokens: usize,
    /// Tokens of bulk texts that are ready.
    pub(crate) ready_bulk_tokens: usize,
    /// Chunks of texts that workers are preparing.
    pub(crate) preparing: usize,
    /// As in [`QueueView`].
    pub(crate) passed_over: u32,
    /// Whether the queue takes no more texts.
    pub(crate) closed: bool,
}

/// What a free worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Prepare some texts of a lane.
    Prepare(Lane),
    /// Run a batch.
    Run,
    /// Wait for texts.
    Wait,
    /// End: nothing waits and nothing will come.
    Stop,
}

/// What a free worker does now.
pub(crate) fn step(role: Role, load: &Load, rules: &Rules) -> Step {
    match role {
        Role::All => step_of_all(load, rules),
        Role::Prepare => step_of_preparing(load, rules),
        Role::Run if load.ready > 0 => Step::Run,
        // What is being prepared is still to be run.
        Role::Run if load.closed && load.raw_interactive + load.raw_bulk + load.preparing == 0 => Step::Stop,
        Role::Run => Step::Wait,
    }
}

/// Texts of either lane are prepared only as far as the next two batches can hold them: one is taken while the other fills.
/// Interactive texts go first, unless bulk was passed over and has nothing ready that could take its turn.
fn step_of_preparing(load: &Load, rules: &Rules) -> Step {
    let enough = 2 * rules.token_budget;
    if load.raw_bulk > 0 && load.ready_bulk_tokens == 0 && load.passed_over >= MAX_PASSED_OVER {
        Step::Prepare(Lane::Bulk)
    } else if load.raw_interactive > 0 && load.ready_interactive_tokens < enough {
        Step::Prepare(Lane::Interactive)
    } else if load.raw_bulk > 0 && load.ready_bulk_tokens < enough {
        Step::Prepare(Lane::Bulk)
    } else if load.closed && load.raw_interactive + load.raw_bulk == 0 {
        Step::Stop
    } else {
        Step::Wait
    }
}

/// Texts of either lane are prepared only as far as the next batch can hold them. An interactive text that is ready runs
/// at once, without waiting for bulk texts to be prepared for the rest of its batch, unless those were passed over before.
fn step_of_all(load: &Load, rules: &Rules) -> Step {
    let bulk_runs_dry = load.raw_bulk > 0 && load.ready_bulk_tokens < rules.token_budget;
    let bulk_may_go = load.ready_interactive_tokens == 0 || load.passed_over >= MAX_PASSED_OVER;
    if load.raw_interactive > 0 && load.ready_interactive_tokens < rules.token_budget {
        Step::Prepare(Lane::Interactive)
    } else if bulk_runs_dry && bulk_may_go {
        Step::Prepare(Lane::Bulk)
    } else if load.ready > 0 {
        Step::Run
    } else if load.closed {
        Step::Stop
    } else {
        Step::Wait
    }
}

/// The value of [`QueueView::passed_over`] after a batch.
pub(crate) fn passed_over(before: u32, bulk_waited: bool, batch: &Batch) -> u32 {
    match bulk_waited && !batch.bulk.contains(&Fate::Run) {
        true => before.saturating_add(1),
        false => 0,
    }
}

#[cfg(test)]
mod tests;
