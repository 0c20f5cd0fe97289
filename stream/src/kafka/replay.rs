//! Dead letters on Kafka: reading them, and sending their events to scoring again.
//!
//! The guarantee: a dead letter is replayed at most once, whoever asks, how often, and wherever it is broken off; and what
//! is scored then has the origin of the event, of which there is no other score.
//!
//! A replay is a record of `posts.raw`, in the event's own partition, whose header [`REPLAY_OF`] names the event. Scoring
//! takes it for that event, Bronze passes it over: it has the event already. In the same transaction a tombstone goes to
//! `posts.dead`, under the letter's key, whose header [`REPLAYED`] names the place of the letter: the letter is dealt with.
//! All who replay use one transactional id, which each takes before it reads: whoever began earlier can commit nothing more,
//! and what it did commit is read. If the event dies again, it leaves another letter, which can be replayed in its turn; so
//! of an event's letters all but the last have their tombstone.
//!
//! A header counts only where it names an earlier offset of the partition that its record is in: a copy of the record in
//! another topic is an event of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use undertone_error::{Error, ErrorKind, Result, failpoint};
use undertone_proto::v1::{DeadLetter, Origin};
use undertone_proto::{EventTime, Headers, Partition};

use super::client::Kafka;
use super::describe::Topic;
use super::logging::Logged;
use super::outcomes::letter_key;
use super::producer::{Failure, Reach, STEP, owned, producer, send, step};
use super::reader::{Limit, Offsets, Record, TopicReader};
use crate::dead::is_scorings;
use crate::durable::blocking;
use crate::source::hex;

/// The header of a replay: which event it is again.
pub(super) const REPLAY_OF: &str = "undertone-replay-of";
/// The header of a tombstone in `posts.dead`: which letter was replayed.
pub(super) const REPLAYED: &str = "undertone-replayed";

/// A topic that shows nothing new for this long, before its end, is stuck behind a transaction that does not end.
const STUCK: Duration = Duration::from_secs(30);

/// Which event a replay is again, and when that was ingested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayOf {
    cluster: String,
    topic: String,
    partition: i32,
    /// The event's offset.
    pub offset: i64,
    /// When the event was ingested, which its version and much else depend on.
    pub ingested_at_us: EventTime,
}

/// Where a letter stands in `posts.dead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The partition's number.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

impl Record {
    /// The event that this record of `partition` is again, if it is a replay.
    pub fn replay_of(&self, partition: &Partition) -> Option<ReplayOf> {
        let of = self.named().next()??;
        let ours = of.cluster == partition.cluster && of.topic == partition.topic;
        (ours && of.partition == partition.partition && of.offset < self.offset).then_some(of)
    }

    /// Whether this outcome of an event is that of a replay: its headers name the event.
    pub(super) fn is_of_replay(&self, event: &Origin) -> bool {
        let mut named = self.named().flatten();
        named.any(|of| of.topic == event.topic && of.partition == event.partition && of.offset == event.offset)
    }

    /// What its headers of a replay name; `None` for one that cannot be read.
    fn named(&self) -> impl Iterator<Item = Option<ReplayOf>> {
        let ours = self.headers.iter().filter(|(name, _)| name == REPLAY_OF);
        ours.map(|(_, value)| serde_json::from_slice(value.as_deref()?).ok())
    }
}

/// Whether headers are those of a replay, or of what became of one.
pub fn is_replay(headers: &[(String, Option<Vec<u8>>)]) -> bool {
    headers.iter().any(|(name, _)| name == REPLAY_OF)
}

/// A dead letter as it stands in its topic.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Where it stands.
    pub place: Place,
    /// What it says.
    pub letter: DeadLetter,
    /// The headers that its event had.
    headers: Headers,
}

impl Letter {
    fn key(&self) -> Vec<u8> {
        self.letter.origin.as_ref().map(letter_key).unwrap_or_default()
    }
}

/// A record of `posts.dead`.
#[derive(Debug)]
enum Entry {
    Letter(Box<Letter>),
    Replayed(Place),
}

impl Entry {
    /// `None` for a record that is nobody's: someone else writes to the topic.
    fn of(record: Record) -> Option<Self> {
        let place = Place { partition: record.partition, offset: record.offset };
        let Some(payload) = record.payload else {
            let (_, value) = record.headers.iter().find(|(name, _)| name == REPLAYED)?;
            return serde_json::from_slice(value.as_deref()?).ok().map(Self::Replayed);
        };
        let letter = DeadLetter::decode(payload.as_slice()).ok().filter(|letter| letter.origin.is_some())?;
        Some(Self::Letter(Box::new(Letter { place, letter, headers: record.headers })))
    }
}

