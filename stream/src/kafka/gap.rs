//! What a person accepts as lost: the group's offsets are moved past it, and a dead letter says so.
//!
//! The guarantee: the broker moves the offsets of a group only while it has no member, so nobody is scoring; and before
//! anything is moved, a dead letter of the stage [`STAGE`] names what was given up. After a crash it may be there twice.

use std::time::Duration;

use prost::Message;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::DeadLetter;

use super::client::{Kafka, PATIENCE};
use super::describe::Topic;
use super::failure::failed;
use super::logging::Logged;
use super::reader::Offsets;
use super::start::{Committed, commit, committed};
use crate::durable::blocking;

/// The stage of a dead letter that stands for offsets that were given up, and not for one event.
pub const STAGE: &str = "gap";

/// How long a dead letter may take.
const DELIVERY: Duration = Duration::from_secs(20);

impl Kafka {
    /// The offsets that the group of a role has committed on a topic; partitions without one are absent.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn group_offsets(&self, role: &'static str, topic: &Topic) -> Result<Offsets> {
        let (kafka, topic) = (self.clone(), topic.clone());
        blocking(move || committed(&kafka.consumer(role, &[], Logged)?, &topic)).await
    }

    /// Moves the offsets of a group that has no member.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it has one; those of the cluster.
    pub async fn move_group(&self, role: &'static str, topic: &Topic, to: Offsets) -> Result<()> {
        let (kafka, topic) = (self.clone(), topic.clone());
        let work = move || {
            if to.is_empty() {
                return Ok(());
            }
            let mut list = TopicPartitionList::with_capacity(to.len());
            for (partition, offset) in to {
                list.add_partition_offset(&topic.name, partition, Offset::Offset(offset))
                    .map_err(|e| failed("offset cannot be written down", e))?;
            }
            match commit(&kafka.consumer(role, &[], Logged)?, &list)? {
                Committed::Done => Ok(()),
                Committed::HasMember => {
                    let error = Error::new(ErrorKind::Conflict, "consumer group has a member");
                    let error = error.with("group", kafka.group(role));
                    Err(error
                        .help(format!("stop every process of the role {role} first, and wait for its session to end")))
                }
            }
        };
        blocking(work).await
    }

    /// Where partitions of a topic begin and end now.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn all_bounds(&self, topic: &Topic) -> Result<Vec<(i32, (i64, i64))>> {
        let (kafka, topic, partitions) = (self.clone(), topic.clone(), 0..topic.partitions);
        let bounds = move |number| kafka.bounds(&topic, number).map(|bounds| (number, bounds));
        blocking(move || partitions.map(bounds).collect()).await
    }

    /// Writes dead letters and waits until they are durable.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn write_letters(&self, dead: &Topic, letters: Vec<DeadLetter>) -> Result<()> {
        let (kafka, dead) = (self.clone(), dead.clone());
        blocking(move || write(&kafka, &dead, &letters)).await
    }
}

/// Of a transaction of its own, because a delivery report says less than a commit: all of them are there, or none.
fn write(kafka: &Kafka, dead: &Topic, letters: &[DeadLetter]) -> Result<()> {
    let mut config = kafka.producer_config();
    config.set("transactional.id", format!("{}-gap", kafka.group("score")));
    let producer = BaseProducer::from_config_and_context(&config, Logged)
        .map_err(|e| failed("cannot make a kafka producer", e))?;
    let written = |error| failed("cannot write dead letters", error);
    producer.init_transactions(PATIENCE).map_err(written)?;
    producer.begin_transaction().map_err(written)?;
    for letter in letters {
        let (partition, name) = match &letter.origin {
            Some(origin) => (origin.partition, format!("{}-{}-{}", origin.topic, origin.partition, origin.offset)),
            None => (0, String::new()),
        };
        let payload = letter.encode_to_vec();
        let record = BaseRecord::<_, _>::to(&dead.name)
            .partition(partition.rem_euclid(dead.partitions.max(1)))
            .key(&name)
            .payload(&payload);
        producer.send(record).map_err(|(error, _)| written(error))?;
    }
    producer.commit_transaction(DELIVERY).map_err(written)
}
