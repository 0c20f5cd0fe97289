//! A producer of transactions, and the steps of one.
//!
//! The guarantee: of a transaction that failed it is known whether its commit had begun, after which anything may have
//! happened, however it was ended afterwards. What one left open, the next producer of the same id ends, also where the broker
//! has forgotten that it is open. A producer whose transaction failed is given up, whether or not that could be aborted.

use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use undertone_error::{Error, Result};

use super::client::{Kafka, PATIENCE};
use super::describe::Topic;
use super::failure::failed;
use super::logging::Logged;

/// An open transaction stalls every reader of committed records, so one whose owner died is ended by the broker after
/// this long.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one step of a transaction may take.
pub(super) const STEP: Duration = Duration::from_secs(8);
/// How often a step is tried again that the client calls retriable.
const TRIES: u32 = 4;

/// What transactions of a producer reach.
pub(super) struct Reach<'a> {
    /// Where its records go.
    pub(super) topics: Vec<&'a Topic>,
    /// Whose offsets it moves, if it does.
    pub(super) group: Option<ConsumerGroupMetadata>,
}

/// A producer of transactions under an id: what another of the same id left open within its reach is ended, and that one can
/// commit nothing more. Blocks.
pub(super) fn producer(kafka: &Kafka, transactional_id: &str, reach: &Reach<'_>) -> Result<BaseProducer<Logged>> {
    let mut config = kafka.producer_config();
    config
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
        // Dead letters and posts are larger than the posts that they come from.
        .set("message.max.bytes", "67108864")
        // Of more than five batches for a partition the client sends five, and asks without a pause whether it may send the
        // others: a transaction should be fewer.
        .set("batch.size", kafka.config().batch_bytes.to_string())
        .set("queue.buffering.max.messages", "200000");
    // Nobody waits for `linger.ms`: the flush that follows at once ends it, and full batches do not know it. Shorter, it
    // only wakes the client's thread for batches that are too small.
    for (key, value) in [("linger.ms", "50"), ("compression.type", "lz4")] {
        if !kafka.config().client.contains_key(key) {
            config.set(key, value);
        }
    }
    let producer = BaseProducer::from_config_and_context(&config, Logged)
        .map_err(|e| failed("cannot make a kafka producer", e))?;
    step("cannot begin with transactions", || producer.init_transactions(STEP)).map_err(|failure| failure.error)?;
    end_what_is_open(kafka, &producer, reach)?;
    Ok(producer)
}

/// Aborts a transaction in every partition in which one is open, and in the group.
///
/// A coordinator that ends a transaction while a partition of it has no leader takes the partition for deleted, and calls the
/// transaction ended without a marker there (seen with Kafka 4.3, whose broker was killed and started again at once). What was
/// written stays open: readers wait for ever, the group does not tell its offsets, and the marker of the next transaction of the
/// same producer id ends it, so that a commit would commit those records, too. Before anything is committed here an
/// abort therefore goes wherever something may be open. Where it is another's this changes nothing.
fn end_what_is_open(kafka: &Kafka, producer: &BaseProducer<Logged>, reach: &Reach<'_>) -> Result<()> {
    let mut open = Vec::new();
    for topic in &reach.topics {
        for partition in 0..topic.partitions {
            // Like every client of the library that is not told otherwise, a producer sees committed records alone.
            let stable = producer.client().fetch_watermarks(&topic.name, partition, PATIENCE);
            let (_, stable) = stable.map_err(|e| failed("cannot read up to where a partition is stable", e))?;
            let (_, end) = kafka.bounds(topic, partition)?;
            if stable < end {
                open.push((topic.name.as_str(), partition));
            }
        }
    }
    if open.is_empty() && reach.group.is_none() {
        return Ok(());
    }
    tracing::debug!(partitions = ?open, "ends what an earlier producer may have left open");
    let (key, nothing) = (b"undertone".to_vec(), Vec::new());
    let touch = || {
        step("cannot begin a transaction", || producer.begin_transaction())?;
        for (topic, partition) in open {
            send(producer, BaseRecord::to(topic).partition(partition).key(&key).payload(&nothing))?;
        }
        step("cannot deliver records", || producer.flush(STEP))?;
        // An offset that nobody reads, of a topic that the group does not.
        let (Some(group), Some(topic)) = (&reach.group, reach.topics.first()) else { return Ok(()) };
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(&topic.name, 0, Offset::Offset(0))
            .map_err(|e| Failure::of("offset cannot be committed", e))?;
        match producer.send_offsets_to_transaction(&offsets, group, STEP) {
            // The group is part of the transaction by then, whether or not it takes an offset from us.
            Err(KafkaError::Transaction(error)) if is_of_another_generation(error.code()) => Ok(()),
            sent => sent.map_err(|e| Failure::of("cannot add offsets to a transaction", e)),
        }
    };
    let touched = touch().map_err(|failure| failure.error);
    let aborted = abort(producer);
    touched?;
    aborted.map_err(|e| failed("cannot end what an earlier producer left open", e))
}

