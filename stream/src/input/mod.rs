//! The input log: every event as it came, durable before anybody acts on it.
//!
//! The guarantee: an event that [`InputLog::append`] has acknowledged survives any crash, once, at one offset. A source
//! has a key and numbers its events; the log knows the next number of each, from the events themselves, so a source that
//! starts again goes on exactly where its last durable event stands, and a finished file adds nothing.

mod cursors;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::{Envelope, Event, EventTime, Partition};

use self::cursors::Cursors;
use crate::backoff::persist;
use crate::durable::blocking;
use crate::log::{Log, LogOptions, LogReader};
use crate::telemetry;

/// How far a source has been taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCursor {
    /// The sequence number of its next event, from 0.
    pub next_seq: u64,
    /// Whether its last event is in the log.
    pub finished: bool,
}

/// Consecutive events of one source.
#[derive(Clone, Debug)]
pub struct SourceBatch {
    /// Names the source for ever: `file:<sha256>`, `stdin:<uuid>`, `generator:<seed>`.
    pub source_key: String,
    /// The sequence number of the first payload.
    pub first_seq: u64,
    /// The events, byte for byte.
    pub payloads: Vec<Bytes>,
    /// Whether the source ends with the last of them. A batch without payloads records nothing.
    pub last: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Frame {
    #[prost(int64, tag = "1")]
    ingested_at_us: i64,
    #[prost(string, tag = "2")]
    source_key: String,
    #[prost(uint64, tag = "3")]
    source_seq: u64,
    #[prost(bytes = "bytes", tag = "4")]
    payload: Bytes,
    #[prost(bool, tag = "5")]
    last: bool,
    #[prost(message, optional, tag = "6")]
    replay_of: Option<ReplayOf>,
}

/// Which earlier event of the log an event is again: it has that one's origin and time.
#[derive(Clone, PartialEq, Message)]
struct ReplayOf {
    #[prost(int64, tag = "1")]
    offset: i64,
    #[prost(int64, tag = "2")]
    ingested_at_us: i64,
}

/// An event that is to be scored again.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// Where it stands in the log.
    pub offset: i64,
    /// When it was ingested.
    pub ingested_at_us: EventTime,
    /// Its bytes.
    pub payload: Bytes,
}

/// The input log of one data folder: one partition, offsets from 0. Clones share it.
#[derive(Clone, Debug)]
pub struct InputLog {
    log: Log,
    partition: Arc<Partition>,
    cursors: Arc<Mutex<Cursors>>,
}

