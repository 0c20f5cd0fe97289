//! Records that are rows of Parquet: each becomes a JSON object named by the columns, nulls left out, times in RFC 3339
//! (times without a zone are read as UTC). The guarantee: rows come in the order of the file, a few hundred in memory, and a
//! file that is damaged is an error, wherever it is.

use std::fs::File;
use std::io::{self, Seek};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowTimestampType, TimestampMicrosecondType as Micros, TimestampMillisecondType as Millis,
    TimestampNanosecondType as Nanos, TimestampSecondType as Seconds,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_json::WriterBuilder;
use arrow_json::writer::LineDelimited;
use arrow_schema::{ArrowError, DataType, Field, Schema, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use undertone_error::quiet::catch_quietly;
use undertone_error::{Error, ErrorKind, Result};

use super::{ReadOptions, Record, RecordReader, Stream, broken};

const ROWS: usize = 256;

/// Parquet begins at its end: a stream must become a file first, one that vanishes with its handle.
pub(super) fn spool(name: &str, mut stream: Stream) -> Result<File> {
    let failed = |e: io::Error| {
        Error::new(ErrorKind::Unavailable, "cannot keep a stream of Parquet in a temporary file")
            .with("source", name)
            .source(e)
    };
    let mut file = tempfile::tempfile().map_err(failed)?;
    io::copy(&mut stream, &mut file).map_err(|e| broken(name, 0, e))?;
    file.rewind().map_err(failed)?;
    Ok(file)
}

pub(super) fn reader(name: String, file: File, options: &ReadOptions) -> Result<RecordReader> {
    let not_parquet = |reason: Reason| {
        let error = Error::new(ErrorKind::InvalidInput, "source is not a readable Parquet file").with("source", &name);
        error.source(reason)
    };
    let builder = guarded(|| ParquetRecordBatchReaderBuilder::try_new(file)).map_err(not_parquet)?;
    let columns = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut batches = guarded(|| builder.with_batch_size(ROWS).build()).map_err(not_parquet)?;

    let (source, limit) = (name.clone(), options.max_record_bytes);
    let mut number = 0;
    let mut ready = Vec::new().into_iter();
    let records = std::iter::from_fn(move || {
        loop {
            if let Some(row) = ready.next() {
                number += 1;
                return Some(Ok(record(number, row, limit)));
            }
            match guarded(|| batches.next().map(|batch| rows(&batch?)).transpose()) {
                Ok(None) => return None,
                Ok(Some(rows)) => ready = rows.into_iter(),
                Err(e) => {
                    let error =
                        Error::new(ErrorKind::InvalidInput, "rows of Parquet are damaged or of an unknown type");
                    return Some(Err(error.with("source", &source).with("after_row", number).source(e)));
                }
            }
        }
    });
    Ok(RecordReader::new(name, Some(columns), Box::new(records)))
}

/// Why a file cannot be read.
type Reason = Box<dyn std::error::Error + Send + Sync>;

/// The decoder checks what it reads, but not everything: what makes it panic is as damaged as what makes it fail.
fn guarded<T, E: Into<Reason>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, Reason> {
    match catch_quietly(work) {
        Some(done) => done.map_err(Into::into),
        None => Err("its decoder cannot make sense of it".into()),
    }
}

fn record(number: u64, row: Vec<u8>, limit: usize) -> Record {
    if row.len() <= limit {
        return Record::json(number, row);
    }
    let problem = Error::new(ErrorKind::TooLarge, "row is too long").with("bytes", row.len());
    Record::malformed(number, problem.help(format!("keep rows below {limit} bytes")), json!({ "bytes": row.len() }))
}

/// One JSON object a row.
fn rows(batch: &RecordBatch) -> Result<Vec<Vec<u8>>, ArrowError> {
    let mut writer = WriterBuilder::new()
        .with_timestamp_format("%Y-%m-%dT%H:%M:%S%.fZ".into())
        .with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.fZ".into())
        .build::<_, LineDelimited>(Vec::new());
    writer.write(&in_utc(batch)?)?;
    writer.finish()?;
    // JSON text never holds a bare line feed.
    let lines = writer.into_inner();
    Ok(lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Gives every column of times the zone UTC. Times with a zone count from the epoch in UTC already; only the label
/// changes, since names of zones would need a zone database to be written out.
fn in_utc(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let utc = |column: &ArrayRef| match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => with_utc::<Seconds>(column),
        DataType::Timestamp(TimeUnit::Millisecond, _) => with_utc::<Millis>(column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => with_utc::<Micros>(column),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => with_utc::<Nanos>(column),
        _ => Arc::clone(column),
    };
    let columns: Vec<ArrayRef> = batch.columns().iter().map(utc).collect();
    let schema = batch.schema();
    let named = |(field, column): (&Arc<Field>, &ArrayRef)| Field::new(field.name(), column.data_type().clone(), true);
    let fields: Vec<Field> = schema.fields().iter().zip(&columns).map(named).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn with_utc<T: ArrowTimestampType>(column: &ArrayRef) -> ArrayRef {
    Arc::new(column.as_primitive::<T>().clone().with_timezone_utc())
}
