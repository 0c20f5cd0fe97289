//! Taking records from a consumer, with the one thing that `rdkafka` drops: the offset at which a partition ends.
//!
//! Markers of transactions occupy offsets and are never handed out, so after the last record of a transaction a reader
//! that only counts records would for ever seem to be behind. The end-of-partition event carries the offset up to which
//! everything was handed out.
#![allow(unsafe_code)] // rd_kafka_consumer_poll, for the offset in its end-of-partition event

use std::ffi::{CStr, c_void};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use undertone_proto::Headers;

use super::reader::Record;

/// What came out of one poll.
pub(super) enum Polled {
    Record(Record),
    /// Everything below the offset was handed out, and nothing follows yet.
    End {
        partition: i32,
        offset: i64,
    },
    /// The partition cannot be read, or the client is in trouble.
    Failed {
        partition: Option<i32>,
        offset: i64,
        code: RDKafkaErrorCode,
        reason: String,
    },
}

/// Frees a message.
struct Message(*mut rd::rd_kafka_message_t);

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: it came from rd_kafka_consumer_poll and is freed once.
        unsafe { rd::rd_kafka_message_destroy(self.0) }
    }
}

/// The next thing that the consumer has; `None` if there is nothing within `wait`. The consumer must be one that is
/// assigned by hand: rebalances are not served here.
pub(super) fn poll<C: ClientContext>(client: &Client<C>, wait: Duration) -> Option<Polled> {
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives the call; the message is owned here until it is dropped, and everything that is taken
    // from it is copied before.
    unsafe {
        let message = rd::rd_kafka_consumer_poll(client.native_ptr(), wait_ms);
        if message.is_null() {
            return None;
        }
        let message = Message(message);
        let found = &*message.0;
        let partition = if found.rkt.is_null() { None } else { Some(found.partition) };
        Some(match (RDKafkaErrorCode::from(found.err), partition) {
            (RDKafkaErrorCode::NoError, Some(partition)) => Polled::Record(record(message.0, partition)),
            (RDKafkaErrorCode::PartitionEOF, Some(partition)) => Polled::End { partition, offset: found.offset },
            (code, partition) => {
                let reason = rd::rd_kafka_message_errstr(message.0);
                let reason = if reason.is_null() {
                    String::new()
                } else {
                    CStr::from_ptr(reason).to_string_lossy().into_owned()
                };
                Polled::Failed { partition, offset: found.offset, code, reason }
            }
        })
    }
}

/// Copies a message.
///
/// # Safety
/// `message` must point to a message without an error.
unsafe fn record(message: *mut rd::rd_kafka_message_t, partition: i32) -> Record {
    // SAFETY: as the caller promises; lengths belong to their pointers.
    unsafe {
        let found = &*message;
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp_ms = rd::rd_kafka_message_timestamp(message, &raw mut kind);
        Record {
            partition,
            offset: found.offset,
            timestamp_ms: (timestamp_ms >= 0).then_some(timestamp_ms),
            key: bytes(found.key, found.key_len),
            payload: bytes(found.payload, found.len),
            headers: headers(message),
        }
    }
}

unsafe fn headers(message: *mut rd::rd_kafka_message_t) -> Headers {
    // SAFETY: the headers belong to the message, which the caller holds.
    unsafe {
        let mut found = ptr::null_mut();
        if rd::rd_kafka_message_headers(message, &raw mut found) != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return Vec::new();
        }
        let mut headers = Vec::new();
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        while rd::rd_kafka_header_get_all(found, headers.len(), &raw mut name, &raw mut value, &raw mut size)
            == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            headers.push((CStr::from_ptr(name).to_string_lossy().into_owned(), bytes(value, size)));
        }
        headers
    }
}

/// A null pointer is an absent value, which is another thing than an empty one.
unsafe fn bytes(from: *const c_void, length: usize) -> Option<Vec<u8>> {
    if from.is_null() {
        return None;
    }
    // SAFETY: librdkafka's pointers come with their lengths.
    Some(unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length) }.to_vec())
}
