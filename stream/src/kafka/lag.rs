//! Where a group stands, asked from outside it: for pages that show what other processes do.

use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use undertone_error::Result;

use super::client::{Kafka, PATIENCE};
use super::describe::Topic;
use super::failure::failed;
use super::logging::Logged;
use super::reader::Offsets;
use crate::durable::blocking;

/// The group of a role, seen by someone who is no member.
#[derive(Clone)]
pub struct GroupOffsets {
    consumer: Arc<BaseConsumer<Logged>>,
    topic: Topic,
}

impl std::fmt::Debug for GroupOffsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupOffsets").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl GroupOffsets {
    /// Those of `role` on a topic.
    ///
    /// # Errors
    /// [`undertone_error::ErrorKind::InvalidConfig`] for properties that are wrong.
    pub fn new(kafka: &Kafka, role: &str, topic: &Topic) -> Result<Self> {
        // What is committed already is enough: nobody goes on from it.
        let consumer = kafka.consumer(role, &[("isolation.level", "read_uncommitted")], Logged)?;
        Ok(Self { consumer: Arc::new(consumer), topic: topic.clone() })
    }

    /// The next offset of each partition; one that has none is absent.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn committed(&self) -> Result<Offsets> {
        let (consumer, topic) = (Arc::clone(&self.consumer), self.topic.clone());
        blocking(move || {
            let mut all = TopicPartitionList::new();
            all.add_partition_range(&topic.name, 0, topic.partitions - 1);
            let found = consumer.committed_offsets(all, PATIENCE);
            let found = found.map_err(|e| failed("cannot read the group's offsets", e))?;
            let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            };
            Ok(found.elements().iter().filter_map(offset).collect())
        })
        .await
    }
}
