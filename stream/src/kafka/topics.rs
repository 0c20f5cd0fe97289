//! Our topics: made if they are absent, and compared with what the promise needs if they are there.
//!
//! Nothing that exists is ever altered: a topic that differs is reported, and left as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;
use undertone_error::{Error, ErrorKind, Result};

use super::client::{Kafka, PATIENCE};
use super::failure::{failed, kind};
use super::logging::Logged;
use crate::score::RecordLimit;

/// What is between an event and what is written about it: scores, embedding, reason, and what follows.
const OVERHEAD_BYTES: i64 = 256 << 10;
/// What a record has beside its value: key, headers, and the frame of its batch.
const FRAME_BYTES: i64 = 64 << 10;
/// Shorter than this, a weekend loses posts.
const WEEKEND: Duration = Duration::from_secs(3 * 24 * 3600);

/// How topics are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Partitions of each.
    pub partitions: i32,
    /// Copies of each partition; `None` leaves it to the broker.
    pub replication: Option<i32>,
    /// How long records are kept; `None` for ever.
    pub retention: Option<Duration>,
    /// The largest event, in bytes.
    pub max_event_bytes: i64,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            partitions: 6,
            replication: None,
            retention: Some(Duration::from_secs(7 * 24 * 3600)),
            max_event_bytes: 1 << 20,
        }
    }
}

impl TopicSettings {
    /// How large the value of a scored post or of a dead letter may be, and of its JSON if that is written too.
    pub fn record_limit(&self, json: bool) -> RecordLimit {
        let bytes = self.max_event_bytes + OVERHEAD_BYTES - FRAME_BYTES;
        RecordLimit { bytes: usize::try_from(bytes).unwrap_or(0).max(RecordLimit::LEAST), json }
    }

    /// How large a batch of our records may be: no larger than one record, which the topics take, nor than what a broker
    /// takes that nobody told.
    pub fn batch_bytes(&self) -> usize {
        self.record_limit(false).bytes.min(900_000)
    }

    /// The most bytes of an event's payload that a dead letter holds.
    pub fn dead_payload_bytes(&self) -> usize {
        usize::try_from(self.max_event_bytes).unwrap_or(0)
    }
}

/// Whose clock a topic's records have,
const TIMESTAMPS: &str = "message.timestamp.type";
/// and the broker's.
const BROKERS_CLOCK: &str = "LogAppendTime";

/// One topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    partitions: i32,
    replication: Option<i32>,
    config: BTreeMap<&'static str, String>,
    /// What else it is made with: a key, a value, and what is so where it is another's topic that has another value.
    preferred: Option<(&'static str, &'static str, &'static str)>,
}

/// One topic as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    partitions: i32,
    replication: i32,
    config: BTreeMap<String, String>,
}

/// What was seen of the topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicsReport {
    /// Made just now.
    pub made: Vec<String>,
    /// There already.
    pub there: Vec<String>,
    /// Not there, and not made.
    pub missing: Vec<String>,
    /// What differs from the configuration: nothing was altered.
    pub differences: Vec<String>,
    /// What could break the promise.
    pub warnings: Vec<String>,
}

fn wanted(kafka: &Kafka, settings: &TopicSettings) -> Vec<Wanted> {
    let names = &kafka.config().topics;
    let topic = |name: &String, max_bytes: i64| Wanted {
        name: name.clone(),
        partitions: settings.partitions,
        replication: settings.replication,
        config: BTreeMap::from([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", settings.retention.map_or_else(|| "-1".to_owned(), |kept| kept.as_millis().to_string())),
            ("max.message.bytes", max_bytes.to_string()),
        ]),
        preferred: None,
    };
    // The broker's clock says how long an outcome is kept: that of a process that scores may be wrong, by so much that the broker
    // would refuse its outcomes, or drop them before anybody has read them.
    let outcomes = |name: &String| {
        let mut wanted = topic(name, settings.max_event_bytes + OVERHEAD_BYTES);
        wanted.config.insert(TIMESTAMPS, BROKERS_CLOCK.to_owned());
        wanted
    };
    // It says when a post arrived, too, which its version and whether it is late depend on.
    let arrival = "has its producers' clocks: they say when a post arrived, and so which posts are late";
    let raw = topic(&names.raw, settings.max_event_bytes);
    let raw = Wanted { preferred: Some((TIMESTAMPS, BROKERS_CLOCK, arrival)), ..raw };
    let mut wanted = vec![raw, outcomes(&names.scored), outcomes(&names.dead)];
    wanted.extend(names.scored_json.as_ref().map(outcomes));
    wanted
}

