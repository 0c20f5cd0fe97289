//! Heads: linear maps from the pooled vector (or the embedding), or the classifier of a Hugging Face model, to
//! probabilities.
//!
//! Guarantee: probabilities are finite, in 0..=1, and those of a softmax head sum to 1. Anything else (a NaN in the
//! weights, an overflow) is an error of that one text, never a score.

use std::rc::Rc;
use std::sync::Arc;

use tch::Tensor;
use undertone_error::{Error, ErrorKind, Result};

use super::family::{Activation, ClassifierNames};
use super::folder::ModelFolder;
use super::manifest::{HeadInput, HeadSpec, Manifest, SentimentMap, Side};
use super::torch_error;
use super::weights::Weights;
use crate::{HeadKind, HeadScores};

/// The linear maps of all heads that read the same input, one below the other: weight [labels of all, width].
#[derive(Debug)]
struct Stack {
    weight: Tensor,
    bias: Tensor,
}

/// The classifier that a model was saved with: hidden map [hidden, hidden], activation, map to the labels.
#[derive(Debug)]
struct Classifier {
    hidden: Stack,
    activation: Activation,
    output: Stack,
}

impl Classifier {
    fn load(weights: &Weights, folder: &ModelFolder, labels: usize) -> Result<Self> {
        let shape = folder.shape();
        let (family, width) = (shape.family, shape.hidden);
        let ClassifierNames { hidden, hidden_in_encoder, activation, output } = family.classifier();
        let hidden = if hidden_in_encoder { weights.encoder_name(family, hidden) } else { hidden.to_owned() };
        let stack = |name: &str, rows: usize| -> Result<Stack> {
            let weight = weights.get(&format!("{name}.weight"), &[rows, width])?;
            Ok(Stack { weight, bias: weights.get(&format!("{name}.bias"), &[rows])? })
        };
        Ok(Self { hidden: stack(&hidden, width)?, activation, output: stack(output, labels)? })
    }

    /// First tokens [texts, hidden] to logits [texts, labels].
    fn logits(&self, first: &Tensor) -> Result<Rows> {
        let hidden = self.hidden.forward(first)?;
        let active = match self.activation {
            Activation::Tanh => hidden.f_tanh(),
            Activation::Relu => hidden.f_relu(),
        };
        Rows::copy(&self.output.forward(&active.map_err(torch_error)?)?)
    }

    fn share(&self) -> Self {
        Self { hidden: self.hidden.share(), activation: self.activation, output: self.output.share() }
    }
}

impl Stack {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        input.f_linear(&self.weight, Some(&self.bias)).map_err(torch_error)
    }

    fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), bias: self.bias.shallow_clone() }
    }
}

/// A head's place among the logits, and what becomes of them.
#[derive(Debug, Clone)]
struct Head {
    name: Arc<str>,
    labels: Arc<[String]>,
    kind: HeadKind,
    temperature: f32,
    input: HeadInput,
    /// The first of its logits within its stack.
    offset: usize,
}

/// All heads of a model.
#[derive(Debug)]
pub(crate) struct Heads {
    heads: Vec<Head>,
    pooled: Option<Stack>,
    embedding: Option<Stack>,
    classifier: Option<Classifier>,
    sentiment: Option<SentimentMap>,
}

/// The logits of a batch: one row a text.
#[derive(Debug, Default)]
pub(crate) struct Logits {
    pooled: Rows,
    embedding: Rows,
    classifier: Rows,
}

/// A matrix copied out of libtorch.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    values: Vec<f32>,
    width: usize,
}

impl Rows {
    /// Copies an fp32 matrix [rows, width].
    pub(crate) fn copy(tensor: &Tensor) -> Result<Self> {
        let width = tensor.size().last().map_or(0, |&width| usize::try_from(width).unwrap_or(0));
        let mut values = vec![0f32; tensor.numel()];
        let count = values.len();
        tensor.f_contiguous().and_then(|tensor| tensor.f_copy_data(&mut values, count)).map_err(torch_error)?;
        Ok(Self { values, width })
    }

    /// Row `index`; empty if there is none.
    pub(crate) fn row(&self, index: usize) -> &[f32] {
        self.values.get(index * self.width..(index + 1) * self.width).unwrap_or_default()
    }
}

/// What the heads say about one text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) heads: Vec<HeadScores>,
    pub(crate) sentiment: Option<Sentiment>,
}

/// The sentiment, where a head is mapped to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sentiment {
    pub(crate) side: Side,
    pub(crate) polarity: f64,
    pub(crate) confidence: f32,
}