impl InputLog {
    /// Opens the log in `dir`, making it if there is none. `cluster` is the data folder's id. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open(dir: &Path, cluster: &str) -> Result<Self> {
        Self::open_with(dir, cluster, LogOptions::new("input"))
    }

    /// [`InputLog::open`] with another layout.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_with(dir: &Path, cluster: &str, options: LogOptions) -> Result<Self> {
        let log = Log::open(dir, options, || Cursors::default().encode())?;
        let (from, snapshot) = log.opened_snapshot();
        let mut cursors = Cursors::decode(snapshot)?;
        let mut reader = log.reader(from);
        loop {
            let frames = reader.read_available_blocking(4096, 8 << 20)?;
            if frames.is_empty() {
                break;
            }
            for (offset, bytes) in frames {
                cursors.advance(&decode(offset, bytes)?);
            }
        }
        let partition = Partition { cluster: cluster.to_owned(), topic: log.topic().to_string(), partition: 0 };
        Ok(Self { log, partition: Arc::new(partition), cursors: Arc::new(Mutex::new(cursors)) })
    }

    /// What the offsets are offsets in.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The offset of the first event that is kept; equal to [`InputLog::end`] if there is none.
    pub fn start(&self) -> i64 {
        self.log.start()
    }

    /// One past the last durable event.
    pub fn end(&self) -> i64 {
        self.log.end()
    }

    /// Follows [`InputLog::end`].
    pub fn durable(&self) -> watch::Receiver<i64> {
        self.log.durable()
    }

    /// How far the source has been taken in; zero for one that is new.
    pub fn cursor(&self, source_key: &str) -> SourceCursor {
        self.cursors().get(source_key)
    }

    /// Makes a batch durable with one sync and answers its offsets. A call whose future is dropped may still append:
    /// look at the cursor.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the batch does not continue its source; else as [`Log::append`]. Nothing was appended.
    pub async fn append(&self, batch: SourceBatch) -> Result<Range<i64>> {
        let input = self.clone();
        blocking(move || input.append_at(batch, Timestamp::now().as_microsecond())).await
    }

    /// [`InputLog::append`], repeated while its error is one that passes, such as a full disk. `None` if the shutdown came
    /// first: then nothing was appended. It is tried once even after a shutdown.
    ///
    /// # Errors
    /// Those of [`InputLog::append`] that do not pass by themselves.
    pub async fn append_patiently(
        &self,
        batch: SourceBatch,
        shutdown: &CancellationToken,
    ) -> Result<Option<Range<i64>>> {
        // Payloads are shared, not copied.
        persist("appending to the input log", shutdown, || self.append(batch.clone())).await
    }

    /// Appends earlier events again, the last of their source, from its number `first_seq` on: whoever reads them by their
    /// origin has had them before. As [`InputLog::append`] otherwise.
    ///
    /// # Errors
    /// As [`InputLog::append`].
    pub async fn append_replays(&self, source_key: String, first_seq: u64, events: Vec<Replay>) -> Result<Range<i64>> {
        let input = self.clone();
        let (of, payloads): (Vec<_>, Vec<_>) = events
            .into_iter()
            .map(|event| (ReplayOf { offset: event.offset, ingested_at_us: event.ingested_at_us }, event.payload))
            .unzip();
        let batch = SourceBatch { source_key, first_seq, payloads, last: true };
        blocking(move || input.append_frames(batch, of, Timestamp::now().as_microsecond())).await
    }

    fn append_at(&self, batch: SourceBatch, ingested_at_us: EventTime) -> Result<Range<i64>> {
        self.append_frames(batch, Vec::new(), ingested_at_us)
    }

    fn append_frames(&self, batch: SourceBatch, of: Vec<ReplayOf>, ingested_at_us: EventTime) -> Result<Range<i64>> {
        let mut of = of.into_iter();
        if batch.payloads.is_empty() {
            return Ok(self.end()..self.end());
        }
        // Held over the append: the cursors must be those of just before it when a new segment is started.
        let mut cursors = self.cursors();
        cursors.check(&batch.source_key, batch.first_seq)?;
        let count = batch.payloads.len();
        let frames: Vec<Frame> = (batch.first_seq..)
            .zip(batch.payloads)
            .enumerate()
            .map(|(i, (source_seq, payload))| Frame {
                ingested_at_us,
                source_key: batch.source_key.clone(),
                source_seq,
                payload,
                last: batch.last && i + 1 == count,
                replay_of: of.next(),
            })
            .collect();
        let encoded: Vec<Bytes> = frames.iter().map(|frame| frame.encode_to_vec().into()).collect();
        let range = self.log.append_blocking(&encoded, &|| cursors.encode())?;
        if let Some(last) = frames.last() {
            cursors.advance(last);
        }
        metrics::counter!(telemetry::EVENTS).increment(count as u64);
        Ok(range)
    }

    /// Reads from `offset` on.
    pub fn reader(&self, offset: i64) -> EventReader {
        EventReader { reader: self.log.reader(offset), partition: Arc::clone(&self.partition) }
    }

    /// Removes whole segments below `offset`. Cursors are kept.
    ///
    /// # Errors
    /// As [`Log::trim_below`].
    pub async fn trim_below(&self, offset: i64) -> Result<()> {
        self.log.trim_below(offset).await
    }

    fn cursors(&self) -> MutexGuard<'_, Cursors> {
        // Changed only after an append has succeeded, in one step.
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads events in order, as they become durable.
#[derive(Debug)]
pub struct EventReader {
    reader: LogReader,
    partition: Arc<Partition>,
}

impl EventReader {
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

    /// Waits for events and takes at most `max_events`, about `max_bytes`. May be cancelled without loss.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub async fn read(&mut self, max_events: usize, max_bytes: usize) -> Result<Vec<(i64, Event)>> {
        self.reader.wait().await?;
        self.read_available(max_events, max_bytes).await
    }

    /// Like [`EventReader::read`], but answers an empty list where that would wait.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub async fn read_available(&mut self, max_events: usize, max_bytes: usize) -> Result<Vec<(i64, Event)>> {
        let frames = self.reader.read_available(max_events, max_bytes).await?;
        frames.into_iter().map(|(offset, bytes)| Ok((offset, self.event(offset, bytes)?))).collect()
    }

    fn event(&self, offset: i64, bytes: Bytes) -> Result<Event> {
        let frame = decode(offset, bytes)?;
        let (offset, ingested_at_us) = match frame.replay_of {
            Some(event) => (event.offset, event.ingested_at_us),
            None => (offset, frame.ingested_at_us),
        };
        let origin = self.partition.origin(offset);
        Ok(Event { origin, payload: frame.payload.into(), ingested_at_us, envelope: Envelope::default() })
    }
}

