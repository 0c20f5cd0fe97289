//! What the stream reads from Kafka, from its logs and from a text.

use std::sync::{Arc, LazyLock};

use prost::Message;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use undertone_error::Result;
use undertone_inference::{language, normalize};
use undertone_proto::{
    Envelope, Event, Mapping, PostReader,
    mapping::{Metrics, Rule, Tags, TimeFormat, TimeRule},
    to_json, topics,
    v1::{DeadLetter, Entities, HeadScores, Origin, Outcome, Probability, ScoredPost, outcome},
};
use undertone_stream::{
    dead,
    enrich::entities,
    score::{RecordLimit, ScoreConfig, Scorer, Scores, Watched, score_chunk},
};

use crate::Target;

const WORDS: &[&str] = &[
    "null",
    "true",
    "1e400",
    "-0",
    "18446744073709551616",
    "-9223372036854775808",
    "\\ud800",
    "\\u0000",
    "[[[[[[[[",
    "{\"a\":",
    "\"\"",
    "\"text\"",
    "\"id\"",
    "\"source\"",
    "\"created_at\"",
    "\"edited_at\"",
    "\"deleted\"",
    "\"metrics\"",
    "\"tags\"",
    "\"lang\"",
    "-009999-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "+14:00",
    "[Europe/Berlin]",
    "\u{feff}",
    "\u{0}\u{0}\u{0}\u{0}\u{7}",
];

pub(crate) const EVENT: Target = Target {
    name: "event",
    read: |bytes| outcome(&PostReader::default(), bytes),
    seeds: || {
        let post = json!({
            "id": "p1", "source": "forum", "text": "so good #tea @ann https://x.example ☕", "created_at": "2026-05-01T12:00:00Z",
            "edited_at": "2026-05-01T12:00:00.25+02:00", "author": "ann", "url": "https://forum.example/7", "lang": "en",
            "reply_to": "t3_6", "metrics": {"likes": 2.5}, "tags": ["Tea", "#two"], "board": {"deep": [1, null]},
        });
        let gone = json!({"id": 7, "source": "forum", "deleted": true, "created_at": "2026-05-01T12:00:00Z"});
        let text = json!({"text": "one"});
        let framed = [b"\0\0\0\0\x2a".as_slice(), post.to_string().as_bytes()].concat();
        vec![post.to_string().into_bytes(), gone.to_string().into_bytes(), text.to_string().into_bytes(), framed]
    },
    words: WORDS,
};

static FOREIGN: LazyLock<PostReader> = LazyLock::new(|| {
    let at = |pointer: &str| Rule::Path(pointer.parse().expect("a pointer"));
    PostReader::new(Mapping {
        id: at("/data/id"),
        source: Rule::Constant(json!("foreign")),
        text: at("/data/body"),
        created_at: TimeRule { rule: at("/data/created"), format: TimeFormat::UnixSeconds },
        edited_at: TimeRule { rule: at("/data/edited"), format: TimeFormat::UnixMillis },
        deleted: at("/gone"),
        author: at("/data/by/0"),
        metrics: Metrics::Each(vec![("ups".into(), at("/data/ups")), ("downs".into(), at("/data/downs"))]),
        tags: Tags::Each(vec![at("/data/board"), at("/data/by/1")]),
        ..Mapping::default()
    })
    .expect("a mapping")
});

pub(crate) const MAPPED: Target = Target {
    name: "mapped",
    read: |bytes| outcome(&FOREIGN, bytes),
    seeds: || {
        let post = json!({"data": {"id": 9007199254740993u64, "body": "one", "created": 1777636800.25, "edited": "1777636800250",
            "by": ["ann", "team"], "ups": 3, "downs": 0, "board": "tea"}, "gone": false, "text": "kept"});
        let gone = json!({"data": {"id": "a", "created": "1777636800"}, "gone": true});
        vec![post.to_string().into_bytes(), gone.to_string().into_bytes()]
    },
    words: WORDS,
};

/// A model that says the same of every text.
struct Model;

impl Scorer for Model {
    async fn score_all(&self, texts: Vec<String>) -> Vec<Result<Scores>> {
        texts.into_iter().map(|text| Ok(Scores { clean_text: text, ..Scores::default() })).collect()
    }
}

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
}

