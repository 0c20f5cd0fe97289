//! What the pump does next, decided from what it observes. Everything here is pure: the tables in the tests are the
//! protocol.

use std::time::Duration;

use undertone_error::{Error, ErrorKind, Fault, Result};
use undertone_proto::Partition;

use crate::Positions;

/// When an epoch is committed, and how long to wait after failures.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// An epoch that settles this many offsets is full.
    pub max_events: u64,
    /// An epoch of this many bytes (as the source counts them) is full.
    pub max_bytes: usize,
    /// An epoch is committed at this age even if it is not full. Each commit adds a snapshot and files to a table, so
    /// seconds are too short; readers see nothing younger, so minutes are too long.
    pub max_age: Duration,
    /// A source with nothing new is asked again after this long; the lag that is reported is at most this old.
    pub idle_wait: Duration,
    /// The wait after the first failure; each further one doubles it.
    pub retry_min: Duration,
    /// The longest wait after a failure.
    pub retry_max: Duration,
    /// Whether the store is told at once where partitions begin that it does not know, with an epoch of no record. A
    /// source that forgets needs it: otherwise what it forgot before the first commit would not be missed.
    pub pin_starts: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_events: 20_000,
            max_bytes: 32 << 20,
            max_age: Duration::from_secs(30),
            idle_wait: Duration::from_millis(500),
            retry_min: Duration::from_millis(200),
            retry_max: Duration::from_secs(15),
            pin_starts: false,
        }
    }
}

/// The most events that one read may bring, so that lag and shutdown are looked at in between.
const READ_EVENTS: u64 = 2048;

/// What is asked of the pump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Go on for ever.
    Run,
    /// Nothing more will come: store what is there to the end, then return.
    Finish,
    /// Read no more, try once to commit what was read, return.
    Stop,
}

/// What the pump observes before each step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) mode: Mode,
    /// Offsets that are read and not yet committed.
    pub(super) events: u64,
    /// Their bytes.
    pub(super) bytes: usize,
    /// How long ago the first of them was read.
    pub(super) age: Duration,
    /// Whether everything up to the source's durable end is read.
    pub(super) drained: bool,
}

/// What the pump does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read { events: usize, bytes: usize, wait: Duration },
    Commit,
    Done,
}

/// Decides the next step.
pub(super) fn next_step(policy: &Policy, facts: &Facts) -> Step {
    let full = facts.events >= policy.max_events || facts.bytes >= policy.max_bytes;
    let due = match facts.mode {
        Mode::Run => facts.age >= policy.max_age,
        Mode::Finish => facts.drained,
        Mode::Stop => true,
    };
    let over = facts.mode == Mode::Stop || (facts.mode == Mode::Finish && facts.drained);
    match facts.events {
        0 if over => Step::Done,
        1.. if full || due => Step::Commit,
        pending => {
            // Nothing grows old while nothing is pending, however soon a commit is due.
            let left = if pending == 0 { policy.idle_wait } else { policy.max_age.saturating_sub(facts.age) };
            let events = policy.max_events.saturating_sub(pending).clamp(1, READ_EVENTS);
            Step::Read {
                events: usize::try_from(events).unwrap_or(1),
                bytes: policy.max_bytes.saturating_sub(facts.bytes).max(1),
                wait: policy.idle_wait.min(left),
            }
        }
    }
}

/// What the pump does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// The same again after this long.
    Retry(Duration),
    /// Ask the store where it stands after this long, and make the epoch again from there.
    Reload(Duration),
    /// Only a person can help.
    GiveUp,
}

/// Decides about a failure that `failures` others came right before. An ill store is waited for as long as it takes:
/// no event is given up because of it.
pub(crate) fn recover(policy: &Policy, error: &Error, failures: u32, mode: Mode) -> Recovery {
    let delay = policy.retry_min.saturating_mul(1 << failures.min(20)).min(policy.retry_max);
    match (mode, error.kind(), error.fault()) {
        // Also when it is to stop: then there is nothing left to do.
        (_, ErrorKind::Conflict, _) => Recovery::Reload(delay),
        (Mode::Stop, ..) => Recovery::GiveUp,
        (_, _, Fault::Outside) => Recovery::Retry(delay),
        (_, _, Fault::User | Fault::Ours) => Recovery::GiveUp,
    }
}

/// Where to go on: at the stored positions, and at a partition's first offset where nothing was ever stored.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if the source no longer holds what comes next, or never held what was stored: going on would
/// skip events in silence.
pub(crate) fn resume(stored: &Positions, starts: &Positions, ends: &Positions) -> Result<Positions> {
    let mut positions = Positions::new();
    if let Some((ours, other)) = starts.keys().find_map(|ours| Some((ours, remade(stored, ours)?))) {
        let error = Error::new(ErrorKind::Corrupt, "store was fed from another topic of the same cluster");
        return Err(error.with("stored", &other.topic).with("topic", &ours.topic).help(
            "was the topic deleted and made again? what the store lacks of the old one is gone; \
             `undertone accept-gap` shows where the new one begins",
        ));
    }
    for (partition, &start) in starts {
        let next = stored.get(partition).copied().unwrap_or(start);
        let end = ends.get(partition).copied().unwrap_or(start);
        let wrong = |message, limit: i64| {
            Error::new(ErrorKind::Corrupt, message)
                .with("topic", &partition.topic)
                .with("partition", partition.partition)
                .with("position", next)
                .with(if next < start { "first" } else { "end" }, limit)
        };
        if next < start {
            return Err(wrong("source no longer holds the events that the sink needs next", start)
                .help("restore the log; or accept the loss: `undertone accept-gap` shows how much it is"));
        }
        if next > end {
            return Err(wrong("sink is ahead of its source", end).help("restore the log that the sink was fed from"));
        }
        positions.insert(partition.clone(), next);
    }
    Ok(positions)
}

