//! Names of the pumps' metrics, in one place. Labels are bounded: the name of a sink, the number of a partition, and
//! words of closed sets. A partition that has moved to another process is told as level, so that sums over processes are
//! right.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};

/// Time from an event's ingestion to its being durable in the sink; label `sink`.
pub const FRESHNESS_SECONDS: &str = "undertone_sink_freshness_seconds";
/// Bytes of an epoch as its source counts them; label `sink`.
pub const EPOCH_BYTES: &str = "undertone_sink_epoch_bytes";
/// Rows and offsets of an epoch; label `sink`.
pub const EPOCH_COUNT: [&str; 2] = ["undertone_sink_epoch_rows", "undertone_sink_epoch_offsets"];

/// Tells the metrics recorder what the sinks' metrics mean. Call it once, after the recorder is installed.
pub fn describe_metrics() {
    describe_counter!("undertone_sink_rows_total", "rows that a sink has made durable");
    describe_counter!("undertone_sink_commits_total", "attempts to commit an epoch, by outcome");
    describe_histogram!("undertone_sink_commit_seconds", Unit::Seconds, "time to write and commit an epoch");
    describe_gauge!("undertone_sink_lag_posts", "durable events that a sink has not stored yet");
    describe_gauge!(
        "undertone_sink_lag_seconds",
        Unit::Seconds,
        "age of the oldest event that was read and is not stored yet"
    );
    describe_gauge!("undertone_sink_position", "the next offset that a sink will store");
    describe_counter!(
        "undertone_sink_retries_total",
        "times that a sink waited and tried again, by the kind of the error"
    );
    describe_counter!(
        "undertone_sink_posts_total",
        "posts that a store answered for, by answer: stored, rejected, or again for those that were sent another time"
    );
    describe_histogram!(
        "undertone_sink_request_seconds",
        Unit::Seconds,
        "time of a request to a store; outcome is answered, or failed where the store as a whole was at fault"
    );
    describe_gauge!("undertone_sink_waiting", "1 while a sink waits for something outside to get well");
    describe_gauge!(
        "undertone_sink_waiting_seconds",
        Unit::Seconds,
        "for how long a sink has waited for something outside; 0 while it does not"
    );
    describe_gauge!("undertone_sink_stopped", "1 once a sink has given up and needs a person");
    describe_histogram!(
        FRESHNESS_SECONDS,
        Unit::Seconds,
        "time from ingestion to durable in the sink, at most 256 posts an epoch"
    );
    describe_histogram!(EPOCH_BYTES, Unit::Bytes, "bytes of a committed epoch, as its source counts them");
    describe_histogram!(EPOCH_COUNT[0], "rows that a committed epoch added");
    describe_histogram!(EPOCH_COUNT[1], "offsets that a committed epoch settled");
}

/// Tells how far a stage that is no pump is behind.
pub fn report_lag(stage: &str, partition: i32, posts: u64, seconds: f64) {
    let labels = [("sink", stage.to_owned()), ("partition", partition.to_string())];
    gauge!("undertone_sink_lag_posts", &labels).set(posts as f64);
    gauge!("undertone_sink_lag_seconds", &labels).set(seconds);
}

/// Tells where a sink stands in a partition.
pub(super) fn report_position(sink: &str, partition: i32, position: i64) {
    gauge!("undertone_sink_position", "sink" => sink.to_owned(), "partition" => partition.to_string())
        .set(position as f64);
}
