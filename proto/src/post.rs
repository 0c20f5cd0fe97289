//! The JSON post, as it arrives on `posts.raw`.

use serde_json::{Map, Value};
use undertone_error::Result;

use crate::{EventTime, PostReader};

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
    /// The JSON Schema of [`Post::parse`]'s input (draft 2020-12). It accepts what is accepted there, but for times that
    /// are not written as in RFC 3339 (they are read too) and days that no month has (they are not).
    pub const SCHEMA: &str = include_str!("../undertone/v1/post.schema.json");

    /// Reads the bytes of one event, in our own form: [`PostReader::read`] without a mapping.
    ///
    /// # Errors
    /// As [`PostReader::read`].
    pub fn parse(payload: &[u8], ingested_at_us: EventTime) -> Result<Self> {
        PostReader::default().read(payload, ingested_at_us)
    }

    /// Whether the post's time lies outside [-30 days, +5 minutes] of its ingestion.
    pub fn is_late(&self, ingested_at_us: EventTime) -> bool {
        self.created_at_us < ingested_at_us.saturating_sub(MAX_PAST_US)
            || self.created_at_us > ingested_at_us.saturating_add(MAX_FUTURE_US)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use undertone_error::ErrorKind;

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
    fn the_frame_of_a_schema_registry_is_read_past() {
        let framed = b"\0\0\0\0*{\"id\":7,\"text\":\"hi\"}";
        assert_eq!(
            Post::parse(framed, NOW).expect("a good post"),
            Post::parse(&framed[5..], NOW).expect("a good post")
        );
    }

    #[test]
    fn malformed_posts_are_refused_with_the_field_and_the_mend() {
        let cases: [(&[u8], &str); 13] = [
            (b"", "empty"),
            (b"\xff\xfe", "not UTF-8"),
            (b"\0\0\0\0*\x02\x06abc", "framed by a schema registry and is not JSON (schema id: 42)"),
            (b"\0\0\0\0*{\"text\":", "framed by a schema registry and is not JSON (schema id: 42)"),
            (b"\0\0\0\0*[1]", "not a JSON object"),
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
