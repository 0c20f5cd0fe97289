//! The configuration: one TOML file, overridden by `UNDERTONE_*` variables, overridden by flags.
//!
//! Every error names the key, the value, where it came from and what would be right. What the user wrote
//! ([`raw::RawConfig`]) and what the code uses ([`Config`]) are two types: validation happens once, here.

mod catalog;
mod gateway;
mod kafka;
mod layers;
mod mapping;
mod raw;
mod stores;
mod tables;
mod telemetry;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use gateway::GatewayConfig;
pub(crate) use kafka::KafkaSettings;
pub(crate) use layers::Layers;
use layers::Origins;
pub(crate) use stores::{Readable, Stores};
pub(crate) use tables::TablesConfig;
use undertone_error::{Error, ErrorKind, Result};
use undertone_inference::{Device, EngineConfig, LabelMap, Precision, use_libtorch_cuda};
use undertone_proto::PostReader;
use undertone_sinks::iceberg::StoreConfig;

use self::raw::{Inference, ModelLabels, RawConfig};

/// What one process does. Any set of roles can share a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    /// REST, gRPC and the live page.
    Gateway,
    /// Reads posts, scores them, writes the scored log.
    Score,
    /// Writes `bronze.posts`.
    Bronze,
    /// Writes `silver.posts`.
    Silver,
    /// Writes the aggregates.
    Gold,
    /// Writes vectors.
    Qdrant,
    /// Writes documents.
    OpenSearch,
    /// Writes rows for charts.
    ClickHouse,
}

impl Role {
    /// Every role there is, in the order of the data flow.
    pub(crate) const ALL: [Self; 8] = [
        Self::Gateway,
        Self::Score,
        Self::Bronze,
        Self::Silver,
        Self::Gold,
        Self::Qdrant,
        Self::OpenSearch,
        Self::ClickHouse,
    ];

    /// As it is written in a configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Score => "score",
            Self::Bronze => "bronze",
            Self::Silver => "silver",
            Self::Gold => "gold",
            Self::Qdrant => "qdrant",
            Self::OpenSearch => "opensearch",
            Self::ClickHouse => "clickhouse",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether the role needs the data folder.
    pub(crate) fn streams(self) -> bool {
        self != Self::Gateway
    }

    /// Whether the role keeps the latest of every post in a store of its own.
    pub(crate) fn is_latest(self) -> bool {
        matches!(self, Self::Qdrant | Self::OpenSearch | Self::ClickHouse)
    }

    /// Whether the role writes tables.
    fn stores(self) -> bool {
        matches!(self, Self::Bronze | Self::Silver | Self::Gold)
    }
}

/// Where the embedded stream's posts come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Synthetic posts.
    Generator(GeneratorSource),
    /// A file; its format is known by its name.
    File(PathBuf),
    /// Standard input, one JSON object a line.
    Stdin,
    /// Callers of the gateway alone.
    Http,
}

/// How the generator is used as a source.
#[derive(Clone, Debug)]
pub(crate) struct GeneratorSource {
    /// The same seed gives the same posts.
    pub(crate) seed: u64,
    /// Posts a second.
    pub(crate) rate: f64,
    /// How much history is generated before the first start, so that the page has something to show.
    pub(crate) backfill: Duration,
    /// Posts a second of the history.
    pub(crate) backfill_rate: f64,
    /// Stop after this many posts; `None` goes on for ever.
    pub(crate) count: Option<u64>,
}

/// Everything that `undertone run` needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// What this process does.
    pub(crate) roles: Vec<Role>,
    /// The model folder.
    pub(crate) model: PathBuf,
    /// How the core is sized.
    pub(crate) engine: EngineConfig,
    /// The data folder of the embedded mode.
    pub(crate) data: PathBuf,
    /// Where posts come from.
    pub(crate) source: Source,
    /// The cluster, if the stream runs on Kafka: posts come from its topic then.
    pub(crate) kafka: Option<KafkaSettings>,
    /// Where they have their fields.
    pub(crate) posts: PostReader,
    /// End when the source is used up and everything is committed.
    pub(crate) once: bool,
    /// Where the gateway listens, for whom, and what it accepts.
    pub(crate) gateway: GatewayConfig,
    /// Where health and metrics are served beside, or instead of, the gateway.
    pub(crate) metrics: Option<SocketAddr>,
    /// Where spans go, if anything is traced.
    pub(crate) trace: Option<undertone_trace::Config>,
    /// How an epoch becomes a commit.
    pub(crate) commit: CommitConfig,
    /// Where the tables are, if this process writes any.
    pub(crate) tables: Option<StoreConfig>,
    /// The stores of the latest of every post that this process writes to.
    pub(crate) stores: Stores,
    /// The stores that queries may ask, beside the tables that this process writes.
    pub(crate) readable: Readable,
}

