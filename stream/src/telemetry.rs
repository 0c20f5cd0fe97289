//! Names of this crate's metrics, in one place.

/// Events made durable.
pub const EVENTS: &str = "undertone_stream_events_total";
/// Posts scored, tombstones included.
pub const SCORED: &str = "undertone_stream_scored_total";
/// Dead letters; labels `stage` and `reason`, a word of [`crate::dead::class`].
pub const DEAD: &str = "undertone_stream_dead_total";
/// Time of one sync of a log to disk; label `log`.
pub const FSYNC_SECONDS: &str = "undertone_stream_fsync_seconds";
/// Time from an event's being durable to its score's being durable.
pub const EVENT_TO_SCORED_SECONDS: &str = "undertone_stream_event_to_scored_seconds";
/// Time that the broker takes to commit a transaction.
pub const TRANSACTION_COMMIT_SECONDS: &str = "undertone_stream_transaction_commit_seconds";

/// Tells the recorder what the metrics mean. Call once, after installing it.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_histogram};
    describe_counter!(EVENTS, "events made durable in the input log");
    describe_counter!(SCORED, "posts scored, tombstones included");
    describe_counter!(DEAD, "events that ended as dead letters, by stage and reason");
    describe_histogram!(FSYNC_SECONDS, Unit::Seconds, "time of one sync of a log");
    describe_histogram!(EVENT_TO_SCORED_SECONDS, Unit::Seconds, "time from durable event to durable score");
    describe_histogram!(
        TRANSACTION_COMMIT_SECONDS,
        Unit::Seconds,
        "time that the broker takes to commit a transaction"
    );
}
