//! The forward pass, over any instruction set and precision.
//!
//! Products take blocks of up to [`BLOCK`] rows, whatever sequences they belong to; attention takes one sequence after the
//! other.

use crate::Pooling;
use crate::attention::Shape;
use crate::dispatch::Kernels;
use crate::encoder::{Batch, Encoder, Layer, Scratch, Words, grow};
use crate::gemm::{Finish, Input, Packed};
use crate::rows::Word;

/// Rows that go through a product at once: many, so that weights pass by rarely; few enough that their 384 or 768 values
/// stay in the second-level cache.
const BLOCK: usize = 256;

/// Attention reads whole vectors, a few values past the last row: two vectors of AVX-512.
const SLACK: usize = 32;

/// Runs a batch; `out` takes the pooled vectors.
///
/// # Safety
/// The processor must have what `kernels` were compiled for; the batch must be checked against the encoder, and `out` be
/// of [sequences, hidden].
pub(crate) unsafe fn forward(
    kernels: &Kernels,
    encoder: &Encoder,
    batch: Batch<'_>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let (hidden, tokens) = (encoder.hidden, batch.ids.len());
    grow(&mut scratch.x, tokens * hidden);
    for (token, (&id, &position)) in batch.ids.iter().zip(batch.positions).enumerate() {
        let (id, position) = (id as usize * hidden, position as usize * hidden);
        let word = match &encoder.words {
            Words::F32(words) => Word::F32(words.get_unchecked(id..id + hidden)),
            Words::Bf16(words) => Word::Bf16(words.get_unchecked(id..id + hidden)),
        };
        let row = scratch.x.as_mut_ptr().add(token * hidden);
        (kernels.embed)(row, word, encoder.positions.get_unchecked(position..position + hidden));
        (kernels.layer_norm)(row, 1, hidden, &encoder.norm);
    }
    grow(&mut scratch.qkv, tokens * 3 * hidden + SLACK);
    grow(&mut scratch.attended, tokens * hidden);
    for layer in &encoder.layers {
        run_layer(kernels, encoder, layer, batch.starts, scratch);
    }
    for (i, pair) in batch.starts.windows(2).enumerate() {
        let rows = scratch.x.as_ptr().add(pair[0] * hidden);
        let to = out.as_mut_ptr().add(i * hidden);
        match encoder.pooling {
            Pooling::Mean => (kernels.mean)(rows, pair[1] - pair[0], hidden, to),
            Pooling::First => std::ptr::copy_nonoverlapping(rows, to, hidden),
        }
    }
}

/// One layer over all rows.
unsafe fn run_layer(kernels: &Kernels, encoder: &Encoder, layer: &Layer, starts: &[usize], scratch: &mut Scratch) {
    let (hidden, inner) = (encoder.hidden, layer.intermediate.outputs);
    let Some(&rows) = starts.last() else { return };
    grow(&mut scratch.inner, rows.min(BLOCK) * inner);
    let Scratch { x, qkv, attended, inner: inner_rows, operand, attention } = scratch;
    let (x, qkv, attended, inner_rows) =
        (x.as_mut_ptr(), qkv.as_mut_ptr(), attended.as_mut_ptr(), inner_rows.as_mut_ptr());
    let mut multiply =
        |rows: *const f32, width: usize, count: usize, weights: &Packed, finish: Finish, out: *mut f32| {
            (kernels.multiply)(Input { rows, width, count }, weights, finish, out, operand);
        };
    for block in blocks(rows) {
        let to = qkv.add(block.start * 3 * hidden);
        multiply(x.add(block.start * hidden), hidden, block.len(), &layer.qkv, Finish::Bias, to);
    }
    for pair in starts.windows(2) {
        let shape = Shape { length: pair[1] - pair[0], hidden, heads: encoder.heads };
        (kernels.attend)(qkv.add(pair[0] * 3 * hidden), shape, attended.add(pair[0] * hidden), attention);
    }
    for block in blocks(rows) {
        let (count, rows) = (block.len(), x.add(block.start * hidden));
        let attended = attended.add(block.start * hidden);
        multiply(attended, hidden, count, &layer.attention_output, Finish::Residual, rows);
        (kernels.layer_norm)(rows, count, hidden, &layer.attention_norm);
        multiply(rows, hidden, count, &layer.intermediate, Finish::Gelu, inner_rows);
        multiply(inner_rows, inner, count, &layer.output, Finish::Residual, rows);
        (kernels.layer_norm)(rows, count, hidden, &layer.output_norm);
    }
}

/// All rows in blocks of equal length, at most [`BLOCK`].
fn blocks(rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let parts = rows.div_ceil(BLOCK);
    (0..parts).map(move |i| i * rows / parts..(i + 1) * rows / parts)
}
