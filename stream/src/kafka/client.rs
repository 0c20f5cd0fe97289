//! Connections: what every consumer and producer here has in common, and what must not be configured otherwise.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::Partition;

use super::describe::{Topic, describe};
use super::failure::{failed, is_secret};
use super::logging::Logged;
use crate::durable::blocking;

/// How long one question to the broker may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long the question for a group's offsets may take: the broker answers it once the transactions that a dead process
/// left open have timed out, for which it looks every ten seconds.
pub(super) const OFFSETS_PATIENCE: Duration = Duration::from_secs(30);

/// Where a stream begins that never began before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With the oldest event that the topic still holds.
    Earliest,
    /// With what comes next.
    Latest,
    /// With the first event of this time or later.
    Time(Timestamp),
}

/// The names of our topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicNames {
    /// Posts as they come.
    pub raw: String,
    /// Scored posts.
    pub scored: String,
    /// Scored posts again, as JSON, if somebody wants them so.
    pub scored_json: Option<String>,
    /// Dead letters.
    pub dead: String,
}

impl Default for TopicNames {
    fn default() -> Self {
        Self {
            raw: "posts.raw".to_owned(),
            scored: "posts.scored".to_owned(),
            scored_json: None,
            dead: "posts.dead".to_owned(),
        }
    }
}

/// How to reach a cluster, and as whom.
#[derive(Clone)]
pub struct KafkaConfig {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// What the names of our consumer groups and transactional ids begin with.
    pub group: String,
    /// This process's name among its group, if it has one that is stable over restarts.
    pub instance: Option<String>,
    /// Where to begin, once.
    pub start: StartAt,
    /// The topics.
    pub topics: TopicNames,
    /// The most bytes of a batch of records that is written; see [`super::TopicSettings::batch_bytes`].
    pub batch_bytes: usize,
    /// Properties of librdkafka, as its CONFIGURATION.md names them: TLS, SASL, tuning.
    pub client: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(key, value): (&String, &String)| {
            (key.clone(), if is_secret(key) { "(not shown)".to_owned() } else { value.clone() })
        };
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("instance", &self.instance)
            .field("start", &self.start)
            .field("topics", &self.topics)
            .field("client", &self.client.iter().map(shown).collect::<BTreeMap<_, _>>())
            .finish()
    }
}

/// Properties on which the promise of the stream rests: setting them otherwise is refused.
const OURS: [&str; 16] = [
    "bootstrap.servers",
    "group.id",
    "group.instance.id",
    "transactional.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "enable.idempotence",
    "acks",
    "partition.assignment.strategy",
    "transaction.timeout.ms",
    "message.max.bytes",
    "batch.size",
    "queue.buffering.max.messages",
    "queued.max.messages.kbytes",
];

impl KafkaConfig {
    /// Checks what can be checked without a broker.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the property.
    pub fn validate(&self) -> Result<()> {
        match self.client.keys().find(|key| OURS.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(Error::new(ErrorKind::InvalidConfig, "kafka client property is not free")
                .with("property", key)
                .help("leave it out: the guarantees of the stream rest on the value that is set for it")),
        }
    }

    /// The group in which processes of one role share partitions.
    pub fn group(&self, role: &str) -> String {
        format!("{}-{role}", self.group)
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", &self.group);
        for (key, value) in &self.client {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }
}

/// Our topics, looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Posts as they come.
    pub raw: Topic,
    /// Scored posts.
    pub scored: Topic,
    /// Scored posts again, as JSON, if somebody wants them so.
    pub scored_json: Option<Topic>,
    /// Dead letters.
    pub dead: Topic,
}

impl Topics {
    /// Looks them up.
    ///
    /// # Errors
    /// As [`Kafka::topic`].
    pub async fn find(kafka: &Kafka) -> Result<Self> {
        let kafka = kafka.clone();
        let find = move || {
            let names = &kafka.config().topics;
            let (raw, scored, dead) =
                (kafka.topic(&names.raw)?, kafka.topic(&names.scored)?, kafka.topic(&names.dead)?);
            let scored_json = names.scored_json.as_ref().map(|name| kafka.topic(name)).transpose()?;
            Ok(Self { raw, scored, scored_json, dead })
        };
        blocking(find).await
    }
}

