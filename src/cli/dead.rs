//! The flags of `undertone dead`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use undertone_error::Result;

use super::{ComputeArgs, environment, store};
use crate::config::{DeadConfig, Role};

#[derive(Args, Debug)]
pub(crate) struct DeadArgs {
    #[command(subcommand)]
    pub(crate) command: DeadCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// One line a dead letter that was not replayed, newest last
    List {
        #[command(flatten)]
        place: DeadPlace,
        #[command(flatten)]
        filter: DeadFilter,
        /// Also those that were replayed
        #[arg(long)]
        all: bool,
        /// Print JSON lines with the payloads
        #[arg(long)]
        json: bool,
    },
    /// The last dead letter of one event, whole
    Show {
        /// The event, as `list` prints it: PARTITION:OFFSET, or its offset alone
        event: EventPlace,
        #[command(flatten)]
        place: DeadPlace,
    },
    /// Score events of the stages parse and score again, each once, with their origin kept: for after a mapping or a model
    /// was mended. The embedded stream must not be running, and scores them at its next start. With --sink: write posts
    /// that a store refused to it again, for after the store was mended
    Replay {
        /// The events, as `list` prints them [default: all that were not replayed]
        events: Vec<EventPlace>,
        #[command(flatten)]
        place: DeadPlace,
        #[command(flatten)]
        filter: DeadFilter,
        /// The posts that this store refused: qdrant, opensearch or clickhouse
        #[arg(long, value_name = "STORE", value_parser = store, conflicts_with = "stage")]
        sink: Option<Role>,
        /// Say how many it would be
        #[arg(long)]
        dry_run: bool,
    },
}

/// Where the dead letters are: on the cluster that the configuration names, else in a data folder.
#[derive(Args, Debug)]
pub(crate) struct DeadPlace {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "UNDERTONE_CONFIG")]
    config: Option<PathBuf>,
    /// Folder that holds the dead letters of the embedded stream [default: data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
}

impl DeadPlace {
    /// Of the variables only those of these sections count, and those of the store if one is meant.
    ///
    /// # Errors
    /// As [`DeadConfig::load`].
    pub(crate) fn config(self, sink: Option<Role>) -> Result<DeadConfig> {
        let sections = ["data", "kafka"].into_iter().chain(sink.map(Role::name));
        let ours: Vec<String> = sections.map(|section| format!("UNDERTONE_{}__", section.to_uppercase())).collect();
        let variables = environment()?.filter(|(name, _)| ours.iter().any(|prefix| name.starts_with(prefix)));
        let place = ComputeArgs { config: self.config, ..ComputeArgs::default() };
        DeadConfig::load(place.layers(variables)?.flag("--data", "data.dir", self.data), sink)
    }
}

/// Which dead letters are meant.
#[derive(Args, Debug)]
pub(crate) struct DeadFilter {
    /// Only those of a stage: parse, score, or a store
    #[arg(long)]
    pub(crate) stage: Option<String>,
    /// Only those from this time on: RFC 3339, or an age like 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<jiff::Timestamp>,
    /// At most so many: the newest to list, the oldest to replay
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

fn since(text: &str) -> std::result::Result<jiff::Timestamp, String> {
    let age = |age: jiff::SignedDuration| jiff::Timestamp::now().checked_sub(age).ok();
    let time = text.parse().ok().or_else(|| text.parse().ok().and_then(age));
    time.ok_or_else(|| "write a time like 2026-05-01T12:00:00Z, or an age like 2h".to_owned())
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EventPlace {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl std::str::FromStr for EventPlace {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (partition, offset) = text.split_once(':').unwrap_or(("0", text));
        let numbers = partition.parse().ok().zip(offset.parse().ok());
        let (partition, offset) = numbers.ok_or("write PARTITION:OFFSET, like 3:1207")?;
        Ok(Self { partition, offset })
    }
}
