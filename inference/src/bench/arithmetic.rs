//! How many floating-point operations texts cost in the encoder: what a measured rate is a share of a processor's peak by.

use serde::Serialize;

use crate::model::ModelFolder;

/// The operations of an encoder's matrix products; a multiplication and an addition count as two, as for a processor's
/// peak. Softmax, norms, activations, pooling and heads are left out: a few in a hundred, and no matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Arithmetic {
    /// Of the linear layers, for each token: 2 × layers × (4 hidden² + 2 hidden × intermediate).
    pub linear_flops_per_token: f64,
    /// Of attention (scores, and the sum of values), for each pair of tokens of one text: 4 × layers × hidden.
    pub attention_flops_per_pair: f64,
}

impl Arithmetic {
    /// That of a model folder's encoder.
    pub fn of(folder: &ModelFolder) -> Self {
        let shape = folder.shape();
        Self::new(shape.layers as f64, shape.hidden as f64, shape.intermediate as f64)
    }

    fn new(layers: f64, hidden: f64, intermediate: f64) -> Self {
        Self {
            linear_flops_per_token: 2.0 * layers * (4.0 * hidden * hidden + 2.0 * hidden * intermediate),
            attention_flops_per_pair: 4.0 * layers * hidden,
        }
    }

    /// The operations for texts with `tokens` tokens in all and `pairs`, the sum of the squares of their lengths.
    pub fn flops(&self, tokens: u64, pairs: u64) -> f64 {
        self.linear_flops_per_token * tokens as f64 + self.attention_flops_per_pair * pairs as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minilm_costs_21_million_operations_a_token() {
        let minilm = Arithmetic::new(6.0, 384.0, 1536.0);
        assert_eq!(minilm.linear_flops_per_token, 21_233_664.0);
        // One text of 100 tokens: each of 6 layers has two products of 100 × 100 × 384.
        assert_eq!(minilm.flops(100, 10_000) - 2_123_366_400.0, 6.0 * 2.0 * 2.0 * 100.0 * 100.0 * 384.0);
        // The same tokens in short texts have fewer pairs.
        assert!(minilm.flops(100, 4 * 25 * 25) < minilm.flops(100, 10_000));
    }
}
