//! Segment files: their names, their headers, and what is left of them after a crash.
//!
//! A segment is named by the offset of its first frame, and begins with a header:
//!
//! ```text
//! "UNDTLOG\n" | format u32 | topic UUID 16 bytes | first offset i64 | snapshot length u32 | snapshot | crc32 u32
//! ```
//!
//! The guarantee: a segment appears under its name only with a whole, durable header. The snapshot belongs to the log's
//! owner and describes its state just before the first frame.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use undertone_error::{Error, ErrorKind, Result};
use uuid::Uuid;

use super::frame::{self, Parsed};
use crate::durable::{io_error, sync_dir};

const MAGIC: &[u8; 8] = b"UNDTLOG\n";
const FORMAT: u32 = 1;
const FIXED: usize = 40;
const CRC: usize = 4;
/// Distance between two remembered places of a segment.
const MARK_EVERY: u64 = 256 * 1024;
const SCAN_CHUNK: usize = 1 << 20;

/// A place where a frame begins, to start reading near an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: i64,
    pub(super) position: u64,
}

/// A segment that exists.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Offset of its first frame.
    pub(super) first: i64,
    /// Known places, ascending; the first is where the frames begin.
    pub(super) marks: Vec<Mark>,
}

impl Segment {
    pub(super) fn new(first: i64, header_bytes: u64) -> Self {
        Self { first, marks: vec![Mark { offset: first, position: header_bytes }] }
    }

    /// Remembers the place if the last one is far enough away.
    pub(super) fn mark(&mut self, mark: Mark) {
        if self.marks.last().is_none_or(|last| mark.position >= last.position + MARK_EVERY) {
            self.marks.push(mark);
        }
    }

    /// The last known place at or before `offset`.
    pub(super) fn nearest(&self, offset: i64) -> Option<Mark> {
        let after = self.marks.partition_point(|mark| mark.offset <= offset);
        self.marks.get(after.checked_sub(1)?).copied()
    }
}

/// What a segment's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) topic: Uuid,
    pub(super) first: i64,
    pub(super) snapshot: Vec<u8>,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.snapshot.len() + CRC);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(self.topic.as_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.snapshot.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.snapshot);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Bytes that the header takes at the start of its segment.
    pub(super) fn bytes(&self) -> u64 {
        (FIXED + self.snapshot.len() + CRC) as u64
    }

    /// Reads the header of the segment at `path`.
    pub(super) fn read(path: &Path, file: &mut File) -> Result<Self> {
        let corrupt = |what: &str| {
            Error::new(ErrorKind::Corrupt, what)
                .with("path", path.display())
                .with("byte", 0)
                .help("restore the file from a copy; Undertone never changes a header, so something else did")
        };
        let failed = |e| io_error("cannot read segment", path, e);
        let length = file.metadata().map_err(failed)?.len();
        let mut fixed = [0; FIXED];
        if length < (FIXED + CRC) as u64 {
            return Err(corrupt("segment header is incomplete"));
        }
        file.read_exact(&mut fixed).map_err(failed)?;
        if !fixed.starts_with(MAGIC) {
            return Err(corrupt("file is not a log segment"));
        }
        let format = u32::from_le_bytes(part(&fixed, 8));
        if format != FORMAT {
            return Err(Error::new(ErrorKind::Unsupported, "log segment has a format that this version does not know")
                .with("path", path.display())
                .with("format", format)
                .help(format!("open it with the version of undertone that wrote it; this one reads format {FORMAT}")));
        }
        let snapshot_length = u32::from_le_bytes(part(&fixed, 36));
        if u64::from(snapshot_length) + (FIXED + CRC) as u64 > length {
            return Err(corrupt("segment header is incomplete"));
        }
        let mut rest = vec![0; snapshot_length as usize + CRC];
        file.read_exact(&mut rest).map_err(failed)?;
        let snapshot = rest.drain(..snapshot_length as usize).collect::<Vec<u8>>();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&fixed);
        hasher.update(&snapshot);
        if hasher.finalize() != u32::from_le_bytes(part(&rest, 0)) {
            return Err(corrupt("segment header has a wrong checksum"));
        }
        let header =
            Self { topic: Uuid::from_bytes(part(&fixed, 12)), first: i64::from_le_bytes(part(&fixed, 28)), snapshot };
        if name(header.first) != path.file_name().unwrap_or_default().to_string_lossy() {
            return Err(
                corrupt("segment was renamed: its header says another first offset").with("first", header.first)
            );
        }
        Ok(header)
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn name(first: i64) -> String {
    format!("{first:020}.log")
}

