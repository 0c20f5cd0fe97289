//! What a loaded model says about itself. Everything here is read from the model folder, or is
//! what was chosen for this machine; nothing is guessed.

use serde::{Deserialize, Serialize};

/// How a head's logits become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// One label applies: the probabilities sum to 1.
    Softmax,
    /// Any number of labels apply: each probability stands alone.
    Sigmoid,
}

/// One classification head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadInfo {
    /// The head's name, the key of its result.
    pub name: String,
    /// The labels, in the order of the head's probabilities.
    pub labels: Vec<String>,
    /// How logits become probabilities.
    pub kind: HeadKind,
    /// What the logits are divided by first; 1 leaves them as trained.
    pub temperature: f32,
}

/// The model that an engine runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelInfo {
    /// The model's name.
    pub name: String,
    /// SHA-256 over the contents of the model's files, 64 hex digits. Two folders with equal revisions score alike.
    pub revision: String,
    /// The arithmetic of the forward pass: `fp32`, `bf16`, `fp16` or `int8`.
    pub precision: String,
    /// Where it runs: `cpu`, or the GPUs: `cuda:0`.
    pub device: String,
    /// Which implementation of the encoder runs: `libtorch`, or the instruction sets that were chosen at run time.
    pub kernels: String,
    /// The width of an embedding.
    pub dimensions: usize,
    /// The heads, in the order of [`crate::Scored::heads`]; empty for a model that only embeds.
    pub heads: Vec<HeadInfo>,
    /// The head that [`crate::Scored::sentiment`] is read from, if labels are mapped to a polarity.
    pub sentiment_head: Option<String>,
    /// The longest sequence, special tokens included; longer texts are cut there.
    pub max_tokens: usize,
    /// The text normaliser, by its versioned name.
    pub normalizer: String,
    /// The languages that the model knows, in ISO 639-3; `None` if nobody said.
    pub languages: Option<Vec<String>>,
    /// How many weights the encoder and the heads have.
    pub parameters: u64,
    /// How many transformer layers the encoder has.
    pub layers: usize,
}

impl ModelInfo {
    /// The first 12 hex digits of the revision: what people compare.
    pub fn short_revision(&self) -> &str {
        self.revision.get(..12).unwrap_or(&self.revision)
    }
}
