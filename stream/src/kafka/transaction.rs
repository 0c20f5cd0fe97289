//! Writing outcomes: to `posts.scored` and `posts.dead`, with the offsets of their events, in one transaction.
//!
//! The guarantee: after [`ScoreWriter::write`] has answered "done", outcomes and offsets are durable and visible; after
//! an error, none of them is, or a later [`ScoreWriter::committed`] tells that they are. What a member is bound to
//! (generation and member id) is taken before it looks whether the partitions are its own: if they move after the look,
//! the broker refuses the transaction.
//!
//! Attempts at scoring (see [`Ledger`]) are counted by the same transactions, without outcomes and without a move.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use undertone_error::{Error, ErrorKind, Result, failpoint};
use uuid::Uuid;

use super::client::{Kafka, Topics};
use super::failure::failed;
use super::ledger::Ledger;
use super::logging::Logged;
use super::membership::Membership;
use super::outcomes::{is_dead, produce};
use super::producer::{Failure, Reach, STEP, producer, step};
use super::reader::Offsets;
use super::replay::is_replay;
use super::score::KafkaOutcome;
use super::traces;
use crate::durable::blocking;
use crate::score::{Plan, Record, observe};
use crate::telemetry;

/// Writes outcomes of the events of `posts.raw`. Calls on it go one after another.
#[derive(Clone)]
pub struct ScoreWriter {
    inner: Arc<Inner>,
}

struct Inner {
    kafka: Kafka,
    membership: Membership,
    /// Whose group the offsets are of.
    role: &'static str,
    topics: Topics,
    transactional_id: String,
    state: Mutex<State>,
}

struct State {
    /// Absent before the first use and after a failure.
    producer: Option<BaseProducer<Logged>>,
    ledger: Ledger,
}

/// What a transaction does to one partition's offset and its metadata.
struct Move {
    partition: i32,
    range: Range<i64>,
    record: Option<Record>,
}

impl Move {
    /// A record that is written where the partition stands.
    fn none(partition: i32, at: i64, record: Option<Record>) -> Self {
        Self { partition, range: at..at, record }
    }
}

impl std::fmt::Debug for ScoreWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScoreWriter").field("transactional_id", &self.inner.transactional_id).finish_non_exhaustive()
    }
}

impl ScoreWriter {
    /// A writer for the partitions of the topic of events that `membership` has.
    pub fn new(kafka: &Kafka, membership: Membership, topics: Topics) -> Self {
        Self::of_role(kafka, "score", membership, topics)
    }

    /// A writer for another role than scoring: one that reads `topics.raw`, and moves its offsets in the group of `role`.
    pub(super) fn of_role(kafka: &Kafka, role: &'static str, membership: Membership, topics: Topics) -> Self {
        // Without a stable name each start has an id of its own: the broker ends what an earlier one left open.
        let name = kafka.config().instance.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        let transactional_id = transactional_id(kafka, role, &name);
        let state = Mutex::new(State { producer: None, ledger: Ledger::default() });
        Self { inner: Arc::new(Inner { kafka: kafka.clone(), membership, role, topics, transactional_id, state }) }
    }

