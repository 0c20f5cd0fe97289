//! `undertone run`: the roles put together in one process.
//!
//! The order of things is what keeps the promise of the stream. Starting: addresses and the data folder first, so that a
//! process that cannot work says so before it reads 90 MB of weights; then model, logs, tables, and only then sources.
//! Ending: the source stops, what is scored is made durable, the tables commit what the logs hold for them, and the
//! gateway lets running calls finish. What is in the input log and not yet scored waits there for the next start.

mod feed;
mod health;
mod ingest;
mod kafka;
mod live;
mod model;
mod pumps;
mod queries;
mod replay;
mod signals;
mod source;
pub(crate) mod stores;
pub(crate) mod stream;
mod tables;
mod telemetry;

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};
use undertone_gateway::queries::Queries;
use undertone_gateway::{Gateway, Intake, Live, Part};
use undertone_inference::Engine;
use undertone_sinks::iceberg::Reader;
use undertone_stream::data::DataFolder;
use undertone_stream::kafka::Kafka;
use undertone_stream::source::ReadOptions;

use self::health::engine_part;
use self::ingest::into_topic;
use self::kafka::KafkaStream;
use self::replay::replays;
use self::signals::Reload;
use self::stream::{Ended, Stream};
use crate::Outcome;
use crate::cli::RunArgs;
use crate::commands::model::start_engine;
use crate::config::{Config, Source};

pub(crate) async fn run(args: RunArgs) -> Result<Outcome> {
    let config = args.config()?;
    let prometheus = telemetry::install()?;
    let traces = config.trace.as_ref().map(|to| undertone_trace::start(to, env!("CARGO_PKG_VERSION"))).transpose()?;
    let drain = signals::drain_on_signal()?;

    if config.streams()
        && config.kafka.is_none()
        && let Source::File(path) = &config.source
    {
        undertone_stream::source::check(path, &ReadOptions::default())?;
    }
    let listeners = Listeners::bind(&config).await?;
    let data = if config.uses_data() { Some(DataFolder::open(&config.data)?) } else { None };
    let kafka = match &config.kafka {
        Some(settings) => Some(Kafka::reach(settings.client.clone()).await?),
        None => None,
    };
    let topic = match &kafka {
        Some(kafka) if config.serves() => Some(into_topic(kafka)?),
        _ => None,
    };
    let engine = start_engine(&config.model, config.engine.clone()).await?;
    let model = engine.model();

    let live = Live::new(&model);
    let reload = Reload { dir: config.model.clone(), tls: config.gateway.tls.clone() };
    signals::reload_on_hangup(engine.clone(), live.clone(), reload, drain.clone())?;
    let stream = match (kafka, data) {
        (Some(kafka), data) => Some(Running::Kafka(KafkaStream::start(&config, kafka, data, &engine, &live).await?)),
        (None, Some(data)) => Some(Running::Embedded(Stream::start(&config, data, &engine, &live).await?)),
        (None, None) => None,
    };
    let intake = match (&stream, topic) {
        (Some(Running::Embedded(stream)), _) => Some(stream.intake()),
        (_, topic) => topic,
    };
    let queries = queries::open(&config, stream.as_ref().and_then(Running::reader))?;
    let behind = Behind { stream: stream.as_ref(), intake, queries };
    let serving = serve(listeners, &config, &engine, live, prometheus, behind);
    announce(&config);

    let outcome = match stream {
        Some(Running::Embedded(stream)) => stream.run(&config.source, &drain).await,
        Some(Running::Kafka(stream)) => stream.run(config.once, &drain).await,
        None => Ok(Ended::UsedUp),
    };
    // Without `--once` a used-up source leaves the gateway serving what there is.
    if matches!(outcome, Ok(Ended::UsedUp)) && !config.once {
        drain.cancelled().await;
    }
    let served = serving.end().await;
    engine.shutdown().await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    served?;
    match outcome? {
        Ended::Stopped if config.once => {
            let error = Error::new(ErrorKind::Cancelled, "stopped before the input was used up");
            Err(error.help("run it again: it goes on where it stopped"))
        }
        _ => Ok(Outcome::Done),
    }
}

/// The stream of this process.
enum Running {
    Embedded(Stream),
    Kafka(KafkaStream),
}

impl Running {
    /// Reads the tables that it writes, if it does.
    fn reader(&self) -> Option<Reader> {
        match self {
            Self::Embedded(stream) => Some(stream.reader()),
            Self::Kafka(stream) => stream.reader(),
        }
    }