/// What was replayed already.
#[derive(Debug, Default)]
pub struct Replayed {
    places: BTreeSet<Place>,
    /// Keys of the events whose letters these are.
    events: BTreeSet<Vec<u8>>,
}

impl Replayed {
    /// Whether the letter is dealt with. An event's first letter is replayed once, and later ones only if a replay left
    /// them: a second first letter is that of an event that was scored twice, since the group had lost its offsets.
    pub fn covers(&self, letter: &Letter) -> bool {
        let is_first = is_scorings(&letter.letter) && !is_replay(&letter.headers);
        self.places.contains(&letter.place) || (is_first && self.events.contains(&letter.key()))
    }

    /// Takes a letter in that was replayed just now.
    pub fn add(&mut self, letter: &Letter) {
        self.places.insert(letter.place);
        self.events.insert(letter.key());
    }
}

/// The dead letters of a cluster.
#[derive(Debug)]
pub struct DeadLetters {
    reader: TopicReader,
}

impl DeadLetters {
    /// Those of `dead`.
    ///
    /// # Errors
    /// As [`TopicReader::new`].
    pub fn new(kafka: &Kafka, dead: &Topic) -> Result<Self> {
        Ok(Self { reader: TopicReader::new(kafka, "dead", dead)? })
    }

    /// What was replayed by now.
    ///
    /// # Errors
    /// As [`Letters::next`].
    pub async fn replayed(&self) -> Result<Replayed> {
        let mut replayed = Replayed::default();
        let mut scan = self.letters().await?;
        while let Some(records) = scan.records().await? {
            for (key, entry) in records {
                if let Entry::Replayed(place) = entry {
                    replayed.places.insert(place);
                    replayed.events.extend(key);
                }
            }
        }
        Ok(replayed)
    }

    /// The letters that the topic holds by now.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn letters(&self) -> Result<Letters> {
        let partitions = (0..self.reader.topic().partitions).collect();
        // Open transactions are before these ends: the reader comes to them once all have ended.
        let bounds = self.reader.bounds(partitions).await?;
        let ends = bounds.iter().map(|(number, (_, end))| (*number, *end)).collect();
        let at = bounds.iter().map(|(number, (start, _))| (*number, *start)).collect();
        Ok(Letters { reader: self.reader.clone(), ends, at })
    }
}

/// Dead letters, some at a time, in order within a partition.
#[derive(Debug)]
pub struct Letters {
    reader: TopicReader,
    ends: Offsets,
    at: Offsets,
}

impl Letters {
    /// The next letters; `None` after the last.
    ///
    /// # Errors
    /// Those of the cluster; [`ErrorKind::DeadlineExceeded`] if a transaction on the topic does not end.
    pub async fn next(&mut self) -> Result<Option<Vec<Letter>>> {
        let letter = |(_, entry)| match entry {
            Entry::Letter(letter) => Some(*letter),
            Entry::Replayed(_) => None,
        };
        Ok(self.records().await?.map(|entries| entries.into_iter().filter_map(letter).collect()))
    }

    /// The next records with their keys.
    async fn records(&mut self) -> Result<Option<Vec<(Option<Vec<u8>>, Entry)>>> {
        let began = Instant::now();
        while self.at.iter().any(|(number, next)| self.ends.get(number).is_some_and(|end| next < end)) {
            let limit = Limit { records: 512, bytes: 4 << 20, wait: Duration::from_secs(1) };
            let fetched = self.reader.read(self.at.clone(), limit).await?;
            self.at.extend(fetched.next);
            let known = |record: &Record| self.ends.get(&record.partition).is_some_and(|end| record.offset < *end);
            let entry = |mut record: Record| Some((record.key.take(), Entry::of(record)?));
            let entries: Vec<_> = fetched.records.into_iter().filter(known).filter_map(entry).collect();
            if !entries.is_empty() {
                return Ok(Some(entries));
            }
            if began.elapsed() > STUCK {
                let error = Error::new(ErrorKind::DeadlineExceeded, "dead letters cannot be read to their end");
                let error = error.with("topic", &self.reader.topic().name);
                return Err(error.help("a transaction of the topic does not end: is a broker away?"));
            }
        }
        Ok(None)
    }
}

/// An event that is to be scored again.
#[derive(Debug)]
pub struct Replay {
    letter: Letter,
    payload: Vec<u8>,
}

/// Replays letters. While one lives, an earlier one can commit nothing.
pub struct Replayer {
    kafka: Kafka,
    raw: TopicReader,
    dead: Topic,
    /// Absent in one that only looks.
    producer: Option<Arc<BaseProducer<Logged>>>,
}

impl std::fmt::Debug for Replayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replayer").field("dead", &self.dead).finish_non_exhaustive()
    }
}

