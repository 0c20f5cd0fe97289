//! `undertone check`: would `undertone run` with the same flags work?
//!
//! Everything is tried for real: the model is loaded, the addresses are bound, the data folder is locked and its logs and
//! tables are opened (and made, if the folder is there and they are not). Of a catalog outside the folder the tables are
//! looked at and not made, and an object store is written to and read. One line a part, each with what would mend it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_inference::EngineConfig;
use undertone_sinks::iceberg::{IcebergStore, StoreConfig, TableState};
use undertone_sinks::latest::{LatestStore, State, prepare};
use undertone_stream::data::DataFolder;
use undertone_stream::source::ReadOptions;

use super::model::start_engine;
use super::output::Output;
use super::topics;
use crate::Outcome;
use crate::cli::RunArgs;
use crate::config::{Config, GatewayConfig, Source};
use crate::run::stores;
use crate::run::stream::check_logs;

/// How long a collector may take to let itself be reached.
const COLLECTOR: Duration = Duration::from_secs(2);

pub(crate) async fn check(args: RunArgs) -> Result<Outcome> {
    let config = args.config()?;
    let mut report = Report { output: Output::create(None)?, wrong: 0 };

    report.part("configuration", Ok("valid".to_owned()))?;
    report.part("model", model(&config).await)?;
    if config.serves() {
        report.part("gateway.http", address("gateway.http", config.gateway.http).await)?;
        report.part("gateway.grpc", address("gateway.grpc", config.gateway.grpc).await)?;
        report.part("gateway", Ok(admission(&config.gateway)))?;
    }
    if let Some(metrics) = config.metrics {
        report.part("run.metrics", address("run.metrics", metrics).await)?;
    }
    if let Some(trace) = &config.trace {
        report.trace(trace).await?;
    }
    if let Some(kafka) = &config.kafka {
        report.kafka(topics::look(kafka).await)?;
    } else if config.streams() {
        report.part("source", source(&config.source))?;
    }
    if config.uses_data() {
        report.part("data", data(&config).await)?;
    }
    if let Some(tables) = config.tables.as_ref().filter(|tables| **tables != StoreConfig::embedded(&config.data)) {
        report.tables(tables, &config).await?;
    }
    for (_, store) in stores::open_without(&config).await? {
        report.store(&*store).await?;
    }
    let Report { output, wrong } = report;
    output.finish()?;
    match wrong {
        0 => Ok(Outcome::Done),
        count => Err(Error::new(ErrorKind::InvalidConfig, "undertone run would not work").with("wrong", count)),
    }
}

struct Report {
    output: Output,
    wrong: usize,
}

impl Report {
    fn part(&mut self, name: &str, outcome: Result<String>) -> Result<()> {
        let line = match outcome {
            Ok(good) => format!("ok     {name:<14} {good}"),
            Err(error) => {
                self.wrong += 1;
                format!("wrong  {name:<14} {error}")
            }
        };
        self.output.line(line.as_bytes())
    }

    /// What differs from the configuration, or could break the promise, is no reason not to run.
    fn kafka(&mut self, outcome: Result<(String, Vec<String>)>) -> Result<()> {
        let (good, remarks) = match outcome {
            Ok((good, remarks)) => (Ok(good), remarks),
            Err(error) => (Err(error), Vec::new()),
        };
        self.part("kafka", good)?;
        remarks.iter().try_for_each(|remark| self.remark("kafka", remark))
    }

    /// A collector that is not there is no reason not to run: its spans are lost, and nothing else.
    async fn trace(&mut self, trace: &undertone_trace::Config) -> Result<()> {
        let undertone_trace::Config { otlp, sample } = trace;
        self.part("telemetry.otlp", Ok(format!("{otlp}, traces {sample} of the calls that come without a trace")))?;
        let Some(place) = host_and_port(otlp) else { return Ok(()) };
        match timeout(COLLECTOR, TcpStream::connect(&place)).await {
            Ok(Ok(_)) => Ok(()),
            _ => self.remark("telemetry.otlp", &format!("{place} does not answer: spans would be dropped")),
        }
    }

    fn remark(&mut self, name: &str, remark: &str) -> Result<()> {
        self.output.line(format!("look   {name:<14} {remark}").as_bytes())
    }

    /// A store of the latest of every post. What is missing is made by a run, unless the store had it before.
    async fn store(&mut self, store: &dyn LatestStore) -> Result<()> {
        let found = match prepare(store, false).await {
            Ok(found) => found,
            Err(error) => return self.part(store.name(), Err(error)),
        };
        let there = found.iter().filter(|each| each.state != State::Missing).map(|each| each.what.as_str());
        let there: Vec<_> = there.collect();
        let good = if there.is_empty() { "is reached".to_owned() } else { there.join(", ") };
        self.part(store.name(), Ok(good))?;
        for each in &found {
            match &each.state {
                State::Missing => {
                    self.remark(store.name(), &format!("{} is not there: make it with `undertone init`", each.what))?
                }
                State::Differs(how) => self.remark(store.name(), &format!("{}: {how}", each.what))?,
                State::Unfit(how) => {
                    let error = Error::new(ErrorKind::InvalidConfig, "store cannot keep the latest of every post");
                    self.part(store.name(), Err(error.with("in", &each.what).with("differs", how)))?;
                }
                State::Made | State::There => {}
            }
        }
        Ok(())
    }

