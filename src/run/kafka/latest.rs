//! Feeding the latest-wins stores from `posts.scored`: each is a role with a group of its own, which keeps its positions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use undertone_error::Result;
use undertone_proto::Partition;
use undertone_proto::v1::DeadLetter;
use undertone_sinks::Positions;
use undertone_sinks::latest::{LatestSink, LatestStore, Ledger, Shape, Standing};
use undertone_sinks::pump::{Policy, SinkStatus};
use undertone_stream::kafka::{Kafka, LetterWriter, Membership, TopicReader, Topics};

use super::feed::{AsScored, Feed, Ours};
use crate::run::pumps::Pumps;

/// The offsets of a role's group, and `posts.dead`.
struct GroupLedger {
    ours: Ours,
    writer: LetterWriter,
}

#[async_trait]
impl Ledger for GroupLedger {
    async fn standing(&mut self) -> Result<Standing> {
        let partitions = self.ours.take().await?;
        let committed = self.writer.committed(partitions.iter().copied().collect()).await?;
        Ok(Standing { partitions: partitions.len(), positions: self.ours.positions(committed) })
    }

    async fn others(&mut self, partitions: &Positions) -> Result<Positions> {
        let numbers = partitions.keys().map(|partition| partition.partition).collect();
        Ok(self.ours.positions(self.writer.committed(numbers).await?))
    }

    async fn settle(&mut self, ranges: &BTreeMap<Partition, Range<i64>>, letters: Vec<DeadLetter>) -> Result<()> {
        let ranges = ranges.iter().map(|(partition, range)| (partition.partition, range.clone())).collect();
        self.writer.settle(self.ours.version(), ranges, letters).await
    }
}

/// What is believed of a store, and what fits into the topic of dead letters.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// The share of rejected posts above which none is dead-lettered.
    pub(super) rejected: f64,
    /// The largest post that its dead letter holds.
    pub(super) letter_bytes: usize,
}

/// Starts the pump of one store. `role` is its name among roles and groups.
///
/// # Errors
/// Those of the cluster.
pub(super) fn start(
    kafka: &Kafka,
    topics: &Topics,
    role: &'static str,
    store: Arc<dyn LatestStore>,
    limits: Limits,
    pumps: &mut Pumps,
) -> Result<SinkStatus> {
    let policy = policy(store.shape());
    let membership = Membership::join(kafka, role, &topics.scored.name)?;
    let ours = || Ours::new(kafka, &topics.scored, membership.clone());
    let writer = LetterWriter::new(kafka, role, membership.clone(), topics.scored.clone(), topics.dead.clone());
    let sink = LatestSink::new(store, GroupLedger { ours: ours(), writer }, limits.rejected, limits.letter_bytes);
    let reader = TopicReader::new(kafka, role, &topics.scored)?;
    let feed = Feed::new(ours(), reader, pumps.shutdown.finish.clone(), AsScored);
    Ok(pumps.spawn(sink, feed, policy))
}

/// An epoch has at least this many posts where there are as many.
const POSTS: usize = 20_000;
/// About as many bytes as a post with its embedding and room to spare, so that an epoch is full by its posts as a rule.
const POST_BYTES: usize = 3 << 10;

/// A second is soon enough for people who search, and long enough for a store to be written to in bulk. An epoch ends with
/// a transaction, so it fills at least the calls that its store takes at once. Where partitions begin is written down at
/// once: what retention takes before the first epoch would not be missed otherwise.
fn policy(shape: Shape) -> Policy {
    let posts = POSTS.max(shape.posts.saturating_mul(shape.concurrency));
    let (max_events, max_bytes) = (posts as u64, posts * POST_BYTES);
    Policy { max_age: Duration::from_secs(1), max_events, max_bytes, pin_starts: true, ..Policy::default() }
}
