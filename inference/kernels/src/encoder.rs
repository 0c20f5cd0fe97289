//! The encoder over packed rows: the safe face of the kernels.

use crate::dispatch::Kernels;
use crate::forward::forward;
use crate::gemm::{Operand, Packed, Panels};
use crate::pack::pack;
use crate::rows::Norm;
use crate::simd::to_bf16;
use crate::weights::{check, check_finite, refuse};
use crate::{EncoderWeights, Isa, LayerWeights, LinearWeights, NormWeights, Pooling, Precision, WeightsError};

/// Token ids of several sequences, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The ids of all tokens.
    pub ids: &'a [u32],
    /// For each token, which position embedding it takes.
    pub positions: &'a [u32],
    /// Where sequences begin, and the total at the end: one more entry than there are sequences.
    pub starts: &'a [usize],
}

/// One layer, packed.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) qkv: Packed,
    pub(crate) attention_output: Packed,
    pub(crate) attention_norm: Norm,
    pub(crate) intermediate: Packed,
    pub(crate) output: Packed,
    pub(crate) output_norm: Norm,
}

/// The table of word embeddings.
#[derive(Debug)]
pub(crate) enum Words {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

/// Buffers of one worker. They grow to the largest batch that was seen.
#[derive(Debug, Default)]
pub struct Scratch {
    /// [tokens, hidden]
    pub(crate) x: Vec<f32>,
    /// [rows of a group, 3 * hidden] and a little more
    pub(crate) qkv: Vec<f32>,
    /// [rows of a group, hidden], kept for one product
    pub(crate) attended: Vec<u32>,
    /// [rows of a block, intermediate], kept for one product
    pub(crate) inner: Vec<u32>,
    pub(crate) operand: Operand,
    pub(crate) attention: crate::attention::Scratch,
}

/// An encoder, ready to run on this processor. Share it between threads; each brings its own [`Scratch`].
#[derive(Debug)]
pub struct Encoder {
    isa: Isa,
    precision: Precision,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) words: Words,
    pub(crate) positions: Vec<f32>,
    pub(crate) norm: Norm,
    pub(crate) layers: Vec<Layer>,
    pub(crate) pooling: Pooling,
    epsilon: f32,
    vocabulary: usize,
}

impl Encoder {
    /// An encoder without layers; [`Encoder::push`] adds them.
    ///
    /// # Errors
    /// If the processor lacks `isa`, or a tensor has another shape than `hidden` says.
    pub fn new(weights: EncoderWeights, isa: Isa, precision: Precision) -> Result<Self, WeightsError> {
        let EncoderWeights { hidden, heads, words, positions, norm, epsilon, pooling } = weights;
        if !isa.is_available() {
            return refuse("instruction set", format!("this processor has no {isa}; its best is {}", Isa::best()));
        }
        if hidden == 0 || heads == 0 || !hidden.is_multiple_of(heads) {
            return refuse("attention heads", format!("{heads} do not divide the width {hidden}"));
        }
        if words.is_empty() || positions.is_empty() {
            return refuse("embeddings", "there are no words or no positions");
        }
        let vocabulary = words.len() / hidden;
        check("word embeddings", &words, vocabulary * hidden)?;
        check("position embeddings", &positions, positions.len() / hidden * hidden)?;
        let norm = pack_norm("embeddings' norm", norm, hidden, epsilon)?;
        let words = match precision {
            Precision::Fp32 => Words::F32(words),
            // Half the memory; a rounding of 2^-9 before a layer norm is below what these precisions keep anyway.
            Precision::Bf16 | Precision::Int8 => Words::Bf16(words.into_iter().map(to_bf16).collect()),
        };
        Ok(Self {
            isa,
            precision,
            hidden,
            heads,
            words,
            positions,
            norm,
            layers: Vec::new(),
            pooling,
            epsilon,
            vocabulary,
        })
    }

