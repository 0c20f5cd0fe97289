//! `undertone forget`: sends a tombstone for a post, so that everything that follows the stream forgets it, and says how
//! its rows are erased from the tables.
//!
//! A tombstone is an event like others: it is in Bronze and Silver once, Gold counts nothing for it, and the stores that
//! hold the latest version of each post hold none of this one any more. It repeats the post's `created_at`, which is part
//! of the post's identity; Silver knows it. Sending it twice does no harm.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::{EventTime, Headers, MAX_FUTURE_US, PostReader, identity, timestamp};
use undertone_sinks::iceberg::{IcebergStore, PostEvent};
use undertone_stream::data::DataFolder;
use undertone_stream::input::{InputLog, SourceBatch};
use undertone_stream::kafka::{Kafka, NewRecord};
use uuid::Uuid;

use super::output::Output;
use crate::Outcome;
use crate::cli::ForgetArgs;
use crate::config::{KafkaSettings, TablesConfig};

const DAY_US: i64 = 86_400_000_000;

/// A tombstone, and the event of its post that came last.
struct Tombstone {
    payload: Vec<u8>,
    after: Option<PostEvent>,
}

pub(crate) async fn forget(args: ForgetArgs) -> Result<Outcome> {
    let ForgetArgs { source, id, created_at, place } = args;
    let config = place.config()?;
    config.is_there()?;
    let events = IcebergStore::connect(&config.tables).await?.reader().events_of(&source, &id).await?;
    let posts = posts_of(&source, &id, events, created_at.as_deref())?;
    let now = Timestamp::now().as_microsecond();
    let tombstones = posts.into_iter().map(|(created_at_us, after)| {
        refuse_if_ahead(after.as_ref(), now)?;
        let edited_at_us = after.as_ref().map_or(now, |last| now.max(identity::after(last.version)));
        tombstone(&config.posts, &source, &id, created_at_us, edited_at_us).map(|payload| Tombstone { payload, after })
    });
    let tombstones = tombstones.collect::<Result<Vec<_>>>()?;

    let mut output = Output::create(None)?;
    for line in send(&config, &source, &id, tombstones).await? {
        output.line(line.as_bytes())?;
    }
    output.line(b"once it is in silver.posts, erase what the tables hold of the post: sinks/tools/erase.py")?;
    output.finish()?;
    Ok(Outcome::Done)
}

/// A version is at most five minutes newer than its record, so a tombstone that is sent now would lose to one that is newer.
fn refuse_if_ahead(last: Option<&PostEvent>, now: EventTime) -> Result<()> {
    let Some(newer) = last.map(|last| identity::after(last.version)).filter(|at| *at > now + MAX_FUTURE_US) else {
        return Ok(());
    };
    let error = Error::new(
        ErrorKind::Conflict,
        "post has a version of a clock that is far ahead, to which a tombstone would lose",
    );
    let until = timestamp(newer.saturating_sub(MAX_FUTURE_US));
    Err(error.with("version of", timestamp(newer)).help(format!("forget it after {until}")))
}

/// The posts of this source and id, by when they were posted: of two days, they are two. Each with its last event, which
/// here has the greatest of its versions: a clock that was ahead may have made it newer than now.
fn posts_of(
    source: &str,
    id: &str,
    events: Vec<PostEvent>,
    created_at: Option<&str>,
) -> Result<BTreeMap<EventTime, Option<PostEvent>>> {
    let mut days: BTreeMap<i64, PostEvent> = BTreeMap::new();
    for event in events {
        let last = days.entry(event.created_at_us.div_euclid(DAY_US)).or_insert_with(|| event.clone());
        let version = last.version.max(event.version);
        if event.origin.offset > last.origin.offset {
            *last = event;
        }
        last.version = version;
    }
    let mut posts: BTreeMap<_, _> = days.into_values().map(|event| (event.created_at_us, Some(event))).collect();
    if let Some(text) = created_at {
        let time: Timestamp = text.parse().map_err(|e| {
            let error = Error::new(ErrorKind::InvalidInput, "cannot read a time").with("--created-at", text);
            error.source(e).help("write it as the post has it, like 2026-05-01T12:00:00Z")
        })?;
        let (at, day) = (time.as_microsecond(), time.as_microsecond().div_euclid(DAY_US));
        if !posts.keys().any(|known: &EventTime| known.div_euclid(DAY_US) == day) {
            posts.insert(at, None);
        }
    }
    if posts.is_empty() {
        let error = Error::new(ErrorKind::NotFound, "silver.posts has no post of this source and id");
        let error = error.with("source", source).with("id", id);
        return Err(error.help("give --created-at as the post has it, if it was not scored or was erased already"));
    }
    Ok(posts)
}

/// The tombstone's bytes, if they are read as what they are meant to be.
fn tombstone(
    posts: &PostReader,
    source: &str,
    id: &str,
    created_at_us: EventTime,
    edited_at_us: EventTime,
) -> Result<Vec<u8>> {
    let (created_at, edited_at) = (timestamp(created_at_us).to_string(), timestamp(edited_at_us).to_string());
    let payload = json!({
        "id": id, "source": source, "created_at": created_at, "edited_at": edited_at, "deleted": true,
    })
    .to_string()
    .into_bytes();
    let understood = posts.read(&payload, edited_at_us).is_ok_and(|post| {
        post.deleted && post.id == id && post.source == source && post.created_at_us == created_at_us
    });
    if understood {
        return Ok(payload);
    }
    let error = Error::new(ErrorKind::Unsupported, "tombstone would not be read as one by source.mapping");
    Err(error.help("send one in your own form: the post's id and created_at, and what the mapping calls deleted"))
}

