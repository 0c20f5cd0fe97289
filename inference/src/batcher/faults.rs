//! What a worker does when a batch fails, as pure functions over observed facts. Nothing here runs a model or waits.
//!
//! Three things can be at fault, and each has its own cure. An ill *text* fails alone while a known-good text, the canary,
//! passes: it is answered with its error. Too little *memory* fails large batches: the token budget halves, and grows
//! back. An ill *device* fails the canary too: its texts go back to the queue, and the worker restarts what it runs on, with
//! growing pauses; a text that was alone with it when it was lost, three times, is blamed.

use std::time::Duration;

use undertone_error::ErrorKind;

/// From so many returns on a text runs alone, so that it takes no others with it.
pub(crate) const SUSPECT_RETURNS: u8 = 2;
/// A device that was lost so often while a text ran alone is lost to that text.
const LOST_ALONE: u8 = 3;
/// How often a text may come back from an ill device before it is given up.
pub(crate) const MAX_RETURNS: u8 = SUSPECT_RETURNS + LOST_ALONE - 1;

/// After so many good batches in a row the token budget doubles, up to its full size, and past illness is forgotten.
const GOOD_BATCHES: u32 = 16;

/// What was seen of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// How many texts ran.
    pub(crate) texts: usize,
    /// What failed, if anything did.
    pub(crate) failure: Option<Failure>,
    /// Whether the canary passed after the failure; `None` if it was not asked.
    pub(crate) canary: Option<bool>,
}

/// How a forward pass fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// As a whole.
    Batch(ErrorKind),
    /// Only some of its texts.
    Texts,
}

/// What to do after a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Answer each text with its own result.
    Answer,
    /// Run the canary, then decide.
    AskCanary,
    /// Run the halves one after the other: the culprit is in one of them.
    Halve,
    /// Halve the token budget, and run the halves.
    Shrink,
    /// The device is ill: the texts go back to the queue.
    GiveBack,
}

/// Decides. A text is blamed only after the canary has passed.
pub(crate) fn judge(facts: &Facts) -> Next {
    let Some(failure) = facts.failure else { return Next::Answer };
    match (failure, facts.canary) {
        (Failure::Batch(ErrorKind::Exhausted), _) if facts.texts > 1 => Next::Shrink,
        (_, None) => Next::AskCanary,
        (_, Some(false)) => Next::GiveBack,
        (Failure::Batch(_), Some(true)) if facts.texts > 1 => Next::Halve,
        (_, Some(true)) => Next::Answer,
    }
}

impl Facts {
    /// Whether the device was lost while a text ran alone. A text for which there was not enough memory does not count:
    /// somebody else may have taken it.
    pub(crate) fn lost_alone(&self) -> bool {
        self.texts == 1
            && self.canary == Some(false)
            && self.failure.is_some_and(|failure| failure != Failure::Batch(ErrorKind::Exhausted))
    }
}

/// How often a text came back from an ill device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Returns {
    times: u8,
    lost_alone: u8,
}

/// What becomes of a text that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Returned {
    /// It is run again.
    Again,
    /// It is given up, and nothing says that it is the text's fault.
    Unavailable,
    /// It is given up as the one that takes the device with it.
    Blamed,
}

impl Returns {
    /// Once more.
    #[must_use]
    pub(crate) fn and(self, lost_alone: bool) -> Self {
        Self { times: self.times.saturating_add(1), lost_alone: self.lost_alone.saturating_add(u8::from(lost_alone)) }
    }

    /// Whether the text may run beside no other.
    pub(crate) fn suspect(self) -> bool {
        self.times >= SUSPECT_RETURNS
    }

    /// Decides. A text is blamed if a device was lost [`LOST_ALONE`] times while it ran alone: each time the canary had
    /// passed before. `deserted` says that no worker is left to run it, which is no text's fault.
    pub(crate) fn judge(self, deserted: bool) -> Returned {
        match self {
            _ if deserted => Returned::Unavailable,
            Self { lost_alone: LOST_ALONE.., .. } => Returned::Blamed,
            Self { times, .. } if times > MAX_RETURNS => Returned::Unavailable,
            _ => Returned::Again,
        }
    }
}

/// How many tokens a worker dares to run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    full: usize,
    tokens: usize,
    good: u32,
}

