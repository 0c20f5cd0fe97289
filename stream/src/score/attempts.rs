//! How often scoring was begun at one place without getting past it: what finds a post that kills the process.
//!
//! The guarantee: only a post during whose scoring, alone, the process died three times is given up; every other post
//! around it is scored. Starts are counted durably before scoring begins; any end that is not a crash forgets them. What
//! follows from a count is [`plan`]; here it is kept in a file, on Kafka beside the group's offsets.
//!
//! Two deaths at one place may be chance. After them, the posts of which one may have killed are scored in groups, one group
//! at a time; a death then says in which group the killer is, and the posts of that group are scored one by one. So the
//! third death narrows the search without being one more: six in all, three of them the killer's alone. A death is what
//! costs most, since a process is restarted in seconds, and whoever restarts it waits longer each time; what is written
//! durably costs milliseconds, on Kafka a transaction. Of `n` posts, groups of `g` cost `n/g` transactions and then three
//! for each post of one group, which is least at `g = √(n/3)`: some 70 for 384 posts, instead of 1,150 if all were scored one
//! by one. Halving again and again would need 20 fewer, and up to eight deaths more.
//!
//! An end while the model is down counts as a crash: a post may take a GPU with it, and no process gets that back, so that
//! somebody has to end it. Until then the stage waits. A process begins to score only once a known-good text has passed: a
//! device that is ill of itself, too ill to begin, counts against no post.
//!
//! A post that is scored alone is acquitted once the model has answered, before its outcome is appended: a process that
//! dies while it writes, or is killed while it waits for disk space, says nothing about the post. Among several posts such
//! a death does count, because another of them may be the killer; all it can lead to is that they are scored one by one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use undertone_error::{Error, ErrorKind, Result};

use crate::durable::{io_error, replace, sync_dir};

/// After so many crashes at one place the posts there are scored in groups.
const CRASHES_TOGETHER: u32 = 2;
/// After so many crashes with one post alone it is given up.
pub(crate) const CRASHES: u32 = 3;

/// What is durable while scoring goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The first offset without an outcome.
    start: i64,
    /// How often scoring was begun there.
    starts: u32,
    /// Set while posts below it are scored in groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grouped_until: Option<i64>,
    /// Set while posts below it are scored one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alone_until: Option<i64>,
}

impl Record {
    /// Scoring was begun at `start` for the first time, and nothing is suspected there.
    fn fresh(start: i64) -> Self {
        Self { start, starts: 1, grouped_until: None, alone_until: None }
    }

    /// How the posts from `at` on are scored.
    pub(crate) fn stage(self, at: i64) -> Plan {
        let below = |until: Option<i64>| until.is_some_and(|until| at < until);
        match (below(self.alone_until), below(self.grouped_until)) {
            (true, _) => Plan::Alone,
            (false, true) => Plan::Group,
            (false, false) => Plan::Together,
        }
    }

    /// The same once the model has answered for the post that was begun.
    pub(crate) fn acquitted(self) -> Self {
        Self { starts: 0, ..self }
    }

    /// What is left once everything below `next` has its outcome: the search for a killer, if it is not over. The next group
    /// is counted with it, which saves a write for each; a post that is scored alone is not, until it is at hand.
    pub(crate) fn behind(self, next: i64) -> Option<Self> {
        let starts = match self.stage(next) {
            Plan::Together => return None,
            Plan::Group => 1,
            Plan::Alone | Plan::GiveUp => 0,
        };
        Some(Self { start: next, starts, ..self })
    }

    /// Whether it counts a start that has not come to its end.
    pub(crate) fn is_begun(self) -> bool {
        self.starts > 0
    }

    /// How much points to the posts at `at`, the least first: some of them were begun, and not acquitted, when the process
    /// died; they are searched; or neither.
    pub(crate) fn rank(self, at: i64) -> u8 {
        match self.stage(at) {
            Plan::Together => 2,
            _ => u8::from(self.start != at || !self.is_begun()),
        }
    }
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Many at once.
    Together,
    /// A few, and nothing beside them.
    Group,
    /// This post alone.
    Alone,
    /// This post was alone each time the process died.
    GiveUp,
}

impl Plan {
    /// From how many offsets the posts are that one step of a search takes.
    pub(crate) fn most(self, in_flight: i64) -> i64 {
        if self == Plan::Group { group(in_flight) } else { 1 }
    }
}

