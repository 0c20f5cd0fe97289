//! Settling what a sink has done with the records of a topic: dead letters and the offsets of its group, in one transaction.
//!
//! The guarantee is that of scoring's transactions, in another group: letters and offsets become visible together or not
//! at all, and a member whose partitions have moved to another commits nothing for them. Later a letter may be closed: its
//! post is in the store after all.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::{DeadLetter, Outcome, outcome};

use super::client::{Kafka, Topics};
use super::describe::Topic;
use super::logging::Logged;
use super::membership::Membership;
use super::outcomes::letter_key;
use super::producer::{Failure, Reach, STEP, producer, send, step};
use super::reader::Offsets;
use super::replay::{Letter, REPLAYED};
use super::score::KafkaOutcome;
use super::transaction::ScoreWriter;
use crate::durable::blocking;

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

/// Closes letters of one sink: a tombstone under a letter's key names its place, as that of a replay does.
pub struct LetterCloser {
    producer: Arc<BaseProducer<Logged>>,
    sink: String,
    dead: Topic,
}

impl std::fmt::Debug for LetterCloser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LetterCloser").field("sink", &self.sink).field("dead", &self.dead).finish_non_exhaustive()
    }
}

impl LetterCloser {
    /// Takes the right to close letters of `sink` from whoever had it. Blocks.
    ///
    /// # Errors
    /// Those of the cluster.
    pub fn begin(kafka: &Kafka, sink: &str, dead: &Topic) -> Result<Self> {
        let producer = Arc::new(producer(
            kafka,
            &kafka.group(&format!("dead-replay-{sink}")),
            &Reach { topics: vec![dead], group: None },
        )?);
        Ok(Self { producer, sink: sink.to_owned(), dead: dead.clone() })
    }

    /// Closes letters, all or none.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another has begun to close letters of this sink; those of the cluster.
    /// After an error one must begin anew.
    pub async fn close(&self, letters: Vec<Letter>) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        let (producer, sink, dead) = (Arc::clone(&self.producer), self.sink.clone(), self.dead.clone());
        let work =
            move || close(&producer, &sink, &dead, &letters).map_err(|failure| failure.aborting(&producer).error);
        blocking(work).await
    }
}

fn close(producer: &BaseProducer<Logged>, sink: &str, dead: &Topic, letters: &[Letter]) -> Result<(), Failure> {
    step("cannot begin a transaction", || producer.begin_transaction())?;
    for Letter { place, letter, .. } in letters {
        let failed = |e| Failure::ours(Error::new(ErrorKind::Internal, "header cannot be written").source(e));
        let value = serde_json::to_vec(place).map_err(failed)?;
        let header = OwnedHeaders::new().insert(Header { key: REPLAYED, value: Some(&value) });
        // As the letter's own.
        let key = letter.origin.as_ref().map(letter_key).unwrap_or_default();
        let key = [sink.as_bytes(), b"/", &key].concat();
        let tombstone = BaseRecord::<_, Vec<u8>>::to(&dead.name).partition(place.partition).key(&key);
        send(producer, tombstone.headers(header))?;
    }
    step("cannot deliver tombstones", || producer.flush(STEP))?;
    step("cannot commit a transaction", || producer.commit_transaction(STEP))
}