    /// The catalog's tables, and the storage that they lie in. Missing tables are made by a run.
    async fn tables(&mut self, tables: &StoreConfig, config: &Config) -> Result<()> {
        if tables.uses_data() && !config.data.exists() {
            return self.remark("catalog", "will be made with the data folder");
        }
        let store = match IcebergStore::connect(tables).await {
            Ok(store) => store,
            Err(error) => return self.part("catalog", Err(error)),
        };
        let states = match store.look_at_tables().await {
            Ok(states) => states,
            Err(error) => return self.part("catalog", Err(error)),
        };
        let missing: Vec<_> = states.iter().filter(|(_, state)| *state == TableState::Missing).collect();
        let there = states.len() - missing.len();
        self.part("catalog", Ok(format!("{}, {there} tables are as they should be", tables.describe())))?;
        for (table, _) in &missing {
            self.remark("catalog", &format!("{table} is not there: `undertone init` makes it, and so does a run"))?;
        }
        match store.try_storage().await {
            Err(error) if error.kind() == ErrorKind::NotFound && !missing.is_empty() => {
                self.remark("storage", "cannot be tried out before the tables are there")
            }
            tried => self.part("storage", tried.map(|()| store.describe_storage())),
        }
    }
}

async fn model(config: &Config) -> Result<String> {
    let engine = start_engine(&config.model, EngineConfig { workers: 1, ..config.engine.clone() }).await?;
    let info = engine.model();
    let heads = info.heads.iter().map(|head| head.name.as_str()).collect::<Vec<_>>().join(", ");
    let good = format!("{} {} ({}), heads: {heads}", info.name, info.precision, info.short_revision());
    engine.shutdown().await;
    Ok(good)
}

/// Who may call, by the names of their keys.
fn admission(gateway: &GatewayConfig) -> String {
    let callers = match gateway.keys.names().collect::<Vec<_>>() {
        names if names.is_empty() => "everybody may call".to_owned(),
        names => format!("keys of {}", names.join(", ")),
    };
    let tls = match &gateway.tls {
        None => "in the clear",
        Some(tls) if tls.asks_clients() => "TLS with client certificates",
        Some(_) => "TLS",
    };
    format!("{callers}, {tls}")
}

/// Where to connect to for an address.
fn host_and_port(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    let place = rest.split('/').next()?;
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = if scheme == "https" { 443 } else { 80 };
    Some(if has_port { place.to_owned() } else { format!("{place}:{port}") })
}

async fn address(key: &'static str, address: SocketAddr) -> Result<String> {
    match TcpListener::bind(address).await {
        Ok(_) => Ok(format!("{address} is free")),
        Err(e) => {
            let error = Error::new(ErrorKind::Unavailable, "cannot listen").with("address", address).source(e);
            Err(error.help(format!("free the port, or set {key} to another")))
        }
    }
}

fn source(source: &Source) -> Result<String> {
    match source {
        Source::Generator(generator) => Ok(format!("generator, {} posts a second", generator.rate)),
        Source::Stdin => Ok("standard input".to_owned()),
        Source::Http => Ok("POST /v1/posts".to_owned()),
        Source::File(path) => {
            undertone_stream::source::check(path, &ReadOptions::default())?;
            Ok(path.display().to_string())
        }
    }
}

/// A folder that is not there yet is not made for a check, which may be about a mistyped name.
fn will_be_made(data: &Path) -> Result<String> {
    let data = std::path::absolute(data).context(ErrorKind::InvalidConfig, "data folder has no path")?;
    let parent = data.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(&data);
    let writable = std::fs::metadata(parent).is_ok_and(|found| found.is_dir() && !found.permissions().readonly());
    if writable {
        return Ok(format!("{} will be made", data.display()));
    }
    let error = Error::new(ErrorKind::InvalidConfig, "data folder cannot be made").with("data", data.display());
    Err(error.with("in", parent.display()).help("give --data a path in a folder that can be written"))
}

async fn data(config: &Config) -> Result<String> {
    if !config.data.exists() {
        return will_be_made(&config.data);
    }
    let folder = DataFolder::open(&config.data)?;
    check_logs(&folder)?;
    let embedded = StoreConfig::embedded(&config.data);
    if config.tables.as_ref() != Some(&embedded) {
        return Ok(format!("{} is writable and free", folder.root().display()));
    }
    IcebergStore::open(&embedded).await?;
    Ok(format!("{} is writable, free, and its tables are as they should be", folder.root().display()))
}
