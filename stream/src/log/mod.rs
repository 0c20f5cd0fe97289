//! A segmented append log: frames go in at the end, are numbered from 0, and are read by offset.
//!
//! The guarantee: a frame that [`Log::append`] has acknowledged, or that a reader has seen, survives a crash of the
//! process and of the machine, at its offset, byte for byte, until [`Log::trim_below`] removes it. Nothing is visible
//! before it is synced. One append is one sync, however many frames it carries.
//!
//! On opening, a torn tail (bytes of an append that was never acknowledged) is cut. Damage to frames that had been
//! durable is [`ErrorKind::Corrupt`], with path and byte, and is never skipped. What cannot be told apart: damage to the
//! very last batch looks like a tear, because nothing after it proves that it was synced.
//!
//! After a failed write (full disk, I/O error) the log goes back to its last durable length before it takes anything
//! more, so that no half frame ever stands before a later one.

mod frame;
mod reader;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{fs, ops::Range};

use bytes::Bytes;
use tokio::sync::watch;
use undertone_error::{Error, ErrorKind, Result, failpoint};
use uuid::Uuid;

pub use self::reader::LogReader;
use self::segment::{Header, Segment};
use self::writer::Writer;
use crate::durable::{blocking, create_dir, io_error, sync_dir};

/// How a log is laid out.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// What metrics, fail points and messages call it: `input`, `scored`.
    pub name: &'static str,
    /// A segment that has grown to this many bytes is closed, and the next append starts another.
    pub segment_bytes: u64,
    /// The largest frame, in bytes of payload.
    pub max_frame_bytes: usize,
}

impl LogOptions {
    /// Segments of 64 MiB, frames of at most 64 MiB.
    pub fn new(name: &'static str) -> Self {
        Self { name, segment_bytes: 64 << 20, max_frame_bytes: 64 << 20 }
    }
}

/// A log, open for appending and reading. Clones share it.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    options: LogOptions,
    topic: Uuid,
    /// The last segment's header, as it was when the log was opened.
    opened: Header,
    /// Never empty; the last one is written to.
    segments: RwLock<Vec<Segment>>,
    /// One past the last durable frame.
    durable: watch::Sender<i64>,
    writer: Mutex<Writer>,
}

impl Shared {
    // A panic elsewhere leaves these in order: the list is changed in single steps, and the writer's own state says
    // whether its file must be put right first.
    fn segments(&self) -> RwLockReadGuard<'_, Vec<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn segments_mut(&self) -> RwLockWriteGuard<'_, Vec<Segment>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> i64 {
        self.segments().first().map_or(0, |segment| segment.first)
    }
}

