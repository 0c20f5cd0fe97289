//! `bronze.posts`: every event once, byte for byte, whether or not anybody can read it.

use iceberg::spec::Transform;
use undertone_proto::Event;

use crate::iceberg::columns::Fill;
use crate::iceberg::schema::{TableDefinition, optional, required};

/// `bronze.posts`
pub(in crate::iceberg) fn posts() -> TableDefinition<Event> {
    TableDefinition {
        namespace: "bronze",
        name: "posts",
        comment: "Every event as it came, malformed ones too. Unique by (cluster, topic, partition, offset)",
        columns: vec![
            required(
                "cluster",
                Fill::Text(|event| Some(&event.origin.cluster)),
                "Kafka cluster id, or the id of the embedded data folder",
            ),
            required(
                "topic",
                Fill::Text(|event| Some(&event.origin.topic)),
                "Id of the topic or input log the event came from",
            ),
            required("partition", Fill::Int(|event| event.origin.partition), "Partition of the topic"),
            required("offset", Fill::Long(|event| event.origin.offset), "Offset in the partition"),
            required("ingested_at", Fill::Time(|event| Some(event.ingested_at_us)), "When the event was made durable"),
            required(
                "payload",
                Fill::Bytes(|event| &event.payload),
                "The event's bytes as they came: JSON if the sender did right",
            ),
            optional("key", Fill::MaybeBytes(|event| event.envelope.key.as_deref()), "Key of the Kafka record"),
            optional(
                "headers",
                Fill::Headers(|event| &event.envelope.headers),
                "Headers of the Kafka record, in order; names may repeat. Null if there are none",
            ),
        ],
        partitioned_by: vec![("ingested_at_day", "ingested_at", Transform::Day)],
        sorted_by: &["topic", "partition", "offset"],
        order: |a, b| {
            let key = |event: &Event| (event.origin.partition, event.origin.offset);
            a.origin.topic.cmp(&b.origin.topic).then_with(|| key(a).cmp(&key(b)))
        },
    }
}
