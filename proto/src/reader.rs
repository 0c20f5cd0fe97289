//! From the bytes of an event to a post.
//!
//! The guarantee: every event is either a post or an error that says what its sender should do, and the same bytes read
//! by the same mapping are the same post but for the time of ingestion, which stands in for a missing `created_at`.
//! What is read into a field is not kept a second time; everything else is kept.

use std::sync::{Arc, LazyLock};

use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use undertone_error::{Error, ErrorKind, Result};

use crate::mapping::{Fields, Mapping};
use crate::plain;
use crate::pointer::Pointer;
use crate::value::about;
use crate::{EventTime, Post, identity};

/// Reads posts from where a mapping says that their fields are. Without one: from the members of their own names. Cheap
/// to clone.
#[derive(Clone, Debug, Default)]
pub struct PostReader {
    /// `None` where nothing is mapped.
    mapped: Option<Arc<Mapped>>,
}

#[derive(Clone, Debug)]
struct Mapped {
    mapping: Mapping,
    /// What is read, and therefore not kept a second time: members of the document itself,
    members: Vec<String>,
    /// and what lies deeper.
    deeper: Vec<Pointer>,
}

impl From<Mapping> for Mapped {
    fn from(mapping: Mapping) -> Self {
        let (members, deeper): (Vec<_>, _) = mapping.paths().into_iter().partition(|path| path.as_member().is_some());
        let members = members.iter().filter_map(Pointer::as_member).map(str::to_owned).collect();
        Self { mapping, members, deeper }
    }
}

impl Mapped {
    /// The fields of one event, and what is not read into one.
    fn read(&self, payload: &[u8]) -> Result<(Fields, Map<String, Value>)> {
        let mut document = Value::Object(decode(payload)?);
        let fields = self.mapping.read(&document)?;
        for path in &self.deeper {
            path.remove(&mut document);
        }
        let Value::Object(mut extra) = document else { return Err(bad("post is not a JSON object")) };
        extra.retain(|name, _| !self.members.contains(name));
        Ok((fields, extra))
    }
}

static OWN_NAMES: LazyLock<Mapped> = LazyLock::new(|| Mapping::default().into());

impl PostReader {
    /// A reader for other people's JSON.
    ///
    /// # Errors
    /// As [`Mapping::validate`].
    pub fn new(mapping: Mapping) -> Result<Self> {
        mapping.validate()?;
        Ok(Self { mapped: Some(Arc::new(mapping.into())) })
    }

    /// Reads the bytes of one event: a JSON object in UTF-8, with or without the frame of a schema registry.
    /// `ingested_at_us` stands in for a missing `created_at`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the field and what it should be: nothing at all, not UTF-8, not a JSON
    /// object, no text, or a field of a wrong type.
    pub fn read(&self, payload: &[u8], ingested_at_us: EventTime) -> Result<Post> {
        let mapped = self.mapped.as_deref().unwrap_or(&OWN_NAMES);
        let plain =
            if self.mapped.is_none() { plain::read(unframe(payload).map_or(payload, |(_, json)| json)) } else { None };
        let (fields, extra) = match plain {
            Some(read) => read,
            None => mapped.read(payload)?,
        };
        let mapping = &mapped.mapping;
        let deleted = fields.deleted;
        let text = match fields.text {
            Some(text) if deleted || !text.trim().is_empty() => text,
            None if deleted => String::new(),
            _ => {
                let error = about("text", &mapping.text, bad("post has no text"));
                return Err(error.help("send the text of the post as a string"));
            }
        };
        let source = fields.source.unwrap_or_else(|| "unknown".to_owned());
        let created_at_us = match fields.created_at_us {
            Some(time) => time,
            // Its day is part of the identity: with a guessed one the tombstone would miss its post.
            None if deleted => {
                let error = about("created_at", &mapping.created_at.rule, bad("tombstone has no created_at"));
                return Err(error.help("repeat the created_at of the post that is deleted"));
            }
            None => ingested_at_us,
        };
        let id = match fields.id {
            Some(id) => id,
            None if deleted => {
                let error = about("id", &mapping.id, bad("tombstone has no id"));
                return Err(error.help("name the post that is deleted"));
            }
            None => identity::derive_id(&source, fields.author.as_deref(), created_at_us, &text),
        };
        Ok(Post {
            id,
            source,
            text,
            created_at_us,
            edited_at_us: fields.edited_at_us,
            deleted,
            author: fields.author,
            url: fields.url,
            lang: fields.lang,
            reply_to: fields.reply_to,
            metrics: fields.metrics,
            tags: fields.tags,
            extra,
        })
    }
}

