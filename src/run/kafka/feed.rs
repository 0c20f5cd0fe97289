//! A topic's partitions that are ours, as a source for the pump of a table.
//!
//! Positions come from the table, so a rebalance only ends what was being read: the pump asks the table again and goes on
//! with the partitions that are ours then.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use prost::{DecodeError, Message};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::ScoredPost;
use undertone_proto::{Event, EventTime, Partition};
use undertone_sinks::pump::{Batch, EpochSource, ReadLimit};
use undertone_sinks::{Epoch, Positions};
use undertone_stream::kafka::{Assignment, Kafka, Limit, Membership, Offsets, Record, Topic, TopicReader, is_replay};

/// How long the group may take to give us partitions; after that it is taken to have none for us.
const JOINING: Duration = Duration::from_secs(6);
/// What is known of the ends may be this old; it is for people to look at.
const ENDS_AGE: Duration = Duration::from_secs(1);
/// How often a topic is looked at that may have been deleted and made again.
const TOPIC_AGE: Duration = Duration::from_secs(30);

/// Which partitions of one topic are ours, and how positions name them.
pub(super) struct Ours {
    cluster: String,
    topic: Topic,
    membership: Membership,
    assignment: watch::Receiver<Assignment>,
    /// With what the pump goes on; changes only when it asks anew.
    version: u64,
    partitions: Vec<i32>,
}

impl Ours {
    pub(super) fn new(kafka: &Kafka, topic: &Topic, membership: Membership) -> Self {
        let assignment = membership.assignment();
        let (cluster, topic) = (kafka.cluster().to_owned(), topic.clone());
        Self { cluster, topic, membership, assignment, version: 0, partitions: Vec::new() }
    }

    /// Takes the partitions that are ours now.
    pub(super) async fn take(&mut self) -> Result<Vec<i32>> {
        let now = self.membership.joined(JOINING).await?;
        self.version = now.version;
        self.partitions = now.partitions.into_iter().collect();
        Ok(self.partitions.clone())
    }

    /// Fails if other partitions are ours than those that were taken.
    pub(super) fn unchanged(&self) -> Result<()> {
        if self.assignment.borrow().version == self.version {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Conflict, "group has shared its partitions out anew");
        Err(error.with("topic", &self.topic.name))
    }

    /// Waits until other partitions are ours.
    pub(super) async fn changed(&self) {
        let (mut assignment, version) = (self.assignment.clone(), self.version);
        let _ = assignment.wait_for(|now| now.version != version).await;
    }

    /// Of which assignment the partitions are that were taken.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn partition(&self, number: i32) -> Partition {
        Partition { cluster: self.cluster.clone(), topic: self.topic.id.clone(), partition: number }
    }

    /// Positions of ours, by number.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if one of ours has no position.
    pub(super) fn offsets(&self, positions: &Positions) -> Result<Offsets> {
        let offset = |&number: &i32| {
            let missing = || Error::new(ErrorKind::Internal, "asked to read without a position");
            let offset = positions.get(&self.partition(number)).ok_or_else(|| missing().with("partition", number));
            offset.map(|offset| (number, *offset))
        };
        self.partitions.iter().map(offset).collect()
    }

    /// Offsets as positions.
    pub(super) fn positions(&self, offsets: impl IntoIterator<Item = (i32, i64)>) -> Positions {
        offsets.into_iter().map(|(number, offset)| (self.partition(number), offset)).collect()
    }

    /// The ends of the partitions that are not ours, of those that hold something.
    pub(super) async fn others(&self, reader: &TopicReader) -> Result<Positions> {
        let others = (0..self.topic.partitions).filter(|number| !self.partitions.contains(number)).collect();
        let bounds = reader.bounds(others).await?;
        Ok(self.positions(
            bounds.into_iter().filter(|(_, (start, end))| start < end).map(|(number, (_, end))| (number, end)),
        ))
    }

    /// What was read, from `from` up to `next`, as ranges.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if a partition was read that was not asked for.
    pub(super) fn epoch<R>(&self, from: &Offsets, next: &Offsets, records: Vec<R>) -> Result<Epoch<R>> {
        let mut epoch = Epoch { records, ..Epoch::default() };
        for (number, &end) in next {
            let unasked = || Error::new(ErrorKind::Internal, "read a partition that was not asked for");
            let &start = from.get(number).ok_or_else(|| unasked().with("partition", number))?;
            if start < end {
                epoch.ranges.insert(self.partition(*number), start..end);
            }
        }
        Ok(epoch)
    }
}

/// The ends of partitions, asked for no more often than is useful.
pub(super) struct Ends {
    /// Once it is cancelled, ends are exact: what is drained then is decided by them.
    exact: CancellationToken,
    known: Option<(Instant, Positions)>,
    /// When the topic was last seen to be the same.
    same: Instant,
}

impl Ends {
    pub(super) fn new(exact: CancellationToken) -> Self {
        Self { exact, known: None, same: Instant::now() }
    }

