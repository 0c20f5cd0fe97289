//! Readers for files and standard input: JSONL, CSV, TSV, Parquet and plain lines, each also compressed.
//!
//! The guarantee: every record of a source comes out, in order, each time the same, in bounded memory. What a record
//! should not be (a row with too many columns, a line that is too long) comes out as a malformed record, which the
//! stream dead-letters and `undertone score` reports on its line; it never ends the reading. What ends the reading (a
//! disk that fails, a compressed file that is cut short) is an error, and the last item.

mod compression;
mod delimited;
mod fingerprint;
mod ingest;
mod lines;
mod record;
mod table;

use std::fs::{File, Metadata};
use std::io::{BufReader, Read};
use std::path::Path;
use std::str::FromStr;

use undertone_error::{Error, ErrorKind, Result};

pub use self::compression::Compression;
pub(crate) use self::fingerprint::hex;
pub use self::fingerprint::{Fingerprint, fingerprint};
pub use self::ingest::{Ahead, Ingest, Ingested};
pub use self::record::{Fields, Item, Record};
use crate::durable::io_error;

/// How a source's bytes divide into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON value a line.
    Jsonl,
    /// Comma-separated, with quotes.
    Csv,
    /// Tab-separated, without quotes: a quotation mark is a character like any other.
    Tsv,
    /// Apache Parquet.
    Parquet,
    /// One text a line.
    Text,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" | "json" => Ok(Self::Jsonl),
            "csv" => Ok(Self::Csv),
            "tsv" => Ok(Self::Tsv),
            "parquet" => Ok(Self::Parquet),
            "txt" | "text" => Ok(Self::Text),
            _ => Err(Error::new(ErrorKind::InvalidInput, "format is not known")
                .with("format", name)
                .help("use jsonl, csv, tsv, parquet or txt")),
        }
    }
}

impl Format {
    /// The format that a file's name says, with or without `.gz` or `.zst` at its end.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for any other ending.
    pub fn of(path: &Path) -> Result<Self> {
        let stem = match Compression::of(path) {
            Some(_) => path.with_extension(""),
            None => path.to_owned(),
        };
        let unknown = || {
            Error::new(ErrorKind::InvalidInput, "file name does not say its format").with("path", path.display()).help(
                "end it in .jsonl, .csv, .tsv, .parquet or .txt (and .gz or .zst if compressed), or name the format",
            )
        };
        stem.extension().and_then(|e| e.to_str()).and_then(|e| e.parse().ok()).ok_or_else(unknown)
    }
}

/// How to read a source.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// The format; `None` takes it from the name of a file, and JSONL for a stream.
    pub format: Option<Format>,
    /// Whether the first row of a CSV or TSV names its columns. Otherwise they are called `1`, `2`, ….
    pub header: bool,
    /// Whether quotation marks enclose fields; `None` says yes for CSV and no for TSV.
    pub quoting: Option<bool>,
    /// Longer records (in bytes) are malformed.
    pub max_record_bytes: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { format: None, header: true, quoting: None, max_record_bytes: 16 << 20 }
    }
}

type Records = Box<dyn Iterator<Item = Result<Record>> + Send>;
type Stream = Box<dyn Read + Send>;

/// The records of one source, in order. After an error there are none.
pub struct RecordReader {
    name: String,
    columns: Option<Vec<String>>,
    records: Option<Records>,
}

/// Checks, without taking anything in, that a file can be streamed: it is a regular file of a known format, it opens, and
/// if its format has columns, one of them is `text`. Blocks.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::InvalidInput`] if it is no regular file or not what its name
/// says, or for a column that is missing, with those that there are; other errors of the file system.
pub fn check(path: &Path, options: &ReadOptions) -> Result<()> {
    regular(path)?;
    open(path, options)?.require(&Fields::default())
}

/// What is at `path`, which must not be a folder.
fn no_folder(path: &Path) -> Result<Metadata> {
    let found = std::fs::metadata(path).map_err(|e| {
        let error = io_error("cannot find source", path, e);
        if error.mend().is_none() { error.help(CHECK_PATH) } else { error }
    })?;
    if found.is_dir() {
        let error = Error::new(ErrorKind::InvalidInput, "source is a folder, not a file");
        return Err(error.with("path", path.display()).help(CHECK_PATH));
    }
    Ok(found)
}

