//! What a file is, by content. The guarantee: the same bytes have the same key under any name, so a file that was taken
//! in once is known for ever.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use undertone_error::{Error, ErrorKind, Result};

use super::regular;
use crate::durable::io_error;

/// A file's content and what the file system said about it at that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// SHA-256 of the file's bytes as they lie there, in hexadecimal.
    pub sha256: String,
    /// How many bytes there are.
    pub bytes: u64,
    modified: Option<SystemTime>,
}

/// Reads the whole file, in bounded memory. Blocks.
///
/// # Errors
/// As [`super::check`] for a path that leads to no regular file; [`ErrorKind::Conflict`] if the file grew or shrank
/// meanwhile; other errors of the file system.
pub fn fingerprint(path: &Path) -> Result<Fingerprint> {
    let failed = |e| io_error("cannot read source", path, e);
    // Before opening: to open a pipe waits for its other end.
    regular(path)?;
    let mut file = File::open(path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            break;
        }
        hasher.update(buffer.get(..n).unwrap_or_default());
    }
    let print = Fingerprint { sha256: hex(&hasher.finalize()), bytes: before.len(), modified: before.modified().ok() };
    print.check(path, &file.metadata().map_err(failed)?)?;
    Ok(print)
}

impl Fingerprint {
    /// The key of the file's events in the input log.
    pub fn source_key(&self) -> String {
        format!("file:{}", self.sha256)
    }

    /// Whether the file still is what it was, as far as its size and time tell.
    pub(super) fn still(&self, path: &Path) -> Result<()> {
        let now = std::fs::metadata(path).map_err(|e| io_error("cannot read source", path, e))?;
        self.check(path, &now)
    }

    fn check(&self, path: &Path, now: &Metadata) -> Result<()> {
        if (now.len(), now.modified().ok()) == (self.bytes, self.modified) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, "file changed while it was read")
            .with("path", path.display())
            .help("wait until it is complete, or pipe it in; a file must stand still to be taken in exactly once"))
    }
}

/// Bytes in lowercase hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
