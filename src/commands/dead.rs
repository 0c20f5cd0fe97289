//! `undertone dead`: looks at dead letters.

use std::path::Path;

use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::DeadLetter;
use undertone_stream::{data, dead};

use super::output::Output;
use crate::Outcome;
use crate::cli::{DeadArgs, DeadCommand};

pub(crate) fn dead(args: &DeadArgs) -> Result<Outcome> {
    match &args.command {
        DeadCommand::List { data } => list(data),
        DeadCommand::Show { data, offset } => show(data, *offset),
    }
}

fn list(root: &Path) -> Result<Outcome> {
    let mut output = Output::create(None)?;
    for letter in letters(root)? {
        let letter = letter?;
        let at = jiff::Timestamp::from_microsecond(letter.dead_at_us).unwrap_or_default();
        output.line(format!("{:>10}  {at:.0}  {:<6}  {}", offset(&letter), letter.stage, letter.reason).as_bytes())?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

fn show(root: &Path, wanted: i64) -> Result<Outcome> {
    for letter in letters(root)? {
        let letter = letter?;
        if offset(&letter) == wanted {
            let mut output = Output::create(None)?;
            output.line(dead::to_json(&letter)?.trim_end().as_bytes())?;
            output.finish()?;
            return Ok(Outcome::Done);
        }
    }
    let error = Error::new(ErrorKind::NotFound, "no dead letter at this offset").with("offset", wanted);
    Err(error.with("data", root.display()).help("`undertone dead list` names the offsets"))
}

fn letters(root: &Path) -> Result<impl Iterator<Item = Result<DeadLetter>>> {
    if !root.is_dir() {
        return Err(Error::new(ErrorKind::NotFound, "no such data folder")
            .with("data", root.display())
            .help("give --data DIR"));
    }
    dead::read(&data::dead_letters(root))
}

fn offset(letter: &DeadLetter) -> i64 {
    letter.origin.as_ref().map_or(-1, |origin| origin.offset)
}