/// What differs, and what could break the promise. Pure.
fn compare(wanted: &Wanted, found: &Found) -> (Vec<String>, Vec<String>) {
    let name = &wanted.name;
    let mut differences = Vec::new();
    if found.partitions != wanted.partitions {
        differences.push(format!("{name} has {} partitions, not {}", found.partitions, wanted.partitions));
    }
    if let Some(copies) = wanted.replication.filter(|copies| *copies != found.replication) {
        differences.push(format!("{name} has {} copies of each partition, not {copies}", found.replication));
    }
    for (key, value) in &wanted.config {
        match found.config.get(*key) {
            Some(is) if is == value => {}
            Some(is) => differences.push(format!("{name} has {key}={is}, not {value}")),
            None => differences.push(format!("{name} does not say its {key}")),
        }
    }

    let mut warnings = Vec::new();
    if let Some((key, value, otherwise)) = wanted.preferred
        && found.config.get(key).is_some_and(|is| is != value)
    {
        warnings.push(format!("{name} {otherwise} ({key} is not {value})"));
    }
    let number = |key: &str| found.config.get(key).and_then(|value| value.parse::<i64>().ok());
    let in_sync = number("min.insync.replicas").unwrap_or(1);
    if found.replication < 2 {
        warnings.push(format!("{name} has one copy: if its broker's disk dies, so do its posts"));
    } else if in_sync < 2 {
        warnings.push(format!("{name} acknowledges with one copy in sync: a broker that dies may take posts with it"));
    }
    let retention = number("retention.ms").filter(|ms| *ms >= 0);
    if retention.is_some_and(|ms| u128::from(ms.unsigned_abs()) < WEEKEND.as_millis()) {
        warnings.push(format!("{name} forgets within three days: a sink that is down over a weekend loses posts"));
    }
    if number("retention.bytes").is_some_and(|bytes| bytes >= 0) {
        warnings.push(format!("{name} forgets by size: a burst of posts may push out what no sink has stored yet"));
    }
    if found.config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        warnings.push(format!("{name} is compacted: earlier versions of a post vanish before they are stored"));
    }
    (differences, warnings)
}

/// Makes the topics that are absent, and compares the others.
///
/// # Errors
/// Those of the cluster. A difference is no error.
pub async fn ensure_topics(kafka: &Kafka, settings: &TopicSettings) -> Result<TopicsReport> {
    let admin = admin(kafka)?;
    let mut report = TopicsReport::default();
    for topic in wanted(kafka, settings) {
        if look(kafka, &admin, &topic, &mut report).await? {
            report.there.push(topic.name);
        } else {
            make(&admin, &topic).await?;
            report.made.push(topic.name);
        }
    }
    Ok(report)
}

/// Compares the topics and makes none.
///
/// # Errors
/// Those of the cluster. A difference is no error.
pub async fn inspect_topics(kafka: &Kafka, settings: &TopicSettings) -> Result<TopicsReport> {
    let admin = admin(kafka)?;
    let mut report = TopicsReport::default();
    for topic in wanted(kafka, settings) {
        let there = look(kafka, &admin, &topic, &mut report).await?;
        if there { report.there.push(topic.name) } else { report.missing.push(topic.name) }
    }
    Ok(report)
}

fn admin(kafka: &Kafka) -> Result<AdminClient<Logged>> {
    AdminClient::from_config_and_context(&kafka.admin_config(), Logged)
        .map_err(|e| failed("cannot make a kafka admin client", e))
}

/// Compares a topic if it is there; answers whether it is.
async fn look(kafka: &Kafka, admin: &AdminClient<Logged>, topic: &Wanted, report: &mut TopicsReport) -> Result<bool> {
    let Some((partitions, replication)) = shape(kafka, admin, &topic.name).await? else { return Ok(false) };
    let config = describe_config(admin, &topic.name).await?;
    let (differences, warnings) = compare(topic, &Found { partitions, replication, config });
    report.differences.extend(differences);
    report.warnings.extend(warnings);
    Ok(true)
}

