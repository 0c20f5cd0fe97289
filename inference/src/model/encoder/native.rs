//! The encoder on our own CPU kernels: the same weights, packed for the instruction set and precision that run.
//!
//! Guarantee: equal to the libtorch encoder within the rounding of its precision (parity tests hold every set and precision
//! to it), and a sequence's vector is the same to the last bit in any batch.

use std::cell::RefCell;
use std::sync::Arc;

use tch::{Tensor, no_grad};
use undertone_error::{Error, ErrorKind, Result};
use undertone_kernels::{
    Batch, EncoderWeights, Isa, LayerWeights, LinearWeights, NormWeights, Pooling as NativePooling, Precision, Scratch,
    WeightsError,
};

use super::super::forward::{Arithmetic, Forward};
use super::super::manifest::Pooling;
use super::super::pack::Packed;
use super::super::torch_error;
use super::{Encoder, Layer, LayerNorm, Linear};

/// The packed weights, shared by all workers, and this worker's buffers: those that no pass is using, since one may begin in a
/// pause of another.
#[derive(Debug)]
pub(crate) struct Native {
    encoder: Arc<undertone_kernels::Encoder>,
    scratch: RefCell<Vec<Scratch>>,
}

impl Native {
    /// Packs an encoder's weights. Each layer's tensors are let go as soon as they are packed.
    ///
    /// # Errors
    /// `Unsupported` if the processor lacks `isa`; `InvalidConfig` for a weight that cannot be an
    /// integer because it is not finite.
    pub(crate) fn new(encoder: Encoder, isa: Isa, precision: Precision) -> Result<Self> {
        let Encoder { words, positions, norm, layers, attention_heads, pooling } = encoder;
        let hidden = norm.weight.numel();
        let weights = EncoderWeights {
            hidden,
            heads: usize::try_from(attention_heads).unwrap_or(0),
            words: values(&words)?,
            positions: values(&positions)?,
            epsilon: norm.epsilon as f32,
            norm: norm.values()?,
            pooling: match pooling {
                Pooling::Mean => NativePooling::Mean,
                Pooling::Cls => NativePooling::First,
            },
        };
        drop((words, positions));
        let mut packed = undertone_kernels::Encoder::new(weights, isa, precision).map_err(refused)?;
        for layer in layers {
            packed.push(layer.values()?).map_err(refused)?;
        }
        Ok(Self { encoder: Arc::new(packed), scratch: RefCell::default() })
    }
}

impl Forward for Native {
    fn forward_with_pauses(&self, batch: &Packed, pause: &mut dyn FnMut()) -> Result<Tensor> {
        let narrow = |values: &[i64]| values.iter().map(|&value| u32::try_from(value).unwrap_or(u32::MAX)).collect();
        let (ids, positions): (Vec<u32>, Vec<u32>) = (narrow(&batch.ids), narrow(&batch.positions));
        let starts: Vec<usize> = batch.cumulative.iter().map(|&at| usize::try_from(at).unwrap_or(0)).collect();
        let mut scratch = self.scratch.borrow_mut().pop().unwrap_or_default();
        let rows = Batch { ids: &ids, positions: &positions, starts: &starts };
        let pooled = self.encoder.forward_with_pauses(rows, &mut scratch, pause);
        self.scratch.borrow_mut().push(scratch);
        let pooled =
            pooled.map_err(|error| Error::new(ErrorKind::Internal, "encoder refused a batch").source(error))?;
        let shape = [batch.sequences() as i64, self.encoder.hidden() as i64];
        no_grad(|| {
            Tensor::f_from_slice(&pooled)?.f_view(shape)?.f_index_select(0, &Tensor::f_from_slice(&batch.places)?)
        })
        .map_err(torch_error)
    }

    fn share(&self) -> Box<dyn Forward> {
        Box::new(Self { encoder: Arc::clone(&self.encoder), scratch: RefCell::default() })
    }

    fn describe(&self) -> Arithmetic {
        let precision = match self.encoder.precision() {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        };
        Arithmetic {
            precision: precision.to_owned(),
            device: "cpu".to_owned(),
            kernels: self.encoder.isa().name().to_owned(),
        }
    }
}

impl Layer {
    fn values(self) -> Result<LayerWeights> {
        Ok(LayerWeights {
            qkv: self.qkv.values()?,
            attention_output: self.attention_output.values()?,
            attention_norm: self.attention_norm.values()?,
            intermediate: self.intermediate.values()?,
            output: self.output.values()?,
            output_norm: self.output_norm.values()?,
        })
    }
}

impl Linear {
    fn values(&self) -> Result<LinearWeights> {
        Ok(LinearWeights { weight: values(&self.weight)?, bias: values(&self.bias)? })
    }
}

impl LayerNorm {
    fn values(&self) -> Result<NormWeights> {
        Ok(NormWeights { weight: values(&self.weight)?, bias: values(&self.bias)? })
    }
}

/// The values of an fp32 tensor, row by row.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    let mut values = vec![0f32; tensor.numel()];
    let count = values.len();
    tensor.f_contiguous().and_then(|tensor| tensor.f_copy_data(&mut values, count)).map_err(torch_error)?;
    Ok(values)
}

fn refused(error: WeightsError) -> Error {
    Error::new(ErrorKind::InvalidConfig, "encoder's weights cannot be used")
        .with("tensor", &error.name)
        .source(error)
        .help("compare the revision that `undertone model show` prints with that of where the model comes from")
}
