//! Writing outcomes: to `posts.scored` and `posts.dead`, with the offsets of their events, in one transaction.
//!
//! The guarantee: after [`ScoreWriter::write`] has answered "done", outcomes and offsets are durable and visible; after
//! an error, none of them is, or a later [`ScoreWriter::committed`] tells that they are. What a member is bound to
//! (generation and member id) is taken before it looks whether the partitions are its own: if they move after the look,
//! the broker refuses the transaction.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::Message;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, config::RDKafkaLogLevel};
use sha2::{Digest, Sha256};
use undertone_error::{Error, ErrorKind, Result, failpoint};
use undertone_proto::v1::outcome;
use uuid::Uuid;

use super::client::{Kafka, log, log_error};
use super::describe::Topic;
use super::failure::failed;
use super::membership::Membership;
use super::reader::Offsets;
use super::score::KafkaOutcome;
use crate::durable::blocking;
use crate::score::observe;
use crate::source::hex;

/// An open transaction stalls every reader of committed records, so one whose owner died is ended by the broker after
/// this long.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one step of a transaction may take.
const STEP: Duration = Duration::from_secs(8);
/// Longer keys would make records larger than their topic takes.
const MAX_KEY_BYTES: usize = 1024;
/// How often a step is tried again that the client calls retriable.
const TRIES: u32 = 4;

/// Writes outcomes of the events of `posts.raw`. Calls on it go one after another.
#[derive(Clone)]
pub struct ScoreWriter {
    inner: Arc<Inner>,
}

struct Inner {
    kafka: Kafka,
    membership: Membership,
    /// Whose group the offsets are of; the names of the fail points begin with it.
    role: &'static str,
    raw: Topic,
    scored: Topic,
    dead: Topic,
    transactional_id: String,
    /// Absent before the first use and after a failure that it cannot recover from.
    producer: Mutex<Option<BaseProducer<Logged>>>,
}

#[derive(Clone, Copy)]
struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Logged {
    type DeliveryOpaque = ();

    /// A record that cannot be delivered fails its transaction, which says why.
    fn delivery(&self, _: &rdkafka::producer::DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}

impl std::fmt::Debug for ScoreWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScoreWriter").field("transactional_id", &self.inner.transactional_id).finish_non_exhaustive()
    }
}

impl ScoreWriter {
    /// A writer for the partitions of `raw` that `membership` has.
    pub fn new(kafka: &Kafka, membership: Membership, raw: Topic, scored: Topic, dead: Topic) -> Self {
        Self::of_role(kafka, "score", membership, raw, scored, dead)
    }

    /// A writer for another role than scoring: one that reads `raw`, and moves its offsets in the group of `role`.
    pub(super) fn of_role(
        kafka: &Kafka,
        role: &'static str,
        membership: Membership,
        raw: Topic,
        scored: Topic,
        dead: Topic,
    ) -> Self {
        // Without a stable name each start has an id of its own: the broker ends what an earlier one left open.
        let name = kafka.config().instance.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        let transactional_id = format!("{}-{name}", kafka.group(role));
        let producer = Mutex::new(None);
        Self {
            inner: Arc::new(Inner {
                kafka: kafka.clone(),
                membership,
                role,
                raw,
                scored,
                dead,
                transactional_id,
                producer,
            }),
        }
    }

    /// The next offset of each of `partitions`, as committed; a partition that never was is absent. Transactions of ours
    /// that were under way have ended by then, and so have those of other members on these partitions.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn committed(&self, partitions: BTreeSet<i32>) -> Result<Offsets> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.with_producer(|_| Ok(()))?;
            let committed = inner.membership.committed(&partitions)?;
            let mut offsets = Offsets::new();
            for element in committed.elements() {
                element.error().map_err(|e| failed("cannot read the group's offset of a partition", e))?;
                if let Offset::Offset(offset) = element.offset() {
                    offsets.insert(element.partition(), offset);
                }
            }
            Ok(offsets)
        })
        .await
    }

    /// Writes outcomes and moves the offsets of their partitions to the ends of `ranges`, both or neither. `version` is
    /// that of the assignment with which the ranges were read: whatever was lost since then, even if it came back, was
    /// perhaps scored by another.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if other partitions are ours by now, or the outcome is not known: ask
    /// [`ScoreWriter::committed`] and go on from there. Others may be tried again.
    pub async fn write(
        &self,
        version: u64,
        ranges: Vec<(i32, Range<i64>)>,
        outcomes: Vec<Arc<KafkaOutcome>>,
    ) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.write(version, &ranges, &outcomes)?;
            observe(outcomes.iter().map(|outcome| &outcome.outcome));
            Ok(())
        })
        .await
    }

    /// As [`ScoreWriter::write`], without counting outcomes: what a sink writes are not outcomes of events.
    pub(super) async fn settle(
        &self,
        version: u64,
        ranges: Vec<(i32, Range<i64>)>,
        letters: Vec<Arc<KafkaOutcome>>,
    ) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.write(version, &ranges, &letters)).await
    }
}

