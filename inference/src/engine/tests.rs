//! The engine over a fake model: what callers are promised, without arithmetic.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::batcher::fake::Fake;

fn info() -> ModelInfo {
    ModelInfo {
        name: "fake".to_owned(),
        revision: "0".repeat(64),
        precision: "fp32".to_owned(),
        dimensions: 1,
        heads: Vec::new(),
        sentiment_head: None,
        max_tokens: 64,
        normalizer: "none".to_owned(),
        parameters: 0,
        layers: 0,
    }
}

fn engine(fake: &Fake, workers: usize, config: EngineConfig) -> Engine {
    Engine::with_backends(info(), config, vec![fake.clone(); workers]).unwrap()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn bulk(text: &str) -> Request {
    Request { lane: Lane::Bulk, ..Request::new(text) }
}

/// An engine with one worker that is held inside a forward pass, so that what is sent next must wait.
async fn held(config: EngineConfig) -> (Fake, Engine, tokio::task::JoinHandle<Result<Scored>>) {
    let fake = Fake::default();
    fake.gate.set_closed(true);
    let engine = engine(&fake, 1, config);
    let first = tokio::spawn({
        let engine = engine.clone();
        async move { engine.score(Request::new("first")).await }
    });
    let gate = fake.gate.clone();
    tokio::task::spawn_blocking(move || gate.wait_for_one()).await.unwrap();
    (fake, engine, first)
}

/// Polls a future once: for one that submits, this is when its text enters the queue.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn every_text_is_answered_in_order() {
    let engine = engine(&Fake::default(), 3, EngineConfig { token_budget: 50, ..EngineConfig::default() });
    let many: Vec<String> = (0..2000).map(|i| "x".repeat(i % 60)).collect();
    let results = engine.score_all(many.clone(), Lane::Bulk).await;
    for (text, result) in many.iter().zip(results) {
        assert_eq!(result.unwrap().embedding, [text.len() as f32]);
    }
    let stats = engine.stats();
    assert_eq!((stats.scored, stats.failed, stats.dropped), (2000, 0, 0));
    assert_eq!((stats.bulk, stats.interactive), (LaneStats::default(), LaneStats::default()));
}

#[tokio::test]
async fn the_culprit_fails_alone() {
    for (culprit, kind) in [
        ("poison", ErrorKind::Internal),
        ("panic", ErrorKind::Internal),
        ("ill", ErrorKind::Internal),
        ("unreadable", ErrorKind::InvalidInput),
        ("unreadable panic", ErrorKind::Internal),
    ] {
        let fake = Fake::default();
        let engine = engine(&fake, 2, EngineConfig::default());
        let results = engine.score_all(texts(&["a", "bb", culprit, "ccc", "dddd"]), Lane::Bulk).await;
        let kinds: Vec<_> = results.iter().map(|result| result.as_ref().err().map(Error::kind)).collect();
        assert_eq!(kinds, [None, None, Some(kind), None, None], "{culprit}");
        // The workers are still there.
        assert_eq!(engine.score(Request::new("after")).await.unwrap().embedding, [5.0]);
        assert_eq!((engine.stats().workers, engine.stats().failed), (2, 1));
    }
}

#[tokio::test]
async fn a_full_interactive_lane_refuses_and_a_full_bulk_lane_waits() {
    // Room for 64 tokens; each of these texts is estimated at 42.
    let (fake, engine, first) = held(EngineConfig { queue_tokens: 1, ..EngineConfig::default() }).await;
    let long = "x".repeat(160);
    let mut waits = pin!(engine.score(Request::new(long.as_str())));
    assert!(poll_once(waits.as_mut()).is_pending());
    let error = engine.score(Request::new(long.as_str())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.retryable());

    let many = engine.score_all(vec![long.clone(); 5], Lane::Bulk);
    let mut many = pin!(many);
    assert!(poll_once(many.as_mut()).is_pending());
    assert_eq!(engine.stats().bulk.waiting, 1, "the second bulk text must wait for room");
    fake.gate.set_closed(false);
    assert!(many.await.iter().all(Result::is_ok));
    assert!(waits.await.is_ok() && first.await.unwrap().is_ok());
}