    /// The next offset of each of `partitions`, as committed; 0 for one that never was: where the stream begins was written
    /// down for every partition that there was, so another one appeared later. Transactions of ours that were under way
    /// have ended by then, and so have those of other members on these partitions. `version` is that of the assignment.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn committed(&self, version: u64, partitions: BTreeSet<i32>) -> Result<Offsets> {
        self.with(move |inner, state| {
            let mut standing = inner.standing(&mut state.producer, &partitions)?;
            let known: BTreeSet<i32> = standing.iter().map(|(partition, ..)| *partition).collect();
            standing.extend(partitions.difference(&known).map(|&partition| (partition, 0, None)));
            let offsets = standing.iter().map(|&(partition, offset, _)| (partition, offset)).collect();
            state.ledger.learn(version, standing);
            Ok(offsets)
        })
        .await
    }

    /// As [`ScoreWriter::committed`], of partitions that are another's, or of a role whose starts are written down elsewhere: one
    /// that never was committed is absent.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn settled(&self, partitions: BTreeSet<i32>) -> Result<Offsets> {
        self.with(move |inner, state| {
            let standing = inner.standing(&mut state.producer, &partitions)?;
            Ok(standing.into_iter().map(|(partition, offset, _)| (partition, offset)).collect())
        })
        .await
    }

    /// As [`ScoreWriter::write`], of letters that are no outcomes of events: neither counted nor attempted.
    pub(super) async fn settle(
        &self,
        version: u64,
        ranges: Vec<(i32, Range<i64>)>,
        letters: Vec<Arc<KafkaOutcome>>,
    ) -> Result<()> {
        self.with(move |inner, state| {
            let at = |(partition, range)| Move { partition, range, record: None };
            let moves: Vec<_> = ranges.into_iter().map(at).collect();
            let all =
                |producer: &BaseProducer<Logged>| letters.iter().try_for_each(|letter| inner.produce(producer, letter));
            inner.transact(&mut state.producer, None, version, &moves, all, &SETTLE)
        })
        .await
    }

    /// Writes outcomes and moves the offsets of their partitions to the ends of `ranges`, both or neither. `version` is
    /// that of the assignment with which the ranges were read: whatever was lost since then, even if it came back, was
    /// perhaps scored by another.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if other partitions are ours by now, or the group does not stand where a range begins, or
    /// the outcome is not known: ask [`ScoreWriter::committed`] and go on from there. Others may be tried again.
    pub async fn write(
        &self,
        version: u64,
        ranges: Vec<(i32, Range<i64>)>,
        outcomes: Vec<Arc<KafkaOutcome>>,
    ) -> Result<()> {
        self.with(move |inner, state| {
            let behind = |(partition, range): (i32, Range<i64>)| {
                let record = state.ledger.behind(partition, range.end);
                Move { partition, range, record }
            };
            let moves: Vec<_> = ranges.into_iter().map(behind).collect();
            inner.write(state, version, &moves, &outcomes)
        })
        .await
    }

    /// The partition whose next posts are to be scored beside no others, because the process died near them before. Waits for
    /// the transaction that is under way.
    pub(super) async fn suspect(&self, from: Offsets, in_flight: i64) -> Result<Option<i32>> {
        self.with(move |_, state| Ok(state.ledger.suspect(&from, in_flight))).await
    }

    /// Counts `begun` as begun, but for partitions with outcomes that are not written yet.
    ///
    /// # Errors
    /// As [`ScoreWriter::write`].
    pub(super) async fn begin(&self, from: Offsets, begun: BTreeSet<i32>, in_flight: i64) -> Result<()> {
        self.with(move |inner, state| {
            let written = |partition: &i32| from.get(partition).copied() == state.ledger.next(*partition);
            let starts = state.ledger.starts(begun.into_iter().filter(written), in_flight);
            let count = |(partition, record)| Some(Move::none(partition, state.ledger.next(partition)?, Some(record)));
            let moves: Vec<_> = starts.into_iter().filter_map(count).collect();
            inner.note(state, &moves)
        })
        .await
    }

    /// How to go on with the posts at which a partition stands, and counts that, if it is alone or in a group and not counted
    /// already.
    ///
    /// # Errors
    /// As [`ScoreWriter::write`].
    pub(super) async fn begin_alone(&self, partition: i32, at: i64, in_flight: i64) -> Result<Plan> {
        self.with(move |inner, state| {
            state.ledger.expect(partition, at)?;
            let Some((plan, record)) = state.ledger.decide(partition, in_flight) else { return Ok(Plan::Together) };
            if let (Plan::Alone | Plan::Group, Some(record)) = (plan, record) {
                inner.note(state, &[Move::none(partition, at, Some(record))])?;
            }
            Ok(plan)
        })
        .await
    }

    /// The model has answered for the post at which a partition stands: what happens from here on is not its fault.
    ///
    /// # Errors
    /// As [`ScoreWriter::write`].
    pub(super) async fn acquit(&self, partition: i32, at: i64) -> Result<()> {
        self.with(move |inner, state| {
            let record = state.ledger.acquitted(partition);
            inner.note(state, &[Move::none(partition, at, record)])
        })
        .await
    }

    /// Forgets the starts that were counted: this end is no crash.
    ///
    /// # Errors
    /// As [`ScoreWriter::write`].
    pub(super) async fn forget(&self) -> Result<()> {
        self.with(|inner, state| {
            let moves: Vec<_> = state.ledger.left().map(|(partition, at)| Move::none(partition, at, None)).collect();
            inner.note(state, &moves)
        })
        .await
    }

    /// Does something to what is known of the partitions, without a transaction.
    pub(super) fn with_ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.inner.state.lock().unwrap_or_else(PoisonError::into_inner).ledger)
    }

    /// Does something that blocks. What waits behind another transaction sees what that has written.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &mut State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner, &mut inner.state.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

