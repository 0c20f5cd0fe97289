//! A model that costs nothing and answers everything: every head of the shipped model and an embedding that compresses as
//! badly as a real one. Embeddings are made beforehand: making one anew for each post would be a fortieth of the stream's cost.

use std::sync::LazyLock;

use undertone_error::Result;
use undertone_proto::v1::{self, HeadScores, Probability};
use undertone_stream::score::{Scorer, Scores};

const HEADS: [(&str, &[&str]); 5] = [
    ("sentiment", &["negative", "neutral", "positive"]),
    ("emotion", &["anger", "joy", "optimism", "sadness"]),
    ("irony", &["non_irony", "irony"]),
    ("offensive", &["not-offensive", "offensive"]),
    ("hate", &["not-hate", "hate"]),
];
const WIDTH: usize = 384;
/// So many that none repeats within what compression looks back on.
const EMBEDDINGS: usize = 1024;

static POOL: LazyLock<Vec<Vec<f32>>> = LazyLock::new(|| {
    let mut random = Random(0x9e37_79b9);
    (0..EMBEDDINGS).map(|_| (0..WIDTH).map(|_| random.next() * 0.1).collect()).collect()
});

#[derive(Debug)]
pub(in crate::run) struct Stub;

impl Scorer for Stub {
    async fn score_all(&self, texts: Vec<String>) -> Vec<Result<Scores>> {
        texts.into_iter().map(|text| Ok(scores(text))).collect()
    }
}

fn scores(text: String) -> Scores {
    let hash = text.bytes().fold(0x9e37_79b9_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(byte));
    let mut random = Random(hash | 1);
    let heads = HEADS.map(|(head, labels)| {
        let weights: Vec<f32> = labels.iter().map(|_| random.next() + 1.01_f32).collect();
        let sum: f32 = weights.iter().sum();
        let probabilities = labels.iter().zip(&weights);
        HeadScores {
            head: head.to_owned(),
            label: labels.first().map(|label| (*label).to_owned()).unwrap_or_default(),
            probabilities: probabilities
                .map(|(label, weight)| Probability { label: (*label).to_owned(), value: weight / sum })
                .collect(),
        }
    });
    Scores {
        model: v1::Model { name: "stub".to_owned(), revision: "0".to_owned(), precision: "none".to_owned() },
        heads: heads.into(),
        sentiment: Some("negative".to_owned()),
        polarity: Some(f64::from(random.next())),
        confidence: Some(0.5),
        embedding: POOL.get(hash as usize % EMBEDDINGS).cloned().unwrap_or_default(),
        language: Some("eng".to_owned()),
        in_domain: Some(true),
        tokens: 25,
        truncated: false,
        clean_text: text,
    }
}

/// xorshift32, from -1 to 1.
struct Random(u32);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as f32 / (u32::MAX as f32 / 2.0) - 1.0
    }
}
