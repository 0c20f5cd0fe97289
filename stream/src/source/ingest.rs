//! From a file or a stream into the input log.
//!
//! The guarantee: a file is taken in once, by content: interrupted anywhere and started again, it goes on after its last
//! durable event, and a finished one adds nothing. Reading runs ahead of the disk by a bounded number of bytes, and the
//! log ahead of its consumer by a bounded number of events. Whatever is ready when a sync ends goes into the next one. A
//! stream cannot be read again: what was read ahead of it when the shutdown comes is taken in before the reading ends.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};

use super::{ReadOptions, RecordReader, Stream, fingerprint, from_stream, open};
use crate::durable::blocking;
use crate::input::{InputLog, SourceBatch};

/// Bytes that were read and are not yet durable.
const READ_AHEAD_BYTES: u32 = 32 << 20;
const READ_AHEAD_RECORDS: usize = 4096;
const BATCH_RECORDS: usize = 2048;

/// Keeps the input log from running far ahead of who consumes it.
#[derive(Clone, Debug)]
pub struct Ahead {
    /// Follows the consumer's position.
    pub consumed: watch::Receiver<i64>,
    /// The most events between that and the log's end.
    pub max_events: i64,
}

impl Ahead {
    /// Waits until the log's `end` is less than the limit ahead.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] if the consumer is gone.
    pub async fn wait(&mut self, end: i64) -> Result<()> {
        let max = self.max_events;
        match self.consumed.wait_for(|consumed| end - consumed < max).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Cancelled, "consumer of the input log has ended")),
        }
    }
}

/// What became of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Events that were taken in now.
    pub events: u64,
    /// Events that were in the log already.
    pub already: u64,
    /// Whether the source was read to its end.
    pub finished: bool,
}

/// Takes sources into the input log.
#[derive(Clone, Debug)]
pub struct Ingest {
    input: InputLog,
    ahead: Option<Ahead>,
    shutdown: CancellationToken,
}

impl Ingest {
    /// `shutdown` ends the reading. What of a file was read and not yet appended is read again next time; what of a stream
    /// was read is appended first, however far behind the consumer is.
    pub fn new(input: InputLog, shutdown: CancellationToken) -> Self {
        Self { input, ahead: None, shutdown }
    }

    /// Keeps the log from running further ahead than this.
    #[must_use]
    pub fn ahead(mut self, ahead: Ahead) -> Self {
        self.ahead = Some(ahead);
        self
    }

    /// Takes in a file, from where it was left.
    ///
    /// # Errors
    /// As [`open`]; [`ErrorKind::Conflict`] if the file changes while it is read; as [`InputLog::append`]. What came
    /// before stays.
    pub async fn file(&self, path: &Path, options: &ReadOptions) -> Result<Ingested> {
        let (path, options) = (path.to_owned(), options.clone());
        let print = {
            let path = path.clone();
            blocking(move || fingerprint(&path)).await?
        };
        let key = print.source_key();
        let cursor = self.input.cursor(&key);
        if cursor.finished {
            tracing::info!(path = %path.display(), events = cursor.next_seq, "file was taken in before");
            return Ok(Ingested { events: 0, already: cursor.next_seq, finished: true });
        }
        let records = {
            let path = path.clone();
            blocking(move || open(&path, &options)).await?
        };
        let still = move || print.still(&path);
        self.take(key, Job { records, already: cursor.next_seq, still: Some(Box::new(still)) }).await
    }

