//! The weights of an encoder as plain slices, and the check that they fit each other.

use std::fmt;

/// A fully connected layer: `weight` [outputs, inputs] row by row, `bias` [outputs].
#[derive(Clone, Debug, Default)]
pub struct LinearWeights {
    /// Row by row.
    pub weight: Vec<f32>,
    /// One an output.
    pub bias: Vec<f32>,
}

/// A layer norm: `weight` and `bias` [hidden].
#[derive(Clone, Debug, Default)]
pub struct NormWeights {
    /// One a column.
    pub weight: Vec<f32>,
    /// One a column.
    pub bias: Vec<f32>,
}

/// One post-norm transformer layer.
#[derive(Clone, Debug, Default)]
pub struct LayerWeights {
    /// Query, key and value below each other: [3 * hidden, hidden].
    pub qkv: LinearWeights,
    /// [hidden, hidden].
    pub attention_output: LinearWeights,
    /// After the first residual.
    pub attention_norm: NormWeights,
    /// [intermediate, hidden], followed by GELU (erf).
    pub intermediate: LinearWeights,
    /// [hidden, intermediate].
    pub output: LinearWeights,
    /// After the second residual.
    pub output_norm: NormWeights,
}

/// How the rows of a sequence become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all rows.
    Mean,
    /// The first row.
    First,
}

/// Everything but the layers, which are handed over one by one so that a model is never in memory twice.
#[derive(Clone, Debug)]
pub struct EncoderWeights {
    /// Width of a row.
    pub hidden: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Word embeddings, [vocabulary, hidden].
    pub words: Vec<f32>,
    /// Position embeddings with that of the only token type added, [positions, hidden].
    pub positions: Vec<f32>,
    /// The norm after the embeddings.
    pub norm: NormWeights,
    /// What layer norms add to the variance.
    pub epsilon: f32,
    /// How rows become a vector.
    pub pooling: Pooling,
}

/// What is wrong with weights or a batch: a name and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsError {
    /// What it is about.
    pub name: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for WeightsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.what)
    }
}

impl std::error::Error for WeightsError {}

pub(crate) fn refuse<T>(name: impl Into<String>, what: impl Into<String>) -> Result<T, WeightsError> {
    Err(WeightsError { name: name.into(), what: what.into() })
}

/// That a tensor has as many values as it must.
pub(crate) fn check(name: &str, values: &[f32], expected: usize) -> Result<(), WeightsError> {
    match values.len() == expected {
        true => Ok(()),
        false => refuse(name, format!("has {} values, expected {expected}", values.len())),
    }
}

/// That all values are finite: integers would hide that one is not. Floats pass it on to every result that it touches.
pub(crate) fn check_finite(name: &str, values: &[f32]) -> Result<(), WeightsError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => refuse(name, format!("value {at} is not finite")),
        None => Ok(()),
    }
}
