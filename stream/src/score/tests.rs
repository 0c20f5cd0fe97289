use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use undertone_proto::Envelope;
use undertone_proto::v1::outcome::Kind;

use super::fake::Fake;
use super::*;
use crate::input::SourceBatch;
use crate::kafka::TopicSettings;
use crate::log::LogOptions;

struct Rig {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
}

impl Rig {
    fn new() -> Self {
        Self { dir: crate::testing::dir(), fake: Arc::default() }
    }

    fn input(&self) -> InputLog {
        InputLog::open(&self.dir.path().join("input"), "c").unwrap()
    }

    fn scored(&self, input: &InputLog) -> ScoredLog {
        let options = LogOptions { segment_bytes: 4096, ..LogOptions::new("scored") };
        ScoredLog::open_with(&self.dir.path().join("scored"), input, options).unwrap()
    }

    fn stage(&self, input: &InputLog, scored: &ScoredLog) -> ScoreStage<Fake> {
        let config = ScoreConfig { chunk_events: 3, chunks_in_flight: 4, ..ScoreConfig::default() };
        ScoreStage::new(input.clone(), scored.clone(), Arc::clone(&self.fake), config)
            .count_attempts(&self.dir.path().join("attempts.json"))
    }

    /// Runs the stage until `until` outcomes are durable, or until the device has been lost for a while and somebody asks
    /// the process to end; false in that case.
    async fn live(&self, until: i64) -> bool {
        let input = self.input();
        let scored = self.scored(&input);
        let shutdown = CancellationToken::new();
        let mut durable = scored.durable();
        let stop = async {
            let lost = async {
                while self.fake.refused.load(Ordering::SeqCst) < 2 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                _ = durable.wait_for(|end| *end >= until) => {}
                () = lost => {}
            }
            shutdown.cancel();
        };
        let (run, ()) = tokio::join!(self.stage(&input, &scored).run(shutdown.clone()), stop);
        run.unwrap();
        scored.end() >= until
    }

    /// Runs the stage until `until` outcomes are durable.
    async fn score(&self, until: i64) -> Vec<Outcome> {
        let input = self.input();
        let scored = self.scored(&input);
        let shutdown = CancellationToken::new();
        let mut durable = scored.durable();
        let stop = async {
            durable.wait_for(|end| *end >= until).await.unwrap();
            shutdown.cancel();
        };
        let (run, ()) = tokio::join!(self.stage(&input, &scored).run(shutdown.clone()), stop);
        run.unwrap();
        let mut reader = scored.reader(0);
        let mut outcomes = Vec::new();
        while reader.next_offset() < scored.end() {
            outcomes.extend(reader.read(100, 1 << 20).await.unwrap().into_iter().map(|(_, outcome)| outcome));
        }
        outcomes
    }
}

async fn ingest(input: &InputLog, payloads: impl IntoIterator<Item = String>) {
    let payloads = payloads.into_iter().map(Bytes::from).collect();
    let first_seq = input.cursor("s").next_seq;
    input.append(SourceBatch { source_key: "s".into(), first_seq, payloads, last: false }).await.unwrap();
}

fn post(text: &str) -> String {
    serde_json::json!({ "source": "t", "text": text }).to_string()
}

fn short(outcome: &Outcome) -> String {
    match outcome.kind.as_ref().unwrap() {
        Kind::Scored(post) if post.deleted => "deleted".into(),
        Kind::Scored(post) => post.clean_text.clone(),
        Kind::Dead(letter) => format!("dead in {}", letter.stage),
    }
}

#[tokio::test]
async fn every_event_becomes_one_outcome_in_order() {
    let rig = Rig::new();
    let input = rig.input();
    let tombstone = r#"{"id":"1","created_at":"2026-05-01T12:00:00Z","deleted":true}"#.to_owned();
    ingest(
        &input,
        [post("a"), "nonsense".into(), tombstone, post("internal"), post("busy"), post("toolarge"), post("b")],
    )
    .await;
    drop(input);
    let outcomes = rig.score(7).await;
    let expected = ["A", "dead in parse", "deleted", "dead in score", "BUSY", "dead in score", "B"];
    assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), expected);
    let offsets: Vec<_> = outcomes.iter().map(|outcome| crate::scored::origin(outcome).unwrap().offset).collect();
    assert_eq!(offsets, (0..7).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_durable_is_never_scored_again() {
    let rig = Rig::new();
    let input = rig.input();
    ingest(&input, (0..20).map(|n| post(&format!("first {n}")))).await;
    let before = rig.score(20).await;
    ingest(&input, [post("second")]).await;
    drop(input);
    rig.fake.seen.lock().unwrap().clear();
    let after = rig.score(21).await;
    assert_eq!(after[..20], before);
    assert_eq!(*rig.fake.seen.lock().unwrap(), ["second"]);
}

#[tokio::test]
async fn chunks_are_scored_side_by_side_but_not_without_bound() {
    let rig = Rig::new();
    ingest(&rig.input(), (0..200).map(|n| post(&"x".repeat(n % 11 + 1)))).await;
    rig.score(200).await;
    let most = rig.fake.most_running.load(Ordering::SeqCst);
    assert!((2..=6).contains(&most), "{most} chunks at once");
}

#[tokio::test]
async fn a_shutdown_keeps_what_is_scored_and_waits_for_nothing() {
    let rig = Rig::new();
    let input = rig.input();
    ingest(&input, [post("a"), post("b"), post("c"), post("always busy"), post("d")]).await;
    drop(input);
    let outcomes = tokio::time::timeout(Duration::from_secs(5), rig.score(3)).await.unwrap();
    assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["A", "B", "C"]);
    assert!(!rig.dir.path().join("attempts.json").exists(), "a shutdown is no crash");
}

