//! The scored log: exactly one outcome for each event of the input log, at the same offset. The outcome of a replay has the
//! origin of the earlier event that it is again.
//!
//! The guarantee: an outcome is durable before any sink sees it and never changes, so a replay never scores a post
//! again. The log knows which input log it belongs to, and refuses any other, and an input log that is shorter than
//! itself. Its end is the scoring stage's position.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use prost::Message;
use tokio::sync::watch;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::{Origin, Outcome, outcome};

use crate::input::InputLog;
use crate::log::{Log, LogOptions, LogReader};

/// The outcomes of one input log. Clones share it.
#[derive(Clone, Debug)]
pub struct ScoredLog {
    log: Log,
}

impl ScoredLog {
    /// Opens the log in `dir`, making it if there is none. Blocks on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it belongs to another input log, [`ErrorKind::Corrupt`] if the input log ends before
    /// it, or no longer holds the events that it lacks; else as [`Log::open`].
    pub fn open(dir: &Path, input: &InputLog) -> Result<Self> {
        Self::open_with(dir, input, LogOptions::new("scored"))
    }

    /// [`ScoredLog::open`] with another layout.
    ///
    /// # Errors
    /// As [`ScoredLog::open`].
    pub fn open_with(dir: &Path, input: &InputLog, options: LogOptions) -> Result<Self> {
        let owner = input.partition().origin(0);
        let log = Log::open(dir, options, || owner.encode_to_vec())?;
        let (_, snapshot) = log.opened_snapshot();
        let belongs = Origin::decode(snapshot).is_ok_and(|found| found == owner);
        let (scored, events) = (log.end(), input.end());
        if !belongs {
            return Err(Error::new(ErrorKind::Conflict, "scored log belongs to another input log")
                .with("path", dir.display())
                .with("topic", &owner.topic)
                .help("put the input log back that it was made from, or start with an empty data folder"));
        }
        if scored > events || scored < input.start() {
            return Err(Error::new(ErrorKind::Corrupt, "scored log and input log do not meet")
                .with("path", dir.display())
                .with("scored_end", scored)
                .with("input_start", input.start())
                .with("input_end", events)
                .help("one of them has lost records: restore both from the same copy"));
        }
        Ok(Self { log })
    }

    /// The offset of the first outcome that is kept; equal to [`ScoredLog::end`] if there is none.
    pub fn start(&self) -> i64 {
        self.log.start()
    }

    /// One past the last durable outcome: the next event to score.
    pub fn end(&self) -> i64 {
        self.log.end()
    }

    /// Follows [`ScoredLog::end`].
    pub fn durable(&self) -> watch::Receiver<i64> {
        self.log.durable()
    }

    /// Makes outcomes durable with one sync. They must continue the log.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if an outcome's origin is neither the offset that it would get nor, as in a replay, an earlier
    /// one; else as [`Log::append`].
    /// Nothing was appended.
    pub async fn append(&self, outcomes: &[Outcome]) -> Result<Range<i64>> {
        let mut frames = Vec::with_capacity(outcomes.len());
        for (offset, outcome) in (self.end()..).zip(outcomes) {
            if origin(outcome).is_none_or(|origin| origin.offset > offset) {
                return Err(Error::new(ErrorKind::Internal, "outcome does not continue the scored log")
                    .with("offset", offset)
                    .with("origin", format!("{:?}", origin(outcome))));
            }
            frames.push(Bytes::from(outcome.encode_to_vec()));
        }
        self.log.append(frames).await
    }

    /// Reads from `offset` on.
    pub fn reader(&self, offset: i64) -> OutcomeReader {
        OutcomeReader { reader: self.log.reader(offset) }
    }

    /// Removes whole segments below `offset`.
    ///
    /// # Errors
    /// As [`Log::trim_below`].
    pub async fn trim_below(&self, offset: i64) -> Result<()> {
        self.log.trim_below(offset).await
    }
}

/// Which event an outcome is the outcome of.
pub fn origin(outcome: &Outcome) -> Option<&Origin> {
    match outcome.kind.as_ref()? {
        outcome::Kind::Scored(post) => post.origin.as_ref(),
        outcome::Kind::Dead(letter) => letter.origin.as_ref(),
    }
}

