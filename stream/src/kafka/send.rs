//! Single records, for what a person sends: a tombstone, and nothing that needs a transaction.
//!
//! The guarantee: a record that [`send`] reported is on every in-sync replica of the topic. One that it did not report may
//! be there too, or be there twice after another try: what is sent must not mind.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::Headers;

use super::client::Kafka;
use super::failure::failed;
use super::logging::{log, trouble};
use super::producer::owned;

/// How long a record may be on its way.
const DELIVERY: Duration = Duration::from_secs(30);

/// A record to send.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Its partition; left out, the key decides.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub payload: Vec<u8>,
    /// Its headers.
    pub headers: Headers,
}

/// What became of the records, in the order in which they were answered.
#[derive(Default)]
struct Reports(Mutex<Vec<Result<(i32, i64), KafkaError>>>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        trouble(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        let report = match delivered {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

impl Kafka {
    /// Sends records to a topic and answers the partition and the offset of each, in no order. Blocks.
    ///
    /// # Errors
    /// Those of the cluster; what was sent before may be there.
    pub fn send(&self, topic: &str, records: &[NewRecord]) -> Result<Vec<(i32, i64)>> {
        let mut config = self.producer_config();
        config.set("message.timeout.ms", DELIVERY.as_millis().to_string());
        let producer = BaseProducer::from_config_and_context(&config, Reports::default())
            .map_err(|e| failed("cannot make a kafka producer", e))?;
        for record in records {
            let mut message =
                BaseRecord::to(topic).key(&record.key).payload(&record.payload).headers(owned(&record.headers));
            message.partition = record.partition;
            producer.send(message).map_err(|(e, _)| failed("cannot send a record", e).with("topic", topic))?;
        }
        producer.flush(DELIVERY).map_err(|e| failed("records were not taken", e).with("topic", topic))?;
        let reports = std::mem::take(&mut *producer.context().0.lock().unwrap_or_else(PoisonError::into_inner));
        if reports.len() != records.len() {
            let error = Error::new(ErrorKind::Unavailable, "what became of a record is not known");
            return Err(error.with("topic", topic).help("send it again: twice does no harm"));
        }
        let sent = reports.into_iter().collect::<Result<Vec<_>, KafkaError>>();
        sent.map_err(|e| failed("record was not taken", e).with("topic", topic))
    }
}
