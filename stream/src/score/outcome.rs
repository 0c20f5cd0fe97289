//! From an event and its scores to its outcome; no I/O. The guarantee: every event has exactly one outcome, with its
//! origin, and the same event and scores give the same outcome but for the clock.

use sha2::{Digest, Sha256};
use undertone_error::Error;
use undertone_proto::v1::{DeadLetter, Entities, Outcome, ScoredPost, outcome};
use undertone_proto::{Event, EventTime, LIVE_RUN, Post, PostReader, identity};

use super::scorer::Scores;
use crate::enrich;
use crate::source::hex;

/// Longer reasons (in bytes) are cut.
const MAX_REASON_BYTES: usize = 2000;

/// An event, read as far as it goes without a model.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) event: Event,
    pub(super) reading: Reading,
}

/// What an event turned out to be.
#[derive(Debug)]
pub(super) enum Reading {
    /// A post whose text is to be scored.
    Text(Box<Post>, Entities),
    /// A tombstone: there is nothing to score.
    Tombstone(Box<Post>),
    /// No post.
    Malformed(Error),
}

impl Prepared {
    pub(super) fn new(event: Event, posts: &PostReader) -> Self {
        let reading = match posts.read(&event.payload, event.ingested_at_us) {
            Ok(post) if post.deleted => Reading::Tombstone(Box::new(post)),
            Ok(post) => {
                let entities = enrich::entities(&post.text);
                Reading::Text(Box::new(post), entities)
            }
            Err(error) => Reading::Malformed(error),
        };
        Self { event, reading }
    }

    /// What the model must read, if it must.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.reading {
            Reading::Text(post, _) => Some(&post.text),
            Reading::Tombstone(_) | Reading::Malformed(_) => None,
        }
    }
}

/// An event that was scored.
pub(super) fn scored(event: &Event, mut post: Post, entities: Entities, scores: Scores, now: EventTime) -> Outcome {
    let text = std::mem::take(&mut post.text);
    let post = ScoredPost {
        text,
        clean_text: scores.clean_text,
        language: scores.language,
        in_domain: scores.in_domain,
        entities: Some(entities),
        heads: scores.heads,
        sentiment: scores.sentiment,
        polarity: scores.polarity,
        confidence: scores.confidence,
        embedding: scores.embedding,
        tokens: scores.tokens,
        truncated: scores.truncated,
        model: Some(scores.model),
        scored_at_us: now,
        ..common(event, post)
    };
    Outcome { kind: Some(outcome::Kind::Scored(post)) }
}

/// A tombstone: identity and version, neither text nor scores.
pub(super) fn tombstone(event: &Event, post: Post, now: EventTime) -> Outcome {
    let post = ScoredPost { deleted: true, scored_at_us: now, ..common(event, post) };
    Outcome { kind: Some(outcome::Kind::Scored(post)) }
}

fn common(event: &Event, post: Post) -> ScoredPost {
    ScoredPost {
        origin: Some(event.origin.clone()),
        uid: identity::uid(&post).to_string(),
        version: identity::version(&post, &event.payload, event.ingested_at_us),
        run: LIVE_RUN.to_owned(),
        late: post.is_late(event.ingested_at_us),
        extra_json: if post.extra.is_empty() {
            String::new()
        } else {
            serde_json::Value::Object(post.extra).to_string()
        },
        source: post.source,
        id: post.id,
        created_at_us: post.created_at_us,
        edited_at_us: post.edited_at_us,
        author: post.author,
        url: post.url,
        declared_language: post.lang,
        reply_to: post.reply_to,
        metrics: post.metrics.into_iter().collect(),
        tags: post.tags,
        ingested_at_us: event.ingested_at_us,
        ..ScoredPost::default()
    }
}

/// An event that cannot become a scored post. Payloads over `max_payload` bytes are left out; Bronze has them.
pub(super) fn dead(
    event: &Event,
    stage: &str,
    error: &Error,
    attempts: u32,
    max_payload: usize,
    now: EventTime,
) -> Outcome {
    let letter = DeadLetter {
        origin: Some(event.origin.clone()),
        stage: stage.to_owned(),
        reason: reason(error),
        payload: if event.payload.len() <= max_payload { event.payload.clone() } else { Vec::new() },
        payload_sha256: hex(&Sha256::digest(&event.payload)),
        payload_bytes: event.payload.len() as u64,
        attempts,
        ingested_at_us: event.ingested_at_us,
        dead_at_us: now,
    };
    Outcome { kind: Some(outcome::Kind::Dead(letter)) }
}

