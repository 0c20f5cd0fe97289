//! The dead letters: `dead-letters.jsonl`, appended from the scored log.
//!
//! The guarantee: every dead letter of the scored log is in the file once, durable before the position moves past it.
//! The position is the file's own: one past the place of its last line in the scored log (its event's offset, but for replays), or what the hint file beside it says if that is
//! further (it lets logs be trimmed while nothing dies). A torn last line is cut at opening and written again.

mod line;
mod reason;
mod replay;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result, failpoint};
use undertone_proto::Partition;
use undertone_proto::v1::{DeadLetter, Outcome, outcome};

pub use self::line::encode as to_json;
pub use self::reason::class;
pub use self::replay::{Replayed, Replays};
use crate::backoff::persist;
use crate::durable::{blocking, io_error, replace};
use crate::scored::ScoredLog;

/// The hint is at most this old while outcomes pass.
const HINT_EVERY: Duration = Duration::from_millis(500);
/// How many letters are kept in memory to be shown, and how much of each one's payload.
const RECENT: usize = 100;
const RECENT_PAYLOAD_BYTES: usize = 1024;

/// The file, open for appending. Clones share it.
#[derive(Clone, Debug)]
pub struct DeadLetterFile {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    partition: Partition,
    position: watch::Sender<i64>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    total: u64,
    /// Places of the letters of this partition in the scored log, ascending.
    offsets: Vec<i64>,
    recent: VecDeque<DeadLetter>,
}

#[derive(Serialize, Deserialize)]
struct Hint {
    topic: String,
    next: i64,
}

impl DeadLetterFile {
    /// Opens the file at `path`, which need not exist, for the outcomes of `partition`. Reads all of it once. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a whole line is no dead letter; errors of the file system.
    pub fn open(path: &Path, partition: &Partition) -> Result<Self> {
        cut_torn_line(path)?;
        let mut known = Known::default();
        let mut next = read_hint(path, partition);
        for line in read_places(path)? {
            let (at, letter) = line?;
            if letter.origin.as_ref().is_some_and(|origin| origin.topic == partition.topic) {
                next = next.max(at + 1);
            }
            known.add(at, &letter, partition);
        }
        let shared = Shared {
            path: path.to_owned(),
            partition: partition.clone(),
            position: watch::Sender::new(next),
            known: Mutex::new(known),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The next outcome to look at. Durable: the scored log may be trimmed below it.
    pub fn position(&self) -> i64 {
        *self.shared.position.borrow()
    }

    /// Follows [`DeadLetterFile::position`].
    pub fn durable(&self) -> watch::Receiver<i64> {
        self.shared.position.subscribe()
    }

    /// How many dead letters the file holds.
    pub fn total(&self) -> u64 {
        self.shared.known().total
    }

    /// How many dead letters of this partition stand below `offset` in the scored log.
    pub fn below(&self, offset: i64) -> u64 {
        self.shared.known().offsets.partition_point(|&letter| letter < offset) as u64
    }

    /// The newest dead letters, newest first, at most 100, their payloads cut to 1 KiB.
    pub fn latest(&self, count: usize) -> Vec<DeadLetter> {
        self.shared.known().recent.iter().rev().take(count).cloned().collect()
    }

    /// Follows the scored log until `shutdown`. A full disk is waited out.
    ///
    /// # Errors
    /// As [`crate::log::LogReader::read`], and errors of the file system that do not pass by themselves.
    pub async fn run(&self, scored: &ScoredLog, shutdown: CancellationToken) -> Result<()> {
        // The log is trimmed only below a position that was durable: without the hint that said so, nothing is missed.
        let mut reader = scored.reader(self.position().max(scored.start()));
        let mut hint_due = Instant::now() + HINT_EVERY;
        loop {
            let behind = reader.next_offset() > self.position();
            let outcomes = tokio::select! {
                () = shutdown.cancelled() => break,
                () = sleep_until(hint_due), if behind => Vec::new(),
                outcomes = reader.read(4096, 8 << 20) => outcomes?,
            };
            let letter = |(at, outcome)| Some((at, dead(outcome)?));
            let letters: Arc<Vec<(i64, DeadLetter)>> = Arc::new(outcomes.into_iter().filter_map(letter).collect());
            let next = reader.next_offset();
            if !letters.is_empty() {
                if failpoint::sabotaged("position-before-dead-letters") {
                    self.hint_patiently(next, &shutdown).await?;
                }
                let append = || self.append(Arc::clone(&letters));
                // Given up for a shutdown: the position must not pass letters that are not in the file.
                if persist("appending dead letters", &shutdown, append).await?.is_none() {
                    return Ok(());
                }
            }
            if next > self.position() && hint_due <= Instant::now() {
                self.hint_patiently(next, &shutdown).await?;
                hint_due = Instant::now() + HINT_EVERY;
            }
        }
        let next = reader.next_offset();
        if next > self.position() { self.hint_patiently(next, &shutdown).await } else { Ok(()) }
    }

    /// Makes letters durable with one sync, and moves the position past the last.
    async fn append(&self, letters: Arc<Vec<(i64, DeadLetter)>>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let line = |(at, letter): &(i64, DeadLetter)| line::encode_at(letter, Some(*at));
            let lines = letters.iter().map(line).collect::<Result<String>>()?;
            append(&shared.path, lines.as_bytes())?;
            let mut known = shared.known();
            letters.iter().for_each(|(at, letter)| known.add(*at, letter, &shared.partition));
            if let Some((at, _)) = letters.last() {
                shared.position.send_replace(at + 1);
            }
            Ok(())
        })
        .await
    }

