//! Model folders for tests: a tiny random BERT that is made in milliseconds, and the real one.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses a part")]

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

static GENERATOR: Mutex<()> = Mutex::new(());

pub const HIDDEN: i64 = 32;
pub const POSITIONS: usize = 64;

/// A tiny random BERT: 2 layers, 4 attention heads, a vocabulary of letters.
pub struct Tiny {
    pub config: Value,
    pub tokenizer: Value,
    pub manifest: Option<Value>,
    pub weights: Vec<(String, Tensor)>,
    pub heads: Vec<(String, Tensor)>,
}

impl Tiny {
    pub fn new() -> Self {
        // The seed belongs to the whole process, and tests run side by side.
        let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        tch::manual_seed(7);
        let letters: Vec<String> = ('a'..='z').map(String::from).chain(('a'..='z').map(|c| format!("##{c}"))).collect();
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
        let vocabulary: serde_json::Map<_, _> =
            special.iter().chain(&letters).enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
        let size = vocabulary.len() as i64;
        let intermediate = 48;

        let mut weights = Vec::new();
        let mut tensor = |name: &str, shape: &[i64]| {
            weights.push((name.to_owned(), Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.3))
        };
        tensor("embeddings.word_embeddings.weight", &[size, HIDDEN]);
        tensor("embeddings.position_embeddings.weight", &[POSITIONS as i64, HIDDEN]);
        tensor("embeddings.token_type_embeddings.weight", &[2, HIDDEN]);
        let norm = |name: &str, tensor: &mut dyn FnMut(&str, &[i64])| {
            tensor(&format!("{name}.weight"), &[HIDDEN]);
            tensor(&format!("{name}.bias"), &[HIDDEN]);
        };
        norm("embeddings.LayerNorm", &mut tensor);
        for layer in 0..2 {
            for (part, outputs, inputs) in [
                ("attention.self.query", HIDDEN, HIDDEN),
                ("attention.self.key", HIDDEN, HIDDEN),
                ("attention.self.value", HIDDEN, HIDDEN),
                ("attention.output.dense", HIDDEN, HIDDEN),
                ("intermediate.dense", intermediate, HIDDEN),
                ("output.dense", HIDDEN, intermediate),
            ] {
                tensor(&format!("encoder.layer.{layer}.{part}.weight"), &[outputs, inputs]);
                tensor(&format!("encoder.layer.{layer}.{part}.bias"), &[outputs]);
            }
            norm(&format!("encoder.layer.{layer}.attention.output.LayerNorm"), &mut tensor);
            norm(&format!("encoder.layer.{layer}.output.LayerNorm"), &mut tensor);
        }
        let heads = [("sentiment", 3), ("topics", 2)]
            .into_iter()
            .flat_map(|(name, labels)| {
                let part = |part: &str, shape: &[i64]| {
                    (format!("heads.{name}.{part}"), Tensor::randn(shape, (Kind::Float, Device::Cpu)))
                };
                [part("weight", &[labels, HIDDEN]), part("bias", &[labels])]
            })
            .collect();
        Self {
            config: json!({
                "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4,
                "intermediate_size": intermediate, "vocab_size": size, "max_position_embeddings": POSITIONS,
                "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12
            }),
            tokenizer: json!({
                "version": "1.0", "truncation": null, "added_tokens": [],
                "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
                "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
                "pre_tokenizer": {"type": "BertPreTokenizer"},
                "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
                "decoder": null,
                "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary}
            }),
            manifest: Some(json!({
                "format": 1, "name": "tiny", "normalizer": "social-1", "max_tokens": 32,
                "heads": [
                    {"name": "sentiment", "labels": ["bad", "so-so", "good"], "temperature": 1.5},
                    {"name": "topics", "labels": ["food", "sport"], "kind": "sigmoid"}
                ],
                "sentiment": {"head": "sentiment", "negative": "bad", "neutral": "so-so", "positive": "good"}
            })),
            weights,
            heads,
        }
    }

    /// Changes one tensor, wherever it is.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&Tensor) -> Tensor) {
        let found = self.weights.iter_mut().chain(&mut self.heads).find(|(n, _)| n == name);
        let (_, tensor) = found.expect("the tiny model has this tensor");
        *tensor = change(tensor);
    }

    pub fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("config.json"), self.config.to_string()).unwrap();
        fs::write(path.join("tokenizer.json"), self.tokenizer.to_string()).unwrap();
        if let Some(manifest) = &self.manifest {
            fs::write(path.join("undertone.json"), manifest.to_string()).unwrap();
        }
        Tensor::write_safetensors(&self.weights, path.join("model.safetensors")).unwrap();
        if !self.heads.is_empty() {
            Tensor::write_safetensors(&self.heads, path.join("heads.safetensors")).unwrap();
        }
        folder
    }
}

/// The folder of the base encoder, which the shipped model was trained from and whose vectors are known from elsewhere. A
/// test that needs it fails without it.
pub fn base_encoder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/undertone"));
    let cache = std::env::var_os("UNDERTONE_CACHE").map(PathBuf::from).or_else(home).unwrap_or_default();
    let named = std::env::var_os("UNDERTONE_TEST_ENCODER").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| cache.join("all-MiniLM-L6-v2"));
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        assert!(
            folder.join(file).is_file(),
            "{} is missing: `scripts/setup.py run` fetches it, or set UNDERTONE_TEST_ENCODER to all-MiniLM-L6-v2's folder",
            folder.join(file).display()
        );
    }
    folder.canonicalize().unwrap()
}

/// The base encoder in a folder of its own, with another (or no) `undertone.json`.
pub fn real_encoder(manifest: Option<Value>) -> TempDir {
    let source = base_encoder();
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::os::unix::fs::symlink(source.join(file), folder.path().join(file)).unwrap();
    }
    if let Some(manifest) = manifest {
        fs::write(folder.path().join("undertone.json"), manifest.to_string()).unwrap();
    }
    folder
}

/// The largest difference between two vectors.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

/// A matrix as rows.
pub fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
    Vec::<Vec<f32>>::try_from(tensor).unwrap()
}
