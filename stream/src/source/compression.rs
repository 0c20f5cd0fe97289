//! Decompression by name and by first bytes. The guarantee: a file that says it is compressed and is not is refused
//! before anything is read from it; gzip files of several members and zstd files of several frames are read to the end.

use std::io::{Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use undertone_error::{Error, ErrorKind, Result};

use super::{Stream, broken};

/// A compression that sources may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl Compression {
    /// The compression that a file's name says.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "gz" => Some(Self::Gzip),
            "zst" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The compression that the first bytes say.
    fn sniff(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Decompresses what is compressed, whether the name says so or not.
pub(super) fn decompress(mut stream: Stream, named: Option<Compression>, name: &str) -> Result<Stream> {
    let mut start = Vec::new();
    stream.by_ref().take(4).read_to_end(&mut start).map_err(|e| broken(name, 0, e))?;
    let found = Compression::sniff(&start);
    if let Some(named) = named
        && found != Some(named)
    {
        return Err(Error::new(ErrorKind::InvalidInput, "file is not compressed as its name says")
            .with("path", name)
            .with("named", format!("{named:?}").to_lowercase())
            .help("was it decompressed and kept its name, or cut off? rename it or make it again"));
    }
    let whole = Cursor::new(start).chain(stream);
    Ok(match found {
        None => Box::new(whole),
        Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(whole)),
        Some(Compression::Zstd) => Box::new(zstd::Decoder::new(whole).map_err(|e| broken(name, 0, e))?),
    })
}
