//! Outcomes as records: which topic, which partition, and under which key.

use prost::Message;
use rdkafka::producer::{BaseProducer, BaseRecord};
use sha2::{Digest, Sha256};
use undertone_error::{Error, ErrorKind};
use undertone_proto::v1::{Origin, outcome};
use undertone_proto::{Headers, to_json};

use super::client::Topics;
use super::describe::Topic;
use super::logging::Logged;
use super::producer::{Failure, owned, send};
use super::score::KafkaOutcome;
use crate::source::hex;

/// Longer keys would make records larger than their topic takes.
const MAX_KEY_BYTES: usize = 1024;

/// Hands an outcome to the client, for the topics that `role` writes it to.
pub(super) fn produce(
    producer: &BaseProducer<Logged>,
    topics: &Topics,
    role: &str,
    outcome: &KafkaOutcome,
) -> Result<(), Failure> {
    let empty = || Failure::ours(Error::new(ErrorKind::Internal, "an outcome is empty"));
    let headers = &outcome.headers;
    match outcome.outcome.kind.as_ref().ok_or_else(empty)? {
        outcome::Kind::Scored(post) => {
            let (key, origin) = (key(&post.source, &post.id), post.origin.as_ref());
            if let Some(topic) = &topics.scored_json {
                let json = to_json(post).map_err(Failure::ours)?;
                send_outcome(producer, topic, origin, &key, &json.into_bytes(), headers)?;
            }
            send_outcome(producer, &topics.scored, origin, &key, &post.encode_to_vec(), headers)
        }
        outcome::Kind::Dead(letter) => {
            let origin = letter.origin.as_ref();
            let key = origin.map(letter_key).unwrap_or_default();
            // One event may be a dead letter of several sinks.
            let key = if role == "score" { key } else { [role.as_bytes(), b"/", &key].concat() };
            send_outcome(producer, &topics.dead, origin, &key, &letter.encode_to_vec(), headers)
        }
    }
}

/// Whether an outcome is a dead letter.
pub(super) fn is_dead(outcome: &KafkaOutcome) -> bool {
    matches!(outcome.outcome.kind, Some(outcome::Kind::Dead(_)))
}

/// Hands one record to the client.
fn send_outcome(
    producer: &BaseProducer<Logged>,
    topic: &Topic,
    origin: Option<&Origin>,
    key: &Vec<u8>,
    payload: &Vec<u8>,
    carried: &Headers,
) -> Result<(), Failure> {
    // The partition of the event's: what is in order there stays in order.
    let partition = origin.map_or(0, |origin| origin.partition).rem_euclid(topic.partitions.max(1));
    send(producer, BaseRecord::to(&topic.name).partition(partition).key(key).payload(payload).headers(owned(carried)))
}

/// The key of an event's dead letters.
pub(super) fn letter_key(origin: &Origin) -> Vec<u8> {
    format!("{}-{}-{}", origin.topic, origin.partition, origin.offset).into_bytes()
}

/// Source and id, as JSON, so that no two posts share a key; the hash of that where it is too long for one.
fn key(source: &str, id: &str) -> Vec<u8> {
    let key = serde_json::to_vec(&[source, id]).unwrap_or_default();
    if key.len() <= MAX_KEY_BYTES { key } else { hex(&Sha256::digest(&key)).into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_posts_differ() {
        assert_eq!(key("x", "7"), br#"["x","7"]"#);
        assert_ne!(key("a", "b/c"), key("a/b", "c"));
        let long = "i".repeat(600_000);
        assert_eq!(key("x", &long).len(), 64);
        assert_ne!(key("x", &long), key("y", &long));
    }
}
