//! Sending the events of dead letters to scoring again, in the embedded stream.
//!
//! The guarantee: a letter is replayed once, however often this is asked for and wherever it is broken off. Which letters a
//! replay takes is written beside the letters, and synced, before their events go into the input log. The log's cursor of
//! the replay says how many of them it has: what a crash left out, the next replay appends first. Letters are named by
//! their place in the scored log, which no other letter has; an event that dies again leaves another letter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use undertone_error::{Error, ErrorKind, Result, failpoint};
use undertone_proto::v1::DeadLetter;
use uuid::Uuid;

use super::{append, cut_torn_line, is_scorings, read_places};
use crate::durable::{blocking, io_error};
use crate::input::{InputLog, Replay};
use crate::source::hex;

/// The most events, and about the most bytes, in one append.
const MOST_EVENTS: usize = 1024;
const MOST_BYTES: usize = 8 << 20;

/// One replay.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    replay: Uuid,
    /// The input log that the letters are of.
    topic: String,
    /// Places of the letters in the scored log.
    letters: Vec<i64>,
    replayed_at: Timestamp,
}

impl Line {
    fn source_key(&self) -> String {
        format!("replay:{}", self.replay)
    }
}

/// Which letters of a file were replayed.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    lines: Vec<Line>,
    letters: BTreeSet<(String, i64)>,
}

impl Replayed {
    /// Reads what lies beside the dead letters at `letters`. Another process may be appending. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a whole line is not one of ours; errors of the file system.
    pub fn read(letters: &Path) -> Result<Self> {
        let path = path(letters);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(io_error("cannot read what was replayed", &path, e)),
        };
        let mut replayed = Self::default();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let bad = |e| Error::new(ErrorKind::Corrupt, "line is no replay").with("path", path.display()).source(e);
            let line: Line = serde_json::from_str(line).map_err(bad)?;
            replayed.add(line);
        }
        Ok(replayed)
    }

    /// Whether the letter that stands at `at` of the scored log was replayed.
    pub fn covers(&self, at: i64, letter: &DeadLetter) -> bool {
        let topic = letter.origin.as_ref().map(|origin| origin.topic.clone()).unwrap_or_default();
        self.letters.contains(&(topic, at))
    }

    fn add(&mut self, line: Line) {
        self.letters.extend(line.letters.iter().map(|at| (line.topic.clone(), *at)));
        self.lines.push(line);
    }
}

fn path(letters: &Path) -> PathBuf {
    letters.with_extension("replayed.jsonl")
}

/// Replays letters of the file at a path into an input log, which nobody else has open.
#[derive(Debug)]
pub struct Replays {
    letters: PathBuf,
    input: InputLog,
    replayed: Replayed,
}

impl Replays {
    /// Opens both, and ends what an earlier replay left undone.
    ///
    /// # Errors
    /// As [`Replayed::read`], [`super::read`] and [`InputLog::append`].
    pub async fn open(letters: &Path, input: InputLog) -> Result<Self> {
        let file = letters.to_owned();
        let replayed = blocking(move || {
            cut_torn_line(&path(&file))?;
            Replayed::read(&file)
        });
        let replays = Self { letters: letters.to_owned(), input, replayed: replayed.await? };
        for line in &replays.replayed.lines {
            let cursor = replays.input.cursor(&line.source_key());
            if line.topic == replays.input.partition().topic && !cursor.finished {
                let done = usize::try_from(cursor.next_seq).unwrap_or(usize::MAX);
                let missing: BTreeSet<i64> = line.letters.iter().skip(done).copied().collect();
                let mut found = BTreeMap::new();
                for read in read_places(letters)? {
                    let (at, letter) = read?;
                    if missing.contains(&at) && replays.is_ours(&letter) {
                        found.insert(at, replays.event(&letter).await?);
                    }
                }
                let lost = || Error::new(ErrorKind::Corrupt, "letters of a replay that was broken off are gone");
                let events = line.letters.iter().skip(done).map(|at| found.remove(at)).collect::<Option<Vec<_>>>();
                let events = events.ok_or_else(|| lost().with("replay", line.replay))?;
                replays.input.append_replays(line.source_key(), cursor.next_seq, events).await?;
            }
        }
        Ok(replays)
    }