/// Sends them to where posts come from; the lines to print.
async fn send(config: &TablesConfig, source: &str, id: &str, tombstones: Vec<Tombstone>) -> Result<Vec<String>> {
    match config.kafka.clone() {
        Some(settings) => {
            let key = json!([source, id]).to_string().into_bytes();
            let send = move || send_to_topic(settings, &key, tombstones);
            let panicked = |e| Err(Error::new(ErrorKind::Internal, "sending to kafka panicked").source(e));
            tokio::task::spawn_blocking(send).await.unwrap_or_else(panicked)
        }
        None => append(config, tombstones).await,
    }
}

/// To the partition of the post's last event, so that whoever reads that partition sees both in order.
fn send_to_topic(settings: KafkaSettings, key: &[u8], tombstones: Vec<Tombstone>) -> Result<Vec<String>> {
    let name = settings.client.topics.raw.clone();
    let kafka = Kafka::connect(settings.client)?;
    let topic = kafka.topic(&name)?;
    let records = tombstones.into_iter().map(|Tombstone { payload, after }| {
        let same = after.map(|event| event.origin).filter(|origin| {
            origin.cluster == kafka.cluster() && origin.topic == topic.id && origin.partition < topic.partitions
        });
        let partition = same.map(|origin| origin.partition);
        NewRecord { partition, key: key.to_vec(), payload, headers: Headers::new() }
    });
    let sent = kafka.send(&name, &records.collect::<Vec<_>>())?;
    let line = |(partition, offset)| format!("tombstone sent to {name}, partition {partition}, offset {offset}");
    Ok(sent.into_iter().map(line).collect())
}

/// To the log of a folder that nobody works in: the next run stores it.
async fn append(config: &TablesConfig, tombstones: Vec<Tombstone>) -> Result<Vec<String>> {
    let folder = DataFolder::open(&config.data).map_err(|error| match error.kind() {
        ErrorKind::Conflict => error.help("stop it first; it stores the tombstone when it is started again"),
        _ => error,
    })?;
    let (input, id) = (folder.input(), folder.id());
    let opened = tokio::task::spawn_blocking(move || InputLog::open(&input, &id)).await;
    let panicked = |e| Err(Error::new(ErrorKind::Internal, "opening the log panicked").source(e));
    let input = opened.unwrap_or_else(panicked)?;
    let payloads = tombstones.into_iter().map(|tombstone| tombstone.payload.into()).collect();
    let batch = SourceBatch { source_key: format!("forget:{}", Uuid::new_v4()), first_seq: 0, payloads, last: true };
    let offsets = input.append(batch).await?;
    Ok(offsets
        .map(|offset| format!("tombstone written at offset {offset}; the next `undertone run` stores it"))
        .collect())
}

#[cfg(test)]
mod tests {
    use undertone_proto::Partition;

    use super::*;

    const NOON: EventTime = 1_777_636_800_000_000;

    fn event(offset: i64, created_at_us: EventTime) -> PostEvent {
        let partition = Partition { cluster: "c".to_owned(), topic: "t".to_owned(), partition: 0 };
        PostEvent { origin: partition.origin(offset), created_at_us, version: 100 - offset, deleted: false }
    }

    #[test]
    fn each_day_of_an_id_is_a_post_and_needs_a_tombstone_of_its_own() {
        let events = vec![event(1, NOON), event(7, NOON + 5), event(3, NOON), event(2, NOON + DAY_US)];
        let found = posts_of("s", "i", events.clone(), None).expect("two posts");
        assert_eq!(
            found.into_iter().map(|(at, last)| (at, last.map(|e| e.origin.offset))).collect::<Vec<_>>(),
            [(NOON + 5, Some(7)), (NOON + DAY_US, Some(2)),]
        );
        let newest = posts_of("s", "i", events.clone(), None).expect("two posts").remove(&(NOON + 5)).flatten();
        assert_eq!(newest.map(|event| event.version), Some(99));
        let same = posts_of("s", "i", events.clone(), Some("2026-05-01T01:00:00Z")).expect("two posts");
        assert_eq!(same.len(), 2);
        let more = posts_of("s", "i", events, Some("2026-04-01T01:00:00Z")).expect("three posts");
        assert_eq!(more.into_values().map(|last| last.is_some()).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(posts_of("s", "i", vec![], None).expect_err("unknown").kind(), ErrorKind::NotFound);
        assert_eq!(posts_of("s", "i", vec![], Some("noon")).expect_err("no time").kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_post_that_is_far_ahead_is_not_forgotten_in_vain() {
        let of = |us: EventTime| PostEvent { version: (us / 1000) << 20, ..event(1, NOON) };
        assert!(refuse_if_ahead(None, NOON).is_ok() && refuse_if_ahead(Some(&of(NOON + 240_000_000)), NOON).is_ok());
        let error = refuse_if_ahead(Some(&of(NOON + 3_600_000_000)), NOON).expect_err("an hour ahead");
        assert!(error.to_string().contains("2026-05-01T12:55:00.001Z"), "{error}");
    }

    #[test]
    fn a_tombstone_is_read_as_one_or_not_sent() {
        let bytes = tombstone(&PostReader::default(), "s", "i", NOON, NOON + DAY_US).expect("a tombstone");
        let post = PostReader::default().read(&bytes, NOON).expect("a post");
        assert!(post.deleted && post.edited_at_us == Some(NOON + DAY_US) && post.created_at_us == NOON);
        let mapping = undertone_proto::Mapping {
            deleted: undertone_proto::mapping::Rule::Path("/gone".parse().expect("a pointer")),
            ..undertone_proto::Mapping::default()
        };
        let theirs = PostReader::new(mapping).expect("a mapping");
        let error = tombstone(&theirs, "s", "i", NOON, NOON).expect_err("it would be a post without text");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