impl Heads {
    /// Loads the heads that the manifest lists. `hidden` is the width of the pooled vector, `dimensions` that of the
    /// embedding; `weights` opens a file of the folder.
    pub(crate) fn load(
        folder: &ModelFolder,
        hidden: usize,
        dimensions: usize,
        weights: &mut dyn FnMut(&str) -> Result<Rc<Weights>>,
    ) -> Result<Self> {
        let manifest: &Manifest = folder.manifest();
        let mut heads = Vec::new();
        let mut load_stack = |input: HeadInput, width: usize| -> Result<Option<Stack>> {
            let (mut parts, mut biases, mut labels) = (Vec::new(), Vec::new(), 0);
            for spec in manifest.heads.iter().filter(|spec| spec.input == input) {
                let file = weights(&folder.file_of(spec))?;
                parts.push(file.get(&format!("heads.{}.weight", spec.name), &[spec.labels.len(), width])?);
                biases.push(file.get(&format!("heads.{}.bias", spec.name), &[spec.labels.len()])?);
                heads.push(Head::new(spec, labels));
                labels += spec.labels.len();
            }
            if parts.is_empty() {
                return Ok(None);
            }
            let weight = Tensor::f_cat(&parts, 0).map_err(torch_error)?;
            let bias = Tensor::f_cat(&biases, 0).map_err(torch_error)?;
            Ok(Some(Stack { weight, bias }))
        };
        let pooled = load_stack(HeadInput::Pooled, hidden)?;
        let embedding = load_stack(HeadInput::Embedding, dimensions)?;
        let classifier = match manifest.heads.iter().find(|spec| spec.input == HeadInput::Classifier) {
            Some(spec) => {
                heads.push(Head::new(spec, 0));
                Some(Classifier::load(weights(&folder.file_of(spec))?.as_ref(), folder, spec.labels.len())?)
            }
            None => None,
        };
        // Back into the manifest's order, which is the order of the results.
        heads.sort_by_key(|head| manifest.heads.iter().position(|spec| *spec.name == *head.name));
        Ok(Self { heads, pooled, embedding, classifier, sentiment: manifest.sentiment.clone() })
    }

    /// The logits of a batch. `pooled` is [texts, hidden], `embedding` [texts, dimensions].
    pub(crate) fn logits(&self, pooled: &Tensor, embedding: &Tensor) -> Result<Logits> {
        let product = |stack: &Option<Stack>, input: &Tensor| match stack {
            Some(stack) => Rows::copy(&stack.forward(input)?),
            None => Ok(Rows::default()),
        };
        // Where there is a classifier, pooling takes the first token.
        let classifier = self.classifier.as_ref().map(|classifier| classifier.logits(pooled)).transpose()?;
        Ok(Logits {
            pooled: product(&self.pooled, pooled)?,
            embedding: product(&self.embedding, embedding)?,
            classifier: classifier.unwrap_or_default(),
        })
    }

    /// What the heads say about text `index` of a batch.
    pub(crate) fn verdict(&self, logits: &Logits, index: usize) -> Result<Verdict> {
        let score = |head: &Head| {
            let row = match head.input {
                HeadInput::Pooled => logits.pooled.row(index),
                HeadInput::Embedding => logits.embedding.row(index),
                HeadInput::Classifier => logits.classifier.row(index),
            };
            head.scores(row.get(head.offset..head.offset + head.labels.len()).unwrap_or_default())
        };
        let heads = self.heads.iter().map(score).collect::<Result<Vec<_>>>()?;
        let sentiment = self.sentiment.as_ref().and_then(|map| sentiment(map, &heads.get(map.head)?.probabilities));
        Ok(Verdict { heads, sentiment })
    }

    /// Another handle on the same weights.
    pub(crate) fn share(&self) -> Self {
        Self {
            heads: self.heads.clone(),
            pooled: self.pooled.as_ref().map(Stack::share),
            embedding: self.embedding.as_ref().map(Stack::share),
            classifier: self.classifier.as_ref().map(Classifier::share),
            sentiment: self.sentiment.clone(),
        }
    }
}

impl Head {
    fn new(spec: &HeadSpec, offset: usize) -> Self {
        Self {
            name: spec.name.as_str().into(),
            labels: spec.labels.clone().into(),
            kind: spec.kind,
            temperature: spec.temperature,
            input: spec.input,
            offset,
        }
    }

    fn scores(&self, logits: &[f32]) -> Result<HeadScores> {
        let probabilities = probabilities(self.kind, self.temperature, logits)
            .filter(|probabilities| probabilities.len() == self.labels.len())
            .ok_or_else(|| {
                Error::new(ErrorKind::Internal, "head gave a value that is not finite")
                    .with("head", &self.name)
                    .with("logits", format!("{logits:?}"))
                    .help("compare the revision that `undertone model show` prints with that of where the model comes from")
            })?;
        let label = largest(&probabilities);
        Ok(HeadScores {
            head: Arc::clone(&self.name),
            kind: self.kind,
            label,
            labels: Arc::clone(&self.labels),
            probabilities,
        })
    }
}

