//! The stream on Kafka: `posts.raw` in, `posts.scored` and `posts.dead` out.
//!
//! ```text
//! posts.raw ─▶ TopicReader ─▶ ScoredChunks ─▶ ScoreWriter ─▶ posts.scored, posts.dead, group offsets
//!                  ▲              (in flight)    (one transaction)
//!              Membership: which partitions this process reads
//! ```
//!
//! The guarantee: outcomes and the offsets of the events that they are the outcomes of become visible in one transaction
//! or not at all, and a member whose partitions have moved to another commits nothing for them. Every reader begins where
//! its store says, never where the broker would reset it to: an offset that is no longer there is an error that a person
//! must look at, not a jump.
//!
//! Membership and reading are two consumers. One joins the group and reads nothing; it says which partitions are ours. The
//! other is given partitions and offsets by hand. So a rebalance never moves a position, and stores that keep their own
//! positions (the Iceberg tables) and the one that keeps them in the group (scoring) are read by the same code.

mod append;
mod client;
mod describe;
mod failure;
mod gap;
mod lag;
mod ledger;
mod logging;
mod membership;
mod outcomes;
mod poll;
mod producer;
mod reader;
mod replay;
mod room;
mod score;
mod send;
mod settle;
mod start;
mod topics;
mod traces;
mod transaction;

pub use self::append::Appender;
pub use self::client::{Kafka, KafkaConfig, StartAt, TopicNames, Topics};
pub use self::describe::Topic;
pub use self::gap::STAGE as GAP_STAGE;
pub use self::lag::GroupOffsets;
pub use self::membership::{Assignment, Membership};
pub use self::reader::{Fetched, Limit, Offsets, Record, TopicReader};
pub use self::replay::{DeadLetters, Letter, Letters, Place, Replay, ReplayOf, Replayed, Replayer, is_replay};
pub use self::score::{KafkaOutcome, ScoredBatch, ScoredChunks, ScoringEnd};
pub use self::send::NewRecord;
pub use self::settle::{LetterCloser, LetterWriter};
pub use self::start::{last_outcomes, pin_start, was_written};
pub use self::topics::{TopicSettings, TopicsReport, ensure_topics, inspect_topics};
pub use self::transaction::{ScoreWriter, end_earlier};
