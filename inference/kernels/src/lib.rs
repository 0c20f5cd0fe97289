//! A BERT-shaped encoder on CPU cores, without libtorch: token ids in, pooled vectors out.
//!
//! Guarantees: a sequence's vector does not depend on what else is in its batch (fp32: rounding alone; int8: exactly the
//! same integers); a value that is not finite stays visible in the result, in every precision; no input can read or write
//! outside the buffers, since shapes and ids are checked before a kernel sees them; nothing runs that the processor does
//! not have.
//!
//! # How it is built
//!
//! ```text
//! encoder   layers over packed rows, a group of whole sequences at a time
//! gemm      products with packed weights; bias, GELU and residual are added while a tile is in registers
//! attention scores, softmax and weighted sums of one sequence
//! rows      layer norm, embedding, pooling of one row
//! dot       what a 32-bit word holds in each precision, and how rows are quantised
//! memory    where weights lie: in large pages
//! simd      the instruction sets: portable, AVX2 with FMA, AVX-512 with VNNI (and BF16)
//! ```
//!
//! Everything above `simd` is written once, over a trait of vectors, and compiled for each set; [`Isa`] chooses at run
//! time. Each worker is one thread: the kernels start none.
//!
//! # Precisions
//!
//! [`Precision::Fp32`] is the reference. [`Precision::Bf16`] rounds weights and the left operands of products to bf16
//! (what only the next product reads is written so at once) and sums in fp32; without the processor's instruction for it,
//! it is no faster than fp32 and only good for comparison.
//! [`Precision::Int8`] quantises weights once (symmetric, a scale a channel) and activations as they come (asymmetric, a
//! scale a row); sums are exact. Attention, layer norm, GELU and pooling are fp32 in all of them.

// Kernels are made of intrinsics and raw pointers. Each `unsafe fn` states what its caller must see to; the safe face of
// the crate, `Encoder`, checks that.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn, reason = "kernels work on raw pointers; the crate's face is safe")]

mod attention;
mod dispatch;
mod dot;
mod encoder;
mod forward;
mod gemm;
mod isa;
mod math;
mod memory;
mod pack;
mod peak;
mod rows;
mod simd;

pub use encoder::{Batch, Encoder, Scratch};
use isa::Layout;
pub use isa::{Isa, Precision};
pub use peak::peak;
pub use weights::{EncoderWeights, LayerWeights, LinearWeights, NormWeights, Pooling, WeightsError};

mod weights;
