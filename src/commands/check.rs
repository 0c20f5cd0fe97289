//! `undertone check`: would `undertone run` with the same flags work?
//!
//! Everything is tried for real: the model is loaded, the addresses are bound, the data folder is locked and its logs and
//! tables are opened (and made, if the folder is there and they are not). One line a part, each with what would mend it.

use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpListener;
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_inference::EngineConfig;
use undertone_sinks::iceberg::IcebergStore;
use undertone_stream::data::DataFolder;
use undertone_stream::source::ReadOptions;

use super::model::start_engine;
use super::output::Output;
use super::topics;
use crate::Outcome;
use crate::cli::RunArgs;
use crate::config::{Config, Source};
use crate::run::stream::check_logs;

pub(crate) async fn check(args: RunArgs) -> Result<Outcome> {
    let config = args.config()?;
    let mut report = Report { output: Output::create(None)?, wrong: 0 };

    report.part("configuration", Ok("valid".to_owned()))?;
    report.part("model", model(&config).await)?;
    if config.serves() {
        report.part("gateway.http", address("gateway.http", config.http).await)?;
        report.part("gateway.grpc", address("gateway.grpc", config.grpc).await)?;
    }
    if let Some(kafka) = &config.kafka {
        report.kafka(topics::look(kafka).await)?;
    } else if config.streams() {
        report.part("source", source(&config.source))?;
    }
    if config.uses_data() {
        report.part("data", data(&config).await)?;
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
        remarks.iter().try_for_each(|remark| self.output.line(format!("look   {:<14} {remark}", "kafka").as_bytes()))
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
    IcebergStore::open(folder.root()).await?;
    Ok(format!("{} is writable, free, and its tables are as they should be", folder.root().display()))
}
