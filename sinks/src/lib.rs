//! Where scored posts come to rest: the contract of a sink, the loop that feeds it, and the stores that keep it.
//!
//! The guarantee: every event that a sink's source holds is in the sink's store once, whatever is killed when. It rests
//! on three things: a sink knows its own durable position ([`Sink::positions`]); a position moves only together with
//! the rows it stands for ([`Sink::write`]); and the loop that feeds it ([`pump::Pump`]) always goes on from the
//! position that the store tells, never from one it remembers through a failure.
//!
//! ```text
//! input log  ──▶ bronze.posts           every event as it came
//! scored log ──▶ silver.posts           clean text, scores, entities
//!            ├─▶ gold.sentiment_1m, 1h  sums by window, source, language, label
//!            ├─▶ gold.tags_1m, 1h       the same by tag
//!            └─▶ qdrant, opensearch, clickhouse   the latest version of every post
//! ```

pub mod chart;
pub mod clickhouse;
pub mod contract;
pub mod found;
pub mod iceberg;
pub mod latest;
pub mod opensearch;
pub mod pump;
pub mod qdrant;

pub use contract::{Epoch, Positions, Sink, Written};
