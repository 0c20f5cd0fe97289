//! Reading partitions of a topic from offsets that the caller names.
//!
//! The guarantee: what comes out of [`TopicReader::read`] begins where the caller said, in the order of the partition,
//! without a gap but those that transactions leave. An offset that the topic no longer holds is an error, never a jump.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::{Envelope, Event, EventTime, Headers, Partition};

use super::client::Kafka;
use super::describe::Topic;
use super::failure::{failed, kind};
use super::logging::{Logged, log_here, trouble};
use super::poll::{Polled, poll};
use crate::durable::blocking;

/// Once a record is there, this long is waited for more: what is asked of the broker and of the store per read is then
/// asked for many.
const LINGER: Duration = Duration::from_millis(5);

/// One record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The producer's or the broker's clock, in milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; absent for a tombstone of a compacted topic.
    pub payload: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Headers,
}

impl Record {
    /// Bytes that it holds, about.
    pub fn size(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.payload) + header_bytes(&self.headers) + 64
    }

    /// When it came, in microseconds; now if nobody said.
    pub fn ingested_at_us(&self) -> EventTime {
        self.timestamp_ms.map_or_else(|| jiff::Timestamp::now().as_microsecond(), |ms| ms.saturating_mul(1000))
    }

    /// The record as an event of `partition`; if it is a replay, the earlier event that it is again.
    pub fn into_event(self, partition: &Partition) -> Event {
        let (offset, ingested_at_us) = match self.replay_of(partition) {
            Some(event) => (event.offset, event.ingested_at_us),
            None => (self.offset, self.ingested_at_us()),
        };
        Event {
            origin: partition.origin(offset),
            ingested_at_us,
            payload: self.payload.unwrap_or_default(),
            envelope: Envelope { key: self.key, headers: self.headers },
        }
    }
}

/// Bytes of headers.
pub(super) fn header_bytes(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

/// How much one read may bring.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The most records.
    pub records: usize,
    /// About the most bytes.
    pub bytes: usize,
    /// The longest wait for the first record.
    pub wait: Duration,
}

/// What one read brought.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Records, in order within each partition.
    pub records: Vec<Record>,
    /// The next offset of every partition that was read on; beyond its last record where markers follow.
    pub next: BTreeMap<i32, i64>,
    /// The partitions of which nothing follows what was handed out, by this read or an earlier one.
    pub ended: BTreeSet<i32>,
}

/// Next offsets by the number of the partition.
pub type Offsets = BTreeMap<i32, i64>;

/// Reads one topic. Calls on it go one after another.
#[derive(Clone)]
pub struct TopicReader {
    kafka: Kafka,
    topic: Topic,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    topic: Topic,
    consumer: BaseConsumer<Logged>,
    /// Where the consumer stands; absent when it must be told.
    at: Option<Offsets>,
    /// The partitions of which nothing follows. The consumer tells an end once, maybe along with the last records or to
    /// whoever dropped its read, so it is remembered.
    ended: BTreeSet<i32>,
}

impl std::fmt::Debug for TopicReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicReader").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl TopicReader {
    /// A reader on behalf of a role. It joins no group.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for properties that are wrong.
    pub fn new(kafka: &Kafka, role: &str, topic: &Topic) -> Result<Self> {
        // What is fetched ahead is held in memory, by every reader. Once so much is, the consumer by itself would look again after a second.
        let more =
            [("queued.max.messages.kbytes", "16384"), ("fetch.queue.backoff.ms", "10"), ("fetch.wait.max.ms", "100")];
        let consumer = kafka.consumer(role, &more, Logged)?;
        log_here(consumer.client());
        let inner = Inner { topic: topic.clone(), consumer, at: None, ended: BTreeSet::new() };
        Ok(Self { kafka: kafka.clone(), topic: topic.clone(), inner: Arc::new(Mutex::new(inner)) })
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The first and the next offset of partitions. Below the latter there may be transactions that are still open, or
    /// were aborted: a reader that has come to it has been handed out everything.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn bounds(&self, partitions: Vec<i32>) -> Result<BTreeMap<i32, (i64, i64)>> {
        let (kafka, topic) = (self.kafka.clone(), self.topic.clone());
        let bounds = move |&number: &i32| kafka.bounds(&topic, number).map(|bounds| (number, bounds));
        blocking(move || partitions.iter().map(bounds).collect()).await
    }

    /// Fails if the topic was deleted and made again.
    ///
    /// # Errors
    /// As [`Kafka::is_same`].
    pub async fn is_same(&self) -> Result<()> {
        let (kafka, topic) = (self.kafka.clone(), self.topic.clone());
        blocking(move || kafka.is_same(&topic)).await
    }

    /// Reads on from `from`, which names every partition to read. Returns at once what is there, or waits at most
    /// `limit.wait` and returns nothing. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if an offset is not there any more; [`ErrorKind::NotFound`] if the topic is not; those of
    /// the cluster.
    pub async fn read(&self, from: Offsets, limit: Limit) -> Result<Fetched> {
        self.with(move |inner| inner.read(&from, limit)).await
    }

    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

