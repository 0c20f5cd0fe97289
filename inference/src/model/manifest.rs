//! `undertone.json`: what a Hugging Face folder cannot say about a model. Format 1:
//!
//! ```json
//! {
//!   "format": 1,
//!   "name": "undertone-sentiment",
//!   "normalizer": "social-1",
//!   "languages": ["eng"],
//!   "max_tokens": 128,
//!   "pooling": "mean",
//!   "embedding": { "normalize": true, "projection": "embedding_projection" },
//!   "heads": [
//!     { "name": "sentiment", "labels": ["negative", "neutral", "positive"],
//!       "kind": "softmax", "temperature": 1.49, "input": "pooled", "file": "heads.safetensors" }
//!   ],
//!   "sentiment": { "head": "sentiment", "negative": "negative", "neutral": "neutral", "positive": "positive" }
//! }
//! ```
//!
//! Only `format` is required. `languages` (ISO 639-3) are those that the model knows: posts in others are scored, but
//! flagged. Where `heads` is absent, the head is the classifier that the model was saved with, if
//! `config.json` describes one; a head with the input `classifier` is that one too. Any other head's tensors are `heads.<name>.weight` [labels, width] and `heads.<name>.bias`
//! [labels], in `file` if it is given, else in `heads.safetensors` if that exists, else in `model.safetensors`. Each of
//! `negative`, `neutral` and `positive` is a label or a list of labels whose probabilities are added (five stars), and
//! every label of the head belongs to one of them; `neutral` may be absent. Unknown keys are refused: a misspelt
//! `temperature` must not pass for a missing one.

use std::collections::HashSet;

use serde::Deserialize;
use undertone_error::{Error, ErrorKind, Result};

use super::labels::{LabelMap, Mapping, obvious_sides};
use crate::HeadKind;
use crate::language::Languages;
use crate::normalize::Normalizer;

/// The name of the file.
pub(crate) const FILE: &str = "undertone.json";

/// How token vectors become one vector a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pooling {
    /// The mean over all tokens, special ones included.
    #[default]
    Mean,
    /// The vector of the first token.
    Cls,
}

/// What a head reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HeadInput {
    /// The pooled vector as it is.
    #[default]
    Pooled,
    /// The embedding: projected and normalised as `embedding` says. For heads trained on exported embeddings.
    Embedding,
    /// The first token, through the classifier that the model was saved with as a `…ForSequenceClassification`.
    Classifier,
}

/// How the pooled vector becomes the embedding.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingSpec {
    /// Whether embeddings have length 1.
    #[serde(default = "yes")]
    pub(crate) normalize: bool,
    /// The name of a linear map (`<name>.weight`, `<name>.bias`) that is applied before.
    #[serde(default)]
    pub(crate) projection: Option<String>,
}

fn yes() -> bool {
    true
}

impl Default for EmbeddingSpec {
    fn default() -> Self {
        Self { normalize: true, projection: None }
    }
}

/// One classification head.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeadSpec {
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
    #[serde(default = "softmax")]
    pub(crate) kind: HeadKind,
    #[serde(default = "one")]
    pub(crate) temperature: f32,
    #[serde(default)]
    pub(crate) input: HeadInput,
    #[serde(default)]
    pub(crate) file: Option<String>,
}

fn softmax() -> HeadKind {
    HeadKind::Softmax
}

fn one() -> f32 {
    1.0
}

/// One label or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Labels {
    One(String),
    Many(Vec<String>),
}

impl Labels {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(label) => std::slice::from_ref(label),
            Self::Many(labels) => labels,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSentiment {
    head: String,
    negative: Labels,
    neutral: Option<Labels>,
    positive: Labels,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    format: u32,
    name: Option<String>,
    normalizer: Option<String>,
    languages: Option<Vec<String>>,
    pooling: Option<Pooling>,
    max_tokens: Option<usize>,
    #[serde(default)]
    embedding: EmbeddingSpec,
    heads: Option<Vec<HeadSpec>>,
    sentiment: Option<RawSentiment>,
}

/// The side of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Negative,
    Neutral,
    Positive,
}

/// Which head tells the sentiment, and what its labels mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SentimentMap {
    /// Index into [`Manifest::heads`].
    pub(crate) head: usize,
    /// One side a label, in the order of the head's labels.
    pub(crate) sides: Vec<Side>,
}

/// A validated `undertone.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub(crate) name: Option<String>,
    pub(crate) normalizer: Normalizer,
    pub(crate) languages: Option<Languages>,
    pub(crate) pooling: Pooling,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) embedding: EmbeddingSpec,
    pub(crate) heads: Vec<HeadSpec>,
    pub(crate) sentiment: Option<SentimentMap>,
}

impl Default for Manifest {
    /// What a folder without the file is: a model that embeds, with mean pooling, and has no heads.
    fn default() -> Self {
        Self {
            name: None,
            normalizer: Normalizer::None,
            languages: None,
            pooling: Pooling::Mean,
            max_tokens: None,
            embedding: EmbeddingSpec::default(),
            heads: Vec::new(),
            sentiment: None,
        }
    }
}

impl Manifest {
    /// The text normaliser.
    pub fn normalizer(&self) -> Normalizer {
        self.normalizer
    }

    /// The languages that the model knows; `None` if the file does not say.
    pub fn languages(&self) -> Option<&Languages> {
        self.languages.as_ref()
    }

