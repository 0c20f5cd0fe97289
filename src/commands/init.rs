//! `undertone init`: makes what a stream writes to. Safe to run again.
//!
//! One line a thing, with what became of it; what is there already is left as it is, and what differs is told.

use undertone_error::Result;
use undertone_sinks::iceberg::IcebergStore;
use undertone_stream::data::DataFolder;

use super::output::Output;
use super::topics;
use crate::Outcome;
use crate::cli::RunArgs;

pub(crate) async fn init(args: RunArgs) -> Result<Outcome> {
    let config = args.config()?;
    let mut output = Output::create(None)?;
    if let Some(kafka) = &config.kafka {
        for line in topics::make(kafka).await? {
            output.line(line.as_bytes())?;
        }
    }
    if config.uses_data() {
        // Not beside a process that works in the folder.
        let folder = DataFolder::open(&config.data)?;
        IcebergStore::open(folder.root()).await?;
        output.line(format!("there   tables in {}", folder.root().display()).as_bytes())?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}