fn bad(message: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

fn decode(payload: &[u8]) -> Result<Map<String, Value>> {
    if payload.is_empty() {
        let help = "an empty or null value deletes nothing: send {\"deleted\": true, …} with id, source and created_at";
        return Err(bad("post is empty").help(help));
    }
    let Some((schema, framed)) = unframe(payload) else { return json(payload) };
    json(framed).map_err(|e| {
        let error = bad("post is framed by a schema registry and is not JSON").with("schema id", schema).source(e);
        error.help("send JSON, plain or as the JSON Schema serialiser writes it; Avro and Protobuf are not read")
    })
}

/// The frame of Confluent's serialisers is a zero byte and the id of a schema; JSON never begins with a zero byte.
fn unframe(payload: &[u8]) -> Option<(u32, &[u8])> {
    match payload.split_first_chunk::<5>()? {
        ([0, id @ ..], framed) => Some((u32::from_be_bytes(*id), framed)),
        _ => None,
    }
}

/// Reads an object. As a value it would not be read if its first name is one that serde_json keeps to itself.
fn json(bytes: &[u8]) -> Result<Map<String, Value>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| bad("post is not UTF-8").with("valid_up_to", e.valid_up_to()).help("send JSON in UTF-8"))?;
    serde_json::from_str(text).map_err(|e| {
        if e.is_data() && serde_json::from_str::<IgnoredAny>(text).is_ok() {
            return bad("post is not a JSON object").help("send {\"text\": …, \"source\": …, …}");
        }
        bad("post is not JSON").source(e).help("send one JSON object a post")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::mapping::{Metrics, Rule, Tags, TimeFormat, TimeRule};

    const NOW: EventTime = 1_800_000_000_000_000;

    fn path(text: &str) -> Rule {
        Rule::Path(text.parse().expect("a JSON Pointer"))
    }

    /// For the dumps of a forum.
    fn forum() -> Mapping {
        Mapping {
            id: path("/data/name"),
            source: Rule::Constant("forum".into()),
            text: path("/data/selftext"),
            created_at: TimeRule { rule: path("/data/created_utc"), format: TimeFormat::UnixSeconds },
            edited_at: TimeRule { rule: path("/data/edited"), format: TimeFormat::UnixSeconds },
            deleted: path("/data/removed"),
            author: path("/data/author/id"),
            lang: Rule::Absent,
            metrics: Metrics::Each(vec![
                ("likes".into(), path("/data/ups")),
                ("awards".into(), path("/data/awards/0/n")),
            ]),
            tags: Tags::Each(vec![path("/data/board"), path("/data/flair"), Rule::Constant("forum".into())]),
            ..Mapping::default()
        }
    }

    fn read(mapping: Mapping, event: &Value) -> Result<Post> {
        PostReader::new(mapping).expect("a good mapping").read(event.to_string().as_bytes(), NOW)
    }

    #[test]
    fn a_mapped_post_is_the_post_and_keeps_only_what_was_not_mapped() {
        let event = json!({
            "kind": "t3",
            "lang": {"code": "en"},
            "url": "https://forum.example/7",
            "text": "the name of a template",
            "data": {
                "name": 7, "selftext": "hi", "created_utc": 1_777_636_800.0, "edited": false, "board": "tea",
                "author": {"id": 12, "karma": 3}, "ups": 5, "awards": [{"n": 1}, {"n": 2}], "flair": null, "score": 4,
            },
        });
        let post = read(forum(), &event).expect("a good post");
        let extra = json!({
            "kind": "t3",
            "lang": {"code": "en"},
            "text": "the name of a template",
            "data": {"author": {"karma": 3}, "awards": [null, {"n": 2}], "score": 4},
        });
        let expected = Post {
            id: "7".into(),
            source: "forum".into(),
            text: "hi".into(),
            created_at_us: 1_777_636_800_000_000,
            edited_at_us: None,
            deleted: false,
            author: Some("12".into()),
            url: Some("https://forum.example/7".into()),
            lang: None,
            reply_to: None,
            metrics: vec![("likes".into(), 5.0), ("awards".into(), 1.0)],
            tags: vec!["tea".into(), "forum".into()],
            extra: extra.as_object().expect("an object").clone(),
        };
        assert_eq!(post, expected);
    }

    #[test]
    fn a_tombstone_is_mapped_and_finds_its_post() {
        let event = |more: Value| {
            let mut data = json!({"name": "t3_7", "created_utc": 1_777_636_800});
            for (name, value) in more.as_object().expect("an object") {
                data[name] = value.clone();
            }
            read(forum(), &json!({ "data": data }))
        };
        let post = event(json!({"selftext": "hi"})).expect("a good post");
        let tombstone = event(json!({"removed": true})).expect("a tombstone");
        assert_eq!((tombstone.deleted, tombstone.text.as_str()), (true, ""));
        assert_eq!(identity::uid(&tombstone), identity::uid(&post));
        for (lacking, place) in [("name", "/data/name"), ("created_utc", "/data/created_utc")] {
            let error = event(json!({"removed": true, lacking: null})).expect_err("a tombstone of nothing");
            assert!(error.to_string().contains(place), "{error}");
        }
    }

    #[test]
    fn errors_name_the_field_and_where_it_was_looked_for() {
        let good = json!({"name": "7", "selftext": "hi"});
        let cases = [
            ("selftext", json!(null), "post has no text (field: text, path: /data/selftext)"),
            ("selftext", json!(5), "field: text, path: /data/selftext, value: 5"),
            ("created_utc", json!("noon"), "field: created_at, path: /data/created_utc"),
            ("ups", json!("5"), "field: metrics.likes, path: /data/ups"),
            ("board", json!(["tea"]), "field: tags, path: /data/board"),
        ];
        for (name, value, wanted) in cases {
            let mut data = good.clone();
            data[name] = value;
            let error = read(forum(), &json!({ "data": data })).expect_err("a malformed post").to_string();
            assert!(error.contains(wanted), "{error} should say: {wanted}");
        }
    }

    #[test]
    fn mappings_that_make_no_sense_are_refused_with_the_field() {
        let constant = |value: Value| Rule::Constant(value);
        let plain = Mapping::default;
        let time = |rule| TimeRule { rule, format: TimeFormat::Rfc3339 };
        let cases = [
            ("id", Mapping { id: constant("7".into()), ..plain() }),
            ("text", Mapping { text: constant("hi".into()), ..plain() }),
            ("text", Mapping { text: Rule::Absent, ..plain() }),
            ("source", Mapping { source: constant(7.into()), ..plain() }),
            ("deleted", Mapping { deleted: constant("yes".into()), ..plain() }),
            ("created_at", Mapping { created_at: time(constant("noon".into())), ..plain() }),
            ("tags", Mapping { tags: Tags::List(constant("tea".into())), ..plain() }),
            ("tags", Mapping { tags: Tags::Each(vec![constant(1.into())]), ..plain() }),
            (
                "metrics.likes",
                Mapping { metrics: Metrics::Each(vec![("likes".into(), constant(true.into()))]), ..plain() },
            ),
        ];
        for (field, mapping) in cases {
            let error = PostReader::new(mapping).expect_err("a mapping that makes no sense");
            assert!(error.context().contains(&("field", field.to_owned())), "{field}: {error}");
        }
    }

    proptest! {
        /// Whatever a post holds, the same post in other people's form is the same post.
        #[test]
        fn mapping_changes_nothing_but_the_place(
            id in proptest::option::of("[a-z0-9]{1,4}"), text in "[ -~é☕]{0,20}", author in proptest::option::of("[a-z]{1,4}"),
            created in proptest::option::of(0_i64..2_000_000_000), edited in proptest::option::of(0_i64..2_000_000_000),
            deleted: Option<bool>, likes in proptest::option::of(0_u32..9), tags in proptest::option::of(proptest::collection::vec("[a-z]{0,3}", 0..3)),
        ) {
            let rfc = |seconds: Option<i64>| seconds.map(|s| jiff::Timestamp::from_second(s).expect("a time").to_string());
            let plain = json!({
                "id": id, "source": "forum", "text": text, "author": author, "created_at": rfc(created), "edited_at": rfc(edited),
                "deleted": deleted, "metrics": {"likes": likes.unwrap_or(0)}, "tags": tags, "k": {"v": 1},
            });
            let theirs = json!({
                "k": {"v": 1},
                "a": {"b~": {"": id}, "t": [null, {"x/y": text}], "w": author},
                "at": created.map(|s| s * 1000), "ed": edited, "del": deleted, "up": likes.unwrap_or(0), "topics": tags,
            });
            let mapping = Mapping {
                id: path("/a/b~0/"),
                source: Rule::Constant("forum".into()),
                text: path("/a/t/1/x~1y"),
                author: path("/a/w"),
                created_at: TimeRule { rule: path("/at"), format: TimeFormat::UnixMillis },
                edited_at: TimeRule { rule: path("/ed"), format: TimeFormat::UnixSeconds },
                deleted: path("/del"),
                metrics: Metrics::Each(vec![("likes".into(), path("/up"))]),
                tags: Tags::List(path("/topics")),
                ..Mapping::default()
            };
            let (own, mapped) = (Post::parse(plain.to_string().as_bytes(), NOW), read(mapping, &theirs));
            match (own, mapped) {
                (Ok(own), Ok(mapped)) => {
                    prop_assert_eq!(identity::uid(&own), identity::uid(&mapped));
                    let versions = [&own, &mapped].map(|post| identity::version(post, b"the same bytes", NOW));
                    prop_assert_eq!(versions[0], versions[1]);
                    prop_assert_eq!(own, mapped);
                }
                (Err(own), Err(mapped)) => prop_assert_eq!(own.message(), mapped.message()),
                (own, mapped) => prop_assert!(false, "{own:?} {mapped:?}"),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(payload: Vec<u8>) {
            let _ = PostReader::new(forum()).expect("a good mapping").read(&payload, NOW);
        }
    }
}