/// Where the segment that starts at `first` lies.
pub(super) fn path(dir: &Path, first: i64) -> PathBuf {
    dir.join(name(first))
}

/// First offsets of the segments in `dir`, ascending. Removes what is left of a segment that was never finished.
pub(super) fn list(dir: &Path) -> Result<Vec<i64>> {
    let failed = |e| io_error("cannot list log folder", dir, e);
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        match (path.extension().and_then(|e| e.to_str()), path.file_stem().and_then(|s| s.to_str())) {
            (Some("new"), _) => fs::remove_file(&path).map_err(failed)?,
            (Some("log"), Some(stem)) => match stem.parse() {
                Ok(first) if name(first) == format!("{stem}.log") => firsts.push(first),
                _ => tracing::warn!(path = %path.display(), "ignored a file that is not a segment"),
            },
            _ => {}
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Makes an empty segment, durably.
pub(super) fn create(dir: &Path, header: &Header) -> Result<(File, Segment)> {
    let (path, new) = (path(dir, header.first), dir.join(format!("{:020}.new", header.first)));
    let write = || {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&new)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        Ok(file)
    };
    let file = write().map_err(|e| {
        let _ = fs::remove_file(&new);
        io_error("cannot create segment", &path, e)
    })?;
    sync_dir(dir)?;
    Ok((file, Segment::new(header.first, header.bytes())))
}

/// Where the sound frames of a segment end.
#[derive(Debug)]
pub(super) struct Tail {
    /// One past the last frame's offset.
    pub(super) end: i64,
    /// The segment's length in bytes without what is torn.
    pub(super) length: u64,
    /// How many torn bytes follow.
    pub(super) torn: u64,
}

/// Walks the frames of the last segment from its header on, remembering places in `segment`.
///
/// # Errors
/// [`ErrorKind::Corrupt`] with path and byte, if frames that had been durable are damaged.
pub(super) fn scan(path: &Path, file: &File, segment: &mut Segment) -> Result<Tail> {
    let failed = |e| io_error("cannot read segment", path, e);
    let length = file.metadata().map_err(failed)?.len();
    let mut position = segment.marks.first().map_or(0, |mark| mark.position);
    let mut end = segment.first;
    let mut wanted = SCAN_CHUNK;
    'chunks: while position < length {
        let chunk = read_at(file, position, wanted).map_err(failed)?;
        let at_end = position + chunk.len() as u64 >= length;
        let mut used = 0;
        loop {
            let rest = chunk.get(used..).unwrap_or_default();
            match frame::parse(rest) {
                Parsed::Frame(header) if header.offset == end => {
                    segment.mark(Mark { offset: end, position: position + used as u64 });
                    used += frame::HEADER + header.length;
                    end += 1;
                }
                Parsed::Short(bytes) if !at_end && position + (used + bytes) as u64 <= length => {
                    wanted = bytes.max(SCAN_CHUNK);
                    break;
                }
                // A frame at a wrong offset is sound, so no tear explains it.
                Parsed::Frame(_) => return Err(damaged(path, position + used as u64, end)),
                Parsed::Short(_) if rest.is_empty() => break,
                Parsed::Short(_) | Parsed::Bad => {
                    position += used as u64;
                    break 'chunks;
                }
            }
        }
        position += used as u64;
    }
    if position < length {
        let left = usize::try_from(length - position).unwrap_or(usize::MAX);
        let rest = read_at(file, position, left).map_err(failed)?;
        if frame::proof_of_damage(&rest, end).is_some() {
            return Err(damaged(path, position, end));
        }
    }
    Ok(Tail { end, length: position, torn: length - position })
}

/// The error for frames that had been durable and are not sound any more.
pub(super) fn damaged(path: &Path, byte: u64, offset: i64) -> Error {
    Error::new(ErrorKind::Corrupt, "log is damaged: a frame that had been durable cannot be read")
        .with("path", path.display())
        .with("byte", byte)
        .with("offset", offset)
        .help("restore the file from a copy, and check the disk; Undertone does not skip events")
}

/// Up to `length` bytes from `position`; fewer only at the end of the file.
pub(super) fn read_at(file: &File, position: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, position + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}