    /// Adds a layer.
    ///
    /// # Errors
    /// If a tensor has the wrong number of values, or a weight that is to be an integer is not finite.
    pub fn push(&mut self, weights: LayerWeights) -> Result<(), WeightsError> {
        let LayerWeights { mut qkv, attention_output, attention_norm, intermediate, output, output_norm } = weights;
        let (hidden, inner) = (self.hidden, intermediate.bias.len());
        // Scores are scaled by 1/√width: here, once, instead of for every score.
        let factor = 1.0 / ((hidden / self.heads) as f32).sqrt();
        let queries = (hidden * hidden).min(qkv.weight.len());
        qkv.weight[..queries].iter_mut().for_each(|value| *value *= factor);
        let queries = hidden.min(qkv.bias.len());
        qkv.bias[..queries].iter_mut().for_each(|value| *value *= factor);
        let mut layer = Layer {
            qkv: self.pack("qkv", &qkv, 3 * hidden, hidden)?,
            attention_output: self.pack("attention output", &attention_output, hidden, hidden)?,
            attention_norm: pack_norm("attention norm", attention_norm, hidden, self.epsilon)?,
            intermediate: self.pack("intermediate", &intermediate, inner, hidden)?,
            output: self.pack("output", &output, hidden, inner)?,
            output_norm: pack_norm("output norm", output_norm, hidden, self.epsilon)?,
        };
        let Layer { qkv, attention_output, intermediate, output, .. } = &mut layer;
        Panels::share([qkv, attention_output, intermediate, output]);
        self.layers.push(layer);
        Ok(())
    }

    fn pack(&self, name: &str, linear: &LinearWeights, outputs: usize, inputs: usize) -> Result<Packed, WeightsError> {
        if outputs == 0 {
            return refuse(name, "has no outputs");
        }
        check(name, &linear.weight, outputs * inputs)?;
        check(name, &linear.bias, outputs)?;
        if self.precision == Precision::Int8 {
            check_finite(name, &linear.weight)?;
        }
        Ok(pack(&linear.weight, &linear.bias, self.isa.layout(self.precision)))
    }

    /// The instruction set that it was packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Its arithmetic.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The width of a pooled vector.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Runs a batch: pooled vectors [sequences, hidden], in the order of the sequences.
    ///
    /// # Errors
    /// If `starts` does not cut the ids into sequences of at least one token, an id is outside the vocabulary, or a token
    /// has no position or one without an embedding.
    pub fn forward(&self, batch: Batch<'_>, scratch: &mut Scratch) -> Result<Vec<f32>, WeightsError> {
        self.forward_with_pauses(batch, scratch, &mut || {})
    }

    /// The same, with pauses: `pause` is called after each piece of work, of at most 64 tokens of one layer, so that something
    /// urgent need not wait for the whole batch. It may run another batch, with another [`Scratch`].
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn forward_with_pauses(
        &self,
        batch: Batch<'_>,
        scratch: &mut Scratch,
        pause: &mut dyn FnMut(),
    ) -> Result<Vec<f32>, WeightsError> {
        let positions = self.positions.len() / self.hidden;
        if batch.starts.first() != Some(&0) || batch.starts.last() != Some(&batch.ids.len()) {
            return refuse("starts", "do not run from 0 to the number of tokens");
        }
        for pair in batch.starts.windows(2) {
            match pair {
                [from, to] if from >= to => {
                    return refuse("starts", format!("a sequence begins at {from} and ends at {to}"));
                }
                _ => {}
            }
        }
        if let Some(id) = batch.ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            return refuse("token id", format!("{id} is outside the vocabulary of {}", self.vocabulary));
        }
        if batch.positions.len() != batch.ids.len() {
            return refuse("positions", format!("are {} for {} tokens", batch.positions.len(), batch.ids.len()));
        }
        if let Some(position) = batch.positions.iter().find(|&&position| position as usize >= positions) {
            return refuse("position", format!("{position} is outside the {positions} positions"));
        }
        let mut out = vec![0.0; (batch.starts.len() - 1) * self.hidden];
        // SAFETY: the processor has the set (checked in `new`), ids, positions and starts are within bounds (checked
        // above), and weights have the shapes that `new` and `push` checked.
        unsafe { forward(Kernels::of(self.isa, self.precision), self, batch, scratch, &mut out, pause) };
        Ok(out)
    }
}

fn pack_norm(name: &str, norm: NormWeights, hidden: usize, epsilon: f32) -> Result<Norm, WeightsError> {
    check(name, &norm.weight, hidden)?;
    check(name, &norm.bias, hidden)?;
    Ok(Norm { weight: norm.weight, bias: norm.bias, epsilon })
}

/// Makes a buffer at least so long.
pub(crate) fn grow<T: Clone + Default>(buffer: &mut Vec<T>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
}
