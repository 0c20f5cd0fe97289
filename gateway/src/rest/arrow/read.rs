//! Texts out of an Arrow IPC stream that comes over the network, as it comes.
//!
//! Nothing that is sent is believed: a message may be as large as the limit and no larger, what is not Arrow is a problem
//! of the caller's, also where the decoder would panic over it, and only columns whose rows take room can hold texts, so
//! that a few bytes never stand for a billion rows.

use arrow_array::{Array, ArrayRef, LargeStringArray, RecordBatch, cast::AsArray};
use arrow_buffer::Buffer;
use arrow_cast::cast;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{ArrowError, DataType, FieldRef};
use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};
use undertone_error::quiet::catch_quietly;

use crate::{Limits, errors::ProblemCode, problem::Problem};

/// Consecutive rows.
pub(super) struct Slice {
    /// The texts; one that is null is empty, and will be told so.
    pub(super) texts: Vec<String>,
    /// The rows' ids, if the stream has any.
    pub(super) ids: Option<ArrayRef>,
}

/// The rows of a stream.
pub(super) struct Texts {
    body: BodyDataStream,
    decoder: StreamDecoder,
    /// What was read and not yet decoded.
    buffer: Buffer,
    /// Bytes since the last batch began.
    pending: usize,
    /// Bytes in all.
    read: u64,
    batch: Option<Batch>,
    limits: Limits,
    deadline: Instant,
}

struct Batch {
    texts: LargeStringArray,
    ids: Option<ArrayRef>,
    next: usize,
}

impl Texts {
    pub(super) fn new(body: Body, limits: &Limits, deadline: Instant) -> Self {
        Self {
            body: body.into_data_stream(),
            decoder: StreamDecoder::new(),
            buffer: Buffer::from_vec(Vec::<u8>::new()),
            pending: 0,
            read: 0,
            batch: None,
            limits: limits.clone(),
            deadline,
        }
    }

    /// The field of the ids, once the schema is known.
    ///
    /// # Errors
    /// `invalid-input` if there was no schema.
    pub(super) fn id_field(&self) -> Result<Option<FieldRef>, Problem> {
        let schema = self.decoder.schema().ok_or_else(|| bad("the stream has no schema; send an Arrow IPC stream"))?;
        let field = schema.fields().iter().find(|field| field.name() == "id").cloned();
        match field {
            Some(field) if takes_no_room(field.data_type()) => {
                Err(bad("the column id is of a type that cannot come back"))
            }
            field => Ok(field),
        }
    }

    /// At most `most` rows that follow; none at the end of the stream.
    ///
    /// # Errors
    /// What is wrong with the stream, or with how it comes.
    pub(super) async fn next(&mut self, most: usize) -> Result<Option<Slice>, Problem> {
        loop {
            if let Some(batch) = &mut self.batch {
                let count = most.min(batch.texts.len() - batch.next);
                if count > 0 {
                    let rows = batch.next..batch.next + count;
                    batch.next += count;
                    let text = |row| if batch.texts.is_null(row) { "" } else { batch.texts.value(row) };
                    let texts = rows.clone().map(|row| text(row).to_owned()).collect();
                    let ids = batch.ids.as_ref().map(|ids| ids.slice(rows.start, count));
                    return Ok(Some(Slice { texts, ids }));
                }
            }
            match self.next_batch().await? {
                Some(batch) => self.batch = Some(columns(&batch)?),
                None => return Ok(None),
            }
        }
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>, Problem> {
        self.batch = None;
        loop {
            if let Some(batch) = guarded(|| self.decoder.decode(&mut self.buffer))? {
                self.pending = self.buffer.len();
                return Ok(Some(batch));
            }
            let stall = self.deadline.min(Instant::now() + self.limits.body_timeout);
            let frame = timeout_at(stall, self.body.next()).await.map_err(|_| {
                let detail = "the stream stood still for too long; send it faster, or in smaller calls";
                Problem::new(ProblemCode::BodyTimeout, detail)
            })?;
            let Some(frame) = frame else {
                guarded(|| self.decoder.finish())?;
                return Ok(None);
            };
            let frame = frame.map_err(|_| Problem::new(ProblemCode::Cancelled, "the body ended before its time"))?;
            self.pending += frame.len();
            self.read += frame.len() as u64;
            let limits = &self.limits;
            if self.pending > limits.arrow_batch_bytes {
                let detail = format!(
                    "a record batch is over {} bytes; send smaller ones, like write_table(table, max_chunksize=10000)",
                    limits.arrow_batch_bytes
                );
                return Err(Problem::new(ProblemCode::TooLarge, detail));
            }
            if self.read > limits.long_body_bytes {
                let detail = format!("the stream is over {} bytes; send several calls", limits.long_body_bytes);
                return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
            }
            self.buffer = Buffer::from(frame);
        }
    }
}

/// The decoder checks what it reads, but not everything: what makes it panic is as wrong as what makes it fail.
fn guarded<T>(work: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, Problem> {
    match catch_quietly(work) {
        Some(Ok(done)) => Ok(done),
        // Arrow's reasons may repeat what was sent.
        Some(Err(_)) | None => {
            Err(bad("the body is not a whole Arrow IPC stream, or uses what is not read here, like compression"))
        }
    }
}

fn bad(detail: &str) -> Problem {
    Problem::new(ProblemCode::InvalidInput, detail)
}

fn columns(batch: &RecordBatch) -> Result<Batch, Problem> {
    let Some(texts) = batch.column_by_name("text") else {
        return Err(
            bad("the stream has no column text; name the column with the texts so").field("/text", "is missing")
        );
    };
    if !holds_text(texts.data_type()) {
        let detail = format!("the column text is of type {}; send strings", texts.data_type());
        return Err(bad(&detail).field("/text", "is not of strings"));
    }
    let texts = guarded(|| cast(texts, &DataType::LargeUtf8))?.as_string::<i64>().clone();
    Ok(Batch { texts, ids: batch.column_by_name("id").cloned(), next: 0 })
}

fn holds_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => matches!(**values, DataType::Utf8 | DataType::LargeUtf8),
        _ => false,
    }
}

/// Types that say much in few bytes, or that no other reader could take back.
fn takes_no_room(kind: &DataType) -> bool {
    matches!(kind, DataType::Null | DataType::RunEndEncoded(..) | DataType::Dictionary(..)) || kind.is_nested()
}
