//! Records that others hand over while they wait, many at a time and from many at once.
//!
//! The guarantee: a record that [`Appender::append`] answered with its place is on every in-sync replica of the topic,
//! once, whatever the client had to try again for it. One that it answered with an error may be there too if its delivery
//! timed out: whoever sends it again may double the event.

use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;
use undertone_error::{Error, ErrorKind, Result};

use super::client::Kafka;
use super::failure::failed;
use super::logging::{log, trouble};
use super::producer::owned;
use super::send::NewRecord;

/// How long a record may be on its way: shorter than anybody who waits for it.
const DELIVERY: Duration = Duration::from_secs(20);

type Answer = oneshot::Sender<Result<(i32, i64), KafkaError>>;

/// Tells each sender what became of its record.
struct Delivered;

impl ClientContext for Delivered {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        trouble(&error, reason);
    }
}

impl ProducerContext for Delivered {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, answer: Self::DeliveryOpaque) {
        // Nobody listens any more where the caller has gone away; the record is there all the same.
        let _ = answer.send(match delivered {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        });
    }
}

/// An idempotent producer of one topic.
pub struct Appender {
    producer: ThreadedProducer<Delivered>,
    topic: String,
}

impl Appender {
    /// Blocks on nothing: the cluster is reached when the first record is sent.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for properties that are wrong.
    pub fn new(kafka: &Kafka, topic: &str) -> Result<Self> {
        let mut config = kafka.producer_config();
        config
            .set("message.timeout.ms", DELIVERY.as_millis().to_string())
            // The topic has its own limit, which the broker's answer names.
            .set("message.max.bytes", "67108864");
        let producer = ThreadedProducer::from_config_and_context(&config, Delivered)
            .map_err(|e| failed("cannot make a kafka producer", e))?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Sends records and answers the partition and the offset of each, or why it was not taken, in order.
    pub async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<(i32, i64)>> {
        let mut waiting = Vec::with_capacity(records.len());
        for record in &records {
            waiting.push(self.hand_over(record));
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for handed in waiting {
            answers.push(match handed {
                Err(error) => Err(error),
                Ok(answer) => match answer.await {
                    Ok(delivered) => delivered.map_err(|e| self.named(e)),
                    Err(_) => Err(Error::new(ErrorKind::Unavailable, "what became of a record is not known")),
                },
            });
        }
        answers
    }

    fn hand_over(&self, record: &NewRecord) -> Result<oneshot::Receiver<Result<(i32, i64), KafkaError>>> {
        let (send, receive) = oneshot::channel();
        let mut message =
            BaseRecord::with_opaque_to(&self.topic, Box::new(send)).key(&record.key).payload(&record.payload);
        message.partition = record.partition;
        if !record.headers.is_empty() {
            message = message.headers(owned(&record.headers));
        }
        match self.producer.send(message) {
            Ok(()) => Ok(receive),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                Err(Error::new(ErrorKind::Busy, "too many records are on their way to kafka"))
            }
            Err((error, _)) => Err(self.named(error)),
        }
    }

    fn named(&self, error: KafkaError) -> Error {
        if matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) {
            return Error::new(ErrorKind::TooLarge, "the post is larger than the topic takes");
        }
        failed("record was not taken", error).with("topic", &self.topic)
    }
}
