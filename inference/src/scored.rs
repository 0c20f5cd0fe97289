//! The result for one text. Probabilities are finite and in 0..=1, in the order of the head's labels; what the model
//! does not say (no polarity mapping, no reliable language) is `None`, never guessed.

use std::sync::Arc;
use std::time::Duration;

use crate::{HeadKind, ModelInfo};

/// What one head says about a text.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadScores {
    /// The head's name.
    pub head: Arc<str>,
    /// Whether the labels exclude each other.
    pub kind: HeadKind,
    /// The index of the most probable label.
    pub label: usize,
    /// The labels.
    pub labels: Arc<[String]>,
    /// One probability a label.
    pub probabilities: Vec<f32>,
}

impl HeadScores {
    /// The name of the most probable label.
    pub fn label_name(&self) -> &str {
        self.labels.get(self.label).map_or("", String::as_str)
    }
}

/// How long a text took, by its stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From being sent to its forward pass, tokenising included; for a text whose score was known, until that was found.
    pub queue: Duration,
    /// The forward pass of its batch; nothing for a text whose score was known.
    pub forward: Duration,
}

/// Everything that one forward pass says about a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The model that scored: the one that really did, also while it is being replaced.
    pub model: Arc<ModelInfo>,
    /// One entry a head, in the order of [`crate::ModelInfo::heads`].
    pub heads: Vec<HeadScores>,
    /// `negative`, `neutral` or `positive`; `None` if the model folder maps no labels to them.
    pub sentiment: Option<String>,
    /// P(positive) - P(negative), in -1..=1; `None` as above.
    pub polarity: Option<f64>,
    /// The probability of [`Scored::sentiment`]; `None` as above.
    pub confidence: Option<f32>,
    /// The embedding, [`crate::ModelInfo::dimensions`] wide.
    pub embedding: Vec<f32>,
    /// The text as the model read it, after normalising.
    pub clean_text: String,
    /// ISO 639-3 code of the language; `None` if the text is too short or the guess is not reliable.
    pub language: Option<&'static str>,
    /// Whether the text is in a language that the model knows, or in none; `None` if the model folder names no languages.
    pub in_domain: Option<bool>,
    /// How many tokens went through the encoder, special tokens included.
    pub tokens: u32,
    /// Whether the text was longer than the model reads, and was cut. The language is then that of the beginning.
    pub truncated: bool,
    /// How long it took.
    pub times: Times,
}