/// Fails unless a regular file is at `path`: only that stands still and can be read again.
fn regular(path: &Path) -> Result<()> {
    if no_folder(path)?.is_file() {
        return Ok(());
    }
    let error = Error::new(ErrorKind::InvalidInput, "source is a pipe, socket or device, not a regular file");
    Err(error.with("path", path.display()).help(CHECK_PATH))
}

const CHECK_PATH: &str = "check the path given with --input";

/// Opens a file or a pipe.
///
/// # Errors
/// [`ErrorKind::NotFound`] and other errors of the file system, and [`ErrorKind::InvalidInput`] for a folder and for a
/// file that is not what its name says.
pub fn open(path: &Path, options: &ReadOptions) -> Result<RecordReader> {
    no_folder(path)?;
    let format = options.format.map_or_else(|| Format::of(path), Ok)?;
    let file = File::open(path).map_err(|e| io_error("cannot open source", path, e))?;
    let name = path.display().to_string();
    if format == Format::Parquet && Compression::of(path).is_none() {
        return table::reader(name, file, options);
    }
    let stream = compression::decompress(Box::new(file), Compression::of(path), &name)?;
    reader(name, stream, format, options)
}

/// Reads a stream, such as standard input. Compression is recognised by its first bytes.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a stream that is not of its format, and errors of reading.
pub fn from_stream(name: &str, stream: Box<dyn Read + Send>, options: &ReadOptions) -> Result<RecordReader> {
    let stream = compression::decompress(stream, None, name)?;
    reader(name.to_owned(), stream, options.format.unwrap_or(Format::Jsonl), options)
}

fn reader(name: String, stream: Stream, format: Format, options: &ReadOptions) -> Result<RecordReader> {
    let buffered = |stream| BufReader::with_capacity(1 << 16, stream);
    match format {
        Format::Jsonl => Ok(lines::reader(name, buffered(stream), lines::Kind::Json, options)),
        Format::Text => Ok(lines::reader(name, buffered(stream), lines::Kind::Text, options)),
        Format::Csv => delimited::reader(name, stream, b',', options.quoting.unwrap_or(true), options),
        Format::Tsv => delimited::reader(name, stream, b'\t', options.quoting.unwrap_or(false), options),
        Format::Parquet => table::reader(name.clone(), table::spool(&name, stream)?, options),
    }
}

impl RecordReader {
    fn new(name: String, columns: Option<Vec<String>>, records: Records) -> Self {
        Self { name, columns, records: Some(records) }
    }

    /// The columns, if the format has them.
    pub fn columns(&self) -> Option<&[String]> {
        self.columns.as_deref()
    }

    /// Checks that the columns that `fields` names are there. Formats without columns pass.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the column and those that there are.
    pub fn require(&self, fields: &Fields) -> Result<()> {
        let Some(columns) = &self.columns else { return Ok(()) };
        match [Some(&fields.text), fields.id.as_ref()].into_iter().flatten().find(|name| !columns.contains(name)) {
            None => Ok(()),
            Some(missing) => Err(Error::new(ErrorKind::InvalidInput, "source has no such column")
                .with("source", &self.name)
                .with("column", missing)
                .with("columns", columns.join(", "))
                .help("choose one of its columns; if its first row is data, say that it has no header")),
        }
    }
}

impl Iterator for RecordReader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.records.as_mut()?.next();
        if !matches!(next, Some(Ok(_))) {
            self.records = None;
        }
        next
    }
}

/// An error of reading a stream. What the operating system did not report is damage in the data itself.
fn broken(name: &str, number: u64, error: std::io::Error) -> Error {
    let (kind, what) = match error.raw_os_error() {
        Some(_) => (ErrorKind::Unavailable, "cannot read source"),
        None => (ErrorKind::InvalidInput, "source is damaged or cut short"),
    };
    Error::new(kind, what).with("source", name).with("after_line", number).source(error)
}

#[cfg(test)]
mod tests;
