//! The JSON post, as it arrives on `posts.raw`.

use jiff::Timestamp;
use serde_json::{Map, Value};
use undertone_error::{Error, ErrorKind, Result};

use crate::{EventTime, identity};

/// A post whose time lies further back than this is kept, marked late, and put into the one late partition.
pub const MAX_PAST_US: i64 = 30 * 86_400_000_000;
/// A post whose time lies further ahead than this is kept and marked late too.
pub const MAX_FUTURE_US: i64 = 5 * 60 * 1_000_000;

/// A post: who said what, when. Optional fields are absent, never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Post {
    /// Unique within `source`; derived from source, author, time and text when it was missing.
    pub id: String,
    /// Where it was posted: "reddit", "x", "webhook".
    pub source: String,
    /// What was said. Empty only for a tombstone.
    pub text: String,
    /// When it was posted.
    pub created_at_us: EventTime,
    /// When it was last edited.
    pub edited_at_us: Option<EventTime>,
    /// A tombstone: the post is gone.
    pub deleted: bool,
    /// Who posted it.
    pub author: Option<String>,
    /// Where it can be read.
    pub url: Option<String>,
    /// The language that the source claims.
    pub lang: Option<String>,
    /// The id of the post it answers.
    pub reply_to: Option<String>,
    /// Likes, shares and the like.
    pub metrics: Vec<(String, f64)>,
    /// Tags that the source gives.
    pub tags: Vec<String>,
    /// Fields that we do not know, kept.
    pub extra: Map<String, Value>,
}

impl Post {
    /// Parses the bytes of one event. `ingested_at_us` stands in for a missing `created_at`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the field and what it should be: not UTF-8, not a JSON object, no text,
    /// or a known field of a wrong type.
    pub fn parse(payload: &[u8], ingested_at_us: EventTime) -> Result<Self> {
        let text = std::str::from_utf8(payload)
            .map_err(|e| bad("post is not UTF-8").with("valid_up_to", e.valid_up_to()).help("send JSON in UTF-8"))?;
        let value: Value = serde_json::from_str(text)
            .map_err(|e| bad("post is not JSON").source(e).help("send one JSON object a post"))?;
        let Value::Object(mut fields) = value else {
            return Err(bad("post is not a JSON object").help("send {\"text\": …, \"source\": …, …}"));
        };

        let deleted = match fields.shift_remove("deleted") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(deleted)) => deleted,
            Some(other) => return Err(wrong_type("deleted", "true or false", &other)),
        };
        let text = match take_string(&mut fields, "text")? {
            Some(text) if deleted || !text.trim().is_empty() => text,
            None if deleted => String::new(),
            _ => {
                return Err(bad("post has no text")
                    .with("field", "text")
                    .help("send the text of the post as a string"));
            }
        };
        let source = take_string(&mut fields, "source")?.unwrap_or_else(|| "unknown".to_owned());
        let created_at_us = match take_time(&mut fields, "created_at")? {
            Some(time) => time,
            // Its day is part of the identity: with a guessed one the tombstone would miss its post.
            None if deleted => {
                let error = bad("tombstone has no created_at").with("field", "created_at");
                return Err(error.help("repeat the created_at of the post that is deleted"));
            }
            None => ingested_at_us,
        };
        let author = take_string(&mut fields, "author")?;
        let id = match take_id(&mut fields)? {
            Some(id) => id,
            None if deleted => {
                return Err(bad("tombstone has no id").with("field", "id").help("name the post that is deleted"));
            }
            None => identity::derive_id(&source, author.as_deref(), created_at_us, &text),
        };

        Ok(Self {
            id,
            source,
            text,
            created_at_us,
            edited_at_us: take_time(&mut fields, "edited_at")?,
            deleted,
            author,
            url: take_string(&mut fields, "url")?,
            lang: take_string(&mut fields, "lang")?,
            reply_to: take_string(&mut fields, "reply_to")?,
            metrics: take_metrics(&mut fields)?,
            tags: take_tags(&mut fields)?,
            extra: fields,
        })
    }

    /// Whether the post's time lies outside [-30 days, +5 minutes] of its ingestion.
    pub fn is_late(&self, ingested_at_us: EventTime) -> bool {
        self.created_at_us < ingested_at_us.saturating_sub(MAX_PAST_US)
            || self.created_at_us > ingested_at_us.saturating_add(MAX_FUTURE_US)
    }
}

