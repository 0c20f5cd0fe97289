//! Which partitions of a topic are ours, among all processes of a role.
//!
//! The guarantee: a partition that is taken from us is gone from [`Membership::assignment`] before the group gives it to
//! another, and only when no transaction that holds [`Membership::hold`] is under way. The consumer behind it reads
//! nothing: it only keeps the membership alive.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::watch;
use undertone_error::{Error, ErrorKind, Result};

use super::client::{Kafka, PATIENCE};
use super::failure::{failed, kind};
use super::logging::{log, trouble};

/// How often a member without work looks up.
const POLL: Duration = Duration::from_millis(100);

/// How often the client asks how many partitions there are.
const REFRESH: &str = "topic.metadata.refresh.interval.ms";

/// The partitions that are ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Grows with every change; 0 before the group has answered.
    pub version: u64,
    /// Their numbers.
    pub partitions: BTreeSet<i32>,
}

/// This process as a member of a group. Leaves the group when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Membership {
    inner: Arc<Inner>,
}

struct Inner {
    topic: String,
    consumer: Arc<BaseConsumer<Context>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// What the rebalance callback shares with everybody else.
struct Context {
    assignment: watch::Sender<Assignment>,
    /// Held while a transaction is under way.
    transaction: Mutex<()>,
    failure: Mutex<Option<KafkaError>>,
    fatal: Mutex<Option<KafkaError>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        trouble(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: BTreeSet<i32> = list.elements().iter().map(|element| element.partition()).collect();
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // Nothing is read here: the end is where the least would be fetched before the pause.
            let done = list
                .set_all_offsets(Offset::End)
                .and_then(|()| consumer.incremental_assign(list))
                .and_then(|()| consumer.pause(list));
            if let Err(error) = done {
                tracing::warn!(%error, "cannot take the partitions that the group gives us");
            }
            tracing::info!(?partitions, "partitions assigned");
            self.change(|assigned| assigned.extend(&partitions));
            return;
        }
        let lost = consumer.assignment_lost();
        // First, so that no new transaction begins with them; then whoever is in the middle of one ends it: the group
        // waits for us meanwhile, unless we are out of it already, when the broker refuses the transaction.
        self.change(|assigned| assigned.retain(|partition| !partitions.contains(partition)));
        let _held = lock(&self.transaction);
        if let Err(error) = consumer.incremental_unassign(list) {
            tracing::warn!(%error, "cannot let go of the partitions that the group takes");
        }
        tracing::info!(?partitions, lost, "partitions revoked");
    }
}

impl Context {
    fn change(&self, how: impl FnOnce(&mut BTreeSet<i32>)) {
        self.assignment.send_if_modified(|assignment| {
            let before = assignment.partitions.clone();
            how(&mut assignment.partitions);
            // A rebalance that leaves us what we had is none: what is under way goes on.
            let changed = assignment.version == 0 || assignment.partitions != before;
            assignment.version += u64::from(changed);
            changed
        });
    }

    /// The client is of no use any more: nothing is ours, and nothing will be.
    fn fatal(&self, error: KafkaError) {
        *lock(&self.fatal) = Some(error);
        self.change(BTreeSet::clear);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Membership {
    /// Joins the group of `role` on one topic.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for properties that are wrong.
    pub fn join(kafka: &Kafka, role: &str, topic: &str) -> Result<Self> {
        let context = Context {
            assignment: watch::Sender::default(),
            transaction: Mutex::default(),
            failure: Mutex::default(),
            fatal: Mutex::default(),
        };
        let instance = kafka.config().instance.as_ref().map(|name| format!("{}-{name}", kafka.group(role)));
        // Partitions that are added to the topic are noticed with its metadata.
        let mut more = vec![("queued.min.messages", "1")];
        if !kafka.config().client.contains_key(REFRESH) {
            more.push((REFRESH, "30000"));
        }
        if let Some(instance) = &instance {
            more.push(("group.instance.id", instance));
        }
        let consumer = Arc::new(kafka.consumer(role, &more, context)?);
        consumer.subscribe(&[topic]).map_err(|e| failed("cannot join the consumer group", e))?;

        let stop = Arc::new(AtomicBool::new(false));
        let (polled, stopped) = (Arc::clone(&consumer), Arc::clone(&stop));
        let serve = move || {
            while !stopped.load(Ordering::Relaxed) {
                match polled.poll(POLL) {
                    // A record that was fetched before the pause took hold: whoever reads this partition reads it too.
                    None | Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => {}
                    Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                        tracing::error!(%error, "kafka group member was put out of its group");
                        polled.context().fatal(error);
                        return;
                    }
                    Some(Err(error)) => {
                        trouble(&error, "group member");
                        *lock(&polled.context().failure) = Some(error);
                    }
                }
            }
        };
        let name = format!("kafka-{role}");
        let thread = std::thread::Builder::new().name(name).spawn(serve).map_err(|e| {
            Error::new(ErrorKind::Exhausted, "cannot start the thread of a kafka group member").source(e)
        })?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { inner: Arc::new(Inner { topic: topic.to_owned(), consumer, stop, thread }) })
    }

    /// Follows the partitions that are ours.
    pub fn assignment(&self) -> watch::Receiver<Assignment> {
        self.inner.consumer.context().assignment.subscribe()
    }

    /// Waits until the group has given us partitions. A group with more members than partitions has none for some: what it
    /// has said by the end of `patience` is what is so. (A member that joins is told first that nothing is its own, and one
    /// rebalance later what is.)
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if this process was put out of its group by another of the same name;
    /// [`ErrorKind::Unavailable`] if the group has said nothing at all; the cause is the last that the client told.
    pub async fn joined(&self, patience: Duration) -> Result<Assignment> {
        let mut assignment = self.assignment();
        let given = assignment.wait_for(|found| !found.partitions.is_empty());
        let _ = tokio::time::timeout(patience, given).await;
        let context = self.inner.consumer.context();
        if let Some(cause) = lock(&context.fatal).clone() {
            let error = Error::new(ErrorKind::InvalidConfig, "this process was put out of its consumer group");
            return Err(error.source(cause).help("does another process use the same kafka.instance?"));
        }
        let found = assignment.borrow().clone();
        if found.version > 0 {
            return Ok(found);
        }
        let failure = lock(&context.failure).take();
        let kind = failure.as_ref().and_then(KafkaError::rdkafka_error_code).map_or(ErrorKind::Unavailable, kind);
        let error = Error::new(kind, "consumer group has given us no partitions yet").with("topic", &self.inner.topic);
        Err(match failure {
            Some(cause) => error.source(cause),
            None => error,
        })
    }

    /// What a transaction must be bound to, so that the broker refuses it once another owns its partitions.
    pub(super) fn group_metadata(&self) -> Result<ConsumerGroupMetadata> {
        let none = || Error::new(ErrorKind::Conflict, "this process is no member of its consumer group");
        self.inner.consumer.group_metadata().ok_or_else(none)
    }

    /// Keeps the partitions from being handed over while it is held.
    pub(super) fn hold(&self) -> MutexGuard<'_, ()> {
        lock(&self.inner.consumer.context().transaction)
    }

    /// The offsets that the group has committed, with their metadata. Waits for transactions of others to end. Blocks.
    ///
    /// # Errors
    /// Those of the cluster.
    pub(super) fn committed(&self, partitions: &BTreeSet<i32>) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.inner.topic, partition);
        }
        self.inner.consumer.committed_offsets(list, PATIENCE).map_err(|e| failed("cannot read the group's offsets", e))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}