impl Replayer {
    /// Takes the right to replay. Read [`DeadLetters::replayed`] after it, never before. Blocks.
    ///
    /// # Errors
    /// Those of the cluster.
    pub fn begin(kafka: &Kafka, raw: &Topic, dead: &Topic) -> Result<Self> {
        let producer = Some(Arc::new(producer(
            kafka,
            &kafka.group("dead-replay"),
            &Reach { topics: vec![raw, dead], group: None },
        )?));
        Ok(Self { producer, ..Self::look(kafka, raw, dead)? })
    }

    /// One that can prepare and not send, and takes nothing from others.
    ///
    /// # Errors
    /// As [`TopicReader::new`].
    pub fn look(kafka: &Kafka, raw: &Topic, dead: &Topic) -> Result<Self> {
        let raw = TopicReader::new(kafka, "dead", raw)?;
        Ok(Self { kafka: kafka.clone(), raw, dead: dead.clone(), producer: None })
    }

    /// The event of a letter, whole.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for one that scoring did not give up; [`ErrorKind::NotFound`] if its bytes are kept
    /// neither in the letter nor in `posts.raw`, or it is of a topic that is gone; those of the cluster.
    pub async fn prepare(&self, letter: &Letter) -> Result<Replay> {
        let found = &letter.letter;
        if !is_scorings(found) {
            let error = Error::new(ErrorKind::Unsupported, "letter is not scoring's");
            return Err(error
                .with("stage", &found.stage)
                .help("only events of the stages parse and score can be scored again"));
        }
        let origin = found.origin.clone().unwrap_or_default();
        let ours = self.kafka.partition(self.raw.topic(), origin.partition);
        if ours.origin(origin.offset) != origin || origin.partition >= self.raw.topic().partitions {
            let error = Error::new(ErrorKind::NotFound, "letter is of a topic that is gone");
            return Err(error.with("topic", &origin.topic).with("raw", &self.raw.topic().id));
        }
        let is_event = |bytes: &[u8]| hex(&Sha256::digest(bytes)) == found.payload_sha256;
        let payload = if is_event(&found.payload) {
            found.payload.clone()
        } else {
            self.event(&origin).await?.filter(|payload| is_event(payload)).ok_or_else(|| {
                let error = Error::new(
                    ErrorKind::NotFound,
                    "bytes of the event are kept neither in its letter nor in its topic",
                );
                error.with("bytes", found.payload_bytes).help("bronze.posts has them")
            })?
        };
        Ok(Replay { letter: letter.clone(), payload })
    }

    /// The event as it stands in `posts.raw`, if it still does.
    async fn event(&self, origin: &Origin) -> Result<Option<Vec<u8>>> {
        let bounds = self.raw.bounds(vec![origin.partition]).await?;
        if bounds.get(&origin.partition).is_none_or(|(start, end)| !(*start..*end).contains(&origin.offset)) {
            return Ok(None);
        }
        let limit = Limit { records: 1, bytes: 1, wait: Duration::from_secs(10) };
        let fetched = self.raw.read(BTreeMap::from([(origin.partition, origin.offset)]), limit).await?;
        let found = fetched.records.into_iter().next().filter(|record| record.offset == origin.offset);
        Ok(found.and_then(|record| record.payload))
    }

    /// Sends events to scoring, and says in `posts.dead` that it did: all of them, or after an error none, or (if the
    /// broker died in the middle) either; the next [`Replayer::begin`] settles which.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another has begun to replay; [`ErrorKind::TooLarge`] if the topic does not take an event
    /// with one more header; those of the cluster.
    /// After an error one must begin anew.
    pub async fn send(&self, replays: Vec<Replay>) -> Result<()> {
        let looks = || Error::new(ErrorKind::Internal, "asked to replay without the right to");
        let producer = Arc::clone(self.producer.as_ref().ok_or_else(looks)?);
        let (raw, dead) = (self.raw.topic().clone(), self.dead.clone());
        let work = move || write(&producer, &raw, &dead, &replays).map_err(|failure| failure.aborting(&producer).error);
        blocking(work).await
    }
}