    /// What `/readyz` says about it, whenever it is asked.
    fn parts(&self) -> Box<dyn Fn() -> Vec<Part> + Send + Sync> {
        match self {
            Self::Embedded(stream) => {
                let health = stream.health();
                Box::new(move || health.parts())
            }
            Self::Kafka(stream) => {
                let health = stream.health();
                Box::new(move || health.parts())
            }
        }
    }
}

/// The doors of this process, bound before anything slow begins.
struct Listeners {
    /// REST with the page, and gRPC.
    gateway: Option<(TcpListener, TcpListener)>,
    /// Health and metrics alone.
    operations: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self> {
        let bind = async |key: &'static str, address| {
            TcpListener::bind(address).await.map_err(|e| {
                let error =
                    Error::new(ErrorKind::Unavailable, "cannot listen").with("key", key).with("address", address);
                error.source(e).help(format!("free the port, or set {key} to another"))
            })
        };
        let gateway = match config.serves() {
            true => Some((
                bind("gateway.http", config.gateway.http).await?,
                bind("gateway.grpc", config.gateway.grpc).await?,
            )),
            false => None,
        };
        let operations = match config.metrics {
            Some(address) => Some(bind("run.metrics", address).await?),
            None => None,
        };
        Ok(Self { gateway, operations })
    }
}

/// The doors that are open.
struct Serving {
    shutdown: CancellationToken,
    doors: JoinSet<Result<()>>,
}

impl Serving {
    /// Lets running calls finish, within the gateway's own bound.
    async fn end(mut self) -> Result<()> {
        self.shutdown.cancel();
        let mut outcome = Ok(());
        while let Some(ended) = self.doors.join_next().await {
            let ended =
                ended.unwrap_or_else(|panic| Err(Error::new(ErrorKind::Internal, "gateway panicked").source(panic)));
            outcome = outcome.and(ended);
        }
        outcome
    }
}

/// What stands behind the gateway beside the model.
struct Behind<'a> {
    stream: Option<&'a Running>,
    intake: Option<Arc<dyn Intake>>,
    queries: Queries,
}

fn serve(
    listeners: Listeners,
    config: &Config,
    engine: &Engine,
    live: Live,
    prometheus: PrometheusHandle,
    behind: Behind<'_>,
) -> Serving {
    let shutdown = CancellationToken::new();
    let parts = behind.stream.map(Running::parts);
    let core = engine.clone();
    let mut gateway = Gateway::builder(engine.clone())
        .limits(config.gateway.limits.clone())
        .keys(config.gateway.keys.clone())
        .cors(config.gateway.cors.clone())
        .tls(config.gateway.tls.clone())
        .live(live)
        .queries(behind.queries)
        .metrics(prometheus)
        .readiness(move || {
            let stream = parts.as_ref().map(|parts| parts()).unwrap_or_default();
            std::iter::once(engine_part(&core.stats())).chain(stream).collect()
        })
        .shutdown(shutdown.clone());
    if let Some(intake) = behind.intake {
        gateway = gateway.intake(intake, config.posts.clone(), config.gateway.signing.clone());
    }
    if let Some(kafka) = &config.kafka {
        gateway = gateway.replay(replays(kafka.clone(), config.stores.clone()));
    }
    let gateway = gateway.build();

    let mut doors = JoinSet::new();
    if let Some((http, grpc)) = listeners.gateway {
        let rest = gateway.clone();
        doors.spawn(async move { rest.serve_http(http).await });
        let calls = gateway.clone();
        doors.spawn(async move { calls.serve_grpc(grpc).await });
        let certificates = gateway.clone();
        doors.spawn(async move {
            certificates.follow_certificates().await;
            Ok(())
        });
    }
    if let Some(listener) = listeners.operations {
        doors.spawn(async move { gateway.serve_operations(listener).await });
    }
    Serving { shutdown, doors }
}

#[allow(clippy::print_stderr, reason = "the first thing a person looks for; logs may be JSON")]
fn announce(config: &Config) {
    if config.serves() {
        let scheme = if config.gateway.tls.is_some() { "https" } else { "http" };
        eprintln!("undertone: live page on {scheme}://{}, gRPC on {}", config.gateway.http, config.gateway.grpc);
    }
    if let Some(address) = config.metrics {
        eprintln!("undertone: metrics and health on http://{address}");
    }
    if let Some(tables) = &config.tables {
        let place = if tables.uses_data() { config.data.display().to_string() } else { tables.describe() };
        eprintln!("undertone: tables in {place}, a commit every {:?}; Ctrl-C drains", config.commit.interval);
    }
}
