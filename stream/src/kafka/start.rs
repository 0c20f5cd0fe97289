//! Where a stream begins that never began before.
//!
//! The guarantee: the configured start is used once. It is written down as the group's offsets, of all partitions in one
//! request, before anything is read; the broker refuses that request while the group has a member. A partition without an
//! offset is from then on one that appeared later, and begins at 0.
//!
//! A group without offsets whose topics hold outcomes is no new one. With the topic of its events the broker forgets the
//! offsets in it, and it forgets those of a group that rested for too long: to begin again would skip or repeat events in
//! silence, so a person is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use prost::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use undertone_error::{Error, ErrorKind, Result, failpoint};
use undertone_proto::v1::{DeadLetter, Origin, ScoredPost};

use super::client::{Kafka, OFFSETS_PATIENCE, PATIENCE, StartAt};
use super::describe::Topic;
use super::failure::failed;
use super::logging::Logged;
use super::reader::{Limit, Offsets, TopicReader};
use crate::dead::is_scorings;
use crate::durable::blocking;

/// Whoever decided longer ago than this may have been asleep, and looks again.
const FRESH: Duration = Duration::from_secs(3);

/// How long one look at the ends of partitions may wait.
const WAIT: Duration = Duration::from_millis(500);
/// So many offsets at the end of a partition are looked at first for an outcome; the last ones are markers of transactions.
const TAIL: i64 = 200;
/// And so many more at once, as often as it takes.
const MOST: i64 = 10_000;

/// Writes the start of `role` on a topic down, unless the group has offsets already. `scored` and `dead` hold the outcomes.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if the group has no offsets and there are outcomes; those of the cluster.
pub async fn pin_start(kafka: &Kafka, role: &'static str, raw: &Topic, scored: &Topic, dead: &Topic) -> Result<()> {
    let (asking, topic) = (kafka.clone(), raw.clone());
    let offsets = blocking(move || committed(&asking.consumer(role, &[], Logged)?, &topic)).await?;
    if !offsets.is_empty() {
        return Ok(());
    }
    let outcomes = outcomes(kafka, None, scored, dead).await?;
    let last = outcomes.iter().find(|origin| origin.topic == raw.id).or(outcomes.first());
    // Retention may have taken the outcomes before the broker forgot the offsets: the topic still says that there were some.
    if last.is_some() || was_written(kafka, scored).await? {
        return Err(forgotten(kafka, raw, last));
    }
    let (kafka, topic) = (kafka.clone(), raw.clone());
    blocking(move || write_start(&kafka, role, &topic)).await
}