fn write(producer: &BaseProducer<Logged>, raw: &Topic, dead: &Topic, replays: &[Replay]) -> Result<(), Failure> {
    step("cannot begin a transaction", || producer.begin_transaction())?;
    for Replay { letter, payload } in replays {
        let Letter { place, letter, headers } = letter;
        let origin = letter.origin.clone().unwrap_or_default();
        let of = ReplayOf {
            cluster: origin.cluster.clone(),
            topic: origin.topic.clone(),
            partition: origin.partition,
            offset: origin.offset,
            ingested_at_us: letter.ingested_at_us,
        };
        // A letter of an event that was replayed before has the header of that replay.
        let carried = owned(headers.iter().filter(|(name, _)| name != REPLAY_OF));
        let carried = carried.insert(Header { key: REPLAY_OF, value: Some(&json(&of)?) });
        let key = letter_key(&origin);
        let record = BaseRecord::to(&raw.name).partition(origin.partition).key(&key).payload(payload);
        send(producer, record.headers(carried))?;

        let header = OwnedHeaders::new().insert(Header { key: REPLAYED, value: Some(&json(place)?) });
        let tombstone = BaseRecord::<_, Vec<u8>>::to(&dead.name).partition(place.partition).key(&key);
        send(producer, tombstone.headers(header))?;
    }
    failpoint::hit("replay.produced");
    step("cannot deliver replays", || producer.flush(STEP))?;
    failpoint::hit("replay.flushed");
    step("cannot commit a transaction", || producer.commit_transaction(STEP))?;
    failpoint::hit("replay.committed");
    Ok(())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let failed = |e| Failure::ours(Error::new(ErrorKind::Internal, "header cannot be written").source(e));
    serde_json::to_vec(value).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, header: Option<&str>) -> Record {
        let headers = header.map(|value| (REPLAY_OF.to_owned(), Some(value.as_bytes().to_vec()))).into_iter().collect();
        Record { partition: 1, offset, timestamp_ms: Some(7), key: None, payload: Some(b"{}".to_vec()), headers }
    }

    fn partition() -> Partition {
        Partition { cluster: "c".into(), topic: "t".into(), partition: 1 }
    }

    #[test]
    fn a_replay_is_the_event_that_it_names() {
        let header = r#"{"cluster":"c","topic":"t","partition":1,"offset":3,"ingested_at_us":42}"#;
        let event = record(9, Some(header)).into_event(&partition());
        assert_eq!((event.origin, event.ingested_at_us), (partition().origin(3), 42));
        let plain = record(9, None).into_event(&partition());
        assert_eq!((plain.origin, plain.ingested_at_us), (partition().origin(9), 7000));
    }

    #[test]
    fn a_header_that_names_no_earlier_event_of_the_partition_is_only_a_header() {
        for header in [
            "",
            "3",
            r#"{"cluster":"c","topic":"t","partition":1,"offset":9,"ingested_at_us":42}"#, // itself
            r#"{"cluster":"c","topic":"t","partition":1,"offset":10,"ingested_at_us":42}"#,
            r#"{"cluster":"c","topic":"t","partition":0,"offset":3,"ingested_at_us":42}"#,
            r#"{"cluster":"c","topic":"u","partition":1,"offset":3,"ingested_at_us":42}"#,
            r#"{"cluster":"d","topic":"t","partition":1,"offset":3,"ingested_at_us":42}"#,
        ] {
            let event = record(9, Some(header)).into_event(&partition());
            assert_eq!(event.origin, partition().origin(9), "{header}");
        }
    }

    #[test]
    fn an_events_first_letter_is_replayed_once_and_later_ones_as_replays_leave_them() {
        let letter = |offset, of: i64, again: bool| {
            let header = again.then(|| (REPLAY_OF.to_owned(), None));
            let origin = Some(partition().origin(of));
            let letter = DeadLetter { origin, stage: "parse".into(), ..DeadLetter::default() };
            Letter { place: Place { partition: 0, offset }, letter, headers: header.into_iter().collect() }
        };
        let mut replayed = Replayed::default();
        let first = letter(1, 7, false);
        assert!(!replayed.covers(&first));
        replayed.add(&first);
        assert!(replayed.covers(&first));
        assert!(replayed.covers(&letter(5, 7, false)), "the event was scored twice");
        assert!(!replayed.covers(&letter(6, 7, true)), "the replay died too");
        assert!(!replayed.covers(&letter(2, 8, false)), "another event");
        let mut refused = letter(9, 7, false);
        refused.letter.stage = "opensearch".into();
        assert!(!replayed.covers(&refused), "the letter of a store");
    }

    #[test]
    fn a_tombstone_names_its_letter_and_strangers_are_passed_over() {
        let headers = vec![(REPLAYED.to_owned(), Some(br#"{"partition":2,"offset":5}"#.to_vec()))];
        let tombstone = Record { payload: None, headers, ..record(9, None) };
        let Some(Entry::Replayed(place)) = Entry::of(tombstone) else { panic!("a tombstone") };
        assert_eq!(place, Place { partition: 2, offset: 5 });
        assert!(Entry::of(Record { payload: None, ..record(9, None) }).is_none());
        assert!(Entry::of(record(9, None)).is_none(), "no letter");
        let letter = DeadLetter { origin: Some(partition().origin(3)), ..DeadLetter::default() };
        let Some(Entry::Letter(letter)) =
            Entry::of(Record { payload: Some(letter.encode_to_vec()), ..record(9, None) })
        else {
            panic!("a letter")
        };
        assert_eq!(letter.place, Place { partition: 1, offset: 9 });
    }
}