/// Logits divided by the temperature, then softmax or sigmoid. `None` if anything is not finite.
fn probabilities(kind: HeadKind, temperature: f32, logits: &[f32]) -> Option<Vec<f32>> {
    if logits.iter().any(|logit| !logit.is_finite()) {
        return None;
    }
    let scaled = logits.iter().map(|logit| logit / temperature);
    let values: Vec<f32> = match kind {
        HeadKind::Sigmoid => scaled.map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        HeadKind::Softmax => {
            // The largest exponent is 0, so nothing overflows and the sum is at least 1.
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) / temperature;
            let exponentials: Vec<f32> = scaled.map(|x| (x - largest).exp()).collect();
            let sum: f32 = exponentials.iter().sum();
            exponentials.into_iter().map(|e| e / sum).collect()
        }
    };
    values.iter().all(|value| value.is_finite()).then_some(values)
}

/// The index of the largest value; the first of several.
fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, &value) in values.iter().enumerate() {
        if value > values.get(best).copied().unwrap_or(f32::NEG_INFINITY) {
            best = i;
        }
    }
    best
}

/// Adds up the probabilities of each side; polarity is P(positive) - P(negative).
fn sentiment(map: &SentimentMap, probabilities: &[f32]) -> Option<Sentiment> {
    let sum =
        |side: Side| -> f32 { map.sides.iter().zip(probabilities).filter(|(s, _)| **s == side).map(|(_, p)| p).sum() };
    let sides = [Side::Negative, Side::Neutral, Side::Positive];
    let sums = sides.map(sum);
    let best = largest(&sums);
    let [negative, _, positive] = sums;
    Some(Sentiment {
        side: *sides.get(best)?,
        polarity: (f64::from(positive) - f64::from(negative)).clamp(-1.0, 1.0),
        confidence: sums.get(best)?.min(1.0),
    })
}

impl Side {
    /// The word that records carry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Negative => "negative",
            Self::Neutral => "neutral",
            Self::Positive => "positive",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn temperature_flattens_and_keeps_the_order() {
        let sharp = probabilities(HeadKind::Softmax, 1.0, &[2.0, 0.0]).unwrap();
        let flat = probabilities(HeadKind::Softmax, 2.0, &[2.0, 0.0]).unwrap();
        assert!((sharp[0] - 0.880_797).abs() < 1e-5, "{sharp:?}");
        assert!((flat[0] - 0.731_059).abs() < 1e-5, "{flat:?}");
        let sigmoid = probabilities(HeadKind::Sigmoid, 1.0, &[2.0, -2.0]).unwrap();
        assert!((sigmoid[0] - 0.880_797).abs() < 1e-5 && (sigmoid[0] + sigmoid[1] - 1.0).abs() < 1e-6, "{sigmoid:?}");
    }

    #[test]
    fn what_is_not_finite_is_no_score() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for kind in [HeadKind::Softmax, HeadKind::Sigmoid] {
                assert_eq!(probabilities(kind, 1.0, &[0.0, bad]), None);
            }
        }
    }

    #[test]
    fn five_stars_are_three_sides() {
        let map = SentimentMap {
            head: 0,
            sides: vec![Side::Negative, Side::Negative, Side::Neutral, Side::Positive, Side::Positive],
        };
        let sentiment = sentiment(&map, &[0.3, 0.2, 0.35, 0.1, 0.05]).unwrap();
        assert_eq!(sentiment.side, Side::Negative);
        assert!((sentiment.polarity + 0.35).abs() < 1e-6 && (sentiment.confidence - 0.5).abs() < 1e-6, "{sentiment:?}");
    }

    proptest! {
        #[test]
        fn softmax_is_a_distribution_and_sigmoid_stays_within_bounds(logits in prop::collection::vec(-1e30f32..1e30, 1..9), temperature in 0.05f32..20.0) {
            let softmax = probabilities(HeadKind::Softmax, temperature, &logits).unwrap_or_default();
            // A logit divided by a small temperature may overflow: then there is no score at all.
            if !softmax.is_empty() {
                prop_assert!((softmax.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                prop_assert!(softmax.iter().all(|p| (0.0..=1.0).contains(p)));
                prop_assert_eq!(softmax[largest(&logits)], softmax[largest(&softmax)]);
            }
            let sigmoid = probabilities(HeadKind::Sigmoid, temperature, &logits).unwrap_or_default();
            prop_assert!(sigmoid.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }
}
