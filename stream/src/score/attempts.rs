//! How often scoring was begun at one place without getting past it: what finds a post that kills the process.
//!
//! The guarantee: only a post during whose scoring, alone, the process died three times is given up; every other post
//! around it is scored. Starts are counted on disk before scoring begins; any end that is not a crash forgets them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use undertone_error::{Error, ErrorKind, Result};

use crate::durable::{io_error, replace, sync_dir};

/// After so many crashes at one place the next step is taken.
pub(super) const CRASHES: u32 = 3;

/// What is on disk while scoring goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The first offset without an outcome.
    start: i64,
    /// How often scoring was begun there.
    starts: u32,
    /// Set while posts below it are scored one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alone_until: Option<i64>,
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Many at once.
    Together,
    /// This post alone.
    Alone,
    /// This post was alone each time the process died.
    GiveUp,
}

/// What to do at `start`, and what to remember, given what was remembered. `in_flight` is how many posts may be under
/// way at once: one of them is the killer.
fn plan(before: Option<Record>, start: i64, in_flight: i64) -> (Plan, Record) {
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

    /// Decides how to go on at `start` and remembers that scoring begins there. Blocks.
    pub(super) fn begin(&self, start: i64, in_flight: i64) -> Result<Plan> {
        let before = match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .inspect_err(|error| tracing::warn!(path = %self.path.display(), %error, "ignored unreadable attempts"))
                .ok(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(io_error("cannot read attempts", &self.path, e)),
        };
        let (plan, record) = plan(before, start, in_flight);
        let json = serde_json::to_vec(&record)
            .map_err(|e| Error::new(ErrorKind::Internal, "attempts cannot be written as JSON").source(e))?;
        replace(&self.path, &json)?;
        Ok(plan)
    }

    /// Forgets: this end is no crash. Blocks.
    pub(super) fn end(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("cannot remove attempts", &self.path, e))
            }
            _ => self.path.parent().map_or(Ok(()), sync_dir),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn crashes_at_one_place_lead_from_together_to_alone_to_giving_up() {
        let dir = crate::testing::dir();
        let attempts = Attempts::new(&dir.path().join("attempts.json"));
        let begin = |start| attempts.begin(start, 10).unwrap();
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
                match attempts.begin(position, in_flight).unwrap() {
                    Plan::Together => {
                        let alive = given_up.contains(&killer) || killer < position;
                        // Any part of what is in flight may have become durable before the crash.
                        position = if alive { 40 } else { position.max(killer - in_flight + 1) };
                        crashes += i32::from(!alive);
                    }
                    Plan::Alone if position == killer => crashes += 1,
                    Plan::Alone => position += 1,
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
