//! Dead letters of the embedded stream.

use std::path::Path;

use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::DeadLetter;
use undertone_stream::data::{DataFolder, dead_letters};
use undertone_stream::dead::{self, Replayed, Replays};
use undertone_stream::input::InputLog;

use super::{Filter, List, Sent, event};
use crate::cli::EventPlace;

/// Lists letters; those that were replayed too, if `all` are wanted.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is no such folder; those of the file.
pub(super) fn list(root: &Path, filter: &Filter, all: bool, list: &mut List) -> Result<()> {
    let path = folder(root).map(dead_letters)?;
    let replayed = Replayed::read(&path)?;
    for line in dead::read_places(&path)? {
        let (at, letter) = line?;
        if filter.admits(&letter) && (all || !replayed.covers(at, &letter)) {
            list.add(&letter)?;
        }
    }
    Ok(())
}

/// The last letter of an event.
///
/// # Errors
/// As [`list`].
pub(super) fn find(root: &Path, wanted: EventPlace) -> Result<Option<DeadLetter>> {
    let mut found = None;
    for letter in dead::read(&dead_letters(folder(root)?))? {
        let letter = letter?;
        if event(&letter) == wanted {
            found = Some(letter);
        }
    }
    Ok(found)
}

/// Appends the events of letters to the input log again. The stream scores them at its next start.
///
/// # Errors
/// [`ErrorKind::Conflict`] while the stream runs; those of the files.
pub(super) async fn replay(root: &Path, filter: &Filter, dry_run: bool) -> Result<Sent> {
    let data = DataFolder::open(folder(root)?)?;
    let input = InputLog::open(&data.input(), &data.id())?;
    let mut replays = Replays::open(&data.dead_letters(), input).await?;
    let (mut sent, mut left) = (Sent::default(), filter.limit);
    let choose = |letter: &DeadLetter| {
        let chosen = left > 0 && filter.admits_replay(letter);
        left -= usize::from(chosen);
        chosen
    };
    let events = replays.run(dry_run, choose, |letter, error| sent.refuse(filter, letter, error)).await?;
    Ok(Sent { events, ..sent })
}

fn folder(root: &Path) -> Result<&Path> {
    if root.is_dir() {
        return Ok(root);
    }
    let error = Error::new(ErrorKind::NotFound, "no such data folder").with("data", root.display());
    Err(error.help("give --data DIR, or --config FILE with [kafka]"))
}