fn is_of_another_generation(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{FencedInstanceId, IllegalGeneration, RebalanceInProgress, UnknownMemberId};
    matches!(code, FencedInstanceId | IllegalGeneration | RebalanceInProgress | UnknownMemberId)
}

/// Hands a record of the open transaction to the client; waits while its queue is full.
pub(super) fn send(
    producer: &BaseProducer<Logged>,
    mut record: BaseRecord<'_, Vec<u8>, Vec<u8>>,
) -> Result<(), Failure> {
    let until = Instant::now() + STEP;
    loop {
        record = match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if Instant::now() < until => back,
            Err((error, _)) => return Err(Failure::of("cannot produce a record", error)),
        };
        producer.poll(Duration::from_millis(5));
    }
}

/// Headers as the client takes them.
pub(super) fn owned<'a>(headers: impl IntoIterator<Item = &'a (String, Option<Vec<u8>>)>) -> OwnedHeaders {
    let insert = |owned: OwnedHeaders, (name, value): &(String, Option<Vec<u8>>)| {
        owned.insert(Header { key: name, value: value.as_ref() })
    };
    headers.into_iter().fold(OwnedHeaders::new(), insert)
}

/// Aborts the open transaction, so that readers need not wait; if that fails, the next producer of the same id does it.
///
/// The producer must not begin another one. Of records whose acknowledgement was lost with its connection librdkafka does
/// not know whether the broker has them; an abort throws them away and gives their sequence numbers to the next
/// transaction's. If the broker has them, it takes those for the same records once more and acknowledges them, without
/// writing anything: they would be missing from a transaction that is committed. A new producer of the same id has a
/// higher epoch, in which sequences begin anew.
fn abort(producer: &BaseProducer<Logged>) -> KafkaResult<()> {
    let until = Instant::now() + STEP;
    loop {
        // What is purged is reported, and the abort waits until somebody has taken the reports.
        producer.poll(Duration::ZERO);
        match producer.abort_transaction(Duration::from_millis(100)) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {}
            Err(error) => {
                tracing::info!(%error, "transaction cannot be aborted; its producer is given up");
                return Err(error);
            }
        }
    }
}

/// A failed step.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the transaction can still be aborted.
    abort: bool,
    /// Whether it was the commit, after which anything may have happened.
    pub(super) committing: bool,
}

impl Failure {
    pub(super) fn of(doing: &'static str, error: KafkaError) -> Self {
        let lost = matches!(&error, KafkaError::Transaction(error) if error.is_fatal() || !error.txn_requires_abort());
        Self { error: failed(doing, error), abort: !lost, committing: false }
    }

    /// Aborts its transaction, if that can still be, so that readers need not wait for the broker. Whether that goes well or not, the
    /// producer is given up.
    pub(super) fn aborting(self, producer: &BaseProducer<Logged>) -> Self {
        if self.abort {
            let _ = abort(producer);
        }
        self
    }

    pub(super) fn of_commit(self) -> Self {
        Self { committing: true, ..self }
    }

    pub(super) fn ours(error: Error) -> Self {
        Self { error, abort: true, committing: false }
    }
}

/// One step of a transaction; repeated where the client says that this may help.
pub(super) fn step(doing: &'static str, mut work: impl FnMut() -> KafkaResult<()>) -> Result<(), Failure> {
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
