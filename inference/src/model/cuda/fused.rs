//! Our kernels in place of libtorch's, where a profile said that they pay: attention over short sequences, residual and
//! layer norm in one pass, embedding and layer norm in one pass, pooling.
//!
//! On an H200, flash attention took 40 % of a MiniLM's time over tweets: its tiles are 128 tokens high, tweets 25. Layer norms
//! and residual additions took 20 %, reading memory twice. See `benches/gpu/RESULTS.md`.
//!
//! Guarantee: the result is libtorch's, up to the rounding of the precision.
#![allow(unsafe_code, reason = "launches of our own kernels; each says why its arguments fit")]

use std::ffi::c_void;

use tch::{Device, Kind, TchError, Tensor};

use super::shim::Stream;
use super::staging::Staged;
use crate::device::kernels::{Argument, Kernel, Module, compile};
use crate::device::{AMPERE, Gpu, Precision};
use crate::model::encoder::{LayerNorm, Torch};

const SOURCE: &str = include_str!("kernels.cu");
/// The widest head and the widest row that the kernels know, and what divides them.
const HEAD: (i64, i64) = (128, 16);
const ROW: (i64, i64) = (1024, 128);
/// Threads of a block of the row kernels; a warp takes a row.
const THREADS: u32 = 256;
const ROWS_PER_BLOCK: u32 = THREADS / 32;

/// The most tokens of a sequence that our attention takes; beyond, flash attention is as fast.
pub(super) const SHORT: i64 = 128;

/// The kernels of one model on one GPU.
#[derive(Clone, Debug)]
pub(super) struct Fused {
    /// Attention over sequences of up to so many tokens, in rising order.
    attend: [(i64, Kernel); 3],
    add_norm: Kernel,
    embed_norm: Kernel,
    pool: Kernel,
    kind: Kind,
}

impl Fused {
    /// Compiles the kernels for a GPU and a model's shape. `None` where they do not fit: their precision, an older GPU, a
    /// head or a row of another width than they know.
    ///
    /// # Errors
    /// What the compiler or the driver says.
    pub(super) fn new(gpu: &Gpu, precision: Precision, hidden: i64, heads: i64) -> Option<Result<Self, String>> {
        let kind = match precision {
            Precision::Bf16 => Kind::BFloat16,
            Precision::Fp16 => Kind::Half,
            _ => return None,
        };
        let fits = |width: i64, (most, step): (i64, i64)| width > 0 && width <= most && width % step == 0;
        let head = hidden.checked_div(heads)?;
        if gpu.capability < AMPERE || !fits(head, HEAD) || !fits(hidden, ROW) {
            return None;
        }
        Some(Self::compile(gpu.capability, kind, hidden, head))
    }

    fn compile(capability: (u32, u32), kind: Kind, hidden: i64, head: i64) -> Result<Self, String> {
        let code = compile(SOURCE, capability, &[("HEAD", head), ("HALF", i64::from(kind == Kind::Half))])?;
        let module = Module::load(&code)?;
        let quads = hidden / ROW.1;
        Ok(Self {
            attend: [
                (32, module.kernel("attend_32")?),
                (64, module.kernel("attend_64")?),
                (SHORT, module.kernel("attend_128")?),
            ],
            add_norm: module.kernel(&format!("add_norm_{quads}"))?,
            embed_norm: module.kernel(&format!("embed_norm_{quads}"))?,
            pool: module.kernel("pool")?,
            kind,
        })
    }

    /// Attention within the first sequences of a batch, those of at most [`SHORT`] tokens, which lie first: writes their
    /// rows of `out`, [tokens, hidden]. `qkv` is [tokens, 3 * hidden].
    pub(super) fn attend(&self, qkv: &Tensor, staged: &Staged, heads: i64, out: &Tensor) -> Torch<()> {
        let hidden = width(out);
        let longest = staged.short.longest;
        let (most, kernel) = self
            .attend
            .iter()
            .find(|(most, _)| *most >= longest)
            .ok_or_else(|| TchError::Kind(format!("{longest} tokens are not short")))?;
        // A warp for 16 queries, as many as the longest sequence has.
        let threads = 32 * longest.clamp(1, *most).div_euclid(16) + if longest % 16 == 0 { 0 } else { 32 };
        // exp(x) is computed as 2^(x log2 e).
        let scale = std::f64::consts::LOG2_E / ((hidden / heads.max(1)) as f64).sqrt();
        let arguments = [
            self.pointer(qkv)?,
            ints(&staged.bounds)?,
            self.pointer(out)?,
            int(hidden)?,
            Argument::Float(scale as f32),
        ];
        // SAFETY: qkv and out have three and one `hidden` a token, and the bounds end at the number of tokens.
        unsafe { launch(kernel, (staged.short.sequences, heads), threads, out.device(), arguments) }
    }

