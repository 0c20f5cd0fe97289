//! The encoder in fp32 through libtorch: the reference that every faster path is held to.
//!
//! Guarantee: a sequence's vector does not depend on what else is in its batch, beyond the rounding of fp32 (1e-5).

mod native;

pub(crate) use native::Native;
use tch::{Kind, Tensor, no_grad};
use undertone_error::Result;

use super::family::{Family, LayerPart, Part};
use super::manifest::Pooling;
use super::pack::{Group, Packed};
use super::shape::EncoderShape;
use super::torch_error;
use super::weights::Weights;

/// The result of one libtorch call.
pub(super) type Torch<T> = std::result::Result<T, tch::TchError>;

/// What makes another tensor of a weight: the same on a device, or in a precision.
pub(super) type Change<'a> = &'a dyn Fn(&Tensor) -> Torch<Tensor>;

/// A fully connected layer: weight [out, in], bias [out].
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

impl Linear {
    fn load(weights: &Weights, family: Family, part: Part, outputs: usize, inputs: usize) -> Result<Self> {
        let weight = weights.encoder(family, part, "weight", &[outputs, inputs])?;
        let bias = weights.encoder(family, part, "bias", &[outputs])?;
        Ok(Self { weight, bias })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        x.f_linear(&self.weight, Some(&self.bias))
    }

    fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), bias: self.bias.shallow_clone() }
    }

    fn map(&self, change: Change<'_>) -> Torch<Self> {
        Ok(Self { weight: change(&self.weight)?, bias: change(&self.bias)? })
    }
}

/// Layer norm over the last dimension.
#[derive(Debug)]
pub(super) struct LayerNorm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) epsilon: f64,
}

impl LayerNorm {
    fn load(weights: &Weights, part: Part, shape: &EncoderShape) -> Result<Self> {
        let weight = weights.encoder(shape.family, part, "weight", &[shape.hidden])?;
        let bias = weights.encoder(shape.family, part, "bias", &[shape.hidden])?;
        Ok(Self { weight, bias, epsilon: shape.norm_epsilon })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, false)
    }

    fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), bias: self.bias.shallow_clone(), epsilon: self.epsilon }
    }

    fn map(&self, change: Change<'_>) -> Torch<Self> {
        Ok(Self { weight: change(&self.weight)?, bias: change(&self.bias)?, epsilon: self.epsilon })
    }
}

/// One transformer layer, post-norm as all our families have it.
#[derive(Debug)]
struct Layer {
    /// Query, key and value in one product: weight [3 * hidden, hidden].
    qkv: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

impl Layer {
    fn load(weights: &Weights, index: usize, shape: &EncoderShape) -> Result<Self> {
        let (family, hidden, inner) = (shape.family, shape.hidden, shape.intermediate);
        let linear = |part, outputs, inputs| Linear::load(weights, family, Part::Layer(index, part), outputs, inputs);
        let norm = |part| LayerNorm::load(weights, Part::Layer(index, part), shape);
        let query = linear(LayerPart::Query, hidden, hidden)?;
        let key = linear(LayerPart::Key, hidden, hidden)?;
        let value = linear(LayerPart::Value, hidden, hidden)?;
        let qkv = Linear {
            weight: Tensor::f_cat(&[query.weight, key.weight, value.weight], 0).map_err(torch_error)?,
            bias: Tensor::f_cat(&[query.bias, key.bias, value.bias], 0).map_err(torch_error)?,
        };
        Ok(Self {
            qkv,
            attention_output: linear(LayerPart::AttentionOutput, hidden, hidden)?,
            attention_norm: norm(LayerPart::AttentionNorm)?,
            intermediate: linear(LayerPart::Intermediate, inner, hidden)?,
            output: linear(LayerPart::Output, hidden, inner)?,
            output_norm: norm(LayerPart::OutputNorm)?,
        })
    }

    fn forward(&self, x: &Tensor, steps: &dyn Steps) -> Torch<Tensor> {
        let attended = steps.attend(&self.qkv.forward(x)?)?;
        let x = steps.add_norm(&self.attention_output.forward(&attended)?, x, &self.attention_norm)?;
        let inner = steps.inner(&x, &self.intermediate)?;
        steps.add_norm(&self.output.forward(&inner)?, &x, &self.output_norm)
    }