impl Inner {
    fn write(&self, version: u64, ranges: &[(i32, Range<i64>)], outcomes: &[Arc<KafkaOutcome>]) -> Result<()> {
        self.visit("ready");
        let _held = self.membership.hold();
        let metadata = self.membership.group_metadata()?;
        let now = self.membership.assignment().borrow().clone();
        let lost = ranges.iter().any(|(partition, _)| !now.partitions.contains(partition));
        if (now.version != version || lost) && !failpoint::sabotaged("no-ownership-check") {
            let error = Error::new(ErrorKind::Conflict, "group has shared its partitions out anew");
            return Err(error.with("topic", &self.raw.name));
        }
        let mut offsets = TopicPartitionList::with_capacity(ranges.len());
        for (partition, range) in ranges {
            offsets
                .add_partition_offset(&self.raw.name, *partition, Offset::Offset(range.end))
                .map_err(|e| failed("offset cannot be committed", e))?;
        }
        self.with_producer(|producer| {
            step("cannot begin a transaction", || producer.begin_transaction())?;
            self.visit("begun");
            for outcome in outcomes {
                self.produce(producer, outcome)?;
            }
            self.visit("produced");
            step("cannot deliver outcomes", || producer.flush(STEP))?;
            self.visit("flushed");
            if !failpoint::sabotaged("no-offsets-in-transaction") {
                let send = || producer.send_offsets_to_transaction(&offsets, &metadata, STEP);
                step("cannot add offsets to a transaction", send)?;
            }
            self.visit("offsets-sent");
            step("cannot commit a transaction", || producer.commit_transaction(STEP)).map_err(Failure::of_commit)?;
            self.visit("committed");
            Ok(())
        })?;
        Ok(())
    }

    /// Visits a fail point of this role.
    fn visit(&self, point: &str) {
        failpoint::hit(&format!("{}.{point}", self.role));
    }

