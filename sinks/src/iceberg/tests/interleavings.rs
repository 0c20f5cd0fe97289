//! Every order in which things can happen to two owners that write one table, with few events but with a crash, an
//! unknown outcome, a conflict and partitions that move. The store is a model (a compare-and-swap on metadata, as a
//! catalog does it, over a line that may lose answers or deliver a request late); every decision is made by the code
//! that makes it in earnest: `advance`, the fence's `check`, `Seen::of`, `decide`, `recover` and `resume`.
//!
//! In every state that can be reached the table holds exactly the events below its positions, each once; and where
//! nothing can happen any more, it holds all of them. Without the fence, or without the read-back, that is not so.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault};
use std::time::Duration;

use undertone_error::{Error, ErrorKind};
use uuid::Uuid;

use super::super::commit::{Answer, Seen, Verdict, decide};
use super::super::fence::{Advance, Refusal, Safeguards, check};
use super::super::position::{Ancestry, Standing, StoredPosition, StoredPositions, Track};
use super::super::sink::advance;
use super::{SAFE, partition};
use crate::pump::policy::{Recovery, recover, resume};
use crate::pump::{Mode, Policy};
use crate::{Epoch, Positions};

/// How large the world is: partitions, and events in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Size {
    partitions: usize,
    events: i64,
}

const WIDE: Size = Size { partitions: 2, events: 1 };
const LONG: Size = Size { partitions: 1, events: 2 };

/// What has still to happen, or may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    crashes: u8,
    /// Requests whose answer is lost: done, not done, or done later.
    unknown: u8,
    /// Commits of somebody else, which move no position of ours.
    conflicts: u8,
    /// Partitions that move to the other owner.
    moves: u8,
    /// Commits that the catalog reports and has not made.
    lies: u8,
}

/// Offsets by the number of the partition, from and to.
type Ranges = BTreeMap<usize, (i64, i64)>;

/// The table as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Table {
    version: u8,
    positions: BTreeMap<usize, (i64, u128)>,
    /// Whose commits it is made of; 0 is somebody else's.
    commits: Vec<(u128, Ranges)>,
}

/// A request to commit: it counts only if the table is still at `base`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Request {
    base: u8,
    id: u128,
    ranges: Ranges,
}

/// Where a writer stands, and which partitions it takes for its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stands {
    own: BTreeSet<usize>,
    positions: BTreeMap<usize, (i64, u128)>,
    /// What the pump goes on from; a partition without a position begins at 0.
    committed: BTreeMap<usize, i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Down,
    /// Asks group and table where to go on.
    Resuming,
    Ready(Stands),
    Committing {
        stands: Stands,
        id: u128,
        ranges: Ranges,
        step: Step,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The transaction loads the table, and the fence looks at it.
    Load,
    /// Permitted on this version.
    Send(u8),
    /// The table is read back.
    Look(Answer),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    size: Size,
    table: Table,
    /// Requests that may still arrive.
    flying: BTreeSet<Request>,
    owners: [Owner; 2],
    /// Who owns each partition, as the group has it.
    assigned: Vec<usize>,
    /// How many epochs each owner has made.
    made: [u8; 2],
    left: Left,
}

/// What was found on the way.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    ends: usize,
    verdicts: HashSet<Verdict>,
    refused: usize,
    violation: Option<String>,
}

impl Table {
    fn stored(&self) -> StoredPositions {
        stored(&self.positions)
    }

    fn ancestry(&self) -> Ancestry {
        Ancestry::holding(self.commits.iter().map(|(id, _)| Uuid::from_u128(*id)))
    }

    /// The catalog's compare-and-swap.
    fn apply(&mut self, request: &Request) -> bool {
        if self.version != request.base {
            return false;
        }
        self.version += 1;
        for (&number, &(_, end)) in &request.ranges {
            self.positions.insert(number, (end, request.id));
        }
        self.commits.push((request.id, request.ranges.clone()));
        true
    }

    /// How the table breaks the promise: each event below a position is there once, and none above it.
    fn violation(&self, partitions: usize) -> Option<String> {
        (0..partitions).find_map(|number| {
            let mut rows: Vec<i64> = self
                .commits
                .iter()
                .filter_map(|(_, ranges)| ranges.get(&number))
                .flat_map(|&(start, end)| start..end)
                .collect();
            rows.sort_unstable();
            let next = self.positions.get(&number).map_or(0, |position| position.0);
            (rows != (0..next).collect::<Vec<_>>()).then(|| format!("partition {number} at {next} has rows {rows:?}"))
        })
    }
}