/// When a table commits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitConfig {
    /// The oldest row waits at most this long.
    pub(crate) interval: Duration,
    /// An epoch of this many rows is committed at once.
    pub(crate) max_rows: usize,
}

impl Config {
    /// Validates what the layers say together.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the key, the value, where it came from, and what would be right.
    pub(crate) fn load(layers: Layers) -> Result<Self> {
        let (raw, origins): (RawConfig, _) = layers.read()?;
        let fail = |key: &str, value: &dyn std::fmt::Display, help: &str| wrong(&origins, key, value, help);

        let configured = stores::configured(&raw.qdrant, &raw.opensearch, &raw.clickhouse);
        let named = raw.run.roles.unwrap_or_else(|| {
            let five = ["gateway", "score", "bronze", "silver", "gold"].into_iter();
            five.chain(configured.iter().copied()).map(str::to_owned).collect()
        });
        let mut roles = Vec::new();
        for name in &named {
            match Role::parse(name) {
                Some(role) if !roles.contains(&role) => roles.push(role),
                Some(_) => {}
                None => {
                    let help = "roles are gateway, score, bronze, silver, gold, qdrant, opensearch and clickhouse";
                    return Err(fail("run.roles", name, help));
                }
            }
        }
        if roles.is_empty() {
            return Err(fail("run.roles", &"[]", "name at least one role, or leave the key out to play all of them"));
        }
        let kafka = kafka::settings(raw.kafka, &origins)?;
        if kafka.is_none() && roles.iter().any(|role| role.is_latest()) {
            let help =
                "qdrant, opensearch and clickhouse are fed from Kafka: set kafka.brokers, or leave their roles out";
            return Err(fail("run.roles", &named.join(","), help));
        }
        if kafka.is_some() && raw.source.input.is_some() {
            let help = "with kafka.brokers set, posts come from the topic: leave one of the two out";
            return Err(fail("source.input", &raw.source.input.unwrap_or_default(), help));
        }
        let streams: Vec<Role> = Role::ALL.into_iter().filter(|role| role.streams() && !role.is_latest()).collect();
        if kafka.is_none()
            && roles.iter().any(|role| role.streams())
            && !streams.iter().all(|role| roles.contains(role))
        {
            let help = "without Kafka the stream is one process: name score, bronze, silver and gold together, or gateway alone";
            return Err(fail("run.roles", &named.join(","), help));
        }

        let gateway = gateway::settings(raw.gateway, roles.contains(&Role::Gateway), &origins)?;
        let engine = engine(&raw.inference, raw.model.labels, &origins)?;
        if !(raw.generator.rate > 0.0 && raw.generator.rate <= 1e6) {
            return Err(fail("generator.rate", &raw.generator.rate, "posts a second, more than 0 and at most 1000000"));
        }
        if !(raw.generator.backfill_rate > 0.0 && raw.generator.backfill_rate <= 1e6) {
            let help = "posts a second, more than 0 and at most 1000000";
            return Err(fail("generator.backfill_rate", &raw.generator.backfill_rate, help));
        }
        let duration = |key: &str, value: &jiff::SignedDuration| {
            Duration::try_from(*value).map_err(|_| fail(key, value, "a duration that is not negative, like 30s"))
        };
        let commit = CommitConfig {
            interval: duration("sinks.commit_interval", &raw.sinks.commit_interval)?,
            max_rows: raw.sinks.commit_rows,
        };
        if commit.interval < Duration::from_millis(100) {
            // Each commit adds files and a snapshot to six tables.
            return Err(fail(
                "sinks.commit_interval",
                &raw.sinks.commit_interval,
                "at least 100ms; 30s is the default",
            ));
        }
        if commit.max_rows == 0 {
            return Err(fail("sinks.commit_rows", &0, "at least 1"));
        }

        let source = match raw.source.input.as_deref() {
            None => Source::Generator(GeneratorSource {
                seed: raw.generator.seed,
                rate: raw.generator.rate,
                backfill: duration("generator.backfill", &raw.generator.backfill)?,
                backfill_rate: raw.generator.backfill_rate,
                count: raw.generator.count,
            }),
            Some("-") => Source::Stdin,
            Some("http") => Source::Http,
            Some(path) => Source::File(PathBuf::from(path)),
        };
        if raw.run.once
            && kafka.is_none()
            && matches!(&source, Source::Generator(generator) if generator.count.is_none())
        {
            let help = "the generator never ends: give --input FILE, or set generator.count";
            return Err(fail("run.once", &true, help));
        }

        if raw.run.once && matches!(source, Source::Http) {
            return Err(fail("run.once", &true, "callers never end: give --input FILE, or leave --once out"));
        }

        let posts = match raw.source.mapping {
            None => PostReader::default(),
            Some(_)
                if kafka.is_none()
                    && matches!(source, Source::Generator(_))
                    && roles.iter().any(|role| role.streams()) =>
            {
                let help = "the generator's posts need no mapping: give --input FILE, or leave the section out";
                return Err(fail("source.mapping", &"a mapping without source.input", help));
            }
            Some(mapping) => mapping.reader(&origins)?,
        };

        let data = PathBuf::from(&raw.data.dir);
        // Whoever writes no table needs none of the secrets that writing them takes.
        let variables = |name: &str| std::env::var(name).ok();
        let serves = roles.contains(&Role::Gateway);
        let mut readable = match serves {
            true => Readable::of(raw.qdrant.clone(), raw.opensearch.clone(), raw.clickhouse.clone(), &origins),
            false => Readable::default(),
        };
        let tables = match roles.iter().any(|role| role.stores()) {
            true => Some(catalog::settings(raw.catalog, raw.storage, &data, &origins, &variables)?),
            // A catalog that is a file is the process's that writes to it.
            false if serves && raw.catalog.kind == "rest" => {
                let settings = catalog::settings(raw.catalog, raw.storage, &data, &origins, &variables);
                readable.tables = readable.add("tables", settings);
                None
            }
            false => None,
        };
        let max_rejected = raw.sinks.max_rejected;
        let stores = stores::settings(raw.qdrant, raw.opensearch, raw.clickhouse, max_rejected, &roles, &origins)?;

        Ok(Self {
            roles,
            model: model_folder(raw.model.dir.as_deref())?,
            engine,
            data,
            source,
            kafka,
            posts,
            once: raw.run.once,
            gateway,
            metrics: raw.run.metrics.as_deref().map(|value| address("run.metrics", value, &origins)).transpose()?,
            trace: telemetry::settings(raw.telemetry, &origins)?,
            commit,
            tables,
            stores,
            readable,
        })
    }

