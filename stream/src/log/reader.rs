//! Reading a log by offset. The guarantee: frames come in order, without a gap, only when they are durable, and each has
//! passed its CRC.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use undertone_error::{Error, ErrorKind, Result};

use super::frame::{self, Parsed};
use super::{Shared, segment};
use crate::durable::{blocking, io_error};

const CHUNK: usize = 256 * 1024;

/// A place in a log that moves forward as frames are read.
#[derive(Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
    durable: watch::Receiver<i64>,
    next: i64,
    /// The open file, if the next read can go on where the last one stopped.
    cursor: Option<Cursor>,
}

#[derive(Debug)]
struct Cursor {
    file: File,
    path: PathBuf,
    position: u64,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>, next: i64) -> Self {
        let durable = shared.durable.subscribe();
        Self { shared, durable, next, cursor: None }
    }

    /// The offset that is read next.
    pub fn next_offset(&self) -> i64 {
        self.next
    }

    /// Waits until there is a frame to read. May be cancelled without loss.
    ///
    /// # Errors
    /// None while the log is open.
    pub async fn wait(&mut self) -> Result<()> {
        let next = self.next;
        match self.durable.wait_for(|end| *end > next).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Internal, "log was closed under its reader")),
        }
    }

    /// Waits for frames and takes at most `max_frames` of them, and about `max_bytes` of payload: a frame that is larger
    /// alone still comes. Answers at least one frame. May be cancelled without loss: the next call reads the same.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the offset was trimmed, [`ErrorKind::Corrupt`] with path and byte for a damaged log,
    /// and errors of the file system.
    pub async fn read(&mut self, max_frames: usize, max_bytes: usize) -> Result<Vec<(i64, Bytes)>> {
        self.wait().await?;
        self.read_available(max_frames, max_bytes).await
    }

    /// Like [`LogReader::read`], but answers an empty list where that would wait.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub async fn read_available(&mut self, max_frames: usize, max_bytes: usize) -> Result<Vec<(i64, Bytes)>> {
        let Some(limits) = self.limits(max_frames, max_bytes) else { return Ok(Vec::new()) };
        let (shared, next, cursor) = (Arc::clone(&self.shared), self.next, self.cursor.take());
        let (frames, cursor) = blocking(move || read(&shared, next, cursor, limits)).await?;
        self.advance(&frames, cursor);
        Ok(frames)
    }

    /// [`LogReader::read_available`] for callers that may block.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn read_available_blocking(&mut self, max_frames: usize, max_bytes: usize) -> Result<Vec<(i64, Bytes)>> {
        let Some(limits) = self.limits(max_frames, max_bytes) else { return Ok(Vec::new()) };
        let (frames, cursor) = read(&self.shared, self.next, self.cursor.take(), limits)?;
        self.advance(&frames, cursor);
        Ok(frames)
    }

    fn limits(&mut self, max_frames: usize, max_bytes: usize) -> Option<Limits> {
        let end = *self.durable.borrow_and_update();
        (self.next < end).then_some(Limits { end, frames: max_frames.max(1), bytes: max_bytes })
    }

    fn advance(&mut self, frames: &[(i64, Bytes)], cursor: Cursor) {
        self.next = frames.last().map_or(self.next, |(offset, _)| offset + 1);
        self.cursor = Some(cursor);
    }
}

#[derive(Clone, Copy)]
struct Limits {
    end: i64,
    frames: usize,
    bytes: usize,
}

fn read(shared: &Shared, next: i64, cursor: Option<Cursor>, limits: Limits) -> Result<(Vec<(i64, Bytes)>, Cursor)> {
    let mut cursor = match cursor {
        Some(cursor) => cursor,
        None => seek(shared, next)?,
    };
    let mut frames = Vec::new();
    let mut bytes = 0;
    let chunk = limits.bytes.clamp(CHUNK / 4, CHUNK);
    walk(shared, &mut cursor, next..limits.end, chunk, |offset, payload| {
        let room = frames.is_empty() || (frames.len() < limits.frames && bytes + payload.len() <= limits.bytes);
        if room {
            bytes += payload.len();
            frames.push((offset, payload));
        }
        room
    })?;
    Ok((frames, cursor))
}

/// Opens the segment that holds `offset` and finds the frame.
fn seek(shared: &Shared, offset: i64) -> Result<Cursor> {
    let found = {
        let segments = shared.segments();
        let after = segments.partition_point(|segment| segment.first <= offset);
        after.checked_sub(1).and_then(|at| segments.get(at)).and_then(|s| Some((s.first, s.nearest(offset)?)))
    };
    let Some((first, mark)) = found else { return Err(trimmed(shared, offset)) };
    let mut cursor = open(shared, first, mark.position)?;
    walk(shared, &mut cursor, mark.offset..offset, CHUNK, |_, _| true)?;
    Ok(cursor)
}

fn open(shared: &Shared, first: i64, position: u64) -> Result<Cursor> {
    let path = segment::path(&shared.dir, first);
    match File::open(&path) {
        Ok(file) => Ok(Cursor { file, path, position }),
        Err(_) if shared.start() > first => Err(trimmed(shared, first)),
        Err(e) => Err(io_error("cannot open segment", &path, e)),
    }
}

/// Hands the frames of `offsets`, all durable, to `take`, until it declines one; that one is not consumed.
fn walk(
    shared: &Shared,
    cursor: &mut Cursor,
    offsets: Range<i64>,
    chunk_bytes: usize,
    mut take: impl FnMut(i64, Bytes) -> bool,
) -> Result<()> {
    let mut next = offsets.start;
    let mut wanted = chunk_bytes;
    while next < offsets.end {
        let chunk = segment::read_at(&cursor.file, cursor.position, wanted)
            .map_err(|e| io_error("cannot read segment", &cursor.path, e))?;
        let at_end = chunk.len() < wanted;
        let chunk = Bytes::from(chunk);
        let mut used = 0;
        while next < offsets.end {
            match frame::parse(chunk.get(used..).unwrap_or_default()) {
                Parsed::Frame(header) if header.offset == next => {
                    let payload = used + frame::HEADER..used + frame::HEADER + header.length;
                    if !take(next, chunk.slice(payload.clone())) {
                        cursor.position += used as u64;
                        return Ok(());
                    }
                    used = payload.end;
                    next += 1;
                }
                // The chunk ends within a frame: read on from where that frame begins.
                Parsed::Short(needed) if used > 0 || !at_end => {
                    wanted = needed.max(chunk_bytes);
                    break;
                }
                Parsed::Short(_) if chunk.is_empty() => {
                    let damaged = || segment::damaged(&cursor.path, cursor.position, next);
                    *cursor = open(shared, next, header_at(shared, next).ok_or_else(damaged)?)?;
                    break;
                }
                _ => return Err(segment::damaged(&cursor.path, cursor.position + used as u64, next)),
            }
        }
        cursor.position += used as u64;
    }
    Ok(())
}

/// Where the frames begin in the segment that starts at `first`, if there is one.
fn header_at(shared: &Shared, first: i64) -> Option<u64> {
    let segments = shared.segments();
    let at = segments.binary_search_by_key(&first, |segment| segment.first).ok()?;
    segments.get(at)?.nearest(first).map(|mark| mark.position)
}

fn trimmed(shared: &Shared, offset: i64) -> Error {
    Error::new(ErrorKind::NotFound, "offset is no longer in the log")
        .with("log", shared.options.name)
        .with("offset", offset)
        .with("start", shared.start())
        .help("a reader must not fall behind what was trimmed; was its position set back?")
}