/// The error as a reason that a dead letter has room for.
pub(super) fn reason(error: &Error) -> String {
    let mut reason = error.to_string();
    reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
    reason
}

#[cfg(test)]
mod tests {
    use undertone_error::ErrorKind;
    use undertone_proto::Envelope;
    use undertone_proto::v1::{Model, Origin};

    use super::*;

    const NOW: EventTime = 1_800_000_000_000_000;

    fn event(payload: &str) -> Event {
        let origin = Origin { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 3 };
        Event { origin, payload: payload.into(), ingested_at_us: NOW, envelope: Envelope::default() }
    }

    fn read(event: &Event) -> Reading {
        Prepared::new(event.clone(), &PostReader::default()).reading
    }

    #[test]
    fn a_scored_post_keeps_everything_the_post_had() {
        let event = event(
            r##"{"id":"7","source":"x","text":"Hi @ann #Tea","created_at":"2026-05-01T12:00:00Z","lang":"en","tags":["a"],
                "metrics":{"likes":2},"extra":{"k":[1]}}"##,
        );
        let Reading::Text(post, entities) = read(&event) else { panic!("a post with a text") };
        let model = Model { name: "m".into(), ..Model::default() };
        let scores = Scores {
            model: model.clone(),
            clean_text: "hi ann tea".into(),
            polarity: Some(0.5),
            in_domain: Some(false),
            ..Scores::default()
        };
        let outcome = scored(&event, *post, entities, scores, NOW + 5);
        let Some(outcome::Kind::Scored(post)) = outcome.kind else { panic!("a scored post") };
        assert_eq!(
            (post.text.as_str(), post.clean_text.as_str(), post.run.as_str()),
            ("Hi @ann #Tea", "hi ann tea", "live")
        );
        assert_eq!(
            (post.declared_language.as_deref(), post.tags, post.metrics["likes"]),
            (Some("en"), vec!["a".into()], 2.0)
        );
        assert_eq!((post.polarity, post.in_domain), (Some(0.5), Some(false)));
        assert_eq!(post.extra_json, r#"{"extra":{"k":[1]}}"#);
        assert_eq!(post.entities.unwrap().hashtags, ["tea"]);
        assert_eq!((post.model, post.scored_at_us, post.ingested_at_us), (Some(model), NOW + 5, NOW));
        assert!(post.late, "created eight months before");
        assert_eq!(post.origin, Some(event.origin));
    }

    #[test]
    fn a_tombstone_has_identity_and_no_text() {
        let json = r#"{"id":"7","source":"x","text":"gone","created_at":"2026-05-01T12:00:00Z","deleted":true}"#;
        let event = event(json);
        let Reading::Tombstone(post) = read(&event) else { panic!("a tombstone") };
        let uid = identity::uid(&post).to_string();
        let Some(outcome::Kind::Scored(post)) = tombstone(&event, *post, NOW).kind else { panic!("a scored post") };
        assert_eq!((post.uid, post.deleted, post.text.as_str()), (uid, true, ""));
        assert!(post.heads.is_empty() && post.model.is_none() && post.entities.is_none());
    }

    #[test]
    fn a_dead_letter_keeps_the_bytes_unless_they_are_too_many() {
        let event = event("not json");
        let Reading::Malformed(error) = read(&event) else { panic!("malformed") };
        let letter = |max| match dead(&event, "parse", &error, 1, max, NOW).kind {
            Some(outcome::Kind::Dead(letter)) => letter,
            other => panic!("{other:?}"),
        };
        assert_eq!((letter(8).payload, letter(8).payload_bytes), (b"not json".to_vec(), 8));
        assert_eq!((letter(7).payload, letter(7).payload_bytes), (Vec::new(), 8));
        assert!(letter(8).reason.contains("not JSON"));
        let long = Error::new(ErrorKind::InvalidInput, "é".repeat(5000));
        let Some(outcome::Kind::Dead(cut)) = dead(&event, "score", &long, 1, 8, NOW).kind else { panic!("dead") };
        assert!(cut.reason.len() <= MAX_REASON_BYTES);
    }
}