/// Reads outcomes in order, as they become durable.
#[derive(Debug)]
pub struct OutcomeReader {
    reader: LogReader,
}

impl OutcomeReader {
    /// The offset that is read next.
    pub fn next_offset(&self) -> i64 {
        self.reader.next_offset()
    }

    /// Waits until there is something to read. May be cancelled without loss.
    ///
    /// # Errors
    /// As [`LogReader::wait`].
    pub async fn wait(&mut self) -> Result<()> {
        self.reader.wait().await
    }

    /// Waits for outcomes and takes at most `max_outcomes`, about `max_bytes`. May be cancelled without loss.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub async fn read(&mut self, max_outcomes: usize, max_bytes: usize) -> Result<Vec<(i64, Outcome)>> {
        self.reader.wait().await?;
        self.read_available(max_outcomes, max_bytes).await
    }

    /// Like [`OutcomeReader::read`], but answers an empty list where that would wait.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub async fn read_available(&mut self, max_outcomes: usize, max_bytes: usize) -> Result<Vec<(i64, Outcome)>> {
        let frames = self.reader.read_available(max_outcomes, max_bytes).await?;
        frames.into_iter().map(|(offset, bytes)| Ok((offset, decode(offset, bytes)?))).collect()
    }
}

fn decode(offset: i64, bytes: Bytes) -> Result<Outcome> {
    Outcome::decode(bytes).map_err(|e| {
        let error =
            Error::new(ErrorKind::Corrupt, "scored log holds a frame that is no outcome").with("offset", offset);
        error.source(e).help("was it written by a newer version of undertone?")
    })
}

#[cfg(test)]
mod tests {
    use undertone_proto::v1::DeadLetter;

    use super::*;
    use crate::input::SourceBatch;

    fn dead(input: &InputLog, offset: i64) -> Outcome {
        let letter = DeadLetter { origin: Some(input.partition().origin(offset)), ..Default::default() };
        Outcome { kind: Some(outcome::Kind::Dead(letter)) }
    }

    async fn input_with_two_events(dir: &Path) -> InputLog {
        let input = InputLog::open(&dir.join("input"), "c").unwrap();
        let payloads = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        input.append(SourceBatch { source_key: "s".into(), first_seq: 0, payloads, last: true }).await.unwrap();
        input
    }

    #[tokio::test]
    async fn outcomes_stand_at_the_offsets_of_their_events() {
        let dir = crate::testing::dir();
        let input = input_with_two_events(dir.path()).await;
        let scored = ScoredLog::open(&dir.path().join("scored"), &input).unwrap();
        assert_eq!(scored.append(&[dead(&input, 1)]).await.unwrap_err().kind(), ErrorKind::Internal);
        scored.append(&[dead(&input, 0), dead(&input, 1)]).await.unwrap();
        let read = scored.reader(0).read(10, 10_000).await.unwrap();
        assert_eq!(read, [(0, dead(&input, 0)), (1, dead(&input, 1))]);
    }

    #[tokio::test]
    async fn a_scored_log_of_another_input_log_is_refused() {
        let dir = crate::testing::dir();
        let input = input_with_two_events(dir.path()).await;
        drop(ScoredLog::open(&dir.path().join("scored"), &input).unwrap());
        let other = InputLog::open(&dir.path().join("other"), "c").unwrap();
        let error = ScoredLog::open(&dir.path().join("scored"), &other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }

    #[tokio::test]
    async fn an_input_log_that_lost_its_tail_is_noticed() {
        let dir = crate::testing::dir();
        let input = input_with_two_events(dir.path()).await;
        let scored = ScoredLog::open(&dir.path().join("scored"), &input).unwrap();
        scored.append(&[dead(&input, 0), dead(&input, 1)]).await.unwrap();
        drop((input, scored));
        let segment = dir.path().join("input/00000000000000000000.log");
        let bytes = std::fs::read(&segment).unwrap();
        std::fs::write(&segment, &bytes[..bytes.len() - 1]).unwrap();
        let input = InputLog::open(&dir.path().join("input"), "c").unwrap();
        let error = ScoredLog::open(&dir.path().join("scored"), &input).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