#[tokio::test]
async fn a_post_that_kills_the_process_is_found_and_given_up_alone() {
    let rig = Rig::new();
    ingest(&rig.input(), (0..9).map(|n| post(&format!("p{n}")))).await;
    // What three crashes among many, and three more with the first post alone, leave behind.
    std::fs::write(rig.dir.path().join("attempts.json"), r#"{"start":0,"starts":3,"alone_until":4}"#).unwrap();
    let outcomes = rig.score(9).await;
    assert_eq!(
        outcomes.iter().map(short).collect::<Vec<_>>(),
        ["dead in score", "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8"]
    );
    let seen = rig.fake.seen.lock().unwrap().clone();
    assert!(!seen.contains(&"p0".into()) && seen.contains(&"p8".into()), "{seen:?}");
}

#[tokio::test]
async fn a_post_that_takes_the_last_device_with_it_is_found_and_given_up_alone() {
    let mut rig = Rig::new();
    ingest(&rig.input(), ["p0", "killer", "p2", "p3", "p4"].map(post)).await;
    let mut lives = 1;
    while !rig.live(5).await {
        lives += 1;
        assert!(lives < 10, "it is tried for ever");
        rig.fake = Arc::default();
    }
    // Three times among others, three times alone, and once more without it.
    assert_eq!(lives, 7);
    let outcomes = rig.score(5).await;
    assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["P0", "dead in score", "P2", "P3", "P4"]);
    let Some(Kind::Dead(letter)) = &outcomes[1].kind else { panic!("{outcomes:?}") };
    assert!(letter.reason.contains("device died each time this post was scored alone"), "{}", letter.reason);
}

#[tokio::test]
async fn a_post_over_which_scoring_panics_is_found_and_given_up_alone() {
    let rig = Rig::new();
    ingest(&rig.input(), ["p0", "panics", "p2", "p3", "p4"].map(post)).await;
    let mut lives = 0;
    loop {
        lives += 1;
        assert!(lives < 10, "it is tried for ever");
        let input = rig.input();
        let scored = rig.scored(&input);
        let (mut durable, shutdown) = (scored.durable(), CancellationToken::new());
        let stop = async {
            let _ = durable.wait_for(|end| *end >= 5).await;
            shutdown.cancel();
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = rig.stage(&input, &scored).run(shutdown.clone()) => ended,
            () = stop => Ok(()),
        };
        match ended {
            Ok(()) => break,
            Err(error) => assert!(error.to_string().contains("panicked"), "{error}"),
        }
    }
    assert_eq!(lives, 7);
    let outcomes = rig.score(5).await;
    assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["P0", "dead in score", "P2", "P3", "P4"]);
}

#[tokio::test]
async fn a_device_that_is_lost_for_other_reasons_is_waited_for() {
    let mut rig = Rig::new();
    ingest(&rig.input(), (0..5).map(|n| post(&format!("p{n}")))).await;
    // As long as it is lost, and after two restarts that find it lost again.
    for _ in 0..2 {
        rig.fake.lost.store(true, Ordering::SeqCst);
        assert!(!rig.live(5).await);
        rig.fake = Arc::default();
    }
    rig.fake.lost.store(true, Ordering::SeqCst);
    let back = async {
        while rig.fake.refused.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        rig.fake.lost.store(false, Ordering::SeqCst);
    };
    let (outcomes, ()) = tokio::join!(rig.score(5), back);
    assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["P0", "P1", "P2", "P3", "P4"]);
    assert!(!rig.dir.path().join("attempts.json").exists(), "what was lost is forgotten once it is well");
}

