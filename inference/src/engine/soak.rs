//! A soak over fake devices with random faults: lost devices, too little memory, bad texts, callers that leave.

use super::*;
use crate::batcher::fake::{Fake, info, quick};

const TIME: Duration = Duration::from_secs(3);

/// A small generator of numbers that differ: the faults need no better.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// One caller. Every answer must be right; counts the answers.
async fn call(engine: Engine, mut dice: Dice, end: Instant) -> u64 {
    let mut answers = 0;
    while Instant::now() < end {
        let text = match dice.below(100) {
            0 => "poison".to_owned(),
            1 => "ill".to_owned(),
            2 => "panic".to_owned(),
            3 => "unreadable".to_owned(),
            _ => "x".repeat(7 + dice.below(50) as usize),
        };
        let lane = if dice.below(3) == 0 { Lane::Interactive } else { Lane::Bulk };
        let deadline = (dice.below(10) == 0).then(|| Instant::now() + Duration::from_millis(dice.below(5)));
        let request = Request { text: text.clone(), lane, deadline };
        if dice.below(20) == 0 {
            let patience = Duration::from_micros(dice.below(2000));
            let _ = tokio::time::timeout(patience, engine.score(request)).await;
            continue;
        }
        answers += 1;
        match engine.score(request).await {
            Ok(scored) => {
                let shift = if scored.model.revision.starts_with('0') { 0.0 } else { 1000.0 };
                assert_eq!(scored.embedding, [text.len() as f32 + shift], "by {}", scored.model.short_revision());
            }
            Err(error) => match error.kind() {
                ErrorKind::Internal => assert!(matches!(&*text, "poison" | "ill" | "panic"), "{text} blamed: {error}"),
                ErrorKind::InvalidInput => assert_eq!(text, "unreadable"),
                ErrorKind::DeadlineExceeded => assert!(deadline.is_some()),
                // A text may meet several lost devices in a row, or too little memory for it alone.
                ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Exhausted => {}
                kind => panic!("{kind:?} for {text}: {error}"),
            },
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_lose_no_text_and_blame_no_good_one() {
    soak(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_lose_no_text_with_readers_beside_the_workers() {
    soak(2).await;
}

/// Random faults for [`TIME`], with so many readers beside the workers.
async fn soak(readers: usize) {
    let zero = Fake::default();
    let one = Fake { shift: 1000.0, ..Fake::default() };
    let config =
        EngineConfig { token_budget: 200, queue_tokens: 4000, cache_bytes: 100_000, ..EngineConfig::default() };
    let own = |fake: &Fake| (0..3).map(|_| fake.on_own_device()).collect::<Vec<_>>();
    let backends = own(&zero);
    let mut devices: Vec<_> = backends.iter().map(|fake| Arc::clone(&fake.device)).collect();
    let engine = Engine::with_backends(info("0"), config, quick(), backends, zero.readers(readers)).unwrap();
    let end = Instant::now() + TIME;
    let callers: Vec<_> = (0..24).map(|seed| tokio::spawn(call(engine.clone(), Dice(seed), end))).collect();

    let mut dice = Dice(77);
    let mut swaps = 0;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(dice.below(40))).await;
        // Never the last one, so that a worker is always left to go on.
        let device = &devices[dice.below(2) as usize];
        match dice.below(8) {
            0 | 1 => device.memory.store(10 + dice.below(60) as usize, Ordering::SeqCst),
            2 | 3 => device.memory.store(0, Ordering::SeqCst),
            4 => {
                swaps += 1;
                let (fake, revision) = if swaps % 2 == 0 { (&zero, "0") } else { (&one, "1") };
                let backends = own(fake);
                devices = backends.iter().map(|fake| Arc::clone(&fake.device)).collect();
                let (engine, readers) = (engine.clone(), fake.readers(readers));
                let swap = move || engine.replace_with(info(revision), backends, readers);
                let swapped = tokio::task::spawn_blocking(swap).await;
                assert_eq!(swapped.unwrap().unwrap().revision, revision.repeat(64));
            }
            _ => {
                device.stubborn.store(dice.below(3) as u32, Ordering::SeqCst);
                device.lost.store(true, Ordering::SeqCst);
            }
        }
    }
    let mut answers = 0;
    for caller in callers {
        let answered = tokio::time::timeout(Duration::from_secs(20), caller).await.expect("every call is answered");
        answers += answered.unwrap();
    }
    assert!(answers > 1000 && swaps > 2, "{answers} answers, {swaps} swaps");
    tokio::time::timeout(Duration::from_secs(20), engine.shutdown()).await.expect("shutdown must not hang");
    let stats = engine.stats();
    assert_eq!((stats.interactive, stats.bulk), (LaneStats::default(), LaneStats::default()), "all room is free again");
}