/// The offsets that a group has committed on a topic; partitions without one are absent.
pub(super) fn committed(consumer: &BaseConsumer<Logged>, topic: &Topic) -> Result<Offsets> {
    let mut all = TopicPartitionList::with_capacity(usize::try_from(topic.partitions).unwrap_or(0));
    all.add_partition_range(&topic.name, 0, topic.partitions - 1);
    let committed =
        consumer.committed_offsets(all, OFFSETS_PATIENCE).map_err(|e| failed("cannot read the group's offsets", e))?;
    let mut offsets = Offsets::new();
    for element in committed.elements() {
        element.error().map_err(|e| failed("cannot read the group's offset of a partition", e))?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}

/// The error for a group that stood somewhere, and no longer says where.
fn forgotten(kafka: &Kafka, raw: &Topic, last: Option<&Origin>) -> Error {
    let accept = "`undertone accept-gap --sink score` shows from where it would go on";
    let Some(last) = last.filter(|last| last.cluster != kafka.cluster() || last.topic != raw.id) else {
        let error = Error::new(ErrorKind::Corrupt, "consumer group has forgotten how far its topic is scored");
        let error = error.with("group", kafka.group("score")).with("topic", &raw.name);
        let error = error.with(
            "last outcome",
            last.map_or("gone too".to_owned(), |last| format!("partition {}, offset {}", last.partition, last.offset)),
        );
        return error.help(format!("offsets expire a week after the last member has left; {accept}"));
    };
    let error = Error::new(ErrorKind::Corrupt, "outcomes are of another topic than the one that is to be scored");
    let error = error.with("topic", &raw.name).with("id", &raw.id).with("outcomes of", &last.topic);
    error.help(format!("was the topic deleted and made again? what was not scored of the old one is gone; {accept}"))
}

/// Whether anything ever was written to a topic, be it gone by now.
///
/// # Errors
/// Those of the cluster.
pub async fn was_written(kafka: &Kafka, topic: &Topic) -> Result<bool> {
    Ok(kafka.all_bounds(topic).await?.iter().any(|(_, (_, end))| *end > 0))
}

/// Of which events outcomes were written last: of each partition of `raw` that has any some of the last ones. Not those that a replay
/// left, whose events were long before.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if the topics cannot be read up to their ends; those of the cluster.
pub async fn last_outcomes(kafka: &Kafka, raw: &Topic, scored: &Topic, dead: &Topic) -> Result<Vec<Origin>> {
    outcomes(kafka, Some(raw), scored, dead).await
}

/// As [`last_outcomes`]; without `raw` one is enough of each partition that outcomes go to.
async fn outcomes(kafka: &Kafka, raw: Option<&Topic>, scored: &Topic, dead: &Topic) -> Result<Vec<Origin>> {
    let of_scored = |payload: &[u8]| ScoredPost::decode(payload).ok()?.origin;
    let of_dead = |payload: &[u8]| DeadLetter::decode(payload).ok().filter(is_scorings)?.origin;
    let mut found = Latest::default();
    last(kafka, raw, scored, &of_scored, &mut found).await?;
    last(kafka, raw, dead, &of_dead, &mut found).await?;
    Ok(found.0.into_values().collect())
}

/// The greatest origin that was found in each partition of each topic.
#[derive(Default)]
struct Latest(BTreeMap<(String, i32), Origin>);

impl Latest {
    fn add(&mut self, origin: Origin) {
        let latest = self.0.entry((origin.topic.clone(), origin.partition)).or_insert_with(|| origin.clone());
        if origin.offset > latest.offset {
            *latest = origin;
        }
    }
}

/// What `origin_of` says of the last records of every partition: of as many as it takes to find what is looked for, since aborted
/// transactions and other people's records may come after it.
async fn last(
    kafka: &Kafka,
    raw: Option<&Topic>,
    topic: &Topic,
    origin_of: &impl Fn(&[u8]) -> Option<Origin>,
    found: &mut Latest,
) -> Result<()> {
    let reader = TopicReader::new(kafka, "score", topic)?;
    let mut left = reader.bounds((0..topic.partitions).collect()).await?;
    let mut wanted: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
    for number in 0..raw.map_or(0, |raw| raw.partitions) {
        wanted.entry(number.rem_euclid(topic.partitions.max(1))).or_default().insert(number);
    }
    let mut size = TAIL;
    loop {
        left.retain(|number, (start, end)| start < end && wanted.get(number).is_none_or(|wanted| !wanted.is_empty()));
        if left.is_empty() {
            return Ok(());
        }
        let from = |(&number, &(start, end)): (&i32, &(i64, i64))| (number, start.max(end - size));
        let from: Offsets = left.iter().map(from).collect();
        for (number, origin) in between(&reader, from.clone(), &left, origin_of).await? {
            // Of an earlier topic none is looked for, and one is as good as all.
            match wanted.get_mut(&number) {
                Some(wanted) if raw.is_some_and(|raw| raw.id == origin.topic) => drop(wanted.remove(&origin.partition)),
                Some(wanted) => wanted.clear(),
                None => drop(left.remove(&number)),
            }
            found.add(origin);
        }
        // Before what was read.
        for (number, (_, end)) in &mut left {
            *end = from.get(number).copied().unwrap_or(*end);
        }
        size = (size * 4).min(MOST);
    }
}

/// What the records of partitions are the outcomes of, from offsets up to the ends of `bounds`.
async fn between(
    reader: &TopicReader,
    mut at: Offsets,
    bounds: &BTreeMap<i32, (i64, i64)>,
    origin_of: &impl Fn(&[u8]) -> Option<Origin>,
) -> Result<Vec<(i32, Origin)>> {
    let mut origins = Vec::new();
    let mut until = Instant::now() + OFFSETS_PATIENCE;
    while !at.is_empty() {
        let fetched = reader.read(at.clone(), Limit { records: 1000, bytes: 8 << 20, wait: WAIT }).await?;
        if !fetched.next.is_empty() {
            until = Instant::now() + OFFSETS_PATIENCE;
        } else if Instant::now() > until {
            let error = Error::new(ErrorKind::Unavailable, "topic cannot be read up to its end");
            let error = error.with("topic", &reader.topic().name).with("partitions", format!("{:?}", at.keys()));
            return Err(
                error.help("does a transaction stay open there? a scorer that has ended leaves one for ten seconds")
            );
        }
        let end = |number: &i32| bounds.get(number).map_or(0, |(_, end)| *end);
        for record in fetched.records.iter().filter(|record| record.offset < end(&record.partition)) {
            let origin = record.payload.as_deref().and_then(origin_of);
            origins
                .extend(origin.filter(|origin| !record.is_of_replay(origin)).map(|origin| (record.partition, origin)));
        }
        at.extend(&fetched.next);
        at.retain(|number, at| *at < end(number));
    }
    Ok(origins)
}

fn write_start(kafka: &Kafka, role: &str, topic: &Topic) -> Result<()> {
    let consumer = kafka.consumer(role, &[], Logged)?;
    loop {
        let looked = Instant::now();
        if !committed(&consumer, topic)?.is_empty() {
            return Ok(());
        }
        let starts = starts(kafka.config().start, topic, &consumer)?;
        if looked.elapsed() > FRESH {
            continue;
        }
        failpoint::hit("start.before-pin");
        // A group that has a member by now was here before us.
        if commit(&consumer, &starts)? == Committed::Done {
            failpoint::hit("start.after-pin");
            let offsets: Vec<_> = starts.elements().iter().filter_map(|element| element.offset().to_raw()).collect();
            tracing::info!(group = kafka.group(role), topic = topic.name, ?offsets, "stream begins");
        }
        return Ok(());
    }
}

/// What became of offsets that somebody who is no member wanted to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Committed {
    Done,
    /// The group has a member, and the broker refuses everybody else.
    HasMember,
}