#[tokio::test]
async fn an_expired_deadline_is_answered_at_once_and_costs_no_forward_pass() {
    let (fake, engine, first) = held(EngineConfig::default()).await;
    let deadline = Some(Instant::now() + Duration::from_millis(20));
    let error = engine.score(Request { deadline, ..Request::new("late") }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    fake.gate.set_closed(false);
    assert!(first.await.unwrap().is_ok());
    engine.score(Request::new("next")).await.unwrap();
    assert!(!fake.batches.lock().unwrap().concat().contains(&"late".to_owned()));
    assert_eq!(engine.stats().dropped, 1);
}

#[tokio::test]
async fn a_caller_that_leaves_costs_no_forward_pass() {
    let (fake, engine, first) = held(EngineConfig::default()).await;
    {
        let mut left = pin!(engine.score(Request::new("left")));
        assert!(poll_once(left.as_mut()).is_pending());
    }
    fake.gate.set_closed(false);
    assert!(first.await.unwrap().is_ok());
    engine.score(Request::new("next")).await.unwrap();
    assert!(!fake.batches.lock().unwrap().concat().contains(&"left".to_owned()));
    assert_eq!(engine.stats().interactive, LaneStats::default(), "the room it took is free again");
}

#[tokio::test]
async fn interactive_texts_overtake_bulk_texts() {
    let (fake, engine, first) = held(EngineConfig { token_budget: 4, ..EngineConfig::default() }).await;
    let bulk_texts = ["b1", "b2", "b3"].map(|text| engine.score(bulk(text)));
    let mut bulk_texts = bulk_texts.map(Box::pin);
    for text in &mut bulk_texts {
        assert!(poll_once(text.as_mut()).is_pending());
    }
    let mut interactive = ["i1", "i2", "i3"].map(|text| Box::pin(engine.score(Request::new(text))));
    for text in &mut interactive {
        assert!(poll_once(text.as_mut()).is_pending());
    }
    fake.gate.set_closed(false);
    for text in interactive.into_iter().chain(bulk_texts) {
        text.await.unwrap();
    }
    first.await.unwrap().unwrap();
    assert_eq!(fake.batches.lock().unwrap().concat(), ["first", "i1", "i2", "i3", "b1", "b2", "b3"]);
    assert_eq!(fake.batches.lock().unwrap()[2], ["i3", "b1"], "bulk fills the room that interactive leaves");
}

#[tokio::test]
async fn shutdown_scores_what_waits_and_refuses_what_comes() {
    let (fake, engine, first) = held(EngineConfig::default()).await;
    let mut waits = pin!(engine.score_all(texts(&["one", "two"]), Lane::Bulk));
    assert!(poll_once(waits.as_mut()).is_pending());
    let mut ending = pin!(engine.shutdown());
    assert!(poll_once(ending.as_mut()).is_pending());
    for lane in [Lane::Interactive, Lane::Bulk] {
        let error = engine.score(Request { lane, ..Request::new("too late") }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    fake.gate.set_closed(false);
    ending.await;
    assert!(waits.await.iter().all(Result::is_ok));
    assert!(first.await.unwrap().is_ok());
    assert_eq!(engine.stats().workers, 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn dropping_the_last_clone_joins_the_workers_and_scores_nothing_more() {
    let (fake, engine, first) = held(EngineConfig::default()).await;
    {
        let mut left = pin!(engine.score_all(texts(&["one", "two"]), Lane::Bulk));
        assert!(poll_once(left.as_mut()).is_pending());
    }
    first.abort();
    let _ = first.await;
    let dropping = tokio::task::spawn_blocking(move || drop(engine));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!dropping.is_finished(), "a worker is still inside a forward pass");
    fake.gate.set_closed(false);
    dropping.await.unwrap();
    assert_eq!(Arc::strong_count(&fake.batches), 1, "a thread still has its backend");
    assert_eq!(fake.batches.lock().unwrap().concat(), ["first"]);
}

#[tokio::test]
async fn nobody_waits_for_workers_that_died() {
    let fake = Fake { dies_at_start: true, ..Fake::default() };
    let engine = engine(&fake, 2, EngineConfig { queue_tokens: 1, ..EngineConfig::default() });
    let results = engine.score_all(vec!["x".repeat(200); 50], Lane::Bulk);
    let results = tokio::time::timeout(Duration::from_secs(10), results).await.expect("callers must not hang");
    assert!(
        results
            .iter()
            .all(|result| matches!(result.as_ref().unwrap_err().kind(), ErrorKind::Internal | ErrorKind::Unavailable))
    );
    tokio::time::timeout(Duration::from_secs(10), engine.shutdown()).await.expect("shutdown must not hang");
}

#[tokio::test]
async fn work_in_progress_has_an_age_and_idleness_has_none() {
    let (fake, engine, first) = held(EngineConfig::default()).await;
    let early = engine.stats().oldest_batch_seconds;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let late = engine.stats().oldest_batch_seconds;
    assert!(late >= early + 0.02, "held for {early}, then {late} seconds");
    fake.gate.set_closed(false);
    first.await.unwrap().unwrap();
    assert_eq!(engine.stats().oldest_batch_seconds, 0.0, "the batch was over before its texts were answered");
}

#[tokio::test]
async fn a_text_over_the_limit_is_refused() {
    let engine = engine(&Fake::default(), 1, EngineConfig { max_text_bytes: 10, ..EngineConfig::default() });
    assert_eq!(engine.score(Request::new("x".repeat(11))).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(engine.score(Request::new("x".repeat(10))).await.is_ok());
}

#[test]
fn sizes_of_nothing_are_refused() {
    for config in [
        EngineConfig { token_budget: 0, ..EngineConfig::default() },
        EngineConfig { queue_tokens: 0, ..EngineConfig::default() },
        EngineConfig { max_text_bytes: 0, ..EngineConfig::default() },
    ] {
        let error = Engine::start(Path::new("does-not-matter"), config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
}