    /// Whether this process plays a part of the stream.
    pub(crate) fn streams(&self) -> bool {
        self.roles.iter().any(|role| role.streams())
    }

    /// Whether this process writes into the data folder: all of the embedded stream does, and on Kafka a catalog that is
    /// a file in it.
    pub(crate) fn uses_data(&self) -> bool {
        match self.kafka {
            Some(_) => self.tables.as_ref().is_some_and(StoreConfig::uses_data),
            None => self.streams(),
        }
    }

    /// Whether this process serves.
    pub(crate) fn serves(&self) -> bool {
        self.roles.contains(&Role::Gateway)
    }
}

/// Says that a value is wrong, where it came from, and what would be right.
fn wrong(origins: &Origins, key: &str, value: &dyn std::fmt::Display, help: &str) -> Error {
    let error = Error::new(ErrorKind::InvalidConfig, "configuration value is wrong").with("key", key);
    error.with("value", value).with("from", origins.of(key)).help(help)
}

fn address(key: &str, value: &str, origins: &Origins) -> Result<SocketAddr> {
    value.parse().map_err(|_| wrong(origins, key, &value, "write ADDRESS:PORT, like 127.0.0.1:8080"))
}

/// The sections `[inference]` and `[model.labels]`, validated.
fn engine(raw: &Inference, labels: Option<ModelLabels>, origins: &Origins) -> Result<EngineConfig> {
    let Ok(device) = raw.device.parse::<Device>() else {
        return Err(wrong(origins, "inference.device", &raw.device, &format!("write {}", Device::ALLOWED)));
    };
    let Ok(precision) = raw.precision.parse::<Precision>() else {
        return Err(wrong(origins, "inference.precision", &raw.precision, &format!("write {}", Precision::ALLOWED)));
    };
    if raw.token_budget == 0 {
        return Err(wrong(origins, "inference.token_budget", &0, "at least 1; 256 is the default"));
    }
    if raw.bulk_tokens == 0 {
        return Err(wrong(origins, "inference.bulk_tokens", &0, "at least 1; 48 is the default"));
    }
    if raw.cuda_token_budget == 0 {
        return Err(wrong(origins, "inference.cuda_token_budget", &0, "at least 1; 32768 is the default"));
    }
    if let Some(folder) = &raw.libtorch_cuda {
        use_libtorch_cuda(PathBuf::from(folder));
    }
    // Whether the labels fit the model is known when the model is opened.
    let labels = labels.map(|labels| LabelMap {
        head: labels.head,
        negative: labels.negative.into_words(),
        neutral: labels.neutral.into_words(),
        positive: labels.positive.into_words(),
        from: origins.of("model.labels"),
    });
    Ok(EngineConfig {
        device,
        precision,
        workers: raw.workers,
        token_budget: raw.token_budget,
        cuda_token_budget: raw.cuda_token_budget,
        bulk_tokens: raw.bulk_tokens,
        queue_tokens: raw.queue_tokens,
        detect_language: raw.detect_language,
        cache_bytes: raw.cache_bytes,
        labels,
        ..EngineConfig::default()
    })
}

