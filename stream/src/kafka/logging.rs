//! What librdkafka says, in the log of this process.
//!
//! The guarantee: nothing of it goes to standard error past the log, whose lines may be JSON; and what a dozen clients say of one
//! broker that is away is said once a second, not once by each for each of its connections.

#![allow(unsafe_code)] // rd_kafka_set_logger, for consumers that are not polled through `rdkafka`

use std::ffi::{CStr, c_char, c_int};
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings::{rd_kafka_set_logger, rd_kafka_t};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};

/// At most one line in so long says that clients are in trouble.
const PERIOD: Duration = Duration::from_secs(1);

/// Sends librdkafka's log and errors where ours go.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        trouble(&error, reason);
    }
}

impl ConsumerContext for Logged {}

impl ProducerContext for Logged {
    type DeliveryOpaque = ();

    /// A record that cannot be delivered fails its transaction, which says why.
    fn delivery(&self, _: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}

/// One line of librdkafka's.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    // Every property of the configuration is given to consumers and producers: each says which are the other's. What is an
    // error comes as one, too.
    let level = if matches!(facility, "CONFWARN" | "ERROR") { RDKafkaLogLevel::Debug } else { level };
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(facility, "librdkafka: {message}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::info!(facility, "librdkafka: {message}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(facility, "librdkafka: {message}"),
    }
}

/// Has a consumer that is polled by hand log as the others do: its lines would go to standard error.
pub(super) fn log_here<C: ClientContext>(client: &Client<C>) {
    // SAFETY: the client outlives the call, and the function is there as long as the process.
    unsafe { rd_kafka_set_logger(client.native_ptr(), Some(take)) }
}

unsafe extern "C" fn take(_: *const rd_kafka_t, level: c_int, facility: *const c_char, message: *const c_char) {
    if facility.is_null() || message.is_null() {
        return;
    }
    // SAFETY: librdkafka hands over strings that live as long as the call.
    let (facility, message) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(message)) };
    // Those of syslog.
    let level = match level {
        ..=3 => RDKafkaLogLevel::Error,
        4 | 5 => RDKafkaLogLevel::Warning,
        _ => RDKafkaLogLevel::Info,
    };
    log(level, &facility.to_string_lossy(), &message.to_string_lossy());
}

/// A client is in trouble. Not at the level of an error: it tries again by itself, and what it gives up comes back from a call.
pub(super) fn trouble(error: &dyn Display, reason: &str) {
    static SAID: Mutex<Said> = Mutex::new(Said { at: None, unsaid: 0 });
    let may = SAID.lock().unwrap_or_else(PoisonError::into_inner).may(Instant::now());
    if let Some(unsaid) = may {
        tracing::info!(%error, reason, unsaid, "kafka client is in trouble, and tries again");
    }
}

/// When it was said last, and how often it was not said since.
struct Said {
    at: Option<Instant>,
    unsaid: u64,
}

impl Said {
    /// Whether it may be said now, and how often it was not.
    fn may(&mut self, now: Instant) -> Option<u64> {
        if self.at.is_some_and(|at| now.duration_since(at) < PERIOD) {
            self.unsaid += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_told_once_a_second_with_how_often_it_was_not() {
        let (start, mut said) = (Instant::now(), Said { at: None, unsaid: 0 });
        let told = [0, 1, 999, 1000, 1001, 5000].map(|ms| said.may(start + Duration::from_millis(ms)));
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