impl Budget {
    pub(crate) fn new(full: usize) -> Self {
        Self { full, tokens: full, good: 0 }
    }

    /// The most tokens in a batch, except for a single text that has more.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// After a batch for which there was not enough memory: half of what did not fit, but room for its longest text.
    #[must_use]
    pub(crate) fn exhausted(self, batch_tokens: usize, longest_text: usize) -> Self {
        let half = self.tokens.min(batch_tokens) / 2;
        Self { tokens: half.max(longest_text).min(self.tokens).max(1), good: 0, ..self }
    }

    /// After a batch that ran.
    #[must_use]
    pub(crate) fn good(self) -> Self {
        match self.good + 1 {
            _ if self.tokens >= self.full => Self { good: 0, ..self },
            GOOD_BATCHES => Self { tokens: self.tokens.saturating_mul(2).min(self.full), good: 0, ..self },
            good => Self { good, ..self },
        }
    }
}

/// How a worker tries to get well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecoveryRules {
    /// The pause before the first attempt; each following one is twice as long.
    pub(crate) first_pause: Duration,
    /// No pause is longer.
    pub(crate) longest_pause: Duration,
    /// After so many failed attempts in a row the worker gives up.
    pub(crate) attempts: u32,
}

impl Default for RecoveryRules {
    /// About 16 seconds in all: a device that resets itself is back by then.
    fn default() -> Self {
        Self { first_pause: Duration::from_millis(50), longest_pause: Duration::from_secs(5), attempts: 10 }
    }
}

/// How ill a worker was of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Illness {
    /// Attempts at recovering that were not yet forgotten for good batches: what the pauses grow with.
    recent: u32,
    /// Attempts that failed in a row.
    failed: u32,
    good: u32,
}

impl Illness {
    /// How long to pause before the next attempt; `None` to give up.
    pub(crate) fn pause(&self, rules: &RecoveryRules) -> Option<Duration> {
        let growth = 1u32.checked_shl(self.recent).unwrap_or(u32::MAX);
        (self.failed < rules.attempts).then(|| rules.first_pause.saturating_mul(growth).min(rules.longest_pause))
    }

    /// After an attempt. One that succeeds counts too: a device that falls ill again at once needs longer pauses.
    #[must_use]
    pub(crate) fn attempted(self, recovered: bool) -> Self {
        let failed = if recovered { 0 } else { self.failed + 1 };
        Self { recent: self.recent.saturating_add(1), failed, good: 0 }
    }

