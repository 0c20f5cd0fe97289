//! One record of `posts.raw`: the bytes, and where they stand.

use jiff::Timestamp;

use crate::v1::Origin;

/// Microseconds since 1970-01-01T00:00:00Z.
pub type EventTime = i64;

/// The time as a timestamp, which prints as RFC 3339. Times beyond what that can write come from no clock; they become the
/// nearest that it can.
pub fn timestamp(us: EventTime) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or(if us < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// One partition of one topic of one cluster: what a position is a position in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// Kafka's cluster id, or the id of an embedded data folder.
    pub cluster: String,
    /// The topic's id. A topic that is deleted and made again has another.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

impl Partition {
    /// The origin of the event at `offset` of this partition.
    pub fn origin(&self, offset: i64) -> Origin {
        Origin { cluster: self.cluster.clone(), topic: self.topic.clone(), partition: self.partition, offset }
    }
}

/// One record of `posts.raw`, byte for byte as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it stands.
    pub origin: Origin,
    /// The bytes as they came: JSON if the sender did right, anything at all otherwise.
    pub payload: Vec<u8>,
    /// When it was made durable here (Kafka's timestamp), in microseconds.
    pub ingested_at_us: EventTime,
    /// What its record carried beside them.
    pub envelope: Envelope,
}

/// Headers of a record, in order; names may repeat, and a value may be absent.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// What a record of Kafka carries beside its bytes; events from elsewhere carry nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The headers.
    pub headers: Headers,
}