    /// Calls `choose` with each letter that was not replayed, and appends the events of those that it wants, unless this is
    /// only a `trial`. What cannot be scored again goes to `refuse`. Answers how many were, or would be, appended.
    ///
    /// # Errors
    /// Those of the files. What was appended by then is appended, once.
    pub async fn run(
        &mut self,
        trial: bool,
        mut choose: impl FnMut(&DeadLetter) -> bool,
        mut refuse: impl FnMut(&DeadLetter, &Error),
    ) -> Result<usize> {
        let (mut count, mut batch, mut bytes) = (0, Vec::new(), 0);
        let mut seen = BTreeSet::new();
        for read in read_places(&self.letters)? {
            let (at, letter) = read?;
            let key = (letter.origin.as_ref().map(|origin| origin.topic.clone()), at);
            if self.replayed.covers(at, &letter) || seen.contains(&key) || !choose(&letter) {
                continue;
            }
            seen.insert(key);
            match self.event(&letter).await {
                Ok(event) => {
                    bytes += event.payload.len();
                    batch.push((at, event));
                    count += 1;
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => {
                    refuse(&letter, &error);
                }
                Err(error) => return Err(error),
            }
            if batch.len() >= MOST_EVENTS || bytes >= MOST_BYTES {
                self.send(std::mem::take(&mut batch), trial).await?;
                bytes = 0;
            }
        }
        self.send(batch, trial).await?;
        Ok(count)
    }

    async fn send(&mut self, batch: Vec<(i64, Replay)>, trial: bool) -> Result<()> {
        if trial || batch.is_empty() {
            return Ok(());
        }
        let (letters, events): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let topic = self.input.partition().topic.clone();
        let line = Line { replay: Uuid::new_v4(), topic, letters, replayed_at: Timestamp::now() };
        let json = serde_json::to_string(&line)
            .map_err(|e| Error::new(ErrorKind::Internal, "replay cannot be written as JSON").source(e))?;
        let path = path(&self.letters);
        blocking(move || append(&path, format!("{json}\n").as_bytes())).await?;
        failpoint::hit("replay.noted");
        self.input.append_replays(line.source_key(), 0, events).await?;
        failpoint::hit("replay.appended");
        self.replayed.add(line);
        Ok(())
    }

    fn is_ours(&self, letter: &DeadLetter) -> bool {
        letter.origin.as_ref().is_some_and(|origin| origin.topic == self.input.partition().topic)
    }

    /// The event of a letter, whole.
    async fn event(&self, letter: &DeadLetter) -> Result<Replay> {
        if !is_scorings(letter) {
            return Err(Error::new(ErrorKind::Unsupported, "letter is not scoring's").with("stage", &letter.stage));
        }
        if !self.is_ours(letter) {
            return Err(Error::new(ErrorKind::NotFound, "letter is of an input log that is gone"));
        }
        let is_event = |bytes: &[u8]| hex(&Sha256::digest(bytes)) == letter.payload_sha256;
        let offset = letter.origin.as_ref().map_or(0, |origin| origin.offset);
        let mut payload = Bytes::copy_from_slice(&letter.payload);
        if !is_event(&payload) && offset >= self.input.start() {
            let found = self.input.reader(offset).read_available(1, 0).await?;
            payload = found.into_iter().next().map(|(_, event)| event.payload.into()).unwrap_or_default();
        }
        if !is_event(&payload) {
            let error = Error::new(
                ErrorKind::NotFound,
                "bytes of the event are kept neither in its letter nor in the input log",
            );
            return Err(error.with("bytes", letter.payload_bytes).help("bronze.posts has them"));
        }
        Ok(Replay { offset, ingested_at_us: letter.ingested_at_us, payload })
    }
}

#[cfg(test)]
mod tests {
    use undertone_proto::Partition;