    /// After a batch that ran.
    #[must_use]
    pub(crate) fn good(self) -> Self {
        match self.good + 1 {
            _ if self == Self::default() => self,
            GOOD_BATCHES => Self::default(),
            good => Self { good, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_blamed_only_after_the_canary_has_passed() {
        use ErrorKind as K;
        use Failure::{Batch, Texts};
        let table = [
            (9, None, None, Next::Answer),
            (9, Some(Batch(K::Internal)), None, Next::AskCanary),
            (9, Some(Batch(K::Internal)), Some(true), Next::Halve),
            (9, Some(Batch(K::Internal)), Some(false), Next::GiveBack),
            (1, Some(Batch(K::Internal)), None, Next::AskCanary),
            (1, Some(Batch(K::Internal)), Some(true), Next::Answer),
            (1, Some(Batch(K::Internal)), Some(false), Next::GiveBack),
            (9, Some(Texts), None, Next::AskCanary),
            (9, Some(Texts), Some(true), Next::Answer),
            (9, Some(Texts), Some(false), Next::GiveBack),
            (9, Some(Batch(K::Exhausted)), None, Next::Shrink),
            (9, Some(Batch(K::Exhausted)), Some(false), Next::Shrink),
            (1, Some(Batch(K::Exhausted)), None, Next::AskCanary),
            (1, Some(Batch(K::Exhausted)), Some(true), Next::Answer),
            (1, Some(Batch(K::Exhausted)), Some(false), Next::GiveBack),
        ];
        for (texts, failure, canary, expected) in table {
            let facts = Facts { texts, failure, canary };
            assert_eq!(judge(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_text_is_blamed_for_a_lost_device_only_if_it_was_alone_each_time() {
        let lost = |texts, failure, canary| Facts { texts, failure: Some(failure), canary }.lost_alone();
        let internal = Failure::Batch(ErrorKind::Internal);
        assert!(lost(1, internal, Some(false)) && lost(1, Failure::Texts, Some(false)));
        assert!(!lost(2, internal, Some(false)), "in company");
        assert!(!lost(1, internal, Some(true)) && !lost(1, internal, None), "the device is well");
        assert!(!lost(1, Failure::Batch(ErrorKind::Exhausted), Some(false)), "no memory");

        use Returned::{Again, Blamed, Unavailable};
        // Whether it was alone each time, and what became of it in the end.
        let table = [
            (&[true, true, true][..], [Again, Again, Blamed].as_slice()),
            (&[false, false, true, true, true], &[Again, Again, Again, Again, Blamed]),
            (&[false, false, false, false, false], &[Again, Again, Again, Again, Unavailable]),
            (&[false, false, false, true, true], &[Again, Again, Again, Again, Unavailable]),
        ];
        for (alone, expected) in table {
            let mut returns = Returns::default();
            for (time, (&alone, &expected)) in alone.iter().zip(expected).enumerate() {
                assert_eq!(returns.suspect(), time >= usize::from(SUSPECT_RETURNS));
                returns = returns.and(alone);
                assert_eq!(returns.judge(false), expected, "{alone:?} {time}");
                assert_eq!(returns.judge(true), Unavailable, "no worker is left");
            }
        }
    }

    #[test]
    fn the_budget_halves_to_what_did_not_fit_and_grows_back() {
        let mut budget = Budget::new(512);
        // (tokens of the batch that failed, its longest text, the budget afterwards)
        for (batch, longest, expected) in [(512, 30, 256), (100, 30, 50), (50, 40, 40), (600, 600, 40)] {
            budget = budget.exhausted(batch, longest);
            assert_eq!(budget.tokens(), expected, "{batch} tokens, longest {longest}");
        }
        for expected in [80, 160, 320, 512, 512] {
            for _ in 1..GOOD_BATCHES {
                budget = budget.good();
            }
            assert!(budget.tokens() < expected || expected == 512, "not before {GOOD_BATCHES} good batches");
            budget = budget.good();
            assert_eq!(budget.tokens(), expected);
        }
        let almost = (1..GOOD_BATCHES).fold(Budget::new(8).exhausted(8, 1), |budget, _| budget.good());
        assert_eq!(almost.exhausted(4, 1).good().tokens(), 2, "a failure starts the count again");
    }

    #[test]
    fn pauses_grow_until_the_worker_gives_up_and_good_batches_forgive() {
        let rules = RecoveryRules {
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_millis(300),
            attempts: 5,
        };
        let (mut illness, mut pauses) = (Illness::default(), Vec::new());
        while let Some(pause) = illness.pause(&rules) {
            pauses.push(pause.as_millis());
            illness = illness.attempted(false);
        }
        assert_eq!(pauses, [50, 100, 200, 300, 300]);

        let mut relapsing = Illness::default();
        for expected in [50, 100, 200, 300, 300, 300, 300] {
            assert_eq!(relapsing.pause(&rules).map(|pause| pause.as_millis()), Some(expected));
            relapsing = relapsing.attempted(true).good();
        }
        for _ in 0..GOOD_BATCHES {
            relapsing = relapsing.good();
        }
        assert_eq!(relapsing, Illness::default());
    }

    proptest! {
        #[test]
        fn the_budget_stays_within_its_bounds(full in 1usize..2000, events in prop::collection::vec(prop::option::of((1usize..3000, 1usize..700)), 0..200)) {
            let mut budget = Budget::new(full);
            for event in events {
                let before = budget.tokens();
                budget = match event {
                    Some((batch, longest)) => budget.exhausted(batch, longest.min(batch)),
                    None => budget.good(),
                };
                prop_assert!((1..=full).contains(&budget.tokens()));
                match event {
                    Some((batch, longest)) => prop_assert!((longest.min(batch).min(before)..=before).contains(&budget.tokens())),
                    None => prop_assert!(budget.tokens() >= before),
                }
            }
            for _ in 0..GOOD_BATCHES * 12 {
                budget = budget.good();
            }
            prop_assert_eq!(budget.tokens(), full, "good batches bring the full budget back");
        }
    }
}
