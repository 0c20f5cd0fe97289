//! `undertone init`: makes what a stream writes to. Safe to run again.
//!
//! One line a thing, with what became of it; what is there already is left as it is, and what differs is told.

use undertone_error::Result;
use undertone_sinks::iceberg::{IcebergStore, TableState};
use undertone_sinks::latest::{State, prepare};
use undertone_stream::data::DataFolder;

use super::output::Output;
use super::topics;
use crate::Outcome;
use crate::cli::RunArgs;
use crate::run::stores;

pub(crate) async fn init(args: RunArgs) -> Result<Outcome> {
    let config = args.config()?;
    let mut output = Output::create(None)?;
    if let Some(kafka) = &config.kafka {
        for line in topics::make(kafka).await? {
            output.line(line.as_bytes())?;
        }
    }
    if let Some(tables) = &config.tables {
        // Not beside a process that works in the folder.
        let _folder = if config.uses_data() { Some(DataFolder::open(&config.data)?) } else { None };
        let store = IcebergStore::connect(tables).await?;
        for (table, state) in store.create_tables().await? {
            let word = if state == TableState::Made { "made" } else { "there" };
            output.line(format!("{word:<8}table {table} ({})", tables.describe()).as_bytes())?;
        }
        store.try_storage().await?;
    }
    for (_, store) in stores::open_without(&config).await? {
        for found in prepare(&*store, true).await? {
            let (word, how) = match found.state {
                State::Made => ("made", String::new()),
                State::There => ("there", String::new()),
                State::Missing => ("missing", String::new()),
                State::Differs(how) | State::Unfit(how) => ("differs", format!(": {how}")),
            };
            output.line(format!("{word:<8}{} ({}){how}", found.what, store.name()).as_bytes())?;
        }
    }
    output.finish()?;
    Ok(Outcome::Done)
}
