//! How often scoring was begun at one place without getting past it: what finds a post that kills the process.
//!
//! The guarantee: only a post during whose scoring, alone, the process died three times is given up; every other post
//! around it is scored. Starts are counted durably before scoring begins; any end that is not a crash forgets them. What
//! follows from a count is [`plan`]; here it is kept in a file, on Kafka beside the group's offsets.
//!
//! An end while the model is down counts as a crash: a post may take a GPU with it, and no process gets that back, so that
//! somebody has to end it. Until then the stage waits. A process begins to score only once a known-good text has passed: a
//! device that is ill of itself, too ill to begin, counts against no post.
//!
//! A post that is scored alone is acquitted once the model has answered, before its outcome is appended: a process that
//! dies while it writes, or is killed while it waits for disk space, says nothing about the post. Among many posts such
//! a death does count, because another of them may be the killer; all it can lead to is that they are scored one by one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use undertone_error::{Error, ErrorKind, Result};

use crate::durable::{io_error, replace, sync_dir};

/// After so many crashes at one place the next step is taken.
pub(crate) const CRASHES: u32 = 3;

/// What is durable while scoring goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The first offset without an outcome.
    start: i64,
    /// How often scoring was begun there.
    starts: u32,
    /// Set while posts below it are scored one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alone_until: Option<i64>,
}

impl Record {
    /// The same once the model has answered for the post that was begun.
    pub(crate) fn acquitted(self) -> Self {
        Self { starts: 0, ..self }
    }

    /// What is left once everything below `next` has its outcome: the search for a killer, if it is not over.
    pub(crate) fn behind(self, next: i64) -> Option<Self> {
        let goes_on = self.alone_until.is_some_and(|until| next < until);
        goes_on.then_some(Self { start: next, starts: 0, ..self })
    }

    /// Whether the post at `at` was begun alone, and not yet acquitted.
    pub(crate) fn accuses(self, at: i64) -> bool {
        self.start == at && self.starts > 0 && self.alone_until.is_some_and(|until| at < until)
    }
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Many at once.
    Together,
    /// This post alone.
    Alone,
    /// This post was alone each time the process died.
    GiveUp,
}

/// What to do at `start`, and what to remember, given what was remembered. `in_flight` is how many posts may be under
/// way at once: one of them is the killer.
pub(crate) fn plan(before: Option<Record>, start: i64, in_flight: i64) -> (Plan, Record) {
    let fresh = Record { start, starts: 1, alone_until: None };
    let Some(before) = before else { return (Plan::Together, fresh) };
    let stuck = before.start == start && before.starts >= CRASHES;
    let starts = if before.start == start { before.starts.saturating_add(1) } else { 1 };
    match before.alone_until {
        None if stuck => {
            let until = start.saturating_add(in_flight);
            (Plan::Alone, Record { start, starts: 1, alone_until: Some(until) })
        }
        None => (Plan::Together, Record { starts, ..fresh }),
        Some(until) if start >= until => (Plan::Together, fresh),
        Some(until) if stuck => (Plan::GiveUp, Record { start, starts, alone_until: Some(until) }),
        Some(until) => (Plan::Alone, Record { start, starts, alone_until: Some(until) }),
    }
}

/// The file that remembers.
#[derive(Clone, Debug)]
pub(super) struct Attempts {
    path: PathBuf,
}

impl Attempts {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// How to go on at `start`, and what [`Attempts::remember`] must be told before scoring begins there. Blocks.
    pub(super) fn decide(&self, start: i64, in_flight: i64) -> Result<(Plan, Record)> {
        let before = match read(&self.path)? {
            Some(record) => Some(record),
            None => read(&self.acquitted())?.map(Record::acquitted),
        };
        Ok(plan(before, start, in_flight))
    }

    /// Makes a decision durable. May be repeated. Blocks.
    pub(super) fn remember(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_vec(record)
            .map_err(|e| Error::new(ErrorKind::Internal, "attempts cannot be written as JSON").source(e))?;
        replace(&self.path, &json)
    }