    fn produce(&self, producer: &BaseProducer<Logged>, outcome: &KafkaOutcome) -> Result<(), Failure> {
        let empty = || Failure::ours(Error::new(ErrorKind::Internal, "an outcome is empty"));
        let (topic, key, payload, origin) = match outcome.outcome.kind.as_ref().ok_or_else(empty)? {
            outcome::Kind::Scored(post) => {
                (&self.scored, key(&post.source, &post.id), post.encode_to_vec(), post.origin.as_ref())
            }
            outcome::Kind::Dead(letter) => {
                let origin = letter.origin.as_ref();
                let name = origin.map(|o| format!("{}-{}-{}", o.topic, o.partition, o.offset)).unwrap_or_default();
                // One event may be a dead letter of several sinks.
                let name = if self.role == "score" { name } else { format!("{}/{name}", self.role) };
                (&self.dead, name.into_bytes(), letter.encode_to_vec(), origin)
            }
        };
        // The partition of the event's: what is in order there stays in order.
        let partition = origin.map_or(0, |origin| origin.partition).rem_euclid(topic.partitions.max(1));
        let mut headers = OwnedHeaders::new_with_capacity(outcome.headers.len());
        for (name, value) in &outcome.headers {
            headers = headers.insert(Header { key: name, value: value.as_ref() });
        }
        let mut record = BaseRecord::to(&topic.name).partition(partition).key(&key).payload(&payload).headers(headers);
        let until = Instant::now() + STEP;
        loop {
            record = match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if Instant::now() < until => {
                    back
                }
                Err((error, _)) => return Err(Failure::of("cannot produce an outcome", error)),
            };
            producer.poll(Duration::from_millis(5));
        }
    }

    /// Does something with the producer, which is made if there is none; mends what a failure leaves behind.
    fn with_producer(&self, work: impl FnOnce(&BaseProducer<Logged>) -> Result<(), Failure>) -> Result<()> {
        let mut slot = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let producer = match slot.take() {
            Some(producer) => producer,
            None => self.connect()?,
        };
        match work(&producer) {
            Ok(()) => {
                *slot = Some(producer);
                Ok(())
            }
            Err(failure) => {
                let aborted = failure.abort && abort(&producer);
                if aborted {
                    *slot = Some(producer);
                }
                // Otherwise the next producer of the same id ends what this one left open, whichever way it went.
                if failure.committing && !aborted {
                    let unknown = Error::new(ErrorKind::Conflict, "outcome of a transaction is not known yet");
                    return Err(unknown.source(failure.error));
                }
                Err(failure.error)
            }
        }
    }

    fn connect(&self) -> Result<BaseProducer<Logged>> {
        let mut config = self.kafka.producer_config();
        config
            .set("transactional.id", &self.transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            // Dead letters and posts are larger than the posts that they come from.
            .set("message.max.bytes", "67108864")
            // A batch must fit where its largest record does: topics take that much more than the largest event.
            .set("batch.size", "250000")
            .set("queue.buffering.max.messages", "200000");
        for (key, value) in [("linger.ms", "2"), ("compression.type", "lz4")] {
            if !self.kafka.config().client.contains_key(key) {
                config.set(key, value);
            }
        }
        let producer = BaseProducer::from_config_and_context(&config, Logged)
            .map_err(|e| failed("cannot make a kafka producer", e))?;
        step("cannot begin with transactions", || producer.init_transactions(STEP)).map_err(|failure| failure.error)?;
        Ok(producer)
    }
}

/// Aborts the open transaction; answers whether it is.
fn abort(producer: &BaseProducer<Logged>) -> bool {
    let until = Instant::now() + STEP;
    loop {
        // What is purged is reported, and the abort waits until somebody has taken the reports.
        producer.poll(Duration::ZERO);
        match producer.abort_transaction(Duration::from_millis(100)) {
            Ok(()) => return true,
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {}
            Err(error) => {
                tracing::info!(%error, "transaction cannot be aborted; its producer is given up");
                return false;
            }
        }
    }
}

/// A failed step.
struct Failure {
    error: Error,
    /// Whether the transaction can still be aborted.
    abort: bool,
    /// Whether it was the commit, after which anything may have happened.
    committing: bool,
}

impl Failure {
    fn of(doing: &'static str, error: KafkaError) -> Self {
        let lost = matches!(&error, KafkaError::Transaction(error) if error.is_fatal() || !error.txn_requires_abort());
        Self { error: failed(doing, error), abort: !lost, committing: false }
    }

    fn of_commit(self) -> Self {
        Self { committing: true, ..self }
    }

    fn ours(error: Error) -> Self {
        Self { error, abort: true, committing: false }
    }
}

/// One step of a transaction; repeated where the client says that this may help.
fn step(doing: &'static str, mut work: impl FnMut() -> rdkafka::error::KafkaResult<()>) -> Result<(), Failure> {
    let mut tries = 1;
    loop {
        match work() {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && tries < TRIES => {
                tracing::info!(%error, doing, tries, "step of a transaction is tried again");
                tries += 1;
            }
            Err(error) => return Err(Failure::of(doing, error)),
        }
    }
}

/// Source and id, as JSON, so that no two posts share a key; the hash of that where it is too long for one.
fn key(source: &str, id: &str) -> Vec<u8> {
    let key = serde_json::to_vec(&[source, id]).unwrap_or_default();
    if key.len() <= MAX_KEY_BYTES { key } else { hex(&Sha256::digest(&key)).into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_posts_differ() {
        assert_eq!(key("x", "7"), br#"["x","7"]"#);
        assert_ne!(key("a", "b/c"), key("a/b", "c"));
        let long = "i".repeat(600_000);
        assert_eq!(key("x", &long).len(), 64);
        assert_ne!(key("x", &long), key("y", &long));
    }
}
