//! What a configuration file may say, key by key, with the defaults.

mod stores;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::Deserialize;
use serde::de::IgnoredAny;
use undertone_gateway::Limits;

pub(super) use self::stores::{Catalog, ClickHouse, OAuth2, OpenSearch, Qdrant, S3, Storage};
use super::mapping::RawMapping;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) run: Run,
    pub(super) model: Model,
    pub(super) inference: Inference,
    pub(super) data: Data,
    pub(super) source: Source,
    pub(super) kafka: Kafka,
    pub(super) generator: Generator,
    pub(super) gateway: Gateway,
    pub(super) sinks: Sinks,
    pub(super) catalog: Catalog,
    pub(super) storage: Storage,
    pub(super) qdrant: Qdrant,
    pub(super) opensearch: OpenSearch,
    pub(super) clickhouse: ClickHouse,
    pub(super) telemetry: Telemetry,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Run {
    /// Left out: all, and of the stores those that are configured.
    pub(super) roles: Option<Vec<String>>,
    pub(super) once: bool,
    /// Where `/metrics`, `/livez` and `/readyz` are served too; left out: by the gateway alone.
    pub(super) metrics: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Telemetry {
    /// Where spans go; left out: nothing is traced.
    pub(super) otlp: Option<String>,
    /// Which part of the calls is traced that come without a trace of their own.
    pub(super) sample: f64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { otlp: None, sample: 1.0 }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Model {
    pub(super) dir: Option<String>,
    pub(super) labels: Option<ModelLabels>,
}

/// What a model's labels mean.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ModelLabels {
    /// The head whose labels these are; may be left out where the model has one.
    pub(super) head: Option<String>,
    pub(super) negative: Labels,
    pub(super) neutral: Labels,
    pub(super) positive: Labels,
}

/// One label or several. Numbers are labels too: stars are called 1 to 5, and a variable `=1` is read as a number.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "write a label, or a list of labels")]
pub(super) enum Labels {
    One(Label),
    Many(Vec<Label>),
}

impl Default for Labels {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Label {
    Word(String),
    Number(i64),
}

impl Labels {
    pub(super) fn into_words(self) -> Vec<String> {
        let labels = match self {
            Self::One(label) => vec![label],
            Self::Many(labels) => labels,
        };
        let word = |label| match label {
            Label::Word(word) => word,
            Label::Number(number) => number.to_string(),
        };
        labels.into_iter().map(word).collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Inference {
    pub(super) device: String,
    pub(super) precision: String,
    /// 0: one a core.
    pub(super) workers: usize,
    pub(super) token_budget: usize,
    pub(super) cuda_token_budget: usize,
    /// The folder with libtorch_cuda.so; left out: beside libtorch_cpu.so, or as UNDERTONE_LIBTORCH_CUDA says.
    pub(super) libtorch_cuda: Option<String>,
    /// The budget of batches with bulk texts in them while interactive texts come.
    pub(super) bulk_tokens: usize,
    pub(super) queue_tokens: usize,
    /// The memory of the repeat cache; 0 switches it off.
    pub(super) cache_bytes: usize,
    pub(super) detect_language: bool,
}

impl Default for Inference {
    fn default() -> Self {
        let engine = undertone_inference::EngineConfig::default();
        Self {
            device: "auto".to_owned(),
            precision: "auto".to_owned(),
            workers: engine.workers,
            token_budget: engine.token_budget,
            cuda_token_budget: engine.cuda_token_budget,
            libtorch_cuda: None,
            bulk_tokens: engine.bulk_tokens,
            queue_tokens: engine.queue_tokens,
            cache_bytes: engine.cache_bytes,
            detect_language: engine.detect_language,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Data {
    pub(super) dir: String,
}

impl Default for Data {
    fn default() -> Self {
        Self { dir: "data".to_owned() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Source {
    /// A file, "-" for standard input, or "http" for what callers send to the gateway; left out: the generator.
    pub(super) input: Option<String>,
    /// Where other people's JSON has the fields of a post.
    pub(super) mapping: Option<RawMapping>,
}

/// Posts from Kafka, and scores to it.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Kafka {
    /// `host:port,…`; left out: the embedded stream.
    pub(super) brokers: Option<String>,
    /// What the names of consumer groups and transactional ids begin with.
    pub(super) group: String,
    /// This process's name in its groups, if it is the same after a restart.
    pub(super) instance: Option<String>,
    /// "earliest", "latest" or a time; used once.
    pub(super) start: String,
    pub(super) topics: KafkaTopics,
    /// Properties of librdkafka.
    pub(super) client: BTreeMap<String, ClientValue>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: None,
            group: "undertone".to_owned(),
            instance: None,
            start: "earliest".to_owned(),
            topics: KafkaTopics::default(),
            client: BTreeMap::new(),
        }
    }
}

/// A value of a librdkafka property, however TOML or a variable writes it.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "write a string, a number, or true or false")]
pub(super) enum ClientValue {
    Word(String),
    Number(i64),
    Flag(bool),
}

impl ClientValue {
    pub(super) fn into_word(self) -> String {
        match self {
            Self::Word(word) => word,
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct KafkaTopics {
    pub(super) raw: String,
    pub(super) scored: String,
    /// A second topic of scored posts, as JSON, for other people's consumers.
    pub(super) scored_json: Option<String>,
    pub(super) dead: String,
    /// Partitions of each, when they are made.
    pub(super) partitions: i32,
    /// Copies of each; left out: as the broker is set.
    pub(super) replication: Option<i32>,
    /// How long records are kept.
    pub(super) retention: SignedDuration,
    pub(super) max_event_bytes: i64,
}

impl Default for KafkaTopics {
    fn default() -> Self {
        Self {
            raw: "posts.raw".to_owned(),
            scored: "posts.scored".to_owned(),
            scored_json: None,
            dead: "posts.dead".to_owned(),
            partitions: 6,
            replication: None,
            retention: SignedDuration::from_hours(7 * 24),
            max_event_bytes: 1 << 20,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Generator {
    pub(super) seed: u64,
    pub(super) rate: f64,
    pub(super) backfill: SignedDuration,
    pub(super) backfill_rate: f64,
    pub(super) count: Option<u64>,
}

impl Default for Generator {
    fn default() -> Self {
        // 20 posts a second leave a small machine room to answer; an hour at 1 a second is scored in half a minute.
        Self { seed: 1, rate: 20.0, backfill: SignedDuration::from_hours(1), backfill_rate: 1.0, count: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Gateway {
    pub(super) http: String,
    pub(super) grpc: String,
    pub(super) max_texts: usize,
    pub(super) max_text_bytes: usize,
    pub(super) max_body_bytes: usize,
    pub(super) max_head_bytes: usize,
    pub(super) max_connections: usize,
    pub(super) head_timeout: SignedDuration,
    pub(super) body_timeout: SignedDuration,
    pub(super) stall_timeout: SignedDuration,
    /// Listen on addresses that others reach, although everybody may call, or in the clear.
    pub(super) insecure_public: bool,
    /// Whose pages may read answers.
    pub(super) cors_origins: Vec<String>,
    /// Left out: everybody may call.
    pub(super) keys: BTreeMap<String, GatewayKey>,
    /// Left out: both doors speak in the clear.
    pub(super) tls: Option<GatewayTls>,
    pub(super) posts: GatewayPosts,
}

/// Posts that are sent here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GatewayPosts {
    /// The variable, or the file, with what senders must sign with; left out: they need a key, if there are any.
    pub(super) secret_env: Option<String>,
    pub(super) secret_file: Option<String>,
    /// Refused: a file is read by more people than ought to know it.
    pub(super) secret: Option<IgnoredAny>,
}

/// One key that opens the gateway.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GatewayKey {
    /// Of the key's text, in hex.
    pub(super) sha256: String,
    /// Texts a second; left out: as many as fit.
    pub(super) rate: Option<f64>,
    /// Texts at once after a rest; left out: those of ten seconds.
    pub(super) burst: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GatewayTls {
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) client_ca: Option<String>,
}

impl Default for Gateway {
    fn default() -> Self {
        let limits = Limits::default();
        let duration = |time| SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        Self {
            http: "127.0.0.1:8080".to_owned(),
            grpc: "127.0.0.1:50051".to_owned(),
            max_texts: limits.texts,
            max_text_bytes: limits.text_bytes,
            max_body_bytes: limits.body_bytes,
            max_head_bytes: limits.head_bytes,
            max_connections: limits.connections,
            head_timeout: duration(limits.head_timeout),
            body_timeout: duration(limits.body_timeout),
            stall_timeout: duration(limits.stall),
            insecure_public: false,
            cors_origins: Vec::new(),
            keys: BTreeMap::new(),
            tls: None,
            posts: GatewayPosts::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sinks {
    pub(super) commit_interval: SignedDuration,
    pub(super) commit_rows: usize,
    /// The share of posts above which a store that rejects them is not believed.
    pub(super) max_rejected: f64,
}

impl Default for Sinks {
    fn default() -> Self {
        Self { commit_interval: SignedDuration::from_secs(30), commit_rows: 50_000, max_rejected: 0.05 }
    }
}