    /// Waits out a full disk; after a shutdown it is tried once, since a missing hint only means looking again.
    async fn hint_patiently(&self, next: i64, shutdown: &CancellationToken) -> Result<()> {
        persist("writing the position of the dead letters", shutdown, || self.hint(next)).await.map(|_| ())
    }

    /// Makes the position durable where no letter does. All letters before it are in the file.
    async fn hint(&self, next: i64) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let hint = Hint { topic: shared.partition.topic.clone(), next };
            let json = serde_json::to_vec(&hint)
                .map_err(|e| Error::new(ErrorKind::Internal, "position cannot be written as JSON").source(e))?;
            replace(&hint_path(&shared.path), &json)?;
            shared.position.send_replace(next);
            Ok(())
        })
        .await
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Only for showing: a panic in between can at worst miss one.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, at: i64, letter: &DeadLetter, partition: &Partition) {
        self.total += 1;
        if letter.origin.as_ref().is_some_and(|origin| origin.topic == partition.topic) {
            // At the end, unless somebody has put files together.
            let place = self.offsets.partition_point(|&offset| offset <= at);
            self.offsets.insert(place, at);
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(shown(letter));
    }
}

/// The letter with the beginning of its payload, without ever copying all of it: payloads may be large.
fn shown(letter: &DeadLetter) -> DeadLetter {
    let payload = letter.payload.get(..RECENT_PAYLOAD_BYTES).unwrap_or(&letter.payload).to_vec();
    DeadLetter {
        origin: letter.origin.clone(),
        stage: letter.stage.clone(),
        reason: letter.reason.clone(),
        payload,
        payload_sha256: letter.payload_sha256.clone(),
        payload_bytes: letter.payload_bytes,
        attempts: letter.attempts,
        ingested_at_us: letter.ingested_at_us,
        dead_at_us: letter.dead_at_us,
    }
}

fn dead(outcome: Outcome) -> Option<DeadLetter> {
    match outcome.kind? {
        outcome::Kind::Dead(letter) => Some(letter),
        outcome::Kind::Scored(_) => None,
    }
}

