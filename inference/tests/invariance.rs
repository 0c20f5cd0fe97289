//! A text's vector and scores do not depend on what else is in its batch: 1e-5 in fp32.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly, and so may its helpers"
)]

mod support;

use proptest::prelude::*;
use serde_json::json;
use undertone_inference::model::{ModelFolder, Network};
use undertone_inference::{Engine, EngineConfig, Lane, Precision, Request};

const TOLERANCE: f32 = 1e-5;

fn encode(network: &Network, batch: &[Vec<u32>]) -> Vec<Vec<f32>> {
    support::rows(&network.encoder().forward(&network.pack(batch)).unwrap())
}

/// Runs ragged batches and compares each row with the same sequence alone.
fn check(network: &Network, vocabulary: u32, longest: usize, cases: u32) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let sequence = prop::collection::vec(0..vocabulary, 1..=longest);
    proptest!(config, |(batch in prop::collection::vec(sequence, 1..12))| {
        let together = encode(network, &batch);
        prop_assert_eq!(together.len(), batch.len());
        for (sequence, row) in batch.iter().zip(&together) {
            let alone = &encode(network, std::slice::from_ref(sequence))[0];
            let distance = support::distance(row, alone);
            prop_assert!(distance <= TOLERANCE, "distance {} for {} tokens among {}", distance, sequence.len(), batch.len());
        }
    });
}

#[test]
fn a_vector_does_not_depend_on_its_batch() {
    let folder = support::Tiny::new().write();
    let network = Network::load(&ModelFolder::open(folder.path()).unwrap()).unwrap();
    check(&network, 57, support::POSITIONS, 200);
}

#[test]
fn a_vector_of_the_real_encoder_does_not_depend_on_its_batch() {
    let folder = support::real_encoder(None);
    let network = Network::load(&ModelFolder::open(folder.path()).unwrap()).unwrap();
    check(&network, 30_522, 96, 6);
}

#[test]
fn an_empty_batch_gives_no_rows_and_a_bad_id_an_error() {
    let folder = support::Tiny::new().write();
    let network = Network::load(&ModelFolder::open(folder.path()).unwrap()).unwrap();
    let none: [Vec<u32>; 0] = [];
    assert_eq!(network.encoder().forward(&network.pack(&none)).unwrap().size(), [0, support::HIDDEN]);
    assert!(network.encoder().forward(&network.pack(&[vec![57]])).is_err(), "an id outside the vocabulary");
    assert!(
        network.encoder().forward(&network.pack(&[vec![0; support::POSITIONS + 1]])).is_err(),
        "more tokens than positions"
    );
}

#[tokio::test]
async fn scores_through_the_engine_do_not_depend_on_company() {
    let folder = support::Tiny::new().write();
    let engine = Engine::start(
        folder.path(),
        EngineConfig {
            workers: 2,
            token_budget: 64,
            cache_bytes: 0,
            precision: Precision::Fp32,
            ..EngineConfig::default()
        },
    )
    .unwrap();
    let texts: Vec<String> = (1..61).map(|i| "abc de f ghijk ".repeat(i % 7) + &"z".repeat(i)).collect();
    let together = engine.score_all(texts.clone(), Lane::Bulk).await;
    for (text, together) in texts.into_iter().zip(together) {
        let (together, alone) = (together.unwrap(), engine.score(Request::new(text)).await.unwrap());
        assert!(support::distance(&together.embedding, &alone.embedding) <= TOLERANCE);
        assert_eq!(together.heads.len(), 2);
        for (a, b) in together.heads.iter().zip(&alone.heads) {
            assert!(support::distance(&a.probabilities, &b.probabilities) <= TOLERANCE);
        }
        assert_eq!((together.clean_text, together.tokens), (alone.clean_text, alone.tokens));
    }
}

#[tokio::test]
async fn other_poolings_and_lengths_work_too() {
    let mut tiny = support::Tiny::new();
    tiny.manifest = Some(json!({"format": 1, "pooling": "cls", "embedding": {"normalize": false}}));
    let folder = tiny.write();
    let network = Network::load(&ModelFolder::open(folder.path()).unwrap()).unwrap();
    check(&network, 57, 20, 30);
}