    fn share(&self) -> Self {
        Self {
            qkv: self.qkv.share(),
            attention_output: self.attention_output.share(),
            attention_norm: self.attention_norm.share(),
            intermediate: self.intermediate.share(),
            output: self.output.share(),
            output_norm: self.output_norm.share(),
        }
    }

    fn map(&self, change: Change<'_>) -> Torch<Self> {
        Ok(Self {
            qkv: self.qkv.map(change)?,
            attention_output: self.attention_output.map(change)?,
            attention_norm: self.attention_norm.map(change)?,
            intermediate: self.intermediate.map(change)?,
            output: self.output.map(change)?,
            output_norm: self.output_norm.map(change)?,
        })
    }
}

/// The steps of an encoder that differ by where it runs. What is given is libtorch's arithmetic, the reference.
pub(super) trait Steps {
    /// Attention within each sequence: `qkv` is [tokens, 3 * hidden], the result [tokens, hidden].
    fn attend(&self, qkv: &Tensor) -> Torch<Tensor>;

    /// Word and position embeddings, each a table and the rows to take, added and normalised: [tokens, hidden].
    fn embed(&self, words: (&Tensor, &Tensor), positions: (&Tensor, &Tensor), norm: &LayerNorm) -> Torch<Tensor> {
        embed(words, positions, norm)
    }

    /// The layer norm of `x + residual`.
    fn add_norm(&self, x: &Tensor, residual: &Tensor, norm: &LayerNorm) -> Torch<Tensor> {
        add_norm(x, residual, norm)
    }

    /// The inner layer of the feed-forward network: linear, then GELU by the error function.
    fn inner(&self, x: &Tensor, linear: &Linear) -> Torch<Tensor> {
        linear.forward(x)?.f_gelu("none")
    }
}

/// [`Steps::embed`] in libtorch's arithmetic.
pub(super) fn embed(words: (&Tensor, &Tensor), positions: (&Tensor, &Tensor), norm: &LayerNorm) -> Torch<Tensor> {
    norm.forward(&words.0.f_index_select(0, words.1)?.f_add(&positions.0.f_index_select(0, positions.1)?)?)
}

/// [`Steps::add_norm`] in libtorch's arithmetic.
pub(super) fn add_norm(x: &Tensor, residual: &Tensor, norm: &LayerNorm) -> Torch<Tensor> {
    norm.forward(&x.f_add(residual)?)
}

/// libtorch's arithmetic, with attention one call a group of equal length.
pub(super) struct ByGroups {
    pub(super) groups: Vec<Group>,
    pub(super) heads: i64,
}

impl Steps for ByGroups {
    fn attend(&self, qkv: &Tensor) -> Torch<Tensor> {
        attend_groups(qkv, &self.groups, self.heads)
    }
}

/// Attention within each sequence, one call a group of equal length. `qkv` is [tokens, 3 * hidden], the result
/// [tokens, hidden].
fn attend_groups(qkv: &Tensor, groups: &[Group], heads: i64) -> Torch<Tensor> {
    let hidden = qkv.size().last().map_or(0, |width| width / 3);
    let attend_group = |group: &Group| {
        let split = qkv
            .f_narrow(0, group.start, group.rows())?
            .f_view([group.sequences, group.length, 3, heads, hidden / heads])?
            .f_permute([2, 0, 3, 1, 4])?;
        let (query, key, value) = (split.f_get(0)?, split.f_get(1)?, split.f_get(2)?);
        Tensor::f_scaled_dot_product_attention(&query, &key, &value, None::<&Tensor>, 0.0, false, None, false)?
            .f_transpose(1, 2)?
            .f_reshape([group.rows(), hidden])
    };
    let rows = groups.iter().map(attend_group).collect::<Torch<Vec<_>>>()?;
    Tensor::f_cat(&rows, 0)
}

/// An encoder of any of our families, with pooling. It is `Send`, not `Sync`: each worker takes its own [`Encoder::share`].
#[derive(Debug)]
pub struct Encoder {
    words: Tensor,
    /// Position embeddings from the first position that texts use, with the embedding of token type 0 added where the
    /// family has types: our texts have one segment.
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    attention_heads: i64,
    pooling: Pooling,
}

impl Encoder {
    pub(crate) fn load(weights: &Weights, shape: &EncoderShape, pooling: Pooling) -> Result<Self> {
        no_grad(|| {
            let table = |part, rows| weights.encoder(shape.family, part, "weight", &[rows, shape.hidden]);
            let words = table(Part::Words, shape.vocabulary)?;
            // From here on positions are what `Packed` counts: from 0, or from 1 where padding takes 0.
            let unused = shape.padding.unwrap_or(0);
            let used = shape.positions + usize::from(shape.padding.is_some());
            let mut positions =
                table(Part::Positions, unused + used)?.f_narrow(0, unused as i64, used as i64).map_err(torch_error)?;
            if shape.token_types > 0 {
                let types = table(Part::TokenTypes, shape.token_types)?;
                positions = types.f_get(0).and_then(|first| positions.f_add(&first)).map_err(torch_error)?;
            }
            let norm = LayerNorm::load(weights, Part::EmbeddingNorm, shape)?;
            let layers = (0..shape.layers).map(|i| Layer::load(weights, i, shape)).collect::<Result<_>>()?;
            Ok(Self { words, positions, norm, layers, attention_heads: shape.attention_heads as i64, pooling })
        })
    }