impl Inner {
    fn read(&mut self, from: &Offsets, limit: Limit) -> Result<Fetched> {
        if self.at.as_ref() != Some(from) {
            self.go_to(from)?;
        }
        let fetched = self.fetch(limit);
        match &fetched {
            Ok(fetched) => {
                if let Some(at) = &mut self.at {
                    at.extend(&fetched.next);
                }
            }
            Err(_) => self.at = None,
        }
        fetched
    }

    fn go_to(&mut self, from: &Offsets) -> Result<()> {
        self.at = None;
        self.ended.clear();
        let mut list = TopicPartitionList::with_capacity(from.len());
        for (&partition, &offset) in from {
            list.add_partition_offset(&self.topic.name, partition, Offset::Offset(offset)).map_err(|e| {
                failed("offset cannot be read from", e).with("partition", partition).with("offset", offset)
            })?;
        }
        self.consumer.assign(&list).map_err(|e| failed("cannot go to an offset", e))?;
        self.at = Some(from.clone());
        Ok(())
    }

    fn fetch(&mut self, limit: Limit) -> Result<Fetched> {
        let mut fetched = Fetched::default();
        let mut bytes = 0;
        let mut until = Instant::now() + limit.wait;
        while fetched.records.len() < limit.records && bytes < limit.bytes {
            let left = until.saturating_duration_since(Instant::now());
            let Some(polled) = poll(self.consumer.client(), left) else { break };
            match polled {
                Polled::Record(record) => {
                    if fetched.records.is_empty() {
                        until = Instant::now() + LINGER;
                    }
                    bytes += record.size();
                    self.ended.remove(&record.partition);
                    fetched.next.insert(record.partition, record.offset + 1);
                    fetched.records.push(record);
                }
                Polled::End { partition, offset } => {
                    let next = fetched.next.entry(partition).or_insert(offset);
                    *next = (*next).max(offset);
                    self.ended.insert(partition);
                }
                Polled::Failed { partition, offset, code, reason } => self.failed(partition, offset, code, reason)?,
            }
        }
        fetched.ended.clone_from(&self.ended);
        Ok(fetched)
    }

    /// Whether a failure ends the reading; what the client tries again by itself does not.
    fn failed(&self, partition: Option<i32>, offset: i64, code: RDKafkaErrorCode, reason: String) -> Result<()> {
        let Some(partition) = partition else {
            trouble(&code, &reason);
            return Ok(());
        };
        // From before the last change of place.
        if self.at.as_ref().is_none_or(|at| !at.contains_key(&partition)) {
            return Ok(());
        }
        let error = Error::new(kind(code), "cannot read partition")
            .with("topic", &self.topic.name)
            .with("partition", partition)
            .source(reason);
        Err(match kind(code) {
            ErrorKind::Corrupt => error.with("offset", offset).help(
                "events that were not read yet are gone from the topic: raise its retention; `undertone accept-gap` \
                       shows how much is lost, and goes on behind it",
            ),
            ErrorKind::NotFound => error.help("was the topic deleted? nothing that it held can be read any more"),
            _ => error,
        })
    }
}