/// Partitions and copies of a topic; `None` if there is none.
async fn shape(kafka: &Kafka, admin: &AdminClient<Logged>, name: &str) -> Result<Option<(i32, i32)>> {
    let (kafka, name) = (kafka.clone(), name.to_owned());
    let known = {
        let (kafka, name) = (kafka.clone(), name.clone());
        crate::durable::blocking(move || match kafka.topic(&name) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            other => other.map(|_| true),
        })
        .await?
    };
    if !known {
        return Ok(None);
    }
    let metadata = admin.inner().fetch_metadata(Some(&name), PATIENCE);
    let metadata = metadata.map_err(|e| kafka.named(failed("cannot read what the cluster knows of a topic", e)))?;
    let topic = metadata.topics().first().filter(|topic| topic.error().is_none());
    Ok(topic.map(|topic| {
        let copies = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        (i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX), i32::try_from(copies).unwrap_or(i32::MAX))
    }))
}

async fn describe_config(admin: &AdminClient<Logged>, name: &str) -> Result<BTreeMap<String, String>> {
    let described = admin.describe_configs([&ResourceSpecifier::Topic(name)], &options()).await;
    let described = described.map_err(|e| failed("cannot read the settings of a topic", e))?;
    let mut config = BTreeMap::new();
    for resource in described {
        let resource = resource.map_err(|code| refused("cannot read the settings of a topic", name, code))?;
        config.extend(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))));
    }
    Ok(config)
}

async fn make(admin: &AdminClient<Logged>, topic: &Wanted) -> Result<()> {
    let replication = TopicReplication::Fixed(topic.replication.unwrap_or(-1));
    let mut new = NewTopic::new(&topic.name, topic.partitions, replication);
    for (key, value) in &topic.config {
        new = new.set(key, value);
    }
    if let Some((key, value, _)) = topic.preferred {
        new = new.set(key, value);
    }
    let made = admin.create_topics([&new], &options()).await.map_err(|e| failed("cannot make a topic", e))?;
    for result in made {
        match result {
            // Somebody else was faster: what they made is compared at the next look.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(refused("cannot make a topic", &name, code)),
        }
    }
    Ok(())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

fn refused(doing: &'static str, topic: &str, code: RDKafkaErrorCode) -> Error {
    Error::new(kind(code), doing).with("topic", topic).source(code.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Wanted {
        Wanted {
            name: "posts.raw".to_owned(),
            partitions: 6,
            replication: Some(3),
            config: BTreeMap::from([("retention.ms", "604800000".to_owned())]),
            preferred: Some((TIMESTAMPS, BROKERS_CLOCK, "has other clocks")),
        }
    }

    fn found(replication: i32, config: &[(&str, &str)]) -> Found {
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Found { partitions: 6, replication, config }
    }

    #[test]
    fn what_is_as_it_should_be_is_not_mentioned() {
        let found = found(3, &[("retention.ms", "604800000"), ("min.insync.replicas", "2"), ("retention.bytes", "-1")]);
        assert_eq!(compare(&ours(), &found), (vec![], vec![]));
    }

    #[test]
    fn differences_are_told_and_what_could_lose_posts_is_warned_of() {
        type Config = &'static [(&'static str, &'static str)];
        let cases: [(Config, i32, &str, &str); 6] = [
            (&[("message.timestamp.type", "CreateTime"), ("min.insync.replicas", "2")], 3, "", "has other clocks"),
            (&[("retention.ms", "604800000")], 1, "1 copies", "one copy"),
            (&[("retention.ms", "604800000"), ("min.insync.replicas", "1")], 3, "", "one copy in sync"),
            (&[("retention.ms", "3600000"), ("min.insync.replicas", "2")], 3, "retention.ms=3600000", "weekend"),
            (&[("retention.ms", "-1"), ("min.insync.replicas", "2"), ("retention.bytes", "1000")], 3, "=-1", "by size"),
            (&[("cleanup.policy", "compact"), ("min.insync.replicas", "2")], 3, "does not say", "compacted"),
        ];
        for (config, replication, difference, warning) in cases {
            let (differences, warnings) = compare(&ours(), &found(replication, config));
            assert!(differences.join("\n").contains(difference), "{differences:?}");
            assert!(warnings.join("\n").contains(warning), "{warnings:?}");
        }
    }
}
