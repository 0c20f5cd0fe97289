//! Where a stream begins that never began before.
//!
//! The guarantee: the configured start is used once. It is written down as the group's offsets, of all partitions in one
//! request, before anything is read; the broker refuses that request while the group has a member. A partition without an
//! offset is from then on one that appeared later, and begins at 0.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use undertone_error::{Error, ErrorKind, Result, failpoint};

use super::client::{Kafka, Logged, PATIENCE, StartAt};
use super::describe::Topic;
use super::failure::failed;

/// Whoever decided longer ago than this may have been asleep, and looks again.
const FRESH: Duration = Duration::from_secs(3);

/// Writes the start of `role` on a topic down, unless the group has offsets already. Blocks.
///
/// # Errors
/// Those of the cluster.
pub fn pin_start(kafka: &Kafka, role: &str, topic: &Topic) -> Result<()> {
    let consumer = kafka.consumer(role, &[], Logged)?;
    loop {
        let looked = Instant::now();
        let mut all = TopicPartitionList::with_capacity(usize::try_from(topic.partitions).unwrap_or(0));
        all.add_partition_range(&topic.name, 0, topic.partitions - 1);
        let committed =
            consumer.committed_offsets(all, PATIENCE).map_err(|e| failed("cannot read the group's offsets", e))?;
        if committed.elements().iter().any(|element| matches!(element.offset(), Offset::Offset(_))) {
            return Ok(());
        }
        let starts = starts(kafka.config().start, topic, &consumer)?;
        if looked.elapsed() > FRESH {
            continue;
        }
        failpoint::hit("start.before-pin");
        match consumer.commit(&starts, CommitMode::Sync) {
            Ok(()) => {
                failpoint::hit("start.after-pin");
                let offsets: Vec<_> =
                    starts.elements().iter().filter_map(|element| element.offset().to_raw()).collect();
                tracing::info!(group = kafka.group(role), topic = topic.name, ?offsets, "stream begins");
                return Ok(());
            }
            // The group has a member by now, which has been here before us.
            Err(e)
                if matches!(
                    e.rdkafka_error_code(),
                    Some(
                        RDKafkaErrorCode::UnknownMemberId
                            | RDKafkaErrorCode::IllegalGeneration
                            | RDKafkaErrorCode::RebalanceInProgress
                    )
                ) =>
            {
                return Ok(());
            }
            Err(e) => return Err(failed("cannot write down where the stream begins", e)),
        }
    }
}

fn starts(start: StartAt, topic: &Topic, consumer: &BaseConsumer<Logged>) -> Result<TopicPartitionList> {
    let partitions: BTreeSet<i32> = (0..topic.partitions).collect();
    let mut starts = TopicPartitionList::with_capacity(partitions.len());
    let timed = match start {
        StartAt::Time(time) => Some(at_time(time.as_millisecond(), topic, consumer)?),
        StartAt::Earliest | StartAt::Latest => None,
    };
    for partition in partitions {
        let (low, high) = consumer
            .fetch_watermarks(&topic.name, partition, PATIENCE)
            .map_err(|e| failed("cannot read where a partition begins and ends", e))?;
        let found = match timed.as_ref().and_then(|list| list.find_partition(&topic.name, partition)) {
            Some(element) => {
                element.error().map_err(|e| failed("cannot look up the offset of a time", e))?;
                element.offset().to_raw()
            }
            None => None,
        };
        let offset = match start {
            StartAt::Earliest => low,
            StartAt::Latest => high,
            // Nothing is as late as that: begin with what comes next.
            StartAt::Time(_) => found.filter(|offset| *offset >= 0).unwrap_or(high),
        };
        starts
            .add_partition_offset(&topic.name, partition, Offset::Offset(offset))
            .map_err(|e| failed("offset cannot be written down", e))?;
    }
    if starts.count() == 0 {
        return Err(Error::new(ErrorKind::NotFound, "topic has no partitions").with("topic", &topic.name));
    }
    Ok(starts)
}

fn at_time(ms: i64, topic: &Topic, consumer: &BaseConsumer<Logged>) -> Result<TopicPartitionList> {
    let mut times = TopicPartitionList::new();
    for partition in 0..topic.partitions {
        times
            .add_partition_offset(&topic.name, partition, Offset::Offset(ms))
            .map_err(|e| failed("time cannot be looked up", e))?;
    }
    consumer.offsets_for_times(times, PATIENCE).map_err(|e| failed("cannot look up the offsets of a time", e))
}