#[tokio::test]
async fn a_post_alone_is_acquitted_when_it_is_scored() {
    let rig = Rig::new();
    let input = rig.input();
    ingest(&input, [post("a"), post("always busy")]).await;
    let path = rig.dir.path().join("attempts.json");
    // One more death at the first post, counted against it, would be its last.
    std::fs::write(&path, r#"{"start":0,"starts":2,"alone_until":4}"#).unwrap();
    let scored = rig.scored(&input);
    let mut durable = scored.durable();
    let shutdown = CancellationToken::new();
    // Dropped, as by a crash, while the second post is being scored.
    let second = async {
        durable.wait_for(|end| *end == 1).await.unwrap();
        while !std::fs::read_to_string(&path).is_ok_and(|record| record.contains(r#""start":1,"starts":1"#)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = rig.stage(&input, &scored).run(shutdown.clone()) => panic!("the second post is never scored"),
        () = second => {}
    }
    let acquitted = std::fs::read_to_string(rig.dir.path().join("attempts.acquitted.json")).unwrap();
    assert!(acquitted.contains(r#""start":0,"starts":3"#), "{acquitted}");
}

/// JSON of exactly `bytes` bytes: what comes between is repeated until there is no room for more of it.
fn largest(before: &str, repeated: &str, after: &str, bytes: usize) -> Vec<u8> {
    let times = (bytes - before.len() - after.len()) / repeated.len();
    let mut json = [before, &repeated.repeat(times), after].concat().into_bytes();
    json.resize(bytes, b' ');
    json
}

#[tokio::test]
async fn whatever_the_largest_event_holds_its_outcome_fits_into_a_record() {
    let settings = TopicSettings::default();
    let bytes = usize::try_from(settings.max_event_bytes).unwrap();
    let text =
        |repeated: &str| largest(r#"{"id":"7","created_at":"2026-05-01T12:00:00Z","text":""#, repeated, r#""}"#, bytes);
    let post = |before: &str, repeated: &str, after: &str| {
        largest(&format!(r#"{{"id":"7","text":"hi",{before}"#), repeated, after, bytes)
    };
    let payloads = [
        text("word "),
        text("#tag "),
        text("#ab\\u0001 @bc "),
        text("☕"),
        text("\\u0001"),
        text("ß"),
        post(r#""tags":["#, r#""a","#, r#""b"]}"#),
        post(r#""metrics":{"#, r#""a":1e15,"#, r#""b":0.1}}"#),
        post(r#""more":["#, "1e15,", "0]}"),
        post(r#""more":""#, "\\u0001", r#""}"#),
        post(r#""author":""#, "\\u0001", r#""}"#),
        vec![b'x'; bytes],
        vec![0xff; bytes],
        text("word ")[..bytes - 9].to_vec(),
    ];
    for json in [false, true] {
        let limit = settings.record_limit(json);
        let config = ScoreConfig {
            record_limit: Some(limit),
            max_dead_payload_bytes: settings.dead_payload_bytes(),
            ..ScoreConfig::default()
        };
        let scorer = Watched::new(Arc::new(Fake::default()));
        for (number, payload) in payloads.iter().enumerate() {
            let origin = v1::Origin { cluster: "c".repeat(22), topic: "t".repeat(22), partition: 3, offset: i64::MAX };
            let envelope = Envelope::default();
            let event = Event { origin: origin.clone(), payload: payload.clone(), ingested_at_us: now(), envelope };
            let events = vec![(origin.offset, event)];
            let outcomes = score_chunk(&scorer, &config, events, &CancellationToken::new()).await.unwrap();
            let kind = outcomes.unwrap().remove(0).kind.unwrap();
            match kind {
                Kind::Scored(post) => {
                    let size = if json { undertone_proto::to_json(&post).unwrap().len() } else { 0 };
                    assert!(post.encoded_len().max(size) <= limit.bytes, "{number}");
                    assert!(number < 11, "{number} is malformed");
                }
                Kind::Dead(letter) => {
                    assert!(letter.encoded_len() <= limit.bytes, "{number}");
                    assert_eq!(letter.origin, Some(origin), "{number}");
                    assert_eq!(letter.payload, *payload, "{number}: there is room for the bytes as they came");
                    assert!(
                        number >= 11 || letter.reason.contains("larger than a record"),
                        "{number}: {}",
                        letter.reason
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever a crash cuts off the scored log, going on gives each event one outcome, in order.
    #[test]
    fn a_crash_anywhere_neither_loses_nor_doubles(count in 1i64..40, cut: prop::sample::Index) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new();
            ingest(&rig.input(), (0..count).map(|n| post(&format!("p{n}")))).await;
            rig.score(count).await;
            let last = std::fs::read_dir(rig.dir.path().join("scored")).unwrap().map(|e| e.unwrap().path()).max().unwrap();
            let bytes = std::fs::read(&last).unwrap();
            let header = 44 + u32::from_le_bytes(bytes[36..40].try_into().unwrap()) as usize;
            std::fs::write(&last, &bytes[..header + cut.index(bytes.len() - header + 1)]).unwrap();
            let outcomes = rig.score(count).await;
            let texts: Vec<_> = outcomes.iter().map(short).collect();
            assert_eq!(texts, (0..count).map(|n| format!("P{n}")).collect::<Vec<_>>());
        });
    }
}
