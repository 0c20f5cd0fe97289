//! The command `undertone`: posts in, scores out, tables kept.
//!
//! Exit status: 0 done; 1 done, with per-line errors that were counted on standard error; 2 could not run.

mod cli;
mod commands;
mod config;
mod exit;
mod memory;
mod run;

use std::io::IsTerminal;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use undertone_error::{Context, ErrorKind, Result};

use crate::cli::{Cli, Command, LogFormat};

/// What a command reports when it could run.
pub(crate) enum Outcome {
    /// Everything was done.
    Done,
    /// Done, but some lines had errors of their own.
    SomeFailed,
}

fn main() {
    let cli = Cli::parse();
    start_logging(cli.log_format);
    let status = match execute(cli.command) {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::SomeFailed) => 1,
        Err(error) => {
            cli::print_error(&error);
            2
        }
    };
    exit::now(status)
}

fn execute(command: Command) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(undertone_gateway::moderation::rest)
        .build()
        .context(ErrorKind::Exhausted, "cannot start threads")?;
    runtime.block_on(async {
        match command {
            Command::Run(args) => run::run(args).await,
            Command::Score(args) => commands::score::score(args).await,
            Command::Normalize(args) => commands::normalize::normalize(&args),
            Command::Generate(args) => commands::generate::generate(args).await,
            Command::Schema => commands::schema::schema(),
            Command::Check(args) => commands::check::check(args).await,
            Command::Init(args) => commands::init::init(args).await,
            Command::Rescore(args) => commands::rescore::rescore(args).await,
            Command::Forget(args) => commands::forget::forget(args).await,
            Command::Maintain(args) => commands::maintain::maintain(args).await,
            Command::Bench(args) => commands::bench::bench(args).await,
            Command::AcceptGap(args) => commands::accept_gap::accept_gap(args).await,
            Command::Dead(args) => commands::dead::dead(args).await,
            Command::Model(args) => commands::model::model(args).await,
            Command::Key(args) => commands::key::key(args),
        }
    })
}

/// Logs go to standard error: people read lines, machines ask for JSON. `UNDERTONE_LOG` filters as `RUST_LOG` does.
fn start_logging(format: LogFormat) {
    let filter =
        EnvFilter::try_from_env("UNDERTONE_LOG").unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,iceberg=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