fn stored(positions: &BTreeMap<usize, (i64, u128)>) -> StoredPositions {
    let position = |&(next, id): &(i64, u128)| StoredPosition { next, commit_id: Uuid::from_u128(id) };
    positions.iter().map(|(&number, at)| (partition(number as i32), position(at))).collect()
}

fn epoch(ranges: &Ranges) -> Epoch<()> {
    let ranges = ranges.iter().map(|(&number, &(start, end))| (partition(number as i32), start..end));
    Epoch { ranges: ranges.collect(), records: Vec::new() }
}

/// The advance of an epoch that is under way.
fn advance_of(stands: &Stands, id: u128, ranges: &Ranges) -> Advance {
    advance(&epoch(ranges), &Track::Live, &stored(&stands.positions), Uuid::from_u128(id))
        .expect("it begins where its writer stands")
}

impl World {
    fn new(size: Size, left: Left) -> Self {
        let owners = [Owner::Resuming, Owner::Resuming];
        let assigned = (0..size.partitions).collect();
        Self { size, table: Table::default(), flying: BTreeSet::new(), owners, assigned, made: [0; 2], left }
    }

    /// Every world that can be next.
    fn next(&self, safeguards: Safeguards, found: &mut Found) -> Vec<Self> {
        let mut next = Vec::new();
        for who in 0..2 {
            self.owner_acts(who, safeguards, found, &mut next);
            self.owner_dies(who, &mut next);
        }
        for request in &self.flying {
            let mut arrives = self.clone();
            arrives.flying.remove(request);
            arrives.table.apply(request);
            next.push(arrives);
        }
        if self.left.conflicts > 0 {
            let mut other = self.clone();
            other.left.conflicts -= 1;
            other.table.version += 1;
            other.table.commits.push((0, BTreeMap::new()));
            next.push(other);
        }
        if self.left.moves > 0 {
            for number in 0..self.size.partitions {
                let mut moved = self.clone();
                moved.left.moves -= 1;
                moved.assigned[number] = 1 - self.assigned[number];
                next.push(moved);
            }
        }
        next
    }

    fn with(&self, who: usize, owner: Owner) -> Self {
        let mut world = self.clone();
        world.owners[who] = owner;
        world
    }

    /// A dead owner comes back by itself; what it had sent may still arrive.
    fn owner_dies(&self, who: usize, next: &mut Vec<Self>) {
        if self.left.crashes == 0 || self.owners[who] == Owner::Down {
            return;
        }
        let mut dead = self.with(who, Owner::Down);
        dead.left.crashes -= 1;
        if let Owner::Committing { id, ranges, step: Step::Send(base), .. } = &self.owners[who] {
            let mut sent = dead.clone();
            sent.flying.insert(Request { base: *base, id: *id, ranges: ranges.clone() });
            next.push(sent);
        }
        next.push(dead);
    }

