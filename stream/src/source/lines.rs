//! Records that are lines: JSONL and plain text. The guarantee: every line that is not blank comes out byte for byte,
//! whatever it holds; one over the limit comes out as a malformed record with its length and hash.

use std::io::{self, BufRead};

use serde_json::json;
use sha2::{Digest, Sha256};
use undertone_error::{Error, ErrorKind};

use super::fingerprint::hex;
use super::{ReadOptions, Record, RecordReader, broken};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Json,
    Text,
}

pub(super) fn reader(
    name: String,
    mut stream: impl BufRead + Send + 'static,
    kind: Kind,
    options: &ReadOptions,
) -> RecordReader {
    let (limit, source) = (options.max_record_bytes, name.clone());
    let mut number = 0;
    let records = std::iter::from_fn(move || {
        loop {
            let line = match next_line(&mut stream, limit) {
                Ok(Some(line)) => line,
                Ok(None) => return None,
                Err(e) => return Some(Err(broken(&source, number, e))),
            };
            number += 1;
            match line {
                Line::Whole(mut line) => {
                    if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                        line.drain(..BYTE_ORDER_MARK.len());
                    }
                    if line.iter().all(u8::is_ascii_whitespace) {
                        continue;
                    }
                    return Some(Ok(match kind {
                        Kind::Json => Record::json(number, line),
                        Kind::Text => Record::line(number, line),
                    }));
                }
                Line::TooLong { bytes, sha256 } => {
                    let problem = Error::new(ErrorKind::TooLarge, "line is too long")
                        .with("bytes", bytes)
                        .help(format!("keep lines below {limit} bytes"));
                    return Some(Ok(Record::malformed(number, problem, json!({ "bytes": bytes, "sha256": sha256 }))));
                }
            }
        }
    });
    RecordReader::new(name, None, Box::new(records))
}

enum Line {
    /// Without its terminator (LF or CR LF).
    Whole(Vec<u8>),
    /// Read to its end but not kept.
    TooLong { bytes: u64, sha256: String },
}

/// The next line, keeping at most `limit` bytes of it in memory.
fn next_line(stream: &mut impl BufRead, limit: usize) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut too_long: Option<(Sha256, u64)> = None;
    loop {
        let available = match stream.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            available => available?,
        };
        let newline = available.iter().position(|&byte| byte == b'\n');
        let taken = available.get(..newline.unwrap_or(available.len())).unwrap_or_default();
        let ended = newline.is_some() || available.is_empty();
        if ended && newline.is_none() && line.is_empty() && too_long.is_none() {
            return Ok(None);
        }
        match &mut too_long {
            Some((hasher, bytes)) => {
                hasher.update(taken);
                *bytes += taken.len() as u64;
            }
            None => line.extend_from_slice(taken),
        }
        let used = taken.len() + usize::from(newline.is_some());
        stream.consume(used);
        if too_long.is_none() && line.len() > limit.saturating_add(1) {
            too_long = Some((Sha256::new_with_prefix(&line), line.len() as u64));
            line = Vec::new();
        }
        if ended {
            return Ok(Some(match too_long {
                Some((hasher, bytes)) => Line::TooLong { bytes, sha256: hex(&hasher.finalize()) },
                None => {
                    if newline.is_some() && line.last() == Some(&b'\r') {
                        line.pop();
                    }
                    if line.len() <= limit {
                        Line::Whole(line)
                    } else {
                        Line::TooLong { bytes: line.len() as u64, sha256: hex(&Sha256::digest(&line)) }
                    }
                }
            }));
        }
    }
}
