//! A file of texts, as the commands read it that answer one JSON line a text.

use std::path::Path;

use undertone_error::Result;
use undertone_stream::source::{Fields, Format, ReadOptions, RecordReader, from_stream, open};

use crate::Outcome;
use crate::cli::{FileArgs, InputFormat};

/// The records of the input; `header` says whether the first row of a CSV or TSV names its columns.
///
/// # Errors
/// Those of opening it; `InvalidInput` if it has no such field.
pub(super) fn records(files: &FileArgs, header: bool, fields: &Fields) -> Result<RecordReader> {
    let options = ReadOptions { format: files.format.map(Format::from), header, ..ReadOptions::default() };
    let records = match files.input.as_deref().filter(|input| *input != "-") {
        Some(path) => open(Path::new(path), &options)?,
        None => from_stream("standard input", Box::new(std::io::stdin()), &options)?,
    };
    records.require(fields)?;
    Ok(records)
}

/// Done, unless lines failed: then the count is said, as `one` or `many` of them.
#[allow(clippy::print_stderr, reason = "the count that goes with exit status 1")]
pub(super) fn outcome(failed: u64, one: &str, many: &str) -> Outcome {
    if failed == 0 {
        return Outcome::Done;
    }
    eprintln!("undertone: {failed} {}; see the error in each", if failed == 1 { one } else { many });
    Outcome::SomeFailed
}

impl From<InputFormat> for Format {
    fn from(format: InputFormat) -> Self {
        match format {
            InputFormat::Jsonl => Self::Jsonl,
            InputFormat::Csv => Self::Csv,
            InputFormat::Tsv => Self::Tsv,
            InputFormat::Parquet => Self::Parquet,
            InputFormat::Lines => Self::Text,
        }
    }
}