    pub(super) async fn ask(&mut self, ours: &Ours, reader: &TopicReader) -> Result<Positions> {
        if let Some((asked, ends)) = &self.known
            && asked.elapsed() < ENDS_AGE
            && !self.exact.is_cancelled()
        {
            return Ok(ends.clone());
        }
        if self.same.elapsed() > TOPIC_AGE {
            reader.is_same().await?;
            self.same = Instant::now();
        }
        let bounds = reader.bounds(ours.partitions.clone()).await?;
        let ends = ours.positions(bounds.into_iter().map(|(number, (_, end))| (number, end)));
        self.known = Some((Instant::now(), ends.clone()));
        Ok(ends)
    }

    pub(super) fn forget(&mut self) {
        self.known = None;
    }
}

/// What a record of the topic says, and since when it is on its way; nothing if it is not for this table.
pub(super) trait Decode: Send + 'static {
    type Of: Send + Sync + 'static;

    fn decode(&self, partition: &Partition, record: Record) -> Result<Option<(Self::Of, EventTime)>>;
}

/// Records of `posts.raw`, as they came, but for replays: their events are in the table already.
pub(super) struct AsEvent;

impl Decode for AsEvent {
    type Of = Event;

    fn decode(&self, partition: &Partition, record: Record) -> Result<Option<(Event, EventTime)>> {
        if record.replay_of(partition).is_some() {
            return Ok(None);
        }
        let event = record.into_event(partition);
        let ingested_at_us = event.ingested_at_us;
        Ok(Some((event, ingested_at_us)))
    }
}

/// Records of `posts.scored`.
pub(super) struct AsScored;

impl Decode for AsScored {
    type Of = ScoredPost;

    fn decode(&self, partition: &Partition, record: Record) -> Result<Option<(ScoredPost, EventTime)>> {
        let offset = record.offset;
        let replayed_at_us = is_replay(&record.headers).then(|| record.ingested_at_us());
        let foreign = || {
            let error = Error::new(ErrorKind::Corrupt, "record of the scored topic is no scored post");
            let error = error.with("partition", partition.partition).with("offset", offset);
            error.help("only undertone writes to this topic: find out who else did, and move them to another")
        };
        let post = scored(&record.payload.unwrap_or_default()).map_err(|e| foreign().source(e))?;
        if post.origin.is_none() {
            return Err(foreign());
        }
        // The event of a replay is old; what its score waits for since it was written is this table.
        let since_us = replayed_at_us.unwrap_or(post.ingested_at_us);
        Ok(Some((post, since_us)))
    }
}

/// Reads a scored post. Most of its bytes are floats, as a rule: with room for as many, they are not moved as they come in.
fn scored(bytes: &[u8]) -> Result<ScoredPost, DecodeError> {
    let mut post =
        ScoredPost { embedding: Vec::with_capacity(bytes.len() / size_of::<f32>()), ..ScoredPost::default() };
    post.merge(bytes)?;
    if post.embedding.len() < post.embedding.capacity() / 2 {
        post.embedding.shrink_to_fit();
    }
    Ok(post)
}

/// A topic for the pump of one table.
pub(super) struct Feed<D> {
    ours: Ours,
    reader: TopicReader,
    ends: Ends,
    decode: D,
}

impl<D: Decode> Feed<D> {
    pub(super) fn new(ours: Ours, reader: TopicReader, exact: CancellationToken, decode: D) -> Self {
        Self { ours, reader, ends: Ends::new(exact), decode }
    }
}

#[async_trait]
impl<D: Decode + Sync> EpochSource for Feed<D> {
    type Record = D::Of;

    async fn starts(&mut self) -> Result<Positions> {
        self.ends.forget();
        self.reader.is_same().await?;
        let partitions = self.ours.take().await?;
        let bounds = self.reader.bounds(partitions).await?;
        Ok(self.ours.positions(bounds.into_iter().map(|(number, (start, _))| (number, start))))
    }

    async fn ends(&mut self) -> Result<Positions> {
        self.ours.unchanged()?;
        self.ends.ask(&self.ours, &self.reader).await
    }

    async fn others(&mut self) -> Result<Positions> {
        self.ours.others(&self.reader).await
    }

    async fn read(&mut self, from: &Positions, limit: ReadLimit) -> Result<Batch<D::Of>> {
        self.ours.unchanged()?;
        let from = self.ours.offsets(from)?;
        let read = async {
            if from.is_empty() {
                tokio::time::sleep(limit.wait).await;
                return Ok(Default::default());
            }
            self.reader.read(from.clone(), Limit { records: limit.events, bytes: limit.bytes, wait: limit.wait }).await
        };
        let fetched = tokio::select! {
            fetched = read => fetched?,
            () = self.ours.changed() => return Ok(Batch::default()),
        };
        let mut batch = Batch::default();
        let mut records = Vec::with_capacity(fetched.records.len());
        for record in fetched.records {
            batch.bytes += record.size();
            let partition = self.ours.partition(record.partition);
            let Some((decoded, ingested_at_us)) = self.decode.decode(&partition, record)? else { continue };
            batch.ingested.add(partition.partition, ingested_at_us);
            records.push(decoded);
        }
        batch.epoch = self.ours.epoch(&from, &fetched.next, records)?;
        Ok(batch)
    }
}
