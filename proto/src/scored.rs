//! A scored post as one line of JSON, for readers that have no protocol buffers.
//!
//! Every line has the same keys in the same order: what is absent is null, or empty where it is a list or an object. Times
//! are RFC 3339 in UTC, and a head's probabilities stand under their labels. `version` needs 63 bits.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use undertone_error::{Context, ErrorKind, Result};

use crate::timestamp;
use crate::v1::{Entities, HeadScores, Model, Origin, ScoredPost};

#[derive(serde::Serialize)]
struct Line<'a> {
    origin: Option<&'a Origin>,
    uid: &'a str,
    version: i64,
    run: &'a str,
    source: &'a str,
    id: &'a str,
    text: &'a str,
    created_at: Timestamp,
    edited_at: Option<Timestamp>,
    deleted: bool,
    author: Option<&'a str>,
    url: Option<&'a str>,
    declared_language: Option<&'a str>,
    reply_to: Option<&'a str>,
    metrics: BTreeMap<&'a str, f64>,
    tags: &'a [String],
    extra: &'a RawValue,
    clean_text: &'a str,
    language: Option<&'a str>,
    in_domain: Option<bool>,
    entities: &'a Entities,
    late: bool,
    sentiment: Option<&'a str>,
    polarity: Option<f64>,
    confidence: Option<f32>,
    heads: Heads<'a>,
    embedding: &'a [f32],
    tokens: u32,
    truncated: bool,
    model: Option<&'a Model>,
    ingested_at: Timestamp,
    scored_at: Timestamp,
}

/// The post as one line of JSON, without a line feed.
///
/// # Errors
/// [`ErrorKind::Internal`] if it cannot be written as JSON.
pub fn to_json(post: &ScoredPost) -> Result<String> {
    let line = Line {
        origin: post.origin.as_ref(),
        uid: &post.uid,
        version: post.version,
        run: &post.run,
        source: &post.source,
        id: &post.id,
        text: &post.text,
        created_at: timestamp(post.created_at_us),
        edited_at: post.edited_at_us.map(timestamp),
        deleted: post.deleted,
        author: post.author.as_deref(),
        url: post.url.as_deref(),
        declared_language: post.declared_language.as_deref(),
        reply_to: post.reply_to.as_deref(),
        metrics: post.metrics.iter().map(|(name, &value)| (name.as_str(), value)).collect(),
        tags: &post.tags,
        // Not read into a value: what the names in it are is the sender's affair.
        extra: serde_json::from_str(if post.extra_json.is_empty() { "{}" } else { &post.extra_json })
            .context(ErrorKind::Internal, "fields that we do not know are not JSON")?,
        clean_text: &post.clean_text,
        language: post.language.as_deref(),
        in_domain: post.in_domain,
        entities: post.entities.as_ref().unwrap_or(&NO_ENTITIES),
        late: post.late,
        sentiment: post.sentiment.as_deref(),
        polarity: post.polarity,
        confidence: post.confidence,
        heads: Heads(&post.heads),
        embedding: &post.embedding,
        tokens: post.tokens,
        truncated: post.truncated,
        model: post.model.as_ref(),
        ingested_at: timestamp(post.ingested_at_us),
        scored_at: timestamp(post.scored_at_us),
    };
    serde_json::to_string(&line).context(ErrorKind::Internal, "scored post cannot be written as JSON")
}

static NO_ENTITIES: Entities =
    Entities { hashtags: Vec::new(), mentions: Vec::new(), urls: Vec::new(), emoji: Vec::new() };

/// Heads by their names.
struct Heads<'a>(&'a [HeadScores]);

impl Serialize for Heads<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut heads = serializer.serialize_map(Some(self.0.len()))?;
        for head in self.0 {
            heads.serialize_entry(&head.head, &Head { label: &head.label, probabilities: Probabilities(head) })?;
        }
        heads.end()
    }
}

#[derive(serde::Serialize)]
struct Head<'a> {
    label: &'a str,
    probabilities: Probabilities<'a>,
}

/// Probabilities by their labels, in the model's order.
struct Probabilities<'a>(&'a HeadScores);

