//! The engine over a fake model: what callers are promised, without arithmetic.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::batcher::fake::{Fake, info, quick};

fn engine(fake: &Fake, workers: usize, config: EngineConfig) -> Engine {
    Engine::with_backends(info("0"), config, quick(), vec![fake.clone(); workers], Vec::new()).unwrap()
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
    assert_eq!(fake.batches.lock().unwrap()[2], ["i3"], "it does not wait for bulk texts to be prepared");
}

/// An engine whose worker is held inside a forward pass of bulk that will pause.
async fn held_before_a_pause() -> (Fake, Engine, tokio::task::JoinHandle<Result<Scored>>) {
    let fake = Fake { pauses: true, ..Fake::default() };
    fake.gate.set_closed(true);
    let engine = engine(&fake, 1, EngineConfig::default());
    let first = tokio::spawn({
        let engine = engine.clone();
        async move { engine.score(bulk("bulk")).await }
    });
    let gate = fake.gate.clone();
    tokio::task::spawn_blocking(move || gate.wait_for_one()).await.unwrap();
    (fake, engine, first)
}

#[tokio::test]
async fn interactive_texts_run_in_the_pauses_of_bulk_and_bulk_does_not() {
    let (fake, engine, first) = held_before_a_pause().await;
    let mut later = pin!(engine.score(bulk("later")));
    assert!(poll_once(later.as_mut()).is_pending());
    let mut urgent = ["urgent", "too"].map(|text| Box::pin(engine.score(Request::new(text))));
    for text in &mut urgent {
        assert!(poll_once(text.as_mut()).is_pending());
    }
    fake.gate.set_closed(false);
    for (text, length) in urgent.into_iter().zip([6.0, 3.0]) {
        assert_eq!(text.await.unwrap().embedding, [length]);
    }
    assert_eq!(first.await.unwrap().unwrap().embedding, [4.0]);
    later.await.unwrap();
    assert_eq!(*fake.ended.lock().unwrap(), ["urgent", "too", "bulk", "later"]);
    let stats = engine.stats();
    assert_eq!((stats.scored, stats.interactive, stats.bulk), (4, LaneStats::default(), LaneStats::default()));
}

