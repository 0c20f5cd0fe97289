//! What every way of running an encoder has in common, whatever it runs on.

use std::fmt::Debug;

use tch::{Tensor, no_grad};
use undertone_error::Result;

use super::encoder::Encoder;
use super::pack::Packed;
use super::torch_error;

/// An encoder that is loaded where it runs. `Send`, not `Sync`: each worker takes its own [`Forward::share`].
///
/// Guarantee of every implementation: a sequence's vector does not depend on what else is in its batch, beyond the
/// rounding of its precision (fp32: 1e-5).
pub trait Forward: Debug + Send {
    /// Runs a batch. Returns the pooled vectors, fp32 on the CPU, [sequences, hidden], in the order in which the sequences
    /// were packed ([`super::Network::pack`]).
    ///
    /// # Errors
    /// `Exhausted` when memory ran out (a smaller batch may succeed), `Unavailable` when the device is lost, `Internal`
    /// for anything else (an id outside the vocabulary, a sequence with more tokens than positions).
    fn forward(&self, batch: &Packed) -> Result<Tensor> {
        self.forward_with_pauses(batch, &mut || {})
    }

    /// The same, calling `pause` now and then, where it does not run on a GPU: `pause` may run another batch on the same handle.
    ///
    /// # Errors
    /// As [`Forward::forward`].
    fn forward_with_pauses(&self, batch: &Packed, pause: &mut dyn FnMut()) -> Result<Tensor>;

    /// Another handle on the same weights, for another worker.
    fn share(&self) -> Box<dyn Forward>;

    /// In what arithmetic, where and by which kernels it runs.
    fn describe(&self) -> Arithmetic;

    /// What an engine that runs this is best sized like, where nothing else was asked for.
    fn sizing(&self) -> Sizing {
        Sizing::default()
    }
}

/// How an engine is sized for a way of running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizing {
    /// How many workers; `None` is one a core.
    pub workers: Option<usize>,
    /// Whether batches run on a GPU, which wants large ones, and cannot be interrupted.
    pub gpu: bool,
}

/// How the numbers of a forward pass are made. People compare these, so they are names, not sentences.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Arithmetic {
    /// `fp32`, `bf16`, `fp16` or `int8`.
    pub precision: String,
    /// `cpu`, `cuda:0`; several GPUs are listed with commas.
    pub device: String,
    /// Which implementation: `libtorch`, or the instruction sets that were chosen at run time.
    pub kernels: String,
}

impl Forward for Encoder {
    /// Pauses after each layer.
    fn forward_with_pauses(&self, batch: &Packed, pause: &mut dyn FnMut()) -> Result<Tensor> {
        no_grad(|| self.forward_packed(batch, pause)).map_err(torch_error)
    }

    fn share(&self) -> Box<dyn Forward> {
        Box::new(Self::share(self))
    }

    fn describe(&self) -> Arithmetic {
        Arithmetic { precision: "fp32".to_owned(), device: "cpu".to_owned(), kernels: "libtorch".to_owned() }
    }
}
