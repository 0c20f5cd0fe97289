//! When everything is stored of a source whose partitions are shared with other processes.
//!
//! The guarantee: once this process has stored all that its partitions held, it waits until the others' are stored as far as they
//! reached at that moment, whoever does it: what comes later is not waited for. A process that died keeps its partitions until its
//! group notices, and then they come to this one. Others that live and store nothing for long are named in an error.

use std::time::Duration;

use undertone_error::{Error, ErrorKind};
use undertone_proto::Partition;

use crate::Positions;

/// Others that store nothing for so long, or for four of their commits, are not waited for any more.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a pump that is to finish waits for, beyond its own partitions.
#[derive(Debug)]
pub(super) struct Goal {
    /// How far each partition must be stored, ours and others'.
    ends: Positions,
    /// What others had stored of theirs when they were last asked.
    stored: Positions,
    /// For how long that has been all.
    waited: Duration,
    patience: Duration,
}

/// What is to be done about others.
#[derive(Debug)]
pub(super) enum Verdict {
    /// They have stored everything.
    Done,
    /// Ask again after a while. The first time, people are told.
    Wait { first: bool },
    /// They do not go on.
    GiveUp(Error),
}

impl Goal {
    /// The ends of all partitions now; others commit every `commits` at least, if there is something.
    pub(super) fn new(ours: &Positions, others: Positions, commits: Duration) -> Self {
        let mut ends = ours.clone();
        ends.extend(others);
        Self { ends, stored: Positions::new(), waited: Duration::ZERO, patience: PATIENCE.max(commits * 4) }
    }

    /// How far a partition must be stored that ends at `end` now.
    pub(super) fn end_of(&self, partition: &Partition, end: i64) -> i64 {
        self.ends.get(partition).copied().unwrap_or(end)
    }

    /// The partitions that are not among ours, and how far they must be stored.
    pub(super) fn left_to_others(&self, ours: &Positions) -> Positions {
        let others = self.ends.iter().filter(|(partition, _)| !ours.contains_key(*partition));
        others.map(|(partition, end)| (partition.clone(), *end)).collect()
    }

    /// Decides, when others have `stored` so much of what is `left` to them; who waits asks again after `pause`.
    pub(super) fn judge(&mut self, left: &Positions, stored: Positions, pause: Duration) -> Verdict {
        let behind = |(partition, end): &(&Partition, &i64)| stored.get(*partition).is_none_or(|at| at < *end);
        let missing: Vec<_> = left.iter().filter(behind).map(|(partition, _)| partition.partition).collect();
        if missing.is_empty() {
            return Verdict::Done;
        }
        let first = self.waited.is_zero() && self.stored.is_empty();
        if self.stored != stored {
            self.waited = Duration::ZERO;
            self.stored = stored;
        }
        self.waited += pause;
        if self.waited <= self.patience {
            return Verdict::Wait { first };
        }
        let error = Error::new(ErrorKind::Unavailable, "other processes do not store their partitions");
        let error = error.with("partitions", format!("{missing:?}")).with("seconds", self.waited.as_secs());
        Verdict::GiveUp(error.help("end those that stand still: their partitions come to this one, which stores them"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    fn at(offsets: &[(i32, i64)]) -> Positions {
        let partition = |number| Partition { cluster: "c".to_owned(), topic: "t".to_owned(), partition: number };
        offsets.iter().map(|&(number, offset)| (partition(number), offset)).collect()
    }

    fn waits(verdict: &Verdict) -> Option<bool> {
        match verdict {
            Verdict::Wait { first } => Some(*first),
            _ => None,
        }
    }

    #[test]
    fn others_are_waited_for_up_to_where_they_reached_and_their_partitions_may_become_ours() {
        let mut goal = Goal::new(&at(&[(0, 5)]), at(&[(1, 7), (2, 9)]), PAUSE);
        let left = goal.left_to_others(&at(&[(0, 5)]));
        assert_eq!(left, at(&[(1, 7), (2, 9)]));
        assert_eq!(waits(&goal.judge(&left, at(&[(2, 9)]), PAUSE)), Some(true), "one was never stored");
        assert_eq!(waits(&goal.judge(&left, at(&[(1, 6), (2, 9)]), PAUSE)), Some(false));
        assert!(matches!(goal.judge(&left, at(&[(1, 7), (2, 30)]), PAUSE), Verdict::Done));
        // The second comes to us: it must be stored to where it reached, and new ones to where they are.
        let left = goal.left_to_others(&at(&[(0, 5), (1, 6)]));
        assert_eq!(left, at(&[(2, 9)]));
        let [one, new] = [(1, 7), (4, 3)].map(|each| at(&[each]));
        assert_eq!(one.keys().map(|partition| goal.end_of(partition, 99)).collect::<Vec<_>>(), [7]);
        assert_eq!(new.keys().map(|partition| goal.end_of(partition, 3)).collect::<Vec<_>>(), [3]);
        assert!(matches!(goal.judge(&at(&[]), at(&[]), PAUSE), Verdict::Done));
    }

    #[test]
    fn others_that_stand_still_are_named_and_those_that_go_on_are_not() {
        let mut goal = Goal::new(&at(&[(0, 5)]), at(&[(1, 7), (2, 900)]), PAUSE);
        let left = goal.left_to_others(&at(&[(0, 5)]));
        for stored in 0..600 {
            assert!(waits(&goal.judge(&left, at(&[(2, stored)]), PAUSE)).is_some(), "it goes on");
        }
        let looks = (0..).find_map(|looks| match goal.judge(&left, at(&[(2, 599)]), PAUSE) {
            Verdict::GiveUp(error) => Some((looks, error.to_string())),
            _ => None,
        });
        let (looks, said) = looks.expect("it stands still");
        assert!((119..=121).contains(&looks) && said.contains("[1, 2]"), "{looks}: {said}");
        let slow = Goal::new(&at(&[]), at(&[(1, 7)]), Duration::from_secs(300));
        assert_eq!(slow.patience, Duration::from_secs(1200), "commits are rare");
    }
}