impl Serialize for Probabilities<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut labels = serializer.serialize_map(Some(self.0.probabilities.len()))?;
        for probability in &self.0.probabilities {
            labels.serialize_entry(&probability.label, &probability.value)?;
        }
        labels.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;
    use crate::v1::Probability;

    /// The line, one key a line.
    fn shown(post: &ScoredPost) -> String {
        let line = to_json(post).expect("JSON");
        assert!(!line.contains('\n'));
        let value: Map<String, Value> = serde_json::from_str(&line).expect("an object");
        value.iter().map(|(key, value)| format!("{key}: {value}\n")).collect()
    }

    #[test]
    fn names_that_mean_something_to_serde_json_mean_nothing_here() {
        for extra in [r#"{"$serde_json::private::RawValue":"x"}"#, r#"{"k":{"$serde_json::private::RawValue":"[1"}}"#] {
            let post = ScoredPost { extra_json: extra.to_owned(), ..ScoredPost::default() };
            assert!(to_json(&post).expect("JSON").contains(&format!("\"extra\":{extra},")), "{extra}");
        }
    }

    #[test]
    fn the_line_is_what_readers_rely_on() {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let probability = |(label, value): (&str, f32)| Probability { label: label.into(), value };
        let head = |head: &str, label: &str, all: &[(&str, f32)]| HeadScores {
            head: head.into(),
            label: label.into(),
            probabilities: all.iter().copied().map(probability).collect(),
        };
        let post = ScoredPost {
            origin: Some(Origin { cluster: "c".into(), topic: "t".into(), partition: 2, offset: 7 }),
            uid: "u".into(),
            version: 1_863_988_441_088_000_001,
            run: "live".into(),
            source: "x".into(),
            id: "1".into(),
            text: "Hi \"Ann\"\n#Tea".into(),
            created_at_us: 1_777_636_800_000_000,
            edited_at_us: Some(1_777_636_800_250_000),
            author: Some("ann".into()),
            declared_language: Some("en".into()),
            metrics: [("shares".to_owned(), 0.5), ("likes".to_owned(), 3.0)].into(),
            tags: owned(&["tea"]),
            extra_json: r#"{"z":1,"a":[null]}"#.into(),
            clean_text: "hi ann tea".into(),
            language: Some("eng".into()),
            in_domain: Some(true),
            entities: Some(Entities { hashtags: owned(&["tea"]), ..Entities::default() }),
            late: true,
            heads: vec![
                head("sentiment", "positive", &[("negative", 0.1), ("neutral", 0.2), ("positive", 0.7)]),
                head("irony", "no", &[("no", 1.0)]),
            ],
            sentiment: Some("positive".into()),
            polarity: Some(0.6),
            confidence: Some(0.7),
            embedding: vec![0.1, -0.25],
            tokens: 5,
            truncated: true,
            model: Some(Model { name: "m".into(), revision: "r".into(), precision: "fp32".into() }),
            ingested_at_us: 1_777_636_801_000_000,
            scored_at_us: 1_777_636_801_000_001,
            ..ScoredPost::default()
        };
        let expected = r##"origin: {"cluster":"c","topic":"t","partition":2,"offset":7}
uid: "u"
version: 1863988441088000001
run: "live"
source: "x"
id: "1"
text: "Hi \"Ann\"\n#Tea"
created_at: "2026-05-01T12:00:00Z"
edited_at: "2026-05-01T12:00:00.25Z"
deleted: false
author: "ann"
url: null
declared_language: "en"
reply_to: null
metrics: {"likes":3.0,"shares":0.5}
tags: ["tea"]
extra: {"z":1,"a":[null]}
clean_text: "hi ann tea"
language: "eng"
in_domain: true
entities: {"hashtags":["tea"],"mentions":[],"urls":[],"emoji":[]}
late: true
sentiment: "positive"
polarity: 0.6
confidence: 0.7
heads: {"sentiment":{"label":"positive","probabilities":{"negative":0.1,"neutral":0.2,"positive":0.7}},"irony":{"label":"no","probabilities":{"no":1.0}}}
embedding: [0.1,-0.25]
tokens: 5
truncated: true
model: {"name":"m","revision":"r","precision":"fp32"}
ingested_at: "2026-05-01T12:00:01Z"
scored_at: "2026-05-01T12:00:01.000001Z"
"##;
        assert_eq!(shown(&post), expected);
    }

    #[test]
    fn a_tombstone_has_the_same_keys() {
        let tombstone = ScoredPost { deleted: true, created_at_us: i64::MIN, ..ScoredPost::default() };
        let shown = shown(&tombstone);
        assert_eq!(shown.lines().count(), 32);
        for line in
            ["origin: null", "deleted: true", "extra: {}", "heads: {}", "embedding: []", "created_at: \"-009999-"]
        {
            assert!(shown.contains(line), "{shown} should have {line}");
        }
    }
}