    fn owner_acts(&self, who: usize, safeguards: Safeguards, found: &mut Found, next: &mut Vec<Self>) {
        match &self.owners[who] {
            Owner::Down => next.push(self.with(who, Owner::Resuming)),
            Owner::Resuming => next.push(self.resumes(who, found)),
            Owner::Ready(stands) => {
                let own = self.own(who);
                if own != stands.own {
                    // It notices; below, it does not yet.
                    next.push(self.fails(who, stands, ErrorKind::Conflict, found));
                }
                let ranges: Ranges = (stands.committed.iter())
                    .filter(|(_, next)| **next < self.size.events)
                    .map(|(&number, &next)| (number, (next, next + 1)))
                    .collect();
                if !ranges.is_empty() {
                    let mut begins = self.clone();
                    begins.made[who] += 1;
                    let id = ((who as u128 + 1) << 64) | u128::from(begins.made[who]);
                    begins.owners[who] = Owner::Committing { stands: stands.clone(), id, ranges, step: Step::Load };
                    next.push(begins);
                }
            }
            Owner::Committing { stands, id, ranges, step } => {
                let at = |step| Owner::Committing { stands: stands.clone(), id: *id, ranges: ranges.clone(), step };
                match *step {
                    Step::Load => {
                        let advance = advance_of(stands, *id, ranges);
                        let (positions, ancestry) = (self.table.stored(), self.table.ancestry());
                        let step = match check(&advance, &positions, &ancestry, Duration::ZERO, safeguards) {
                            Ok(_permit) => Step::Send(self.table.version),
                            Err(Refusal::Overslept { .. }) => Step::Look(Answer::Overslept),
                            Err(Refusal::Moved { .. } | Refusal::RolledBack { .. }) => Step::Look(Answer::Refused),
                        };
                        found.refused += usize::from(matches!(step, Step::Look(_)));
                        next.push(self.with(who, at(step)));
                    }
                    Step::Send(base) => self.sends(who, &Request { base, id: *id, ranges: ranges.clone() }, &at, next),
                    Step::Look(answer) => {
                        let advance = advance_of(stands, *id, ranges);
                        let seen = Seen::of(&advance, &self.table.stored(), &self.table.ancestry());
                        let verdict = decide(safeguards, answer, seen);
                        found.verdicts.insert(verdict);
                        next.push(match verdict {
                            Verdict::Committed => {
                                let mut stands = stands.clone();
                                for (&number, &(_, end)) in ranges {
                                    stands.positions.insert(number, (end, *id));
                                    stands.committed.insert(number, end);
                                }
                                self.with(who, Owner::Ready(stands))
                            }
                            // The same files and the same id again, after some tries by way of the pump.
                            Verdict::NotCommitted => {
                                let error = Error::new(ErrorKind::Unavailable, "commit did not happen");
                                let again = recover(&Policy::default(), &error, 0, Mode::Run);
                                assert!(matches!(again, Recovery::Retry(_)), "{again:?}");
                                self.with(who, at(Step::Load))
                            }
                            Verdict::Conflict => self.fails(who, stands, ErrorKind::Conflict, found),
                            Verdict::StopRollback => self.fails(who, stands, ErrorKind::Corrupt, found),
                        });
                    }
                }
            }
        }
    }

    fn own(&self, who: usize) -> BTreeSet<usize> {
        (0..self.size.partitions).filter(|&number| self.assigned[number] == who).collect()
    }

    fn resumes(&self, who: usize, found: &mut Found) -> Self {
        let positions = self.table.stored();
        let ancestry = self.table.ancestry();
        if positions.values().any(|position| ancestry.standing(&position.commit_id) == Standing::Missing) {
            found.violation = Some("a table that nobody rolled back looks as if".to_owned());
        }
        let own = self.own(who);
        let at = |offset| own.iter().map(|&number| (partition(number as i32), offset)).collect::<Positions>();
        let nexts = positions.iter().map(|(partition, position)| (partition.clone(), position.next)).collect();
        let committed = match resume(&nexts, &at(0), &at(self.size.events)) {
            Ok(committed) => committed,
            Err(error) => {
                found.violation = Some(error.to_string());
                return self.clone();
            }
        };
        let committed = committed.iter().map(|(partition, &next)| (partition.partition as usize, next)).collect();
        self.with(who, Owner::Ready(Stands { own, positions: self.table.positions.clone(), committed }))
    }

    /// What the pump does about an error of the commit.
    fn fails(&self, who: usize, stands: &Stands, kind: ErrorKind, found: &mut Found) -> Self {
        match recover(&Policy::default(), &Error::new(kind, "model"), 0, Mode::Run) {
            Recovery::Reload(_) => self.with(who, Owner::Resuming),
            Recovery::Retry(_) => self.with(who, Owner::Ready(stands.clone())),
            Recovery::GiveUp => {
                found.violation = Some(format!("an owner gave up: {kind:?}"));
                self.clone()
            }
        }
    }

    fn sends(&self, who: usize, request: &Request, at: &dyn Fn(Step) -> Owner, next: &mut Vec<Self>) {
        let mut arrived = self.clone();
        if !arrived.table.apply(request) {
            // The transaction loads the table again, and rebases.
            next.push(self.with(who, at(Step::Load)));
        } else {
            next.push(arrived.with(who, at(Step::Look(Answer::Done))));
        }
        if self.left.unknown > 0 {
            let mut lost = self.with(who, at(Step::Look(Answer::Unclear)));
            lost.left.unknown -= 1;
            let mut late = lost.clone();
            late.flying.insert(request.clone());
            let mut done = lost.clone();
            done.table.apply(request);
            next.extend([lost, late, done]);
        }
        if self.left.lies > 0 && self.table.version == request.base {
            let mut lied = self.with(who, at(Step::Look(Answer::Done)));
            lied.left.lies -= 1;
            next.push(lied);
        }
    }

