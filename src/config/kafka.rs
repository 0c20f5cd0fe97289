//! The section `[kafka]`, validated.

use std::time::Duration;

use jiff::Timestamp;
use undertone_error::{Error, Result};
use undertone_stream::kafka::{KafkaConfig, StartAt, TopicNames, TopicSettings};

use super::layers::Origins;
use super::{raw, wrong};

/// How to reach the cluster, and what its topics should be like.
#[derive(Clone, Debug)]
pub(crate) struct KafkaSettings {
    pub(crate) client: KafkaConfig,
    pub(crate) topics: TopicSettings,
}

/// `None` if no brokers are named: the stream is the embedded one then.
///
/// # Errors
/// [`undertone_error::ErrorKind::InvalidConfig`], naming the key.
pub(super) fn settings(raw: raw::Kafka, origins: &Origins) -> Result<Option<KafkaSettings>> {
    let Some(brokers) = raw.brokers else { return Ok(None) };
    let fail = |key: &str, value: &dyn std::fmt::Display, help: &str| wrong(origins, key, value, help);
    if brokers.trim().is_empty() {
        return Err(fail("kafka.brokers", &"", "write host:port, several parted by commas; or leave it out"));
    }
    named("kafka.group", &raw.group, origins)?;
    if let Some(instance) = &raw.instance {
        named("kafka.instance", instance, origins)?;
    }
    let start =
        match raw.start.as_str() {
            "earliest" => StartAt::Earliest,
            "latest" => StartAt::Latest,
            time => StartAt::Time(time.parse::<Timestamp>().map_err(|_| {
                fail("kafka.start", &time, "write earliest, latest, or a time like 2026-05-01T00:00:00Z")
            })?),
        };
    let topics = raw.topics;
    let mut names = vec![("raw", &topics.raw), ("scored", &topics.scored), ("dead", &topics.dead)];
    names.extend(topics.scored_json.as_ref().map(|name| ("scored_json", name)));
    for (number, (key, name)) in names.iter().enumerate() {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 249 || !name.chars().all(allowed) {
            return Err(fail(&format!("kafka.topics.{key}"), name, "letters, digits, '.', '_' and '-', at most 249"));
        }
        if names.iter().take(number).any(|(_, other)| other == name) {
            return Err(fail(&format!("kafka.topics.{key}"), name, "each topic must have a name of its own"));
        }
    }
    if topics.partitions < 1 {
        return Err(fail("kafka.topics.partitions", &topics.partitions, "at least 1; 6 is the default"));
    }
    if !(1024..=32 << 20).contains(&topics.max_event_bytes) {
        return Err(fail("kafka.topics.max_event_bytes", &topics.max_event_bytes, "from 1024 to 33554432"));
    }
    if let Some(copies) = topics.replication.filter(|copies| *copies < 1) {
        return Err(fail("kafka.topics.replication", &copies, "at least 1; left out: as the broker is set"));
    }
    let retention = Duration::try_from(topics.retention)
        .map_err(|_| fail("kafka.topics.retention", &topics.retention, "a duration like 168h; 0s keeps for ever"))?;

    let settings = TopicSettings {
        partitions: topics.partitions,
        replication: topics.replication,
        retention: (!retention.is_zero()).then_some(retention),
        max_event_bytes: topics.max_event_bytes,
    };
    let client = KafkaConfig {
        brokers,
        group: raw.group,
        instance: raw.instance,
        start,
        topics: TopicNames {
            raw: topics.raw,
            scored: topics.scored,
            scored_json: topics.scored_json,
            dead: topics.dead,
        },
        batch_bytes: settings.batch_bytes(),
        client: raw.client.into_iter().map(|(key, value)| (key, value.into_word())).collect(),
    };
    client.validate().map_err(|error| error.with("from", origins.of("kafka.client")))?;
    Ok(Some(KafkaSettings { client, topics: settings }))
}

fn named(key: &str, value: &str, origins: &Origins) -> Result<(), Error> {
    if !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return Ok(());
    }
    Err(wrong(origins, key, &value, "letters, digits, '.', '_' and '-', at least one"))
}