    use super::super::line::encode_at;
    use super::*;
    use crate::input::SourceBatch;

    fn letter(partition: &Partition, offset: i64, payload: &str) -> DeadLetter {
        DeadLetter {
            origin: Some(partition.origin(offset)),
            stage: "parse".into(),
            payload: payload.into(),
            payload_sha256: hex(&Sha256::digest(payload)),
            ingested_at_us: 42 + offset,
            ..DeadLetter::default()
        }
    }

    async fn log(dir: &Path) -> InputLog {
        let input = InputLog::open(&dir.join("input"), "c").unwrap();
        let payloads = ["a", "b", "c"].map(Bytes::from).to_vec();
        input.append(SourceBatch { source_key: "s".into(), first_seq: 0, payloads, last: true }).await.unwrap();
        input
    }

    async fn replay(letters: &Path, input: &InputLog) -> usize {
        let mut replays = Replays::open(letters, input.clone()).await.unwrap();
        replays.run(false, |_| true, |letter, error| panic!("{letter:?}: {error}")).await.unwrap()
    }

    #[tokio::test]
    async fn a_letter_is_replayed_once_and_the_letter_that_this_leaves_once_more() {
        let dir = crate::testing::dir();
        let (input, letters) = (log(dir.path()).await, dir.path().join("dead-letters.jsonl"));
        let (one, two) = (letter(input.partition(), 0, "a"), letter(input.partition(), 2, "c"));
        let lines = [encode_at(&one, None), encode_at(&two, None), encode_at(&two, None)];
        fs::write(&letters, lines.map(Result::unwrap).concat()).unwrap();
        assert_eq!((replay(&letters, &input).await, replay(&letters, &input).await, input.end()), (2, 0, 5));
        let (at, event) = input.reader(4).read(1, 0).await.unwrap().remove(0);
        assert_eq!((at, event.origin.offset, event.ingested_at_us, event.payload), (4, 2, 44, b"c".to_vec()));

        append(&letters, encode_at(&two, Some(4)).unwrap().as_bytes()).unwrap();
        assert_eq!((replay(&letters, &input).await, replay(&letters, &input).await, input.end()), (1, 0, 6));
    }

    #[tokio::test]
    async fn what_a_crash_left_out_is_appended_by_the_next_replay() {
        let dir = crate::testing::dir();
        let (input, letters) = (log(dir.path()).await, dir.path().join("dead-letters.jsonl"));
        let lines: Vec<_> = (0..).zip(["a", "b", "c"]).map(|(at, text)| letter(input.partition(), at, text)).collect();
        fs::write(&letters, lines.iter().map(|letter| encode_at(letter, None).unwrap()).collect::<String>()).unwrap();
        // It was noted; of its three events one got into the log, and its own frame was not the last.
        let line = Line {
            replay: Uuid::new_v4(),
            topic: input.partition().topic.clone(),
            letters: vec![0, 1, 2],
            replayed_at: Timestamp::UNIX_EPOCH,
        };
        let torn = "{\"replay\":";
        fs::write(path(&letters), format!("{}\n{torn}", serde_json::to_string(&line).unwrap())).unwrap();
        let payloads = vec![Bytes::from_static(b"a")];
        input.append(SourceBatch { source_key: line.source_key(), first_seq: 0, payloads, last: false }).await.unwrap();
        assert_eq!((replay(&letters, &input).await, input.end()), (0, 6));
        let again = input.reader(4).read(5, 1000).await.unwrap();
        assert_eq!(again.iter().map(|(_, event)| event.origin.offset).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((replay(&letters, &input).await, input.end()), (0, 6), "and not again");
    }
}