    /// Whether all that is left are things that may happen and need not.
    fn is_at_rest(&self) -> bool {
        self.flying.is_empty()
            && self.owners.iter().enumerate().all(|(who, owner)| match owner {
                Owner::Ready(stands) => {
                    stands.own == self.own(who) && stands.committed.values().all(|&next| next == self.size.events)
                }
                _ => false,
            })
    }

    fn violation(&self) -> Option<String> {
        let lacks = || {
            let whole = (0..self.size.partitions)
                .all(|number| self.table.positions.get(&number).is_some_and(|at| at.0 == self.size.events));
            (self.is_at_rest() && !whole)
                .then(|| format!("everybody rests and the table is at {:?}", self.table.positions))
        };
        self.table.violation(self.size.partitions).or_else(lacks)
    }
}

/// Goes through every state that can be reached. Of those that were seen only a hash is kept.
fn explore(size: Size, left: Left, safeguards: Safeguards) -> Found {
    let mut found = Found::default();
    let hash = |world: &World| BuildHasherDefault::<DefaultHasher>::default().hash_one(world);
    let first = World::new(size, left);
    let mut seen = HashSet::from([hash(&first)]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        found.states += 1;
        found.ends += usize::from(world.is_at_rest());
        if found.violation.is_none() {
            found.violation = world.violation().map(|what| format!("{what}: {world:?}"));
        }
        if found.violation.is_some() {
            break;
        }
        let next = world.next(safeguards, &mut found);
        // Whoever is not at rest can go on: nobody waits for ever.
        assert!(!next.is_empty() || world.is_at_rest(), "stuck: {world:?}");
        open.extend(next.into_iter().filter(|world| seen.insert(hash(world))));
    }
    found
}

const NOTHING: Left = Left { crashes: 0, unknown: 0, conflicts: 0, moves: 0, lies: 0 };

#[test]
fn in_every_order_of_a_crash_an_unknown_outcome_a_conflict_and_a_move_each_event_is_there_once() {
    let found = explore(LONG, Left { crashes: 1, unknown: 1, conflicts: 1, moves: 1, lies: 0 }, SAFE);
    assert_eq!(found.violation, None);
    assert!(found.states > 10_000 && found.ends > 100 && found.refused > 100, "{found:?}");
    assert_eq!(found.verdicts, HashSet::from([Verdict::Committed, Verdict::NotCommitted, Verdict::Conflict]));
}

#[test]
fn two_owners_of_one_table_do_not_disturb_one_another_in_any_order() {
    let left = Left { moves: 1, ..NOTHING };
    for left in [Left { crashes: 1, unknown: 1, ..left }, Left { unknown: 1, conflicts: 1, ..left }] {
        assert_eq!(explore(WIDE, left, SAFE).violation, None);
    }
}

#[test]
fn in_every_order_with_a_catalog_that_lies_each_event_is_there_once() {
    assert_eq!(explore(LONG, Left { crashes: 1, conflicts: 1, lies: 1, ..NOTHING }, SAFE).violation, None);
    assert_eq!(explore(WIDE, Left { moves: 1, lies: 1, ..NOTHING }, SAFE).violation, None);
}

#[test]
fn without_the_fence_some_order_breaks_the_promise() {
    let off = Safeguards { position_check: false, ..SAFE };
    // By a partition that moves, and by an unknown outcome.
    for left in [Left { moves: 1, ..NOTHING }, Left { unknown: 1, ..NOTHING }] {
        let found = explore(LONG, left, off);
        assert!(found.violation.is_some_and(|what| what.contains("has rows")), "{left:?}");
        assert_eq!(explore(LONG, left, SAFE).violation, None);
    }
}

#[test]
fn without_the_read_back_some_order_breaks_the_promise() {
    let left = Left { lies: 1, ..NOTHING };
    let found = explore(LONG, left, Safeguards { read_back: false, ..SAFE });
    assert!(found.violation.is_some_and(|what| what.contains("everybody rests")));
    assert_eq!(explore(LONG, left, SAFE).violation, None);
}