    /// Another handle on the same weights.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            words: self.words.shallow_clone(),
            positions: self.positions.shallow_clone(),
            norm: self.norm.share(),
            layers: self.layers.iter().map(Layer::share).collect(),
            attention_heads: self.attention_heads,
            pooling: self.pooling,
        }
    }

    pub(super) fn forward_packed(&self, batch: &Packed, pause: &mut dyn FnMut()) -> Torch<Tensor> {
        if batch.sequences() == 0 {
            return Tensor::f_zeros([0, self.hidden()], (Kind::Float, self.words.device()));
        }
        let groups = batch.groups();
        let (ids, positions) = (Tensor::f_from_slice(&batch.ids)?, Tensor::f_from_slice(&batch.positions)?);
        let steps = ByGroups { groups, heads: self.attention_heads };
        let x = self.encode(&ids, &positions, &steps, pause)?;
        let pooled = steps.groups.iter().map(|group| self.pool(&x, group)).collect::<Torch<Vec<_>>>()?;
        Tensor::f_cat(&pooled, 0)?.f_index_select(0, &Tensor::f_from_slice(&batch.places)?)
    }

    /// Embeddings and layers, wherever the weights lie: [tokens, hidden]. `ids` and `positions` are [tokens].
    pub(super) fn encode(
        &self,
        ids: &Tensor,
        positions: &Tensor,
        steps: &dyn Steps,
        pause: &mut dyn FnMut(),
    ) -> Torch<Tensor> {
        let mut x = steps.embed((&self.words, ids), (&self.positions, positions), &self.norm)?;
        for layer in &self.layers {
            x = layer.forward(&x, steps)?;
            pause();
        }
        Ok(x)
    }

    /// The same encoder with every weight changed: on another device, or in another precision.
    pub(super) fn map(&self, change: Change<'_>) -> Torch<Self> {
        Ok(Self {
            words: change(&self.words)?,
            positions: change(&self.positions)?,
            norm: self.norm.map(change)?,
            layers: self.layers.iter().map(|layer| layer.map(change)).collect::<Torch<_>>()?,
            attention_heads: self.attention_heads,
            pooling: self.pooling,
        })
    }

    /// How many heads the attention has, and how a sequence becomes one vector.
    pub(super) fn form(&self) -> (i64, Pooling) {
        (self.attention_heads, self.pooling)
    }

    /// The width of its vectors.
    pub(super) fn hidden(&self) -> i64 {
        self.words.size().get(1).copied().unwrap_or(0)
    }

    /// How many words and how many positions there are embeddings for.
    pub(super) fn limits(&self) -> (i64, i64) {
        let rows = |table: &Tensor| table.size().first().copied().unwrap_or(0);
        (rows(&self.words), rows(&self.positions))
    }

    /// One vector a sequence, from the sequence's own rows: [sequences of the group, hidden].
    fn pool(&self, x: &Tensor, group: &Group) -> Torch<Tensor> {
        let rows = x.f_narrow(0, group.start, group.rows())?.f_view([group.sequences, group.length, -1])?;
        match self.pooling {
            Pooling::Mean => rows.f_mean_dim([1].as_slice(), false, Kind::Float),
            Pooling::Cls => rows.f_select(1, 0),
        }
    }
}
