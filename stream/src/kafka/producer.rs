//! A producer of transactions, and the steps of one.
//!
//! The guarantee: of a transaction that failed it is known whether it was aborted, and whether its commit had begun, after
//! which anything may have happened. What one left open, the next producer of the same id ends. A producer whose
//! transaction failed is given up, whether or not that could be aborted.

use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use undertone_error::{Error, Result};

use super::client::Kafka;
use super::failure::failed;
use super::logging::Logged;

/// An open transaction stalls every reader of committed records, so one whose owner died is ended by the broker after
/// this long.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one step of a transaction may take.
pub(super) const STEP: Duration = Duration::from_secs(8);
/// How often a step is tried again that the client calls retriable.
const TRIES: u32 = 4;

/// A producer of transactions under an id: what another of the same id left open is ended, and it can commit nothing more.
pub(super) fn producer(kafka: &Kafka, transactional_id: &str) -> Result<BaseProducer<Logged>> {
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
    Ok(producer)
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

/// Aborts the open transaction, so that readers need not wait; answers whether it is.
///
/// The producer must not begin another one. Of records whose acknowledgement was lost with its connection librdkafka does
/// not know whether the broker has them; an abort throws them away and gives their sequence numbers to the next
/// transaction's. If the broker has them, it takes those for the same records once more and acknowledges them, without
/// writing anything: they would be missing from a transaction that is committed. A new producer of the same id has a
/// higher epoch, in which sequences begin anew.
pub(super) fn abort(producer: &BaseProducer<Logged>) -> bool {
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
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the transaction can still be aborted.
    pub(super) abort: bool,
    /// Whether it was the commit, after which anything may have happened.
    pub(super) committing: bool,
}

impl Failure {
    pub(super) fn of(doing: &'static str, error: KafkaError) -> Self {
        let lost = matches!(&error, KafkaError::Transaction(error) if error.is_fatal() || !error.txn_requires_abort());
        Self { error: failed(doing, error), abort: !lost, committing: false }
    }

    pub(super) fn of_commit(self) -> Self {
        Self { committing: true, ..self }
    }

    pub(super) fn ours(error: Error) -> Self {
        Self { error, abort: true, committing: false }
    }
}

/// One step of a transaction; repeated where the client says that this may help.
pub(super) fn step(
    doing: &'static str,
    mut work: impl FnMut() -> rdkafka::error::KafkaResult<()>,
) -> Result<(), Failure> {
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