    /// The name of the head that tells the sentiment.
    pub fn sentiment_head(&self) -> Option<&str> {
        self.sentiment.as_ref().and_then(|map| self.heads.get(map.head)).map(|head| head.name.as_str())
    }

    pub(crate) fn heads(&self) -> &[HeadSpec] {
        &self.heads
    }

    /// Parses and validates `undertone.json`.
    ///
    /// # Errors
    /// `InvalidConfig` or `Unsupported`, naming the key.
    pub fn parse(json: &[u8]) -> Result<Self> {
        Self::resolve(Some(json), &|| Ok(None), &|| Ok(None))
    }

    /// Validates `undertone.json`, if there is one, and completes it by what else the folder says: the head that it
    /// was saved with where the manifest lists none, and the pooling of sentence-transformers where it names none.
    pub(crate) fn resolve(
        json: Option<&[u8]>,
        classifier: &dyn Fn() -> Result<Option<HeadSpec>>,
        pooling: &dyn Fn() -> Result<Option<Pooling>>,
    ) -> Result<Self> {
        let raw: RawManifest = super::folder::parse_json(FILE, json.unwrap_or(br#"{"format": 1}"#))?;
        if raw.format != 1 {
            return Err(Error::new(ErrorKind::Unsupported, "model folder has a format that we do not know")
                .with("file", FILE)
                .with("format", raw.format)
                .help("this version reads format 1"));
        }
        let normalizer = match &raw.normalizer {
            Some(name) => Normalizer::from_name(name).map_err(|error| error.with("file", FILE))?,
            None => Normalizer::None,
        };
        let languages = raw.languages.as_deref().map(Languages::new).transpose().map_err(|e| e.with("file", FILE))?;
        if raw.max_tokens.is_some_and(|n| n < 3) {
            return Err(invalid("max_tokens", "is too small: two special tokens frame each text", "use 128"));
        }
        let (heads, found) = match raw.heads {
            Some(heads) => (heads, false),
            None => (classifier()?.into_iter().collect(), true),
        };
        check_heads(&heads)?;
        let sentiment = match (&raw.sentiment, heads.first()) {
            (Some(sentiment), _) => Some(sentiment.mapping().apply(&heads)?),
            (None, Some(head)) if found && head.kind == HeadKind::Softmax => {
                obvious_sides(&head.labels).map(|sides| SentimentMap { head: 0, sides })
            }
            _ => None,
        };
        let classifies = heads.iter().any(|head| head.input == HeadInput::Classifier);
        let pooling = match raw.pooling {
            Some(Pooling::Mean) if classifies => {
                return Err(invalid(
                    "pooling",
                    "is mean, but the classifier reads the first token",
                    "use cls, or leave it out",
                ));
            }
            Some(pooling) => pooling,
            None if classifies => Pooling::Cls,
            None => pooling()?.unwrap_or_default(),
        };
        Ok(Self {
            name: raw.name,
            normalizer,
            languages,
            pooling,
            max_tokens: raw.max_tokens,
            embedding: raw.embedding,
            heads,
            sentiment,
        })
    }

    /// Maps labels as a configuration says. Returns whether that changed anything.
    pub(crate) fn map_labels(&mut self, labels: &LabelMap) -> Result<bool> {
        let mapped = Some(labels.apply(&self.heads, self.sentiment_head())?);
        let changed = self.sentiment != mapped;
        self.sentiment = mapped;
        Ok(changed)
    }
}

impl RawSentiment {
    fn mapping(&self) -> Mapping<'_> {
        Mapping {
            section: "sentiment",
            place: ("file", FILE),
            head: &self.head,
            negative: self.negative.as_slice(),
            neutral: self.neutral.as_ref().map_or(&[], Labels::as_slice),
            positive: self.positive.as_slice(),
        }
    }
}

fn check_heads(heads: &[HeadSpec]) -> Result<()> {
    let mut names = HashSet::new();
    if heads.iter().filter(|head| head.input == HeadInput::Classifier).count() > 1 {
        return Err(invalid("heads", "read the classifier twice", "give one head the input classifier"));
    }
    for (i, head) in heads.iter().enumerate() {
        let key = |field: &str| format!("heads[{i}].{field}");
        if head.name.is_empty() || !head.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
            return Err(invalid(key("name"), "is not a name", "use letters, digits, _ and -"));
        }
        if !names.insert(&head.name) {
            return Err(invalid(key("name"), "occurs twice", "give each head its own name"));
        }
        let distinct: HashSet<_> = head.labels.iter().collect();
        if head.labels.is_empty()
            || distinct.len() != head.labels.len()
            || distinct.iter().any(|label| label.is_empty())
        {
            return Err(invalid(
                key("labels"),
                "are not distinct names",
                "list each label once, in the order of the weights",
            ));
        }
        if !(head.temperature.is_finite() && head.temperature > 0.0) {
            return Err(invalid(key("temperature"), "is not positive", "use 1 for an uncalibrated head"));
        }
        if head.file.as_deref().is_some_and(|file| file.is_empty() || file.contains(['/', '\\'])) {
            return Err(invalid(key("file"), "is not a file name", "name a file in the model folder"));
        }
    }
    Ok(())
}

fn invalid(key: impl Into<String>, what: impl Into<String>, help: &str) -> Error {
    let (key, what) = (key.into(), what.into());
    Error::new(ErrorKind::InvalidConfig, format!("{key} {what}")).with("file", FILE).with("key", key).help(help)
}

#[cfg(test)]
mod tests;
