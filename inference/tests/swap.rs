//! The model is replaced while it serves: every answer is right for the revision that it names, and none fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly, and so may its helpers"
)]

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::Tiny;
use undertone_inference::{Engine, EngineConfig, Lane, Request, Scored};

const SWAPS: usize = 12;

fn start(folder: &Path) -> Engine {
    Engine::start(folder, EngineConfig { workers: 2, token_budget: 64, ..EngineConfig::default() }).unwrap()
}

fn texts() -> Vec<String> {
    (1..40).map(|i| "abc de f ghijk ".repeat(i % 4) + &"z".repeat(i)).collect()
}

/// What each text scores with the model in a folder, under the model's revision.
async fn expected(folder: &Path) -> (String, Vec<Scored>) {
    let engine = start(folder);
    let scored = engine.score_all(texts(), Lane::Bulk).await.into_iter().map(Result::unwrap).collect();
    (engine.model().revision.clone(), scored)
}

fn same(a: &Scored, b: &Scored) -> bool {
    let heads = a.heads.iter().zip(&b.heads);
    a.model == b.model
        && support::distance(&a.embedding, &b.embedding) <= 1e-5
        && heads.into_iter().all(|(a, b)| support::distance(&a.probabilities, &b.probabilities) <= 1e-5)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_during_swaps_is_right_for_the_revision_it_names() {
    let one = Tiny::new();
    let mut two = Tiny::new();
    two.change("embeddings.word_embeddings.weight", |tensor| tensor * -0.5);
    let (one, two) = (one.write(), two.write());
    let references: Arc<HashMap<_, _>> =
        Arc::new([expected(one.path()).await, expected(two.path()).await].into_iter().collect());
    assert_eq!(references.len(), 2, "two models have two revisions");
    let [first, second]: [&Vec<Scored>; 2] = references.values().collect::<Vec<_>>().try_into().unwrap();
    assert!(support::distance(&first[0].embedding, &second[0].embedding) > 1e-2, "a mix-up would be seen");

    let engine = start(one.path());
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = [Lane::Bulk, Lane::Interactive, Lane::Bulk]
        .into_iter()
        .map(|lane| {
            let (engine, done, references) = (engine.clone(), Arc::clone(&done), Arc::clone(&references));
            tokio::spawn(async move {
                let mut seen: HashMap<String, usize> = HashMap::new();
                while !done.load(Ordering::Relaxed) {
                    for (i, result) in engine.score_all(texts(), lane).await.into_iter().enumerate() {
                        let scored = result.expect("no call fails during a swap");
                        assert!(same(&scored, &references[&scored.model.revision][i]), "text {i} is wrong");
                        *seen.entry(scored.model.revision.clone()).or_default() += 1;
                    }
                }
                seen
            })
        })
        .collect();

    for swap in 0..SWAPS {
        let folder = if swap % 2 == 0 { two.path() } else { one.path() }.to_owned();
        let replacing = engine.clone();
        let model = tokio::task::spawn_blocking(move || replacing.replace(&folder)).await.unwrap().unwrap();
        assert_eq!(engine.model(), model);
        let next = engine.score(Request::new("abc")).await.unwrap();
        assert_eq!(next.model, model, "what is sent after the swap is scored by the new model");
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        assert_eq!(caller.await.unwrap().len(), 2, "both models scored");
    }

    // A folder that cannot be loaded changes nothing.
    let before = engine.model();
    std::fs::write(two.path().join("model.safetensors"), b"half").unwrap();
    assert!(engine.replace(two.path()).is_err());
    assert_eq!(engine.score(Request::new("abc")).await.unwrap().model, before);
    // Nor does one that holds what runs.
    let batches = engine.stats().batches;
    assert!(Arc::ptr_eq(&engine.replace(one.path()).unwrap(), &before));
    assert_eq!(engine.stats().batches, batches, "no worker was started for it");
}
