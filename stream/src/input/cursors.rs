//! How far each source has been taken into the input log. The guarantee: the cursors are a function of the log alone
//! (the last segment's snapshot plus the frames after it), so they are exactly as durable as the events.

use std::collections::BTreeMap;

use prost::Message;
use undertone_error::{Error, ErrorKind, Result};

use super::{Frame, SourceCursor};

#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    #[prost(message, repeated, tag = "1")]
    sources: Vec<Source>,
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    next_seq: u64,
    #[prost(bool, tag = "3")]
    finished: bool,
}

/// The cursor of every source that was ever taken in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cursors(BTreeMap<String, SourceCursor>);

impl Cursors {
    pub(super) fn get(&self, key: &str) -> SourceCursor {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// Takes one durable frame into account.
    pub(super) fn advance(&mut self, frame: &Frame) {
        let cursor = SourceCursor { next_seq: frame.source_seq.saturating_add(1), finished: frame.last };
        self.0.insert(frame.source_key.clone(), cursor);
    }

    /// Whether a batch continues its source.
    pub(super) fn check(&self, key: &str, first_seq: u64) -> Result<()> {
        let cursor = self.get(key);
        if cursor.finished || cursor.next_seq != first_seq {
            return Err(Error::new(ErrorKind::Conflict, "batch does not continue its source")
                .with("source", key)
                .with("sequence", first_seq)
                .with(
                    "expected",
                    if cursor.finished { "nothing: it is finished".into() } else { cursor.next_seq.to_string() },
                )
                .help("start from the source's cursor in the input log"));
        }
        Ok(())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let source = |(key, cursor): (&String, &SourceCursor)| Source {
            key: key.clone(),
            next_seq: cursor.next_seq,
            finished: cursor.finished,
        };
        Snapshot { sources: self.0.iter().map(source).collect() }.encode_to_vec()
    }

    pub(super) fn decode(snapshot: &[u8]) -> Result<Self> {
        let snapshot = Snapshot::decode(snapshot)
            .map_err(|e| Error::new(ErrorKind::Corrupt, "cursors of the input log are not readable").source(e))?;
        let entry = |s: Source| (s.key, SourceCursor { next_seq: s.next_seq, finished: s.finished });
        Ok(Self(snapshot.sources.into_iter().map(entry).collect()))
    }
}