    /// The model has answered for the post that was remembered: what happens from here on is not its fault. A rename,
    /// because that needs no space on a full disk. May be repeated. Blocks.
    pub(super) fn acquit(&self) -> Result<()> {
        match std::fs::rename(&self.path, self.acquitted()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error("cannot move attempts", &self.path, e)),
            _ => self.path.parent().map_or(Ok(()), sync_dir),
        }
    }

    /// Forgets: this end is no crash. Blocks.
    pub(super) fn end(&self) -> Result<()> {
        for path in [&self.path, &self.acquitted()] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error("cannot remove attempts", path, e));
                }
                _ => {}
            }
        }
        self.path.parent().map_or(Ok(()), sync_dir)
    }

    /// Where the record stands once its post is acquitted. Older than the one at `path` if both are there.
    fn acquitted(&self) -> PathBuf {
        self.path.with_extension("acquitted.json")
    }
}

fn read(path: &Path) -> Result<Option<Record>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "ignored unreadable attempts"))
            .ok()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("cannot read attempts", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn begin_at(attempts: &Attempts, start: i64, in_flight: i64) -> Plan {
        let (plan, record) = attempts.decide(start, in_flight).unwrap();
        attempts.remember(&record).unwrap();
        plan
    }

    #[test]
    fn crashes_after_the_model_has_answered_do_not_count_against_the_post() {
        let dir = crate::testing::dir();
        let attempts = Attempts::new(&dir.path().join("attempts.json"));
        let begin = |start| begin_at(&attempts, start, 10);
        assert_eq!([begin(5), begin(5), begin(5)], [Plan::Together; 3]);
        for _ in 0..10 {
            assert_eq!(begin(5), Plan::Alone, "the process dies while it appends, again and again");
            attempts.acquit().unwrap();
            attempts.acquit().unwrap();
        }
        // What was acquitted before does not help against what kills now.
        assert_eq!([begin(5), begin(5), begin(5)], [Plan::Alone; 3]);
        assert_eq!(begin(5), Plan::GiveUp);
        assert_eq!(begin(6), Plan::Alone);
        attempts.acquit().unwrap();
        attempts.end().unwrap();
        assert_eq!(begin(7), Plan::Together);
    }

    #[test]
    fn deciding_again_without_remembering_counts_nothing() {
        let dir = crate::testing::dir();
        let attempts = Attempts::new(&dir.path().join("attempts.json"));
        begin_at(&attempts, 5, 10);
        let first = attempts.decide(5, 10).unwrap();
        assert!((0..9).all(|_| attempts.decide(5, 10).unwrap() == first));
    }

    #[test]
    fn crashes_at_one_place_lead_from_together_to_alone_to_giving_up() {
        let dir = crate::testing::dir();
        let attempts = Attempts::new(&dir.path().join("attempts.json"));
        let begin = |start| begin_at(&attempts, start, 10);
        assert_eq!([begin(5), begin(5), begin(5)], [Plan::Together; 3]);
        // Three crashes at 5: one of 5..15 kills. One by one, 5 and 6 pass; 7 is begun three times, and given up.
        assert_eq!([begin(5), begin(6), begin(7), begin(7), begin(7)], [Plan::Alone; 5]);
        assert_eq!(begin(7), Plan::GiveUp);
        assert_eq!(begin(8), Plan::Alone);
        assert_eq!(begin(15), Plan::Together);
        attempts.end().unwrap();
        assert_eq!(begin(15), Plan::Together);
    }

    proptest! {
        /// Whichever post kills, it alone is given up, after a bounded number of crashes.
        #[test]
        fn only_the_killer_is_given_up(killer in 0i64..40, in_flight in 1i64..20) {
            let dir = crate::testing::dir();
            let attempts = Attempts::new(&dir.path().join("attempts.json"));
            let (mut position, mut crashes, mut given_up) = (0, 0, Vec::new());
            while position < 40 {
                prop_assert!(crashes < 10);
                // Each turn of this loop is either one post alone, or many until the process dies or all are done.
                match begin_at(&attempts, position, in_flight) {
                    Plan::Together => {
                        let alive = given_up.contains(&killer) || killer < position;
                        // Any part of what is in flight may have become durable before the crash.
                        position = if alive { 40 } else { position.max(killer - in_flight + 1) };
                        crashes += i32::from(!alive);
                    }
                    Plan::Alone if position == killer => crashes += 1,
                    Plan::Alone => {
                        attempts.acquit().unwrap();
                        position += 1;
                    }
                    Plan::GiveUp => {
                        given_up.push(position);
                        position += 1;
                    }
                }
            }
            prop_assert_eq!(given_up, [killer]);
        }
    }
}