    /// The layer norm of `x + residual`, all [tokens, hidden].
    pub(super) fn add_norm(&self, x: &Tensor, residual: &Tensor, norm: &LayerNorm) -> Torch<Tensor> {
        let out = x.f_empty_like()?;
        let rows = rows(x);
        let arguments = [
            self.pointer(x)?,
            self.pointer(residual)?,
            self.pointer(&norm.weight)?,
            self.pointer(&norm.bias)?,
            self.pointer(&out)?,
            int(rows)?,
            Argument::Float(norm.epsilon as f32),
        ];
        // SAFETY: x, residual and out have `rows` rows of the width that the kernel was made for, the norm's have one.
        unsafe { launch(&self.add_norm, (blocks(rows), 1), i64::from(THREADS), x.device(), arguments)? };
        Ok(out)
    }

    /// The layer norm of the sum of word and position embeddings: [tokens, hidden].
    pub(super) fn embed_norm(
        &self,
        (words, places): (&Tensor, &Tensor),
        staged: &Staged,
        norm: &LayerNorm,
    ) -> Torch<Tensor> {
        let rows = staged.ids.numel() as i64;
        let out = Tensor::f_empty([rows, width(words)], (self.kind, words.device()))?;
        let arguments = [
            ints(&staged.ids)?,
            ints(&staged.positions)?,
            self.pointer(words)?,
            self.pointer(places)?,
            self.pointer(&norm.weight)?,
            self.pointer(&norm.bias)?,
            self.pointer(&out)?,
            int(rows)?,
            Argument::Float(norm.epsilon as f32),
        ];
        // SAFETY: there is an id and a position for each of `rows` rows, and all of them have an embedding: `Staging` has
        // looked.
        unsafe { launch(&self.embed_norm, (blocks(rows), 1), i64::from(THREADS), words.device(), arguments)? };
        Ok(out)
    }

    /// The mean of each sequence's rows, or its first row: [tokens, hidden] to fp32 [sequences, hidden], in the order in
    /// which the sequences were given.
    pub(super) fn pool(&self, x: &Tensor, staged: &Staged, first_only: bool) -> Torch<Tensor> {
        let sequences = staged.places.numel() as i64;
        let out = Tensor::f_empty([sequences, width(x)], (Kind::Float, x.device()))?;
        let arguments = [
            self.pointer(x)?,
            ints(&staged.bounds)?,
            ints(&staged.places)?,
            Argument::Pointer(out.data_ptr()),
            int(width(x))?,
            Argument::Int(i32::from(first_only)),
        ];
        let threads = (width(x) / 2).clamp(32, i64::from(THREADS));
        // SAFETY: every place is of a sequence whose rows lie in x, and out has a row for each.
        unsafe { launch(&self.pool, (sequences, 1), threads, x.device(), arguments)? };
        Ok(out)
    }

    /// The memory of a tensor in the kernels' precision, whose rows lie without gaps.
    fn pointer(&self, tensor: &Tensor) -> Torch<Argument> {
        pointer(tensor, self.kind)
    }
}

fn ints(tensor: &Tensor) -> Torch<Argument> {
    pointer(tensor, Kind::Int)
}

fn pointer(tensor: &Tensor, kind: Kind) -> Torch<Argument> {
    match tensor.kind() == kind && tensor.is_contiguous() {
        true => Ok(Argument::Pointer(tensor.data_ptr())),
        false => Err(TchError::Kind(format!("a kernel takes {kind:?} without gaps, not {:?}", tensor.kind()))),
    }
}

fn int(number: i64) -> Torch<Argument> {
    let number = i32::try_from(number).map_err(|error| TchError::Kind(error.to_string()))?;
    Ok(Argument::Int(number))
}

fn rows(tensor: &Tensor) -> i64 {
    tensor.size().first().copied().unwrap_or(0)
}

fn width(tensor: &Tensor) -> i64 {
    tensor.size().last().copied().unwrap_or(0)
}

fn blocks(rows: i64) -> i64 {
    (rows + i64::from(ROWS_PER_BLOCK) - 1) / i64::from(ROWS_PER_BLOCK)
}

/// Gives a kernel to the calling thread's current stream of a device.
///
/// # Safety
/// As [`Kernel::launch`].
unsafe fn launch<const N: usize>(
    kernel: &Kernel,
    (x, y): (i64, i64),
    threads: i64,
    device: Device,
    mut arguments: [Argument; N],
) -> Torch<()> {
    let size = |number: i64| u32::try_from(number).map_err(|error| TchError::Kind(error.to_string()));
    let grid = (size(x)?, size(y)?);
    if grid.0 == 0 || grid.1 == 0 {
        return Ok(());
    }
    let stream: *mut c_void = Stream::current(device)?;
    // SAFETY: the caller vouches for the arguments.
    unsafe { kernel.launch(grid, size(threads)?, stream, &mut arguments) }.map_err(TchError::Torch)
}
