//! Settling what a sink has done with the records of a topic: dead letters and the offsets of its group, in one transaction.
//!
//! The guarantee is that of scoring's transactions, in another group: letters and offsets become visible together or not
//! at all, and a member whose partitions have moved to another commits nothing for them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use undertone_error::Result;
use undertone_proto::v1::{DeadLetter, Outcome, outcome};

use super::client::{Kafka, Topics};
use super::describe::Topic;
use super::membership::Membership;
use super::reader::Offsets;
use super::score::KafkaOutcome;
use super::transaction::ScoreWriter;

/// Settles records of one topic on behalf of one role. Calls on it go one after another.
#[derive(Clone, Debug)]
pub struct LetterWriter {
    writer: ScoreWriter,
}

impl LetterWriter {
    /// A writer for the partitions of `source` that `membership`, of the group of `role`, has.
    pub fn new(kafka: &Kafka, role: &'static str, membership: Membership, source: Topic, dead: Topic) -> Self {
        let topics = Topics { raw: source.clone(), scored: source, scored_json: None, dead };
        Self { writer: ScoreWriter::of_role(kafka, role, membership, topics) }
    }

    /// The next offset of each of `partitions`, as committed; one that never was is absent.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn committed(&self, partitions: BTreeSet<i32>) -> Result<Offsets> {
        self.writer.settled(partitions).await
    }

    /// Writes letters and moves the offsets of their partitions to the ends of `ranges`, both or neither; as
    /// [`ScoreWriter::write`].
    ///
    /// # Errors
    /// As [`ScoreWriter::write`].
    pub async fn settle(&self, version: u64, ranges: Vec<(i32, Range<i64>)>, letters: Vec<DeadLetter>) -> Result<()> {
        let outcome = |letter| {
            let outcome = Outcome { kind: Some(outcome::Kind::Dead(letter)) };
            Arc::new(KafkaOutcome { outcome, headers: Vec::new(), size: 0 })
        };
        self.writer.settle(version, ranges, letters.into_iter().map(outcome).collect()).await
    }
}
