//! Records that are rows of CSV or TSV: each becomes a JSON object of strings, named by the columns. Empty cells are
//! left out. The guarantee: a row whose columns do not match the header, or that is not UTF-8, is never guessed at: it
//! comes out as a malformed record that shows its cells.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use csv::ByteRecord;
use serde_json::{Map, Value, json};
use undertone_error::{Error, ErrorKind, Result};

use super::{ReadOptions, Record, RecordReader, Stream, broken};

const BUFFER: usize = 1 << 16;

pub(super) fn reader(
    name: String,
    stream: Stream,
    delimiter: u8,
    quoting: bool,
    options: &ReadOptions,
) -> Result<RecordReader> {
    let left = Arc::new(AtomicUsize::new(0));
    let mut rows = Rows {
        name: name.clone(),
        limit: options.max_record_bytes,
        csv: csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .quoting(quoting)
            .buffer_capacity(BUFFER)
            .from_reader(Budget { stream, left: Arc::clone(&left) }),
        left,
    };
    let mut first = rows.next()?;
    let columns = match &first {
        None => Vec::new(),
        Some(row) if options.header => column_names(row),
        Some(row) => (1..=row.len()).map(|n| n.to_string()).collect(),
    };
    if options.header {
        first = None;
    }
    let names = columns.clone();
    let records = std::iter::from_fn(move || match first.take().map_or_else(|| rows.next(), |row| Ok(Some(row))) {
        Ok(row) => row.map(|row| Ok(record(&names, &row))),
        Err(e) => Some(Err(e)),
    });
    Ok(RecordReader::new(name, Some(columns), Box::new(records)))
}

struct Rows {
    name: String,
    csv: csv::Reader<Budget>,
    limit: usize,
    left: Arc<AtomicUsize>,
}

impl Rows {
    fn next(&mut self) -> Result<Option<ByteRecord>> {
        self.left.store(self.limit.saturating_add(BUFFER), Ordering::Relaxed);
        let line = self.csv.position().line();
        let mut row = ByteRecord::new();
        match self.csv.read_byte_record(&mut row) {
            Ok(true) => Ok(Some(row)),
            Ok(false) => Ok(None),
            Err(_) if self.left.load(Ordering::Relaxed) == 0 => Err(Error::new(ErrorKind::TooLarge, "row is too long")
                .with("source", &self.name)
                .with("line", line)
                .help(format!("is a quotation mark left open there? rows must be below {} bytes", self.limit))),
            Err(error) => {
                let error = match error.into_kind() {
                    csv::ErrorKind::Io(error) => error,
                    other => io::Error::other(format!("{other:?}")),
                };
                Err(broken(&self.name, line, error))
            }
        }
    }
}

/// Hands out only so many bytes before it is refilled, so that an open quotation mark cannot swallow a whole file.
struct Budget {
    stream: Stream,
    left: Arc<AtomicUsize>,
}

impl Read for Budget {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other("row is too long"));
        }
        let n = self.stream.read(buffer.split_at_mut(left.min(buffer.len())).0)?;
        self.left.store(left - n, Ordering::Relaxed);
        Ok(n)
    }
}

/// Every column gets a name of its own: unnamed ones their number, repeated ones a suffix.
fn column_names(header: &ByteRecord) -> Vec<String> {
    let mut taken = HashSet::new();
    (1..)
        .zip(header)
        .map(|(number, cell)| {
            let name = String::from_utf8_lossy(cell).trim().to_owned();
            let name = if name.is_empty() { format!("column_{number}") } else { name };
            let mut unique = name.clone();
            let mut again = 1;
            while !taken.insert(unique.clone()) {
                again += 1;
                unique = format!("{name}_{again}");
            }
            unique
        })
        .collect()
}

fn record(columns: &[String], row: &ByteRecord) -> Record {
    let number = row.position().map_or(0, csv::Position::line);
    let malformed = |problem: Error| {
        let cells: Vec<_> = row.iter().map(String::from_utf8_lossy).collect();
        Record::malformed(number, problem, json!({ "cells": cells }))
    };
    if row.len() != columns.len() {
        let problem = Error::new(ErrorKind::InvalidInput, "row does not have the columns of the header");
        let problem = problem.with("cells", row.len()).with("columns", columns.len());
        return malformed(problem.help("is a delimiter inside a cell that is not quoted?"));
    }
    let mut object = Map::with_capacity(columns.len());
    for (column, cell) in columns.iter().zip(row) {
        match std::str::from_utf8(cell) {
            Ok("") => {}
            Ok(text) => {
                object.insert(column.clone(), Value::from(text));
            }
            Err(e) => {
                let problem = Error::new(ErrorKind::InvalidInput, "cell is not UTF-8").with("column", column).source(e);
                return malformed(problem.help("save the file as UTF-8"));
            }
        }
    }
    Record::json(number, Value::Object(object).to_string().into_bytes())
}