/// How large a group is, if `in_flight` posts may be under way at once.
fn group(in_flight: i64) -> i64 {
    i64::try_from((in_flight.unsigned_abs() / 3).isqrt()).unwrap_or(i64::MAX).saturating_add(1)
}

/// What to do at `start`, and what to remember, given what was remembered. `in_flight` is how many posts may be under
/// way at once: one of them is the killer.
pub(crate) fn plan(before: Option<Record>, start: i64, in_flight: i64) -> (Plan, Record) {
    let Some(before) = before else { return (Plan::Together, Record::fresh(start)) };
    let died = if before.start == start { before.starts } else { 0 };
    let again = Record { start, starts: died.saturating_add(1), ..before };
    match before.stage(start) {
        Plan::Alone if died >= CRASHES => (Plan::GiveUp, again),
        Plan::Alone => (Plan::Alone, again),
        Plan::Group if died > 0 => {
            let until = start.saturating_add(group(in_flight));
            (Plan::Alone, Record { starts: 1, alone_until: Some(until), ..again })
        }
        Plan::Group => (Plan::Group, again),
        _ if died >= CRASHES_TOGETHER => {
            let until = start.saturating_add(in_flight);
            (Plan::Group, Record { grouped_until: Some(until), ..Record::fresh(start) })
        }
        _ => (Plan::Together, Record { starts: again.starts, ..Record::fresh(start) }),
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
        assert_eq!([begin(5), begin(5), begin(5)], [Plan::Together, Plan::Together, Plan::Group]);
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
    fn crashes_at_one_place_lead_from_together_over_groups_to_alone_and_to_giving_up() {
        let dir = crate::testing::dir();
        let attempts = Attempts::new(&dir.path().join("attempts.json"));
        let begin = |start| begin_at(&attempts, start, 27);
        assert_eq!(group(27), 4);
        assert_eq!([begin(5), begin(5)], [Plan::Together; 2]);
        // Two crashes at 5: one of 5..32 kills. The group 5..9 passes, that from 9 on does not.
        assert_eq!([begin(5), begin(9)], [Plan::Group; 2]);
        // One by one, 9 and 10 pass; 11 is begun three times, and given up.
        assert_eq!([begin(9), begin(10), begin(11), begin(11), begin(11)], [Plan::Alone; 5]);
        assert_eq!(begin(11), Plan::GiveUp);
        // Behind the group the others follow, to the end of what was under way.
        assert_eq!(begin(12), Plan::Alone);
        assert_eq!([begin(13), begin(17), begin(31)], [Plan::Group; 3]);
        assert_eq!(begin(32), Plan::Together);
        attempts.end().unwrap();
        assert_eq!(begin(32), Plan::Together);
    }

    #[test]
    fn records_of_an_earlier_form_are_understood() {
        let read = |json| serde_json::from_str::<Record>(json).unwrap();
        let three = read(r#"{"start":5,"starts":3}"#);
        assert_eq!(plan(Some(three), 5, 27).0, Plan::Group);
        let alone = read(r#"{"start":5,"starts":3,"alone_until":15}"#);
        assert_eq!(plan(Some(alone), 5, 27).0, Plan::GiveUp);
        assert_eq!(plan(Some(alone), 14, 27).0, Plan::Alone);
        assert_eq!(plan(Some(alone), 15, 27).0, Plan::Together);
    }

    #[test]
    fn a_group_is_as_large_as_the_fewest_writes_need() {
        for in_flight in 1..2000 {
            let writes = |group: i64| (in_flight + group - 1) / group + 3 * group;
            let least = (1..=in_flight).map(writes).min().unwrap();
            assert!(writes(group(in_flight)) <= least + 3, "{in_flight}");
        }
        assert_eq!(group(384), 12);
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
                let alive = |to: i64| given_up.contains(&killer) || !(position..to).contains(&killer);
                // Each turn of this loop is one step alone, or many posts until the process dies or all are done.
                match begin_at(&attempts, position, in_flight) {
                    Plan::Together if alive(40) => position = 40,
                    // Any part of what is in flight may have become durable before the crash.
                    Plan::Together => (position, crashes) = (position.max(killer - in_flight + 1), crashes + 1),
                    Plan::Group if alive(position + group(in_flight)) => position += group(in_flight),
                    Plan::Group => crashes += 1,
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
            prop_assert!(crashes <= 7, "{crashes} crashes: the place may move once before it stays");
        }
    }
}