    /// Takes in a stream that cannot be read again, such as standard input, under a key of its own.
    ///
    /// # Errors
    /// As [`from_stream`] and [`InputLog::append`]. What came before stays.
    pub async fn stream(&self, key: &str, stream: Stream, options: &ReadOptions) -> Result<Ingested> {
        let (options, name) = (options.clone(), key.to_owned());
        // A thread of its own also for opening: it may wait for the first bytes for ever.
        let (send, opened) = tokio::sync::oneshot::channel();
        spawn("undertone-open", move || {
            let _ = send.send(from_stream(&name, stream, &options));
        })?;
        let already = self.input.cursor(key).next_seq;
        let records = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(Ingested { already, ..Ingested::default() }),
            opened = opened => opened.map_err(|e| Error::new(ErrorKind::Internal, "opening a stream panicked").source(e))??,
        };
        self.take(key.to_owned(), Job { records, already: 0, still: None }).await
    }

    async fn take(&self, source_key: String, job: Job) -> Result<Ingested> {
        let once = job.still.is_none();
        let start = self.input.cursor(&source_key).next_seq;
        let mut ingested = Ingested { already: start, ..Ingested::default() };
        let (send, mut ready) = mpsc::channel(READ_AHEAD_RECORDS);
        // Not a task of the runtime: a read of standard input may never return, and must not hold up the shutdown.
        let handle = Handle::current();
        spawn("undertone-read", move || job.run(&send, &handle))?;

        let mut ahead = self.ahead.clone();
        let mut waiting = Vec::new();
        let mut next_seq = start;
        // How many had been taken in when the shutdown came.
        let mut stopped_at = None;
        loop {
            let received = tokio::select! {
                biased;
                () = self.shutdown.cancelled(), if stopped_at.is_none() => {
                    if !once {
                        return Ok(ingested);
                    }
                    // The reader can give nothing more; what it gave is still there.
                    ready.close();
                    stopped_at = Some(ingested.events);
                    continue;
                }
                received = ready.recv_many(&mut waiting, BATCH_RECORDS) => received,
            };
            if let Some(before) = stopped_at
                && received == 0
            {
                let records = ingested.events - before;
                tracing::info!(source = source_key, records, "took in what was read before the shutdown");
                return Ok(ingested);
            }
            if received == 0 {
                return Err(Error::new(ErrorKind::Internal, "reader of a source ended without saying so"));
            }
            let mut batch =
                SourceBatch { source_key: source_key.clone(), first_seq: next_seq, payloads: Vec::new(), last: false };
            let mut room = VecDeque::with_capacity(received);
            let mut end = None;
            for step in waiting.drain(..) {
                match step {
                    Step::Record { payload, last, bytes } => {
                        batch.payloads.push(payload);
                        batch.last = last;
                        room.push_back(bytes);
                    }
                    Step::End(result) => end = Some(result),
                }
            }
            let count = batch.payloads.len() as u64;
            if let Some(ahead) = &mut ahead
                && count > 0
            {
                tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => if !once { return Ok(ingested) },
                    waited = ahead.wait(self.input.end()) => waited?,
                }
            }
            if self.input.append_patiently(batch, &self.shutdown).await?.is_none() {
                if once {
                    let records = count + ready.len() as u64;
                    tracing::error!(source = source_key, records, "lost what was read: the disk took no more in");
                }
                return Ok(ingested);
            }
            next_seq += count;
            ingested.events += count;
            if let Some(end) = end {
                end?;
                ingested.finished = true;
                return Ok(ingested);
            }
        }
    }
}

enum Step {
    /// `bytes` is given back when the record is durable.
    Record {
        payload: Bytes,
        last: bool,
        bytes: OwnedSemaphorePermit,
    },
    End(Result<()>),
}

type Check = Box<dyn FnOnce() -> Result<()> + Send>;

/// What the reading thread does.
struct Job {
    records: RecordReader,
    /// Records to pass over, because they are in the log.
    already: u64,
    /// Asked before the last record is marked as the last. Only with it is the last record marked: to know it, the
    /// reader holds a record back until the next has come, which a live stream must not wait for.
    still: Option<Check>,
}

impl Job {
    fn run(self, send: &mpsc::Sender<Step>, runtime: &Handle) {
        if let Some(result) = self.read(send, runtime).transpose() {
            let _ = send.blocking_send(Step::End(result));
        }
    }