fn decode(offset: i64, bytes: Bytes) -> Result<Frame> {
    Frame::decode(bytes).map_err(|e| {
        let error = Error::new(ErrorKind::Corrupt, "input log holds a frame that is no event").with("offset", offset);
        error.source(e).help("was it written by a newer version of undertone?")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(key: &str, first_seq: u64, payloads: &[&str], last: bool) -> SourceBatch {
        let payloads = payloads.iter().map(|p| Bytes::copy_from_slice(p.as_bytes())).collect();
        SourceBatch { source_key: key.into(), first_seq, payloads, last }
    }

    fn open(dir: &Path) -> InputLog {
        InputLog::open_with(dir, "c", LogOptions { segment_bytes: 300, ..LogOptions::new("input") }).unwrap()
    }

    #[tokio::test]
    async fn events_come_back_with_their_origin_and_their_bytes() {
        let dir = crate::testing::dir();
        let input = open(dir.path());
        let payload = Bytes::from_static(b"\xff not utf-8");
        let raw = SourceBatch { source_key: "s".into(), first_seq: 0, payloads: vec![payload.clone()], last: false };
        assert_eq!(input.append(raw).await.unwrap(), 0..1);
        let mut reader = input.reader(0);
        let (offset, event) = reader.read(10, 1000).await.unwrap().remove(0);
        assert_eq!((offset, event.origin.offset, event.origin.cluster.as_str()), (0, 0, "c"));
        assert_eq!((event.origin.topic, event.payload), (input.partition().topic.clone(), payload.to_vec()));
        assert!(event.ingested_at_us > 1_700_000_000_000_000);
    }

    #[tokio::test]
    async fn a_replay_has_the_origin_and_the_time_of_its_event() {
        let dir = crate::testing::dir();
        let input = open(dir.path());
        input.append(batch("s", 0, &["a", "b"], false)).await.unwrap();
        let again = Replay { offset: 1, ingested_at_us: 42, payload: Bytes::from_static(b"b") };
        assert_eq!(input.append_replays("replay:1".into(), 0, vec![again]).await.unwrap(), 2..3);
        assert_eq!(input.cursor("replay:1"), SourceCursor { next_seq: 1, finished: true });
        let (offset, event) = input.reader(2).read(10, 1000).await.unwrap().remove(0);
        assert_eq!((offset, event.origin.offset, event.ingested_at_us, event.payload), (2, 1, 42, b"b".to_vec()));
    }

    #[tokio::test]
    async fn a_finished_source_takes_nothing_more_even_after_its_events_are_trimmed() {
        let dir = crate::testing::dir();
        let input = open(dir.path());
        input.append(batch("file:1", 0, &["a", "b"], true)).await.unwrap();
        for n in 0..40 {
            input.append(batch("generator:7", n, &["some more text to fill segments"], false)).await.unwrap();
        }
        input.trim_below(40).await.unwrap();
        assert!(input.start() > 2);
        drop(input);
        let input = open(dir.path());
        assert_eq!(input.cursor("file:1"), SourceCursor { next_seq: 2, finished: true });
        assert_eq!(input.cursor("generator:7"), SourceCursor { next_seq: 40, finished: false });
        let error = input.append(batch("file:1", 2, &["c"], false)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }

    #[tokio::test]
    async fn a_batch_that_repeats_or_skips_is_refused() {
        let dir = crate::testing::dir();
        let input = open(dir.path());
        input.append(batch("s", 0, &["a", "b"], false)).await.unwrap();
        for seq in [0, 1, 3] {
            assert_eq!(input.append(batch("s", seq, &["x"], false)).await.unwrap_err().kind(), ErrorKind::Conflict);
            let patiently = input.append_patiently(batch("s", seq, &["x"], false), &CancellationToken::new()).await;
            assert_eq!(patiently.unwrap_err().kind(), ErrorKind::Conflict, "does not pass by waiting");
        }
        assert_eq!(input.end(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever a crash cuts, the cursors say exactly what is still there.
        #[test]
        fn cursors_are_as_durable_as_the_events(appends in prop::collection::vec((0u8..3, 1usize..4), 1..20), cut: prop::sample::Index) {
            let dir = crate::testing::dir();
            let input = open(dir.path());
            let mut keys = Vec::new();
            for (source, count) in appends {
                let key = format!("source:{source}");
                let payloads = vec!["twenty bytes of text"; count];
                input.append_at(batch(&key, input.cursor(&key).next_seq, &payloads, false), 1).unwrap();
                keys.extend(vec![key; count]);
            }
            drop(input);
            let path = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).max().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let header = 44 + u32::from_le_bytes(bytes[36..40].try_into().unwrap()) as usize;
            std::fs::write(&path, &bytes[..header + cut.index(bytes.len() - header + 1)]).unwrap();

            let input = open(dir.path());
            for source in 0..3 {
                let key = format!("source:{source}");
                let kept = keys[..input.end() as usize].iter().filter(|k| **k == key).count();
                prop_assert_eq!(input.cursor(&key).next_seq, kept as u64);
            }
        }
    }
}