/// Commits offsets for a group that this consumer is no member of.
pub(super) fn commit(consumer: &BaseConsumer<Logged>, offsets: &TopicPartitionList) -> Result<Committed> {
    use RDKafkaErrorCode as C;
    match consumer.commit(offsets, CommitMode::Sync) {
        Ok(()) => Ok(Committed::Done),
        Err(e) => match e.rdkafka_error_code() {
            Some(C::UnknownMemberId | C::IllegalGeneration | C::RebalanceInProgress) => Ok(Committed::HasMember),
            _ => Err(failed("cannot write the group's offsets", e)),
        },
    }
}

fn starts(start: StartAt, topic: &Topic, consumer: &BaseConsumer<Logged>) -> Result<TopicPartitionList> {
    let partitions: BTreeSet<i32> = (0..topic.partitions).collect();
    let mut starts = TopicPartitionList::with_capacity(partitions.len());
    let timed = match start {
        StartAt::Time(time) => Some(at_time(time.as_millisecond(), topic, consumer)?),
        StartAt::Earliest | StartAt::Latest => None,
    };
    for partition in partitions {
        let (low, high) = consumer
            .fetch_watermarks(&topic.name, partition, PATIENCE)
            .map_err(|e| failed("cannot read where a partition begins and ends", e))?;
        let found = match timed.as_ref().and_then(|list| list.find_partition(&topic.name, partition)) {
            Some(element) => {
                element.error().map_err(|e| failed("cannot look up the offset of a time", e))?;
                element.offset().to_raw()
            }
            None => None,
        };
        let offset = match start {
            StartAt::Earliest => low,
            StartAt::Latest => high,
            // Nothing is as late as that: begin with what comes next.
            StartAt::Time(_) => found.filter(|offset| *offset >= 0).unwrap_or(high),
        };
        starts
            .add_partition_offset(&topic.name, partition, Offset::Offset(offset))
            .map_err(|e| failed("offset cannot be written down", e))?;
    }
    if starts.count() == 0 {
        return Err(Error::new(ErrorKind::NotFound, "topic has no partitions").with("topic", &topic.name));
    }
    Ok(starts)
}

fn at_time(ms: i64, topic: &Topic, consumer: &BaseConsumer<Logged>) -> Result<TopicPartitionList> {
    let mut times = TopicPartitionList::new();
    for partition in 0..topic.partitions {
        times
            .add_partition_offset(&topic.name, partition, Offset::Offset(ms))
            .map_err(|e| failed("time cannot be looked up", e))?;
    }
    consumer.offsets_for_times(times, PATIENCE).map_err(|e| failed("cannot look up the offsets of a time", e))
}