/// What stands beside an offset, if it is ours.
fn record(element: &TopicPartitionListElem<'_>) -> Option<Record> {
    let metadata = element.metadata();
    if metadata.is_empty() {
        return None;
    }
    let ignored = |error: &serde_json::Error| {
        tracing::info!(partition = element.partition(), metadata, %error, "ignored what stands beside a committed offset");
    };
    serde_json::from_str(metadata).inspect_err(ignored).ok()
}

/// The fail points of a transaction.
struct Points {
    ready: &'static str,
    begun: &'static str,
    produced: &'static str,
    flushed: &'static str,
    offsets_sent: &'static str,
    committed: &'static str,
}

const SCORE: Points = Points {
    ready: "score.ready",
    begun: "score.begun",
    produced: "score.produced",
    flushed: "score.flushed",
    offsets_sent: "score.offsets-sent",
    committed: "score.committed",
};
const SETTLE: Points = Points {
    ready: "settle.ready",
    begun: "settle.begun",
    produced: "settle.produced",
    flushed: "settle.flushed",
    offsets_sent: "settle.offsets-sent",
    committed: "settle.committed",
};
const ATTEMPTS: Points = Points {
    ready: "attempts.ready",
    begun: "attempts.begun",
    produced: "attempts.produced",
    flushed: "attempts.flushed",
    offsets_sent: "attempts.offsets-sent",
    committed: "attempts.committed",
};

impl Inner {
    /// What is committed, and what stands beside it, once the transactions of an earlier producer of ours have ended.
    fn standing(
        &self,
        slot: &mut Option<BaseProducer<Logged>>,
        partitions: &BTreeSet<i32>,
    ) -> Result<Vec<(i32, i64, Option<Record>)>> {
        self.with_producer(slot, |_| Ok(()))?;
        let mut standing = Vec::with_capacity(partitions.len());
        for element in self.membership.committed(partitions)?.elements() {
            element.error().map_err(|e| failed("cannot read the group's offset of a partition", e))?;
            let Offset::Offset(offset) = element.offset() else { continue };
            standing.push((element.partition(), offset, record(&element)));
        }
        Ok(standing)
    }

    /// Writes records beside offsets that stay where they are.
    fn note(&self, state: &mut State, moves: &[Move]) -> Result<()> {
        if moves.is_empty() {
            return Ok(());
        }
        let version = state.ledger.version();
        self.transact(&mut state.producer, Some(&mut state.ledger), version, moves, |_| Ok(()), &ATTEMPTS)
    }

