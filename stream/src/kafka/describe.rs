//! What a topic is: its id and its partitions.
//!
//! A topic that was deleted and made again has the same name and another id, so that what was read of the first is never
//! taken for what is in the second. `rdkafka` does not wrap the call that tells the id, hence the bindings.
#![allow(unsafe_code)] // librdkafka's DescribeTopics has no safe wrapper

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use undertone_error::{Error, ErrorKind, Result};

use super::failure::kind;

/// One topic of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id (base64 of a UUID, without padding), which no other topic ever had or will have.
    pub id: String,
    /// How many partitions it has; they are numbered from 0.
    pub partitions: i32,
}

/// Frees what librdkafka handed out, whatever way the function is left.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from librdkafka together with its destructor, and is freed once.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// Asks the cluster about one topic.
pub(super) fn describe<C: ClientContext>(client: &Client<C>, name: &str, timeout: Duration) -> Result<Topic> {
    let no_name = |_| Error::new(ErrorKind::InvalidConfig, "topic name has a zero byte in it");
    let c_name = CString::new(name).map_err(no_name)?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    // SAFETY: `rk` outlives this function, which owns every other handle and frees it by its guard. Pointers into the
    // result are only followed while `event` lives.
    unsafe {
        let queue = Guard(rd::rd_kafka_queue_new(rk), rd::rd_kafka_queue_destroy);
        let mut names = [c_name.as_ptr()];
        let topics = Guard(
            rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            rd::rd_kafka_TopicCollection_destroy,
        );
        let options = Guard(
            rd::rd_kafka_AdminOptions_new(rk, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            rd::rd_kafka_AdminOptions_destroy,
        );
        rd::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, ptr::null_mut(), 0);
        rd::rd_kafka_DescribeTopics(rk, topics.0, options.0, queue.0);
        let event = Guard(rd::rd_kafka_queue_poll(queue.0, timeout_ms + 1000), rd::rd_kafka_event_destroy);
        if event.0.is_null() {
            return Err(Error::new(ErrorKind::DeadlineExceeded, "kafka cluster does not describe the topic in time"));
        }
        check(rd::rd_kafka_event_error(event.0))?;
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
        let mut count = 0;
        let found = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count != 1 || found.is_null() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "kafka cluster described another number of topics than one",
            ));
        }
        let topic = *found;
        check(rd::rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(topic)))?;
        let id = CStr::from_ptr(rd::rd_kafka_Uuid_base64str(rd::rd_kafka_TopicDescription_topic_id(topic)));
        let mut partitions = 0;
        rd::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        Ok(Topic {
            name: name.to_owned(),
            id: id.to_string_lossy().into_owned(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
        })
    }
}

fn check(code: rd::rd_kafka_resp_err_t) -> Result<()> {
    if code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    let code = rdkafka::error::RDKafkaErrorCode::from(code);
    let error = Error::new(kind(code), "cannot describe topic").source(code.to_string());
    Err(match kind(code) {
        ErrorKind::NotFound => error.help("make it with `undertone init`, or correct its name in [kafka.topics]"),
        _ => error,
    })
}
