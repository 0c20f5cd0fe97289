//! The flags of what is done to the tables: `undertone maintain`, `rescore` and `forget`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use undertone_error::Result;

use super::{ComputeArgs, environment, store};
use crate::config::{Layers, ModelConfig, Role, Stores, TablesConfig};

/// Where the tables are.
#[derive(Args, Debug)]
pub(crate) struct TableArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "UNDERTONE_CONFIG")]
    config: Option<PathBuf>,
    /// Folder that holds catalog and tables [default: data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
}

impl TableArgs {
    /// # Errors
    /// As [`TablesConfig::load`].
    pub(crate) fn config(self) -> Result<TablesConfig> {
        TablesConfig::load(self.layers()?)
    }

    /// The store of `role` instead of the tables.
    ///
    /// # Errors
    /// As [`Stores::only`].
    pub(crate) fn store(self, role: Role) -> Result<Stores> {
        Stores::only(role, self.layers()?)
    }

    fn layers(self) -> Result<Layers> {
        let compute = ComputeArgs { config: self.config, ..ComputeArgs::default() };
        Ok(compute.layers(environment()?)?.flag("--data", "data.dir", self.data))
    }
}

#[derive(Args, Debug)]
pub(crate) struct MaintainArgs {
    #[command(flatten)]
    pub(crate) place: TableArgs,
    /// Instead of the tables: delete what opensearch holds of days older than opensearch.retention_days
    #[arg(long, value_name = "STORE", value_parser = store)]
    pub(crate) sink: Option<Role>,
    /// Snapshots younger than this are kept
    #[arg(long, value_name = "AGE", default_value = "7d", value_parser = age)]
    pub(crate) older_than: Duration,
    /// So many of the newest snapshots of a table are kept, however old
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) retain_last: usize,
    /// Files that were never part of a table are kept until they are this old; 72h at least
    #[arg(long, value_name = "AGE", default_value = "72h", value_parser = age)]
    pub(crate) orphans_older_than: Duration,
    /// Do it
    #[arg(long, alias = "yes")]
    pub(crate) apply: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RescoreArgs {
    /// Name of the run, which its rows carry; the same name again goes on with it
    #[arg(long, value_name = "NAME")]
    pub(crate) run: String,
    /// Only events that were ingested on this day or at this moment, or later
    #[arg(long, value_name = "DATE")]
    pub(crate) from: Option<String>,
    /// Only events that were ingested before this day or this moment
    #[arg(long, value_name = "DATE")]
    pub(crate) to: Option<String>,
    /// Folder that holds catalog and tables [default: data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Model folder [default: models/sentiment]
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    #[command(flatten)]
    compute: ComputeArgs,
}

impl RescoreArgs {
    /// # Errors
    /// As [`TablesConfig::load`].
    pub(crate) fn config(&self) -> Result<TablesConfig> {
        TableArgs { config: self.compute.config.clone(), data: self.data.clone() }.config()
    }

    /// # Errors
    /// As [`ModelConfig::load`].
    pub(crate) fn model(&self) -> Result<ModelConfig> {
        self.compute.clone().model(self.model.clone())
    }
}

#[derive(Args, Debug)]
pub(crate) struct ForgetArgs {
    /// Where the post was posted
    #[arg(long, value_name = "S")]
    pub(crate) source: String,
    /// Its id there
    #[arg(long, value_name = "I")]
    pub(crate) id: String,
    /// When it was posted, if silver.posts does not know it (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(crate) created_at: Option<String>,
    #[command(flatten)]
    pub(crate) place: TableArgs,
}

/// A length of time as people write it: 30s, 12h, 7d, 2w.
fn age(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || "write a length of time like 12h or 7d".to_owned();
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(length).map_err(|_| wrong())
}
