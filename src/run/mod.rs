//! `undertone run`: the roles put together in one process.
//!
//! The order of things is what keeps the promise of the stream. Starting: addresses and the data folder first, so that a
//! process that cannot work says so before it reads 90 MB of weights; then model, logs, tables, and only then sources.
//! Ending: the source stops, what is scored is made durable, the tables commit what the logs hold for them, and the
//! gateway lets running calls finish. What is in the input log and not yet scored waits there for the next start.

mod feed;
mod health;
mod live;
mod signals;
mod source;
pub(crate) mod stream;
mod tables;
mod telemetry;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};
use undertone_gateway::{Gateway, Live};
use undertone_inference::Engine;
use undertone_stream::data::DataFolder;
use undertone_stream::source::ReadOptions;

use self::health::engine_part;
use self::stream::{Ended, Stream};
use crate::Outcome;
use crate::cli::RunArgs;
use crate::commands::model::start_engine;
use crate::config::{Config, Source};

pub(crate) async fn run(args: RunArgs) -> Result<Outcome> {
    let config = args.config()?;
    let prometheus = telemetry::install()?;
    let drain = signals::drain_on_signal()?;

    if config.streams()
        && let Source::File(path) = &config.source
    {
        undertone_stream::source::check(path, &ReadOptions::default())?;
    }
    let listeners = if config.serves() { Some(Listeners::bind(&config).await?) } else { None };
    let data = if config.streams() { Some(DataFolder::open(&config.data)?) } else { None };
    let engine = start_engine(&config.model, config.engine.clone()).await?;
    let model = engine.model();

    let live = Live::new(&model);
    signals::reload_on_hangup(engine.clone(), live.clone(), config.model.clone(), drain.clone())?;
    let stream = match data {
        Some(data) => Some(Stream::start(&config, data, &engine, &live).await?),
        None => None,
    };
    let serving = listeners.map(|listeners| serve(listeners, &config, &engine, live, prometheus, stream.as_ref()));
    announce(&config);

    let outcome = match stream {
        Some(stream) => stream.run(&config.source, &drain).await,
        None => Ok(Ended::UsedUp),
    };
    // Without `--once` a used-up source leaves the gateway serving what there is.
    if matches!(outcome, Ok(Ended::UsedUp)) && !config.once {
        drain.cancelled().await;
    }
    let served = match serving {
        Some(serving) => serving.end().await,
        None => Ok(()),
    };
    engine.shutdown().await;
    served?;
    match outcome? {
        Ended::Stopped if config.once => {
            let error = Error::new(ErrorKind::Cancelled, "stopped before the input was used up");
            Err(error.help("run it again: it goes on where it stopped"))
        }
        _ => Ok(Outcome::Done),
    }
}

/// Both doors, bound before anything slow begins.
struct Listeners {
    http: TcpListener,
    grpc: TcpListener,
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
        Ok(Self { http: bind("gateway.http", config.http).await?, grpc: bind("gateway.grpc", config.grpc).await? })
    }
}

/// The running gateway.
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

fn serve(
    listeners: Listeners,
    config: &Config,
    engine: &Engine,
    live: Live,
    prometheus: PrometheusHandle,
    stream: Option<&Stream>,
) -> Serving {
    let shutdown = CancellationToken::new();
    let health = stream.map(Stream::health);
    let core = engine.clone();
    let gateway = Gateway::builder(engine.clone())
        .limits(config.limits.clone())
        .live(live)
        .metrics(prometheus)
        .readiness(move || {
            let stream = health.as_ref().map(stream::Health::parts).unwrap_or_default();
            std::iter::once(engine_part(&core.stats())).chain(stream).collect()
        })
        .shutdown(shutdown.clone())
        .build();

    let mut doors = JoinSet::new();
    let http = gateway.clone();
    doors.spawn(async move { http.serve_http(listeners.http).await });
    doors.spawn(async move { gateway.serve_grpc(listeners.grpc).await });
    Serving { shutdown, doors }
}

#[allow(clippy::print_stderr, reason = "the first thing a person looks for; logs may be JSON")]
fn announce(config: &Config) {
    if config.serves() {
        eprintln!("undertone: live page on http://{}, gRPC on {}", config.http, config.grpc);
    }
    if config.streams() {
        eprintln!(
            "undertone: tables in {}, a commit every {:?}; Ctrl-C drains",
            config.data.display(),
            config.commit.interval
        );
    }
}