/// Opened anew each time, so that the file may be moved away while we run.
fn append(path: &Path, lines: &[u8]) -> Result<()> {
    let failed = |e| io_error("cannot append dead letters", path, e);
    let mut file = File::options().append(true).create(true).open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length == 0 {
        path.parent().map_or(Ok(()), crate::durable::sync_dir)?;
    }
    failpoint::hit("dead.before-write");
    let written = file.write_all(lines).and_then(|()| {
        failpoint::hit("dead.before-sync");
        file.sync_all()
    });
    if let Err(error) = written {
        // Lines that stay would be written twice by the next attempt; opening the file anew counts them.
        file.set_len(length).map_err(|e| {
            let error = Error::new(ErrorKind::Internal, "cannot cut dead letters that were not all written");
            error.with("path", path.display()).with("bytes", length).source(e).help("start again")
        })?;
        return Err(failed(error));
    }
    failpoint::hit("dead.after-sync");
    Ok(())
}

/// The dead letters in the file at `path`, oldest first; none if there is no file. Another process may be appending: a
/// last line that is not whole is left out. Blocks.
///
/// # Errors
/// Errors of the file system; each item [`ErrorKind::Corrupt`], with path and line, if it is no dead letter.
pub fn read(path: &Path) -> Result<impl Iterator<Item = Result<DeadLetter>> + use<>> {
    Ok(read_places(path)?.map(|line| line.map(|(_, letter)| letter)))
}

/// [`read`], each letter with its place in the scored log: the same in each of its lines, if a crash left several.
///
/// # Errors
/// As [`read`].
pub fn read_places(path: &Path) -> Result<impl Iterator<Item = Result<(i64, DeadLetter)>> + use<>> {
    let mut file = match File::open(path) {
        Ok(file) => Some(BufReader::new(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(io_error("cannot read dead letters", path, e)),
    };
    let path = path.to_owned();
    let mut number = 0u64;
    Ok(std::iter::from_fn(move || {
        let mut line = Vec::new();
        match file.as_mut()?.read_until(b'\n', &mut line) {
            Ok(_) if line.pop() == Some(b'\n') => {
                number += 1;
                let place = |e: Error| {
                    e.with("path", path.display())
                        .with("line", number)
                        .help("remove that line, or restore the file from a copy")
                };
                Some(line::decode(&line).map_err(place))
            }
            Ok(_) => None,
            Err(e) => {
                file = None;
                Some(Err(io_error("cannot read dead letters", &path, e)))
            }
        }
    }))
}

/// Whether it is scoring that gave the event up, so that scoring it again may help.
pub fn is_scorings(letter: &DeadLetter) -> bool {
    matches!(letter.stage.as_str(), "parse" | "score")
}

fn cut_torn_line(path: &Path) -> Result<()> {
    let failed = |e| io_error("cannot open dead letters", path, e);
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    let length = file.metadata().map_err(failed)?.len();
    let whole = whole_lines(BufReader::new(&file)).map_err(failed)?;
    if whole < length {
        tracing::warn!(path = %path.display(), bytes = length - whole, "cut a torn line");
        file.set_len(whole).map_err(failed)?;
    }
    // A killed process may have written lines without syncing them; the position is about to rely on them.
    file.sync_all().map_err(failed)
}

/// How many bytes of the file are whole lines.
fn whole_lines(mut file: impl BufRead) -> io::Result<u64> {
    let (mut seen, mut whole) = (0, 0);
    loop {
        let chunk = file.fill_buf()?;
        if chunk.is_empty() {
            return Ok(whole);
        }
        if let Some(at) = chunk.iter().rposition(|&byte| byte == b'\n') {
            whole = seen + at as u64 + 1;
        }
        let n = chunk.len();
        seen += n as u64;
        file.consume(n);
    }
}

fn hint_path(path: &Path) -> PathBuf {
    path.with_extension("position.json")
}

/// The position that the hint says, or 0: without a hint the letters are looked for again from wherever the scored log
/// still begins, which changes nothing.
fn read_hint(path: &Path, partition: &Partition) -> i64 {
    let hint = std::fs::read(hint_path(path)).ok().and_then(|bytes| serde_json::from_slice::<Hint>(&bytes).ok());
    hint.filter(|hint| hint.topic == partition.topic).map_or(0, |hint| hint.next)
}

#[cfg(test)]
mod tests;