impl Log {
    /// Opens the log in `dir`, making it if there is none. `birth` gives the snapshot of a log that is made.
    /// Blocks on the disk. The caller sees to it that no other process has it open.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for damaged files, [`ErrorKind::Unsupported`] for a format of another version, and errors
    /// of the file system.
    pub fn open(dir: &Path, options: LogOptions, birth: impl FnOnce() -> Vec<u8>) -> Result<Self> {
        create_dir(dir)?;
        let mut firsts = segment::list(dir)?;
        if firsts.is_empty() {
            segment::create(dir, &Header { topic: Uuid::new_v4(), first: 0, snapshot: birth() })?;
            firsts.push(0);
        }

        let mut segments = Vec::with_capacity(firsts.len());
        let mut last: Option<(PathBuf, fs::File, Header)> = None;
        for first in firsts {
            let path = segment::path(dir, first);
            let mut file = fs::File::options()
                .read(true)
                .write(true)
                .open(&path)
                .map_err(|e| io_error("cannot open segment", &path, e))?;
            let header = Header::read(&path, &mut file)?;
            if let Some((_, _, before)) = &last
                && before.topic != header.topic
            {
                return Err(Error::new(ErrorKind::Corrupt, "segments of two different logs lie in one folder")
                    .with("path", path.display())
                    .help("move the segments that do not belong here out of the folder"));
            }
            segments.push(Segment::new(first, header.bytes()));
            last = Some((path, file, header));
        }
        let (Some((path, file, opened)), Some(active)) = (last, segments.last_mut()) else {
            return Err(Error::new(ErrorKind::Internal, "log has no segment").with("path", dir.display()));
        };

        let tail = segment::scan(&path, &file, active)?;
        let failed = |e| io_error("cannot sync segment", &path, e);
        if tail.torn > 0 {
            tracing::warn!(path = %path.display(), bytes = tail.torn, offset = tail.end, "cut a torn tail");
            file.set_len(tail.length).map_err(failed)?;
        }
        // What a killed process wrote but did not sync is still only in memory; it is about to become visible.
        file.sync_all().map_err(failed)?;

        let writer = Writer::new(file, path, tail.length, tail.end);
        let shared = Shared {
            dir: dir.to_owned(),
            options,
            topic: opened.topic,
            opened,
            segments: RwLock::new(segments),
            durable: watch::Sender::new(tail.end),
            writer: Mutex::new(writer),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The log's own id: a log that is made again has another.
    pub fn topic(&self) -> Uuid {
        self.shared.topic
    }

    /// The offset of the first frame that is kept; equal to [`Log::end`] if there is none.
    pub fn start(&self) -> i64 {
        self.shared.start()
    }

    /// One past the last durable frame.
    pub fn end(&self) -> i64 {
        *self.shared.durable.borrow()
    }

    /// Follows [`Log::end`].
    pub fn durable(&self) -> watch::Receiver<i64> {
        self.shared.durable.subscribe()
    }

    /// The snapshot that was current when the log was opened, with the offset of the first frame that it does not cover.
    pub fn opened_snapshot(&self) -> (i64, &[u8]) {
        (self.shared.opened.first, &self.shared.opened.snapshot)
    }

    /// Appends frames with one sync and answers their offsets. A call whose future is dropped may still append.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] for a frame over the limit; [`ErrorKind::Exhausted`] when the disk is full; other errors
    /// of the file system. After any of them none of these frames is in the log, and the call may be repeated.
    pub async fn append(&self, payloads: Vec<Bytes>) -> Result<Range<i64>> {
        let log = self.clone();
        blocking(move || log.append_blocking(&payloads, &|| log.shared.opened.snapshot.clone())).await
    }

    /// [`Log::append`] for callers that may block. `snapshot` is asked for the owner's state just before the first of
    /// these frames, if a new segment has to be started for them.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_blocking(&self, payloads: &[Bytes], snapshot: &dyn Fn() -> Vec<u8>) -> Result<Range<i64>> {
        self.shared.writer().append(&self.shared, payloads, snapshot)
    }

    /// Reads from `offset` on. Reading ahead of the end is allowed: the reader waits.
    pub fn reader(&self, offset: i64) -> LogReader {
        LogReader::new(Arc::clone(&self.shared), offset)
    }

    /// Removes whole segments that hold only frames below `offset`; the last segment always stays.
    ///
    /// # Errors
    /// Errors of the file system. What was removed before one stays removed.
    pub async fn trim_below(&self, offset: i64) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            loop {
                let first = match shared.segments().as_slice() {
                    [first, next, ..] if next.first <= offset => first.first,
                    _ => return Ok(()),
                };
                failpoint::hit("trim");
                let path = segment::path(&shared.dir, first);
                // Out of the list before out of the folder: a reader then learns that the offset was trimmed.
                shared.segments_mut().retain(|segment| segment.first != first);
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(io_error("cannot remove segment", &path, e));
                    }
                    // One at a time and oldest first, so that what a crash leaves has no gap.
                    _ => sync_dir(&shared.dir)?,
                }
                tracing::debug!(log = shared.options.name, path = %path.display(), "trimmed a segment");
            }
        })
        .await
    }
}