/// A cluster that was reached. Cheap to clone.
#[derive(Clone)]
pub struct Kafka {
    config: Arc<KafkaConfig>,
    cluster: Arc<str>,
    /// Asks and never reads, so that no question waits behind a long poll. It sees what is not committed, too: the end of
    /// a partition is behind the last open transaction, not before the first.
    asking: Arc<BaseConsumer<Logged>>,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("config", &self.config).field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Kafka {
    /// As [`Kafka::connect`], on a thread that may block.
    ///
    /// # Errors
    /// As [`Kafka::connect`].
    pub async fn reach(config: KafkaConfig) -> Result<Self> {
        blocking(move || Self::connect(config)).await
    }

    /// Connects, and asks the cluster who it is. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for properties that are wrong; [`ErrorKind::Unavailable`] if no broker answers.
    pub fn connect(config: KafkaConfig) -> Result<Self> {
        config.validate()?;
        let asking = consumer(&config, "check", &[("isolation.level", "read_uncommitted")], Logged)?;
        let named = |error: Error| error.with("brokers", &config.brokers);
        // The metadata's error says what is wrong; the id alone would be absent.
        asking.fetch_metadata(None, PATIENCE).map_err(|e| named(failed("cannot reach the kafka cluster", e)))?;
        let no_id = || named(Error::new(ErrorKind::Unsupported, "kafka cluster does not say its id"));
        let cluster = asking.client().fetch_cluster_id(PATIENCE).ok_or_else(no_id)?;
        Ok(Self { cluster: Arc::from(cluster), asking: Arc::new(asking), config: Arc::new(config) })
    }

    /// How it was reached.
    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// The cluster's id.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Looks a topic up. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Unavailable`] if no broker answers.
    pub fn topic(&self, name: &str) -> Result<Topic> {
        describe(self.asking.client(), name, PATIENCE).map_err(|error| self.named(error).with("topic", name))
    }

    /// Fails if the topic is not the one that it was when it was looked up. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it was deleted and made again; as [`Kafka::topic`].
    pub fn is_same(&self, topic: &Topic) -> Result<()> {
        let now = self.topic(&topic.name)?;
        if now.id == topic.id {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Corrupt, "topic was deleted and made again").with("topic", &topic.name);
        Err(error
            .help("what the old one held is gone, and the events of the new one are others: `undertone accept-gap`"))
    }

    /// The first and the next offset of a partition, open transactions included. Blocks.
    ///
    /// # Errors
    /// Those of the cluster.
    pub(super) fn bounds(&self, topic: &Topic, partition: i32) -> Result<(i64, i64)> {
        let asked = self.asking.fetch_watermarks(&topic.name, partition, PATIENCE);
        asked.map_err(|e| failed("cannot read where a partition begins and ends", e).with("partition", partition))
    }

    /// A partition of a topic as positions name it.
    pub fn partition(&self, topic: &Topic, partition: i32) -> Partition {
        Partition { cluster: self.cluster.to_string(), topic: topic.id.clone(), partition }
    }

    /// The group in which processes of one role share partitions.
    pub fn group(&self, role: &str) -> String {
        self.config.group(role)
    }

    /// A consumer of a role's group that never commits by itself and never jumps.
    pub(super) fn consumer<C: ConsumerContext>(
        &self,
        role: &str,
        more: &[(&str, &str)],
        context: C,
    ) -> Result<BaseConsumer<C>> {
        consumer(&self.config, role, more, context)
    }

    /// What a producer starts from.
    pub(super) fn producer_config(&self) -> ClientConfig {
        let mut config = self.config.base();
        config.set("enable.idempotence", "true").set("acks", "all");
        config
    }

    /// What an admin client starts from.
    pub(super) fn admin_config(&self) -> ClientConfig {
        self.config.base()
    }

    pub(super) fn named(&self, error: Error) -> Error {
        error.with("brokers", &self.config.brokers)
    }
}

fn consumer<C: ConsumerContext>(
    config: &KafkaConfig,
    role: &str,
    more: &[(&str, &str)],
    context: C,
) -> Result<BaseConsumer<C>> {
    let mut client = config.base();
    client
        .set("group.id", config.group(role))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("partition.assignment.strategy", "cooperative-sticky");
    for (key, value) in more {
        client.set(*key, *value);
    }
    BaseConsumer::from_config_and_context(&client, context).map_err(|e| failed("cannot make a kafka consumer", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::TopicSettings;

    fn config(client: &[(&str, &str)]) -> KafkaConfig {
        KafkaConfig {
            brokers: "127.0.0.1:1".to_owned(),
            group: "undertone".to_owned(),
            instance: None,
            start: StartAt::Earliest,
            topics: TopicNames::default(),
            batch_bytes: TopicSettings::default().batch_bytes(),
            client: client.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn properties_that_the_promise_rests_on_are_refused_by_name() {
        for key in OURS {
            let error = config(&[(key, "x")]).validate().expect_err(key);
            assert!(error.to_string().contains(key), "{error}");
        }
        config(&[("security.protocol", "ssl")]).validate().expect("free");
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = config(&[("sasl.username", "ann"), ("sasl.password", "hunter2")]);
        let shown = format!("{config:?}");
        assert!(shown.contains("ann") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_property_that_does_not_exist_is_named() {
        let error = Kafka::connect(config(&[("no.such.property", "1")])).expect_err("no such property");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("no.such.property"), "{error}");
    }
}