/// A stored partition of the same cluster, where there is none of the same topic.
pub(super) fn remade<'a>(stored: &'a Positions, ours: &Partition) -> Option<&'a Partition> {
    let mut cluster = stored.keys().filter(|stored| stored.cluster == ours.cluster).peekable();
    let other = cluster.peek().copied();
    other.filter(|_| cluster.all(|stored| stored.topic != ours.topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGED: Duration = Duration::from_secs(31);
    const YOUNG: Duration = Duration::from_secs(1);

    fn facts(mode: Mode, events: u64, bytes: usize, age: Duration, drained: bool) -> Facts {
        Facts { mode, events, bytes, age, drained }
    }

    #[test]
    fn an_epoch_is_committed_when_it_is_full_old_or_the_last() {
        use Mode::{Finish, Run, Stop};
        let policy = Policy { max_events: 100, max_bytes: 1000, ..Policy::default() };
        let cases = [
            (facts(Run, 0, 0, YOUNG, false), "read"),
            (facts(Run, 0, 0, AGED, true), "read"), // nothing to commit, however old
            (facts(Run, 99, 999, YOUNG, true), "read"),
            (facts(Run, 100, 0, YOUNG, false), "commit"),
            (facts(Run, 1, 1000, YOUNG, false), "commit"),
            (facts(Run, 1, 0, AGED, false), "commit"), // events may have no record at all, and still count
            (facts(Finish, 1, 1, AGED, false), "read"), // larger epochs while catching up
            (facts(Finish, 100, 1, YOUNG, false), "commit"),
            (facts(Finish, 1, 1, YOUNG, true), "commit"),
            (facts(Finish, 0, 0, YOUNG, false), "read"),
            (facts(Finish, 0, 0, YOUNG, true), "done"),
            (facts(Stop, 1, 1, YOUNG, false), "commit"),
            (facts(Stop, 0, 0, YOUNG, false), "done"),
        ];
        for (facts, wanted) in cases {
            let step = match next_step(&policy, &facts) {
                Step::Read { .. } => "read",
                Step::Commit => "commit",
                Step::Done => "done",
            };
            assert_eq!(step, wanted, "{facts:?}");
        }
    }

    #[test]
    fn a_read_asks_for_what_still_fits_and_does_not_outwait_the_epoch() {
        let policy =
            Policy { max_events: 100, max_bytes: 1000, idle_wait: Duration::from_secs(5), ..Policy::default() };
        let age = Duration::from_secs(28);
        let wanted = Step::Read { events: 60, bytes: 300, wait: Duration::from_secs(2) };
        assert_eq!(next_step(&policy, &facts(Mode::Run, 40, 700, age, true)), wanted);
    }

    #[test]
    fn ill_stores_are_waited_for_conflicts_reload_and_bugs_stop() {
        let policy = Policy::default();
        let error = |kind| Error::new(kind, "x");
        let ms = Duration::from_millis;
        let cases = [
            (ErrorKind::Unavailable, 0, Mode::Run, Recovery::Retry(ms(200))),
            (ErrorKind::Unavailable, 3, Mode::Run, Recovery::Retry(ms(1600))),
            (ErrorKind::Unavailable, 4_000_000_000, Mode::Finish, Recovery::Retry(ms(15_000))),
            (ErrorKind::DeadlineExceeded, 0, Mode::Run, Recovery::Retry(ms(200))),
            (ErrorKind::Conflict, 1, Mode::Run, Recovery::Reload(ms(400))),
            (ErrorKind::Corrupt, 0, Mode::Run, Recovery::GiveUp),
            (ErrorKind::NotFound, 0, Mode::Run, Recovery::GiveUp),
            (ErrorKind::Unavailable, 0, Mode::Stop, Recovery::GiveUp),
            (ErrorKind::Conflict, 0, Mode::Stop, Recovery::Reload(ms(200))),
        ];
        for (kind, failures, mode, wanted) in cases {
            assert_eq!(recover(&policy, &error(kind), failures, mode), wanted, "{kind:?} {failures} {mode:?}");
        }
    }

    #[test]
    fn resuming_starts_unwritten_partitions_at_their_first_offset_and_never_skips() {
        let partition = |number| Partition { cluster: "c".to_owned(), topic: "t".to_owned(), partition: number };
        let at = |offsets: &[i64]| -> Positions { (0..).map(partition).zip(offsets.iter().copied()).collect() };
        let starts = at(&[10, 0]);
        let ends = at(&[20, 5]);
        assert_eq!(resume(&at(&[15]), &starts, &ends).expect("inside"), at(&[15, 0]));
        assert_eq!(resume(&at(&[]), &starts, &ends).expect("never stored"), starts);
        let other = Partition { topic: "another".to_owned(), ..partition(0) };
        let remade = resume(&[(other, 7)].into(), &starts, &ends).expect_err("the topic was made again");
        assert!(remade.to_string().contains("another topic"), "{remade}");
        assert_eq!(resume(&at(&[20, 5]), &starts, &ends).expect("at the ends"), at(&[20, 5]));
        let trimmed = resume(&at(&[9]), &starts, &ends).expect_err("events were trimmed");
        assert!(trimmed.to_string().contains("no longer holds"), "{trimmed}");
        let ahead = resume(&at(&[21]), &starts, &ends).expect_err("the log was replaced");
        assert!(ahead.to_string().contains("ahead of its source"), "{ahead}");
    }
}
