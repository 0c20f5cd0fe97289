//! A plain encoder in f64, and random weights for it.

use undertone_kernels::{
    Encoder, EncoderWeights, Isa, LayerWeights, LinearWeights, NormWeights, Pooling, Precision, WeightsError,
};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    pub(crate) vocabulary: usize,
    pub(crate) positions: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    shape: Shape,
    pub(crate) words: Vec<f32>,
    positions: Vec<f32>,
    pub(crate) norm: NormWeights,
    pub(crate) layers: Vec<LayerWeights>,
}

/// A linear congruential generator (Knuth's MMIX constants): values in -1..1.
struct Random(u64);

impl Random {
    fn value(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    fn values(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.value() * scale).collect()
    }
    fn norm(&mut self, n: usize) -> NormWeights {
        NormWeights { weight: (0..n).map(|_| 1.0 + 0.2 * self.value()).collect(), bias: self.values(n, 0.2) }
    }
    fn linear(&mut self, outputs: usize, inputs: usize) -> LinearWeights {
        LinearWeights {
            weight: self.values(outputs * inputs, 1.7 / (inputs as f32).sqrt()),
            bias: self.values(outputs, 0.3),
        }
    }
}

const EPSILON: f32 = 1e-12;

impl Model {
    pub(crate) fn random(shape: Shape, seed: u64) -> Self {
        let mut random = Random(seed);
        let Shape { hidden, inner, layers, vocabulary, positions, .. } = shape;
        Self {
            shape,
            words: random.values(vocabulary * hidden, 1.0),
            positions: random.values(positions * hidden, 0.5),
            norm: random.norm(hidden),
            layers: (0..layers)
                .map(|_| LayerWeights {
                    qkv: random.linear(3 * hidden, hidden),
                    attention_output: random.linear(hidden, hidden),
                    attention_norm: random.norm(hidden),
                    intermediate: random.linear(inner, hidden),
                    output: random.linear(hidden, inner),
                    output_norm: random.norm(hidden),
                })
                .collect(),
        }
    }

    pub(crate) fn encoder(&self, isa: Isa, precision: Precision, pooling: Pooling) -> Encoder {
        self.try_encoder(isa, precision, pooling).unwrap()
    }

    pub(crate) fn try_encoder(
        &self,
        isa: Isa,
        precision: Precision,
        pooling: Pooling,
    ) -> Result<Encoder, WeightsError> {
        let weights = EncoderWeights {
            hidden: self.shape.hidden,
            heads: self.shape.heads,
            words: self.words.clone(),
            positions: self.positions.clone(),
            norm: self.norm.clone(),
            epsilon: EPSILON,
            pooling,
        };
        let mut encoder = Encoder::new(weights, isa, precision)?;
        for layer in &self.layers {
            encoder.push(layer.clone())?;
        }
        Ok(encoder)
    }

    pub(crate) fn forward(&self, ids: &[u32], pooling: Pooling) -> Vec<f64> {
        self.forward_at(ids, &(0..ids.len() as u32).collect::<Vec<_>>(), pooling)
    }

    pub(crate) fn forward_at(&self, ids: &[u32], positions: &[u32], pooling: Pooling) -> Vec<f64> {
        let Shape { hidden, heads, .. } = self.shape;
        let row = |table: &[f32], i: usize| -> Vec<f64> {
            table[i * hidden..(i + 1) * hidden].iter().map(|&x| f64::from(x)).collect()
        };
        let mut x: Vec<Vec<f64>> = ids
            .iter()
            .zip(positions)
            .map(|(&id, &p)| {
                normed(&add(&row(&self.words, id as usize), &row(&self.positions, p as usize)), &self.norm)
            })
            .collect();
        for layer in &self.layers {
            let qkv: Vec<Vec<f64>> = x.iter().map(|row| product(row, &layer.qkv)).collect();
            let attended = attention(&qkv, hidden, heads);
            x = x
                .iter()
                .zip(&attended)
                .map(|(x, a)| normed(&add(x, &product(a, &layer.attention_output)), &layer.attention_norm))
                .collect();
            x = x
                .iter()
                .map(|x| {
                    let inner: Vec<f64> = product(x, &layer.intermediate).into_iter().map(gelu).collect();
                    normed(&add(x, &product(&inner, &layer.output)), &layer.output_norm)
                })
                .collect();
        }
        match pooling {
            Pooling::First => x[0].clone(),
            Pooling::Mean => (0..hidden).map(|i| x.iter().map(|row| row[i]).sum::<f64>() / x.len() as f64).collect(),
        }
    }
}

fn add(one: &[f64], other: &[f64]) -> Vec<f64> {
    one.iter().zip(other).map(|(a, b)| a + b).collect()
}

fn product(row: &[f64], linear: &LinearWeights) -> Vec<f64> {
    let dot = |weights: &[f32]| row.iter().zip(weights).map(|(a, &b)| a * f64::from(b)).sum::<f64>();
    linear.weight.chunks(row.len()).zip(&linear.bias).map(|(weights, &bias)| dot(weights) + f64::from(bias)).collect()
}

fn normed(row: &[f64], norm: &NormWeights) -> Vec<f64> {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / row.len() as f64;
    let factor = 1.0 / (variance + f64::from(EPSILON)).sqrt();
    row.iter()
        .zip(&norm.weight)
        .zip(&norm.bias)
        .map(|((x, &w), &b)| (x - mean) * factor * f64::from(w) + f64::from(b))
        .collect()
}

fn attention(qkv: &[Vec<f64>], hidden: usize, heads: usize) -> Vec<Vec<f64>> {
    let width = hidden / heads;
    let part = |t: usize, which: usize, head: usize| &qkv[t][which * hidden + head * width..][..width];
    let mut out = vec![vec![0.0; hidden]; qkv.len()];
    for (t, row) in out.iter_mut().enumerate() {
        for head in 0..heads {
            let score = |u| {
                part(t, 0, head).iter().zip(part(u, 1, head)).map(|(a, b)| a * b).sum::<f64>() / (width as f64).sqrt()
            };
            let exponentials: Vec<f64> = (0..qkv.len()).map(|u| f64::exp(score(u))).collect();
            let sum: f64 = exponentials.iter().sum();
            for (u, e) in exponentials.iter().enumerate() {
                for (to, value) in row[head * width..].iter_mut().zip(part(u, 2, head)) {
                    *to += e / sum * value;
                }
            }
        }
    }
    out
}

/// x/2 (1 + erf(x/√2)) with erf by its Taylor series, and 1 where that no longer moves.
fn gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let erf = if z.abs() > 5.0 {
        z.signum()
    } else {
        let (mut term, mut sum, mut n) = (z, z, 0.0);
        while term.abs() > 1e-18 * sum.abs().max(1e-300) && n < 300.0 {
            n += 1.0;
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    };
    0.5 * x * (1.0 + erf)
}