    fn write(&self, state: &mut State, version: u64, moves: &[Move], outcomes: &[Arc<KafkaOutcome>]) -> Result<()> {
        // A test shows with it that the order matters.
        let after = failpoint::sabotaged("position-before-dead-letters");
        let (late, now): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| after && is_dead(outcome));
        let produce = |producer: &BaseProducer<Logged>| {
            now.iter().try_for_each(|outcome| {
                failpoint::hit("score.producing");
                self.produce(producer, outcome)
            })
        };
        self.transact(&mut state.producer, Some(&mut state.ledger), version, moves, produce, &SCORE)?;
        if !late.is_empty() {
            self.with_producer(&mut state.producer, |producer| {
                step("cannot begin a transaction", || producer.begin_transaction())?;
                late.iter().try_for_each(|outcome| self.produce(producer, outcome))?;
                step("cannot commit a transaction", || producer.commit_transaction(STEP))
            })?;
        }
        observe(outcomes.iter().map(|outcome| (&outcome.outcome, is_replay(&outcome.headers))));
        traces::tell(outcomes);
        Ok(())
    }

    /// `ledger` knows where the partitions stand, and learns where they go.
    fn transact(
        &self,
        slot: &mut Option<BaseProducer<Logged>>,
        mut ledger: Option<&mut Ledger>,
        version: u64,
        moves: &[Move],
        produce: impl FnOnce(&BaseProducer<Logged>) -> Result<(), Failure>,
        points: &Points,
    ) -> Result<()> {
        failpoint::hit(points.ready);
        let _held = self.membership.hold();
        let metadata = self.membership.group_metadata()?;
        let now = self.membership.assignment().borrow().clone();
        let lost = moves.iter().any(|each| !now.partitions.contains(&each.partition));
        if (now.version != version || lost) && !failpoint::sabotaged("no-ownership-check") {
            let error = Error::new(ErrorKind::Conflict, "group has shared its partitions out anew");
            return Err(error.with("topic", &self.topics.raw.name));
        }
        let offsets = self.offsets(moves)?;
        if let Some(ledger) = &mut ledger {
            for each in moves {
                ledger.expect(each.partition, each.range.start)?;
            }
            for each in moves {
                ledger.tries(each.partition, each.range.end, each.record);
            }
        }
        let written = self.with_producer(slot, |producer| {
            step("cannot begin a transaction", || producer.begin_transaction())?;
            failpoint::hit(points.begun);
            produce(producer)?;
            failpoint::hit(points.produced);
            step("cannot deliver outcomes", || producer.flush(STEP))?;
            failpoint::hit(points.flushed);
            if !failpoint::sabotaged("no-offsets-in-transaction") {
                let send = || producer.send_offsets_to_transaction(&offsets, &metadata, STEP);
                step("cannot add offsets to a transaction", send)?;
            }
            failpoint::hit(points.offsets_sent);
            let began = Instant::now();
            step("cannot commit a transaction", || producer.commit_transaction(STEP)).map_err(Failure::of_commit)?;
            metrics::histogram!(telemetry::TRANSACTION_COMMIT_SECONDS).record(began.elapsed());
            failpoint::hit(points.committed);
            Ok(())
        });
        if let Some(ledger) = ledger {
            for each in moves {
                match written {
                    Ok(()) => ledger.wrote(each.partition, each.range.end, each.record),
                    Err(_) => ledger.doubt(each.partition),
                }
            }
        }
        written
    }

    fn offsets(&self, moves: &[Move]) -> Result<TopicPartitionList> {
        let mut offsets = TopicPartitionList::with_capacity(moves.len());
        for each in moves {
            offsets
                .add_partition_offset(&self.topics.raw.name, each.partition, Offset::Offset(each.range.end))
                .map_err(|e| failed("offset cannot be committed", e))?;
            let Some(record) = each.record else { continue };
            let json = serde_json::to_string(&record)
                .map_err(|e| Error::new(ErrorKind::Internal, "attempts cannot be written as JSON").source(e))?;
            if let Some(mut element) = offsets.find_partition(&self.topics.raw.name, each.partition) {
                element.set_metadata(json);
            }
        }
        Ok(offsets)
    }

    fn produce(&self, producer: &BaseProducer<Logged>, outcome: &KafkaOutcome) -> Result<(), Failure> {
        produce(producer, &self.topics, self.role, outcome)
    }

    /// Does something with the producer, which is made if there is none. One that has failed is not used again: see
    /// [`abort`].
    fn with_producer(
        &self,
        slot: &mut Option<BaseProducer<Logged>>,
        work: impl FnOnce(&BaseProducer<Logged>) -> Result<(), Failure>,
    ) -> Result<()> {
        let producer = match slot.take() {
            Some(producer) => producer,
            None => {
                let group = Some(self.membership.group_metadata()?);
                producer(&self.kafka, &self.transactional_id, &reach(self.role, &self.topics, group))?
            }
        };
        match work(&producer) {
            Ok(()) => {
                *slot = Some(producer);
                Ok(())
            }
            Err(failure) => {
                // The next producer ends what this one left open, whichever way it went.
                let failure = failure.aborting(&producer);
                // Also where the abort went well: the client may abort by taking a higher epoch, which the broker grants after a
                // commit, too.
                if failure.committing {
                    let unknown = Error::new(ErrorKind::Conflict, "outcome of a transaction is not known yet");
                    return Err(unknown.source(failure.error));
                }
                Err(failure.error)
            }
        }
    }
}

/// Ends what an earlier process of our name left open, if we have one. Before anything else: the broker does not tell where the
/// group stands while a transaction on its offsets is open.
///
/// # Errors
/// Those of the cluster.
pub async fn end_earlier(kafka: &Kafka, role: &'static str, topics: &Topics) -> Result<()> {
    let Some(name) = kafka.config().instance.clone() else { return Ok(()) };
    let (kafka, topics) = (kafka.clone(), topics.clone());
    let end = move || {
        let group = kafka.consumer(role, &[], Logged)?.group_metadata();
        producer(&kafka, &transactional_id(&kafka, role, &name), &reach(role, &topics, group)).map(drop)
    };
    blocking(end).await
}

fn transactional_id(kafka: &Kafka, role: &str, name: &str) -> String {
    format!("{}-{name}", kafka.group(role))
}

fn reach<'a>(role: &str, topics: &'a Topics, group: Option<ConsumerGroupMetadata>) -> Reach<'a> {
    // Another role than scoring writes dead letters alone.
    let outcomes = std::iter::once(&topics.scored).chain(&topics.scored_json).filter(|_| role == "score");
    Reach { topics: outcomes.chain([&topics.dead]).collect(), group }
}
