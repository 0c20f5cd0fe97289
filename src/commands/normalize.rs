//! `undertone normalize`: the texts of a file as a model reads them, one JSON line each, in the order of the input.
//!
//! Training reads its texts through this command, so what a model learns from is what the server shows it: both are
//! [`Normalizer::apply`]. Memory stays constant however long the input. A line without a text says why in its place.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use undertone_error::Result;
use undertone_gateway::Problem;
use undertone_inference::normalize::Normalizer;
use undertone_stream::source::{Fields, Record};

use super::output::Output;
use super::score::local_problem;
use super::texts;
use crate::Outcome;
use crate::cli::NormalizeArgs;

/// One line of the output.
#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    #[serde(flatten)]
    result: TextOrProblem,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum TextOrProblem {
    CleanText(String),
    Error(Problem),
}

/// Blocks: there is nothing to wait for but the disk.
pub(crate) fn normalize(args: &NormalizeArgs) -> Result<Outcome> {
    let normalizer = Normalizer::from_name(&args.normalizer)?;
    let fields = Fields { text: args.files.text_field.clone(), ..Fields::default() };
    let records = texts::records(&args.files, true, &fields)?;
    let mut output = Output::create(args.files.output.as_deref().map(Path::new))?;
    let mut failed = 0_u64;
    for record in records {
        let line = line(record?, &fields, normalizer);
        failed += u64::from(matches!(line.result, TextOrProblem::Error(_)));
        output.json(&line)?;
    }
    output.finish()?;
    Ok(texts::outcome(failed, "line has no text", "lines have no text"))
}

fn line(record: Record, fields: &Fields, normalizer: Normalizer) -> Line {
    let id = record.id(fields);
    let result = match record.into_item(fields) {
        Ok(item) => TextOrProblem::CleanText(normalizer.apply(&item.text)),
        Err(error) => TextOrProblem::Error(local_problem(&error)),
    };
    Line { id, result }
}