#[tokio::test]
async fn a_culprit_in_a_pause_fails_alone_and_not_there() {
    for (culprit, kind) in
        [("poison", ErrorKind::Internal), ("panic", ErrorKind::Internal), ("ill", ErrorKind::Internal)]
    {
        let (fake, engine, first) = held_before_a_pause().await;
        let mut urgent = ["good", culprit].map(|text| Box::pin(engine.score(Request::new(text))));
        for text in &mut urgent {
            assert!(poll_once(text.as_mut()).is_pending());
        }
        fake.gate.set_closed(false);
        let [good, bad] = urgent;
        assert_eq!(good.await.unwrap().embedding, [4.0], "{culprit}");
        assert_eq!(bad.await.unwrap_err().kind(), kind, "{culprit}");
        assert!(first.await.unwrap().is_ok(), "{culprit}");
        let stats = engine.stats();
        assert_eq!((stats.scored, stats.failed, stats.workers), (2, 1, 1), "{culprit}");
        let times = fake.batches.lock().unwrap().concat().iter().filter(|text| *text == "bulk").count();
        assert_eq!(times, 1, "{culprit}: what pauses is not run again");
    }
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
async fn when_no_device_gets_well_callers_are_told_and_no_text_is_blamed() {
    let fake = Fake::default();
    let engine = engine(&fake, 2, EngineConfig { queue_tokens: 1, ..EngineConfig::default() });
    fake.device.stubborn.store(u32::MAX, Ordering::SeqCst);
    fake.device.lost.store(true, Ordering::SeqCst);
    let results = engine.score_all(vec!["x".repeat(200); 50], Lane::Bulk);
    let results = tokio::time::timeout(Duration::from_secs(10), results).await.expect("callers must not hang");
    for result in results {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(engine.score(Request::new("later")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let stats = engine.stats();
    assert_eq!((stats.workers, stats.ill, stats.interactive, stats.bulk), Default::default());
    tokio::time::timeout(Duration::from_secs(10), engine.shutdown()).await.expect("shutdown must not hang");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_prepare_what_workers_run() {
    let fake = Fake::default();
    let config = EngineConfig { token_budget: 50, ..EngineConfig::default() };
    let engine = Engine::with_backends(info("0"), config, quick(), vec![fake.clone(); 2], fake.readers(3)).unwrap();
    let texts: Vec<_> = (0..500).map(|n| "x".repeat(1 + n % 40)).chain(["unreadable".to_owned()]).collect();
    let results = tokio::time::timeout(Duration::from_secs(10), engine.score_all(texts.clone(), Lane::Bulk)).await;
    let mut results = results.expect("nobody waits for ever");
    assert_eq!(results.pop().unwrap().unwrap_err().kind(), ErrorKind::InvalidInput);
    for (text, result) in texts.iter().zip(results) {
        assert_eq!(result.unwrap().embedding, [text.len() as f32]);
    }
    assert!(fake.batches.lock().unwrap().iter().all(|batch| batch.iter().map(String::len).sum::<usize>() <= 50));
    // What waits at the shutdown is still scored, though readers have nothing left to do before it is.
    let last = tokio::spawn({
        let engine = engine.clone();
        async move { engine.score_all(texts, Lane::Bulk).await.into_iter().filter(|result| result.is_ok()).count() }
    });
    while engine.stats().scored < 600 {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(10), engine.shutdown()).await.expect("shutdown must not hang");
    assert!(last.await.unwrap() >= 100);
}

#[tokio::test]
async fn readers_without_a_device_leave_nobody_waiting() {
    let fake = Fake::default();
    let config = EngineConfig { queue_tokens: 1, ..EngineConfig::default() };
    let engine = Engine::with_backends(info("0"), config, quick(), vec![fake.clone()], fake.readers(2)).unwrap();
    fake.device.stubborn.store(u32::MAX, Ordering::SeqCst);
    fake.device.lost.store(true, Ordering::SeqCst);
    let results = engine.score_all(vec!["x".repeat(200); 50], Lane::Bulk);
    let results = tokio::time::timeout(Duration::from_secs(10), results).await.expect("callers must not hang");
    assert!(results.into_iter().all(|result| result.unwrap_err().kind() == ErrorKind::Unavailable));
    tokio::time::timeout(Duration::from_secs(10), engine.shutdown()).await.expect("shutdown must not hang");
}

#[tokio::test]
async fn a_lost_device_costs_its_texts_time_and_nothing_else() {
    let (fake, engine, first) = held(EngineConfig::default()).await;
    fake.device.lost.store(true, Ordering::SeqCst);
    fake.device.stubborn.store(2, Ordering::SeqCst);
    let mut many = pin!(engine.score_all(texts(&["a", "bb", "ccc"]), Lane::Bulk));
    assert!(poll_once(many.as_mut()).is_pending());
    fake.gate.set_closed(false);
    assert_eq!(first.await.unwrap().unwrap().embedding, [5.0]);
    let embeddings: Vec<_> = many.await.into_iter().map(|result| result.unwrap().embedding[0]).collect();
    assert_eq!(embeddings, [1.0, 2.0, 3.0]);
    assert_eq!(fake.device.restarts.load(Ordering::SeqCst), 3);
    assert_eq!((engine.stats().failed, engine.stats().ill), (0, 0));
}

#[tokio::test]
async fn a_text_that_kills_the_device_is_blamed_and_takes_no_other_with_it() {
    let fake = Fake::default();
    let engine = engine(&fake, 1, EngineConfig::default());
    let results = engine.score_all(texts(&["a", "killer", "bb", "ccc"]), Lane::Bulk).await;
    let kinds: Vec<_> = results.iter().map(|result| result.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Internal), None, None], "nobody is told to send it again");
    let message = results[1].as_ref().unwrap_err().to_string();
    assert!(message.contains("device was lost each time this text ran alone"), "{message}");
    let alone = fake.batches.lock().unwrap().iter().filter(|batch| **batch == ["killer"]).count();
    assert_eq!(alone, 3);
}

#[tokio::test]
async fn a_device_that_is_lost_for_other_reasons_blames_no_text() {
    // Once less than it takes to blame a text, whichever texts ran alone.
    for many in [&["a"][..], &["a", "bb", "ccc"]] {
        let fake = Fake::default();
        let engine = engine(&fake, 1, EngineConfig::default());
        fake.device.losses.store(2, Ordering::SeqCst);
        for (text, result) in many.iter().zip(engine.score_all(texts(many), Lane::Bulk).await) {
            assert_eq!(result.unwrap().embedding, [text.len() as f32]);
        }
        assert_eq!(fake.device.restarts.load(Ordering::SeqCst), 2);
        assert_eq!(engine.stats().failed, 0);
    }
}

#[tokio::test]
async fn one_ill_worker_leaves_the_work_to_the_others() {
    let fake = Fake::default();
    let ill = fake.on_own_device();
    ill.device.stubborn.store(u32::MAX, Ordering::SeqCst);
    ill.device.lost.store(true, Ordering::SeqCst);
    let engine =
        Engine::with_backends(info("0"), EngineConfig::default(), quick(), vec![fake.clone(), ill], Vec::new())
            .unwrap();
    let results = engine.score_all(vec!["abc".to_owned(); 500], Lane::Bulk).await;
    assert!(results.iter().all(|result| result.as_ref().unwrap().embedding == [3.0]));
}

#[tokio::test]
async fn too_little_memory_makes_batches_smaller_and_fails_only_what_cannot_fit() {
    let fake = Fake::default();
    let config = EngineConfig { token_budget: 400, cache_bytes: 0, ..EngineConfig::default() };
    let engine = engine(&fake, 1, config);
    fake.device.memory.store(30, Ordering::SeqCst);
    let many: Vec<String> = (0..200).map(|i| "x".repeat(1 + i % 40)).collect();
    for (text, result) in many.iter().zip(engine.score_all(many.clone(), Lane::Bulk).await) {
        match result {
            Ok(scored) => assert_eq!(scored.embedding, [text.len() as f32]),
            Err(error) => assert!(error.kind() == ErrorKind::Exhausted && text.len() > 30, "{error}"),
        }
    }
    fake.device.memory.store(0, Ordering::SeqCst);
    fake.batches.lock().unwrap().clear();
    // 16 good batches for each doubling, then large ones again.
    engine.score_all(vec!["x".repeat(20); 2000], Lane::Bulk).await.into_iter().for_each(|result| drop(result.unwrap()));
    let sizes: Vec<usize> = fake.batches.lock().unwrap().iter().map(Vec::len).collect();
    assert!(sizes[0] <= 2 && sizes.contains(&20), "{sizes:?}");
}

#[tokio::test]
async fn reposts_are_answered_from_the_cache_exactly_as_before() {
    let fake = Fake::default();
    let engine = engine(&fake, 1, EngineConfig::default());
    let first = engine.score(Request::new("again")).await.unwrap();
    let second = engine.score(Request::new("again")).await.unwrap();
    assert_eq!(second.times.forward, Duration::ZERO, "what is known needs no pass");
    assert_eq!(first, Scored { times: first.times, ..second });
    // The same clean text of a raw text that was cut: the score is the same, what is said of the raw text is not.
    let cut = engine.score(Request::new("again ")).await.unwrap();
    assert!(cut.truncated && !first.truncated);
    assert_eq!(cut, Scored { truncated: true, times: cut.times, ..first });
    let stats = engine.stats();
    assert_eq!((stats.cache_hits, stats.cache_misses, stats.scored), (2, 1, 3));
    assert!(stats.cache_bytes > 0);
    assert_eq!(fake.batches.lock().unwrap().concat(), ["again"]);
    // Errors are not kept.
    for _ in 0..2 {
        engine.score(Request::new("ill")).await.unwrap_err();
    }
    assert_eq!(engine.stats().cache_hits, 2);
}

#[tokio::test]
async fn without_a_cache_every_text_is_run() {
    let fake = Fake::default();
    let engine = engine(&fake, 1, EngineConfig { cache_bytes: 0, ..EngineConfig::default() });
    for _ in 0..2 {
        engine.score(Request::new("again")).await.unwrap();
    }
    assert_eq!(fake.batches.lock().unwrap().concat(), ["again", "again"]);
    assert_eq!((engine.stats().cache_hits, engine.stats().cache_misses, engine.stats().cache_bytes), (0, 0, 0));
}

#[tokio::test]
async fn one_to_ten_thousand_texts_of_one_to_512_tokens_are_each_answered_in_place() {
    let fake = Fake::default();
    let engine = engine(&fake, 2, EngineConfig::default());
    for count in [1, 2, 100, 10_000] {
        let many: Vec<String> = (0..count).map(|i| "x".repeat(1 + (i * 97 + count) % 512)).collect();
        for (text, result) in many.iter().zip(engine.score_all(many.clone(), Lane::Bulk).await) {
            let scored = result.unwrap();
            assert_eq!((scored.embedding[0] as usize, scored.tokens as usize), (text.len(), text.len()));
        }
    }
    let budgets_kept = |batch: &Vec<String>| {
        batch.len() == 1 || batch.iter().map(String::len).sum::<usize>() <= EngineConfig::default().token_budget
    };
    assert!(fake.batches.lock().unwrap().iter().all(budgets_kept));
}

#[tokio::test]
async fn another_model_takes_over_between_two_texts_and_loses_none() {
    let (fake, engine, first) = held(EngineConfig::default()).await;
    let mut waits = pin!(engine.score_all(texts(&["one", "three"]), Lane::Bulk));
    assert!(poll_once(waits.as_mut()).is_pending());
    let new = Fake { shift: 100.0, gate: crate::batcher::fake::Gate::default(), ..Fake::default() };
    let replacing = tokio::task::spawn_blocking({
        let (engine, new) = (engine.clone(), new.clone());
        move || engine.replace_with(info("1"), vec![new], Vec::new())
    });
    while engine.model().revision != "1".repeat(64) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The old model is still inside its forward pass; what waited and what comes is scored by the new one.
    for (scored, tokens) in waits.await.into_iter().zip([3.0, 5.0]) {
        let scored = scored.unwrap();
        assert_eq!((&*scored.model.revision, scored.embedding[0]), (&*"1".repeat(64), 100.0 + tokens));
    }
    assert!(!replacing.is_finished(), "the old model has not ended");
    fake.gate.set_closed(false);
    let first = first.await.unwrap().unwrap();
    assert_eq!((&*first.model.revision, first.embedding[0]), (&*"0".repeat(64), 5.0));
    assert_eq!(replacing.await.unwrap().unwrap().revision, "1".repeat(64));
    assert_eq!(Arc::strong_count(&fake.batches), 1, "a thread still has the old model");
}

#[tokio::test]
async fn a_model_that_fails_or_says_less_does_not_take_over() {
    let engine = engine(&Fake::default(), 1, EngineConfig::default());
    let dead = Fake { dies_at_start: true, ..Fake::default() };
    assert!(engine.replace_with(info("1"), vec![dead], Vec::new()).is_err());
    let wider = ModelInfo { dimensions: 2, ..info("1") };
    assert_eq!(
        engine.replace_with(wider, vec![Fake::default()], Vec::new()).unwrap_err().kind(),
        ErrorKind::InvalidConfig
    );
    assert_eq!(engine.replace(Path::new("no-such-folder")).unwrap_err().kind(), ErrorKind::NotFound);
    let scored = engine.score(Request::new("still")).await.unwrap();
    assert_eq!((&*scored.model.revision, scored.embedding[0]), (&*"0".repeat(64), 5.0));
    engine.shutdown().await;
    let late = engine.replace_with(info("1"), vec![Fake::default()], Vec::new());
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Unavailable);
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
        EngineConfig { bulk_tokens: 0, ..EngineConfig::default() },
        EngineConfig { queue_tokens: 0, ..EngineConfig::default() },
        EngineConfig { max_text_bytes: 0, ..EngineConfig::default() },
    ] {
        let error = Engine::start(Path::new("does-not-matter"), config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
}