fn bad(message: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

fn wrong_type(field: &str, wanted: &str, got: &Value) -> Error {
    let mut shown = got.to_string();
    if let Some((cut, _)) = shown.char_indices().nth(60) {
        shown.truncate(cut);
        shown.push('…');
    }
    bad("field has a wrong type").with("field", field).with("value", shown).help(format!("{field} must be {wanted}"))
}

fn take_string(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>> {
    match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(if value.is_empty() { None } else { Some(value) }),
        Some(other) => Err(wrong_type(name, "a string", &other)),
    }
}

/// Ids are strings, but many sources send numbers.
fn take_id(fields: &mut Map<String, Value>) -> Result<Option<String>> {
    match fields.get("id") {
        Some(Value::Number(number)) => {
            let id = number.to_string();
            fields.shift_remove("id");
            Ok(Some(id))
        }
        _ => take_string(fields, "id"),
    }
}

fn take_time(fields: &mut Map<String, Value>, name: &str) -> Result<Option<EventTime>> {
    let Some(text) = take_string(fields, name)? else { return Ok(None) };
    let time: Timestamp = text.parse().map_err(|e: jiff::Error| {
        bad("field is not a time")
            .with("field", name)
            .with("value", &text)
            .source(e)
            .help("write RFC 3339, like 2026-05-01T12:00:00Z")
    })?;
    Ok(Some(time.as_microsecond()))
}

fn take_tags(fields: &mut Map<String, Value>) -> Result<Vec<String>> {
    match fields.shift_remove("tags") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => values
            .into_iter()
            .map(|value| match value {
                Value::String(tag) => Ok(tag),
                other => Err(wrong_type("tags", "a list of strings", &other)),
            })
            .collect(),
        Some(other) => Err(wrong_type("tags", "a list of strings", &other)),
    }
}

fn take_metrics(fields: &mut Map<String, Value>) -> Result<Vec<(String, f64)>> {
    match fields.shift_remove("metrics") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(values)) => values
            .into_iter()
            .map(|(name, value)| match value.as_f64() {
                Some(number) => Ok((name, number)),
                None => Err(wrong_type("metrics", "an object of numbers", &value)),
            })
            .collect(),
        Some(other) => Err(wrong_type("metrics", "an object of numbers", &other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: EventTime = 1_800_000_000_000_000;

    #[test]
    fn a_full_post_keeps_every_field_and_what_it_does_not_know() {
        let json = r#"{"id":7,"source":"x","text":"hi","created_at":"2026-05-01T12:00:00+02:00","author":"ann",
            "tags":["tea"],"metrics":{"likes":3},"subreddit":"brewing"}"#;
        let post = Post::parse(json.as_bytes(), NOW).expect("a good post");
        assert_eq!((post.id.as_str(), post.created_at_us), ("7", 1_777_629_600_000_000));
        assert_eq!(post.metrics, [("likes".to_owned(), 3.0)]);
        assert_eq!(post.extra.get("subreddit"), Some(&Value::from("brewing")));
    }

    #[test]
    fn a_missing_id_is_derived_and_a_replay_derives_it_again() {
        let json = br#"{"source":"x","text":"hi","created_at":"2026-05-01T12:00:00Z"}"#;
        let (first, again) = (Post::parse(json, NOW), Post::parse(json, NOW + 99));
        assert_eq!(first.expect("a good post").id, again.expect("a good post").id);
    }

    #[test]
    fn malformed_posts_are_refused_with_the_field_and_the_mend() {
        let cases: [(&[u8], &str); 9] = [
            (b"\xff\xfe", "not UTF-8"),
            (b"{", "not JSON"),
            (b"[1]", "not a JSON object"),
            (b"{}", "no text"),
            (br#"{"text":"  "}"#, "no text"),
            (br#"{"text":5}"#, "text must be a string"),
            (br#"{"text":"a","created_at":"yesterday"}"#, "created_at"),
            (br#"{"text":"a","tags":[1]}"#, "tags must be a list of strings"),
            (br#"{"deleted":true,"created_at":"2026-05-01T12:00:00Z"}"#, "tombstone has no id"),
        ];
        for (payload, wanted) in cases {
            let error = Post::parse(payload, NOW).expect_err("a malformed post");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(wanted), "{error} should say: {wanted}");
        }
    }

    #[test]
    fn late_is_outside_thirty_days_back_and_five_minutes_ahead() {
        let at = |created_at_us| Post { created_at_us, ..Post::parse(br#"{"text":"a"}"#, NOW).expect("a good post") };
        let cases =
            [(NOW, false), (NOW - MAX_PAST_US, false), (NOW - MAX_PAST_US - 1, true), (NOW + MAX_FUTURE_US + 1, true)];
        for (time, late) in cases {
            assert_eq!(at(time).is_late(NOW), late, "{time}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(payload: Vec<u8>) {
            let _ = Post::parse(&payload, NOW);
        }
    }
}