    /// `None` if nobody is listening any more.
    fn read(self, send: &mpsc::Sender<Step>, runtime: &Handle) -> Result<Option<()>> {
        let bytes = Arc::new(Semaphore::new(READ_AHEAD_BYTES as usize));
        let Self { mut records, already, mut still } = self;
        for _ in 0..already {
            match records.next() {
                Some(record) => record.map(drop)?,
                None => break,
            }
        }
        let mut next = records.next();
        while let Some(record) = next {
            let payload = record?.into_payload();
            let ahead = if still.is_some() { records.next() } else { None };
            let last = still.is_some() && ahead.is_none();
            if last && let Some(still) = still.take() {
                still()?;
            }
            let wanted = u32::try_from(payload.len()).unwrap_or(u32::MAX).clamp(1, READ_AHEAD_BYTES);
            let Ok(bytes) = runtime.block_on(Arc::clone(&bytes).acquire_many_owned(wanted)) else { return Ok(None) };
            if send.blocking_send(Step::Record { payload, last, bytes }).is_err() {
                return Ok(None);
            }
            next = if last || ahead.is_some() { ahead } else { records.next() };
        }
        Ok(Some(()))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    match thread::Builder::new().name(name.to_owned()).spawn(work) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::new(ErrorKind::Exhausted, "cannot start a thread").source(e)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    async fn ingest(input: &InputLog, path: &Path) -> Result<Ingested> {
        Ingest::new(input.clone(), CancellationToken::new()).file(path, &ReadOptions::default()).await
    }

    async fn payloads(input: &InputLog) -> Vec<String> {
        let mut reader = input.reader(0);
        let mut payloads = Vec::new();
        while reader.next_offset() < input.end() {
            let events = reader.read(1000, 1 << 20).await.unwrap();
            payloads.extend(events.into_iter().map(|(_, event)| String::from_utf8(event.payload).unwrap()));
        }
        payloads
    }

    #[tokio::test]
    async fn a_file_is_known_by_its_content() {
        let dir = crate::testing::dir();
        let input = InputLog::open(&dir.path().join("input"), "c").unwrap();
        let (one, two, empty) = (dir.path().join("1.jsonl"), dir.path().join("2.jsonl"), dir.path().join("3.jsonl"));
        std::fs::write(&one, "a\nb\nc").unwrap();
        std::fs::write(&two, "a\nb\nc").unwrap();
        std::fs::write(&empty, "").unwrap();
        assert_eq!(ingest(&input, &one).await.unwrap(), Ingested { events: 3, already: 0, finished: true });
        for path in [&one, &two] {
            assert_eq!(ingest(&input, path).await.unwrap(), Ingested { events: 0, already: 3, finished: true });
        }
        assert_eq!(ingest(&input, &empty).await.unwrap(), Ingested { events: 0, already: 0, finished: true });
        assert_eq!(payloads(&input).await, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_stream_is_taken_in_before_it_ends() {
        let dir = crate::testing::dir();
        let input = InputLog::open(dir.path(), "c").unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let ingest = Ingest::new(input.clone(), CancellationToken::new());
        let taken =
            tokio::spawn(async move { ingest.stream("stdin:1", Box::new(reader), &ReadOptions::default()).await });
        std::io::Write::write_all(&mut writer, b"first line\n").unwrap();
        input.durable().wait_for(|end| *end == 1).await.unwrap();
        std::io::Write::write_all(&mut writer, b"second line").unwrap();
        drop(writer);
        assert_eq!(taken.await.unwrap().unwrap(), Ingested { events: 2, already: 0, finished: true });
        assert_eq!(payloads(&input).await, ["first line", "second line"]);
    }

    #[tokio::test]
    async fn a_shutdown_takes_in_what_was_read_of_a_stream_however_far_behind_the_consumer_is() {
        let dir = crate::testing::dir();
        let input = InputLog::open(dir.path(), "c").unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (_consume, consumed) = watch::channel(0);
        let shutdown = CancellationToken::new();
        let ingest = Ingest::new(input.clone(), shutdown.clone()).ahead(Ahead { consumed, max_events: 1 });
        let taken =
            tokio::spawn(async move { ingest.stream("stdin:1", Box::new(reader), &ReadOptions::default()).await });
        std::io::Write::write_all(&mut writer, b"first line\n").unwrap();
        input.durable().wait_for(|end| *end == 1).await.unwrap();
        // These wait for the consumer, which never comes.
        let rest: String = (1..500).map(|n| format!("{n}\n")).collect();
        std::io::Write::write_all(&mut writer, rest.as_bytes()).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(input.end(), 1);
        shutdown.cancel();
        // The pipe is still open: the reader waits in it, and must not be waited for.
        let taken = tokio::time::timeout(std::time::Duration::from_secs(5), taken).await.unwrap().unwrap().unwrap();
        assert_eq!(taken, Ingested { events: 500, already: 0, finished: false });
        let expected: Vec<_> = (0..500).map(|n| if n == 0 { "first line".to_owned() } else { n.to_string() }).collect();
        assert_eq!(payloads(&input).await, expected);
    }

    #[tokio::test]
    async fn what_came_before_an_error_stays() {
        let dir = crate::testing::dir();
        let input = InputLog::open(dir.path(), "c").unwrap();
        let lines = (0..9000).map(|n| format!("{n}\n")).collect::<String>();
        let zst = zstd::encode_all(lines.as_bytes(), 1).unwrap();
        let cut = Cursor::new(zst[..zst.len() - 5].to_vec());
        let ingest = Ingest::new(input.clone(), CancellationToken::new());
        let error = ingest.stream("stdin:1", Box::new(cut), &ReadOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let kept = payloads(&input).await;
        assert!(!kept.is_empty() || zst.len() < 1 << 17);
        assert_eq!(kept, (0..kept.len()).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_log_does_not_run_far_ahead_of_its_consumer() {
        let dir = crate::testing::dir();
        let input = InputLog::open(&dir.path().join("input"), "c").unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, "{}\n".repeat(20_000)).unwrap();
        let (consume, consumed) = watch::channel(0);
        let shutdown = CancellationToken::new();
        let ingest = Ingest::new(input.clone(), shutdown.clone()).ahead(Ahead { consumed, max_events: 100 });
        let taken = tokio::spawn(async move { ingest.file(&path, &ReadOptions::default()).await });
        input.durable().wait_for(|end| *end >= 100).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let end = input.end();
        assert!(end < 100 + BATCH_RECORDS as i64, "{end}");
        consume.send_replace(end);
        input.durable().wait_for(|now| *now > end).await.unwrap();
        shutdown.cancel();
        assert!(!taken.await.unwrap().unwrap().finished);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// However a crash cuts the log, taking the file in again makes it whole: nothing twice, nothing missing.
        #[test]
        fn an_interrupted_file_goes_on_where_it_stopped(lines in 1usize..60, cut: prop::sample::Index) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let dir = crate::testing::dir();
                let (path, logs) = (dir.path().join("a.jsonl"), dir.path().join("input"));
                let lines: Vec<String> = (0..lines).map(|n| format!("line {n}")).collect();
                std::fs::write(&path, lines.join("\n")).unwrap();
                ingest(&InputLog::open(&logs, "c").unwrap(), &path).await.unwrap();
                let segment = logs.join("00000000000000000000.log");
                let bytes = std::fs::read(&segment).unwrap();
                let header = 44 + u32::from_le_bytes(bytes[36..40].try_into().unwrap()) as usize;
                std::fs::write(&segment, &bytes[..header + cut.index(bytes.len() - header + 1)]).unwrap();

                let input = InputLog::open(&logs, "c").unwrap();
                let kept = input.end() as u64;
                let ingested = ingest(&input, &path).await.unwrap();
                assert_eq!((ingested.already, ingested.events), (kept, lines.len() as u64 - kept));
                assert_eq!(payloads(&input).await, lines);
            });
        }
    }
}