/// What commands about dead letters need to know: the sections `[data]` and `[kafka]`, and that of a store.
#[derive(Clone, Debug)]
pub(crate) struct DeadConfig {
    /// The data folder of the embedded stream.
    pub(crate) data: PathBuf,
    /// The cluster, if the stream runs on Kafka.
    pub(crate) kafka: Option<KafkaSettings>,
    /// The store that is meant, if one is.
    pub(crate) store: Option<Stores>,
}

impl DeadConfig {
    /// Validates what the layers say about them, and about the store of `sink`. The rest of a file must be of the right form, but is not looked at.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the key, the value, where it came from, and what would be right.
    pub(crate) fn load(layers: Layers, sink: Option<Role>) -> Result<Self> {
        let (mut raw, origins): (RawConfig, _) = layers.read()?;
        let kafka = kafka::settings(std::mem::take(&mut raw.kafka), &origins)?;
        let data = PathBuf::from(&raw.data.dir);
        let store = sink.map(|role| Stores::of(raw, &[role], &origins)).transpose()?;
        Ok(Self { data, kafka, store })
    }
}

/// What commands that only score need to know: the sections `[inference]` and `[model]`.
#[derive(Clone, Debug)]
pub(crate) struct ModelConfig {
    /// The model folder, if one is named.
    dir: Option<String>,
    /// How the core is sized, and what the model's labels mean.
    pub(crate) engine: EngineConfig,
}

impl ModelConfig {
    /// Validates what the layers say about the model. The rest of a file must be of the right form, but is not looked at.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the key, the value, where it came from, and what would be right.
    pub(crate) fn load(layers: Layers) -> Result<Self> {
        let (raw, origins): (RawConfig, _) = layers.read()?;
        Ok(Self { dir: raw.model.dir, engine: engine(&raw.inference, raw.model.labels, &origins)? })
    }

    /// The model folder, found as [`model_folder`] says.
    ///
    /// # Errors
    /// As [`model_folder`].
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        model_folder(self.dir.as_deref())
    }
}

/// The model folder: the configured one, else the shipped one, looked for beside the working directory and beside the
/// binary (in a checkout, and in the tarball of `make dist`).
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] with every place that was tried.
pub(crate) fn model_folder(configured: Option<&str>) -> Result<PathBuf> {
    if let Some(dir) = configured {
        return Ok(PathBuf::from(dir));
    }
    let mut places = vec![PathBuf::from("models/sentiment")];
    if let Some(bin) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        places.push(bin.join("../models/sentiment"));
        places.push(bin.join("../../models/sentiment"));
        places.push(bin.join("../../../models/sentiment"));
    }
    if let Some(found) = places.iter().find(|place| place.join("config.json").is_file()) {
        return Ok(found.clone());
    }
    let tried = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ");
    let error =
        Error::new(ErrorKind::InvalidConfig, "no model folder found").with("key", "model.dir").with("tried", tried);
    Err(error.help("give --model DIR, or run `make build` in the checkout, which fetches the shipped model"))
}