/// Whether an event is a post. Every event becomes one outcome, which can be written down and read again.
fn outcome(posts: &PostReader, payload: &[u8]) -> bool {
    let origin = Origin { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 7 };
    let ingested_at_us = 1_777_636_800_000_000;
    let event = Event { origin, payload: payload.to_vec(), ingested_at_us, envelope: Envelope::default() };
    let limit = Some(RecordLimit { bytes: 16_384, json: true });
    let config = ScoreConfig { posts: posts.clone(), record_limit: limit, ..ScoreConfig::default() };
    let shutdown = CancellationToken::new();
    let scorer = Watched::new(Arc::new(Model));
    let scored = RUNTIME.with(|runtime| runtime.block_on(score_chunk(&scorer, &config, vec![(7, event)], &shutdown)));
    let outcomes = scored.expect("an outcome is no error").expect("nobody shuts down");
    assert_eq!(outcomes.len(), 1);
    let bytes = outcomes[0].encode_to_vec();
    assert_eq!(Outcome::decode(bytes.as_slice()).expect("what was written"), outcomes[0]);
    tell(&outcomes[0], true);
    matches!(outcomes[0].kind, Some(outcome::Kind::Scored(_)))
}

/// Writes an outcome in every form that it is written in. What others wrote into the topic may have no form in JSON.
fn tell(outcome: &Outcome, ours: bool) {
    match &outcome.kind {
        Some(outcome::Kind::Scored(post)) => {
            let line = match to_json(post) {
                Ok(line) => line,
                Err(error) if ours => panic!("{error}"),
                Err(_) => return,
            };
            assert!(!line.contains('\n') && serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
            assert!(topics(post).len() <= undertone_proto::MAX_TOPICS);
        }
        Some(outcome::Kind::Dead(letter)) => {
            assert!(dead::to_json(letter).expect("a letter as JSON").ends_with('\n'));
            assert!(!dead::class(&letter.reason).is_empty());
        }
        None => {}
    }
}

pub(crate) const RECORDS: Target = Target {
    name: "records",
    read: |bytes| match Outcome::decode(bytes) {
        Ok(outcome) => {
            tell(&outcome, false);
            true
        }
        Err(_) => false,
    },
    seeds: || {
        let origin = Some(Origin { cluster: "c".into(), topic: "t".into(), partition: 3, offset: 1 << 40 });
        let heads = vec![HeadScores {
            head: "sentiment".into(),
            label: "positive".into(),
            probabilities: vec![Probability { label: "positive".into(), value: 0.75 }],
        }];
        let post = ScoredPost {
            origin: origin.clone(),
            uid: "0b9c1c3e-5b1f-5f0e-8a53-0b9c1c3e5b1f".into(),
            text: "so good #tea ☕".into(),
            created_at_us: 1_777_636_800_000_000,
            edited_at_us: Some(-1),
            metrics: [("likes".to_owned(), 2.5)].into(),
            tags: vec!["Tea".into()],
            extra_json: r#"{"board":"tea"}"#.into(),
            entities: Some(Entities { hashtags: vec!["tea".into()], ..Entities::default() }),
            heads,
            polarity: Some(0.5),
            embedding: vec![0.5, -0.25],
            ..ScoredPost::default()
        };
        let letter = DeadLetter {
            origin,
            stage: "parse".into(),
            reason: "post is not JSON".into(),
            payload: b"{".to_vec(),
            payload_bytes: 1,
            dead_at_us: i64::MAX,
            ..DeadLetter::default()
        };
        let kinds = [outcome::Kind::Scored(post), outcome::Kind::Dead(letter)];
        kinds.map(|kind| Outcome { kind: Some(kind) }.encode_to_vec()).into()
    },
    words: &["{\"a\":1}", "parse", "sentiment"],
};

pub(crate) const TEXT: Target = Target {
    name: "text",
    read: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let clean = normalize::social_1(text);
        language::read(&clean, None);
        let found = entities(text);
        let most = [&found.hashtags, &found.mentions, &found.urls, &found.emoji].map(Vec::len).into_iter().max();
        assert!(most <= Some(undertone_stream::enrich::MAX_ENTITIES));
        true
    },
    seeds: || {
        [
            "so good #tea, @ann! https://x.example/(y)?q=1. ☕",
            "RT @bob: &amp;&lt;3 &#39;sooooo&#x1F600; 👩‍👩‍👧🇩🇪 :-)",
            "#हिन्दी ＃全角 e\u{301}",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into()
    },
    words: &[
        "&#",
        "&#x110000;",
        "&#99999999999;",
        "http://",
        "www.",
        "@",
        "#",
        "\u{200d}",
        "\u{fe0f}",
        "\u{1f3fd}",
        "\u{202e}",
        "\u{301}",
        "&amp;amp;",
        ":)",
    ],
};
