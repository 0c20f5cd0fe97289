//! The forward pass, over any instruction set and precision.
//!
//! A layer takes one group of whole sequences after the other, of up to [`BLOCK`] rows together, so that what it makes of
//! them stays in the second-level cache until it is read. Products take a group's rows at once, whatever sequences they
//! belong to (a longer sequence in blocks); attention takes one sequence after the other.

use crate::Pooling;
use crate::attention::Shape;
use crate::dispatch::Kernels;
use crate::encoder::{Batch, Encoder, Layer, Scratch, Words, grow};
use crate::gemm::{Finish, Form, Input, Packed};
use crate::rows::Word;

/// Rows that go through a product at once: many, so that weights pass by rarely (at 64 a core reads up to 3 GB/s of them,
/// which the third-level cache gives easily); few enough that all values of a row stay in the second-level cache: with
/// MiniLM's 384 they are 8 KiB in fp32. On Zen 4 with 1 MiB, 64 to 128 are alike while the machine is quiet, 64 is ahead
/// while it is not and with AVX2, and 250 cost a tenth.
const BLOCK: usize = 64;

/// Attention reads whole vectors, a few values past the last row: two vectors of AVX-512.
const SLACK: usize = 32;

/// Runs a batch; `out` takes the pooled vectors. `pause` is called after each block of rows.
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
    pause: &mut dyn FnMut(),
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
    for (i, layer) in encoder.layers.iter().enumerate() {
        let mut rest = batch.starts;
        while let Some(group) = next_group(&mut rest) {
            // What is multiplied with next: the same layer if there is another group.
            let following = if rest.len() > 1 { layer } else { encoder.layers.get(i + 1).unwrap_or(layer) };
            run_layer(kernels, encoder, layer, &following.qkv, group, scratch, pause);
        }
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

/// One layer over the rows of a group; `following` are the weights after its own. Pauses after the last block too, but not
/// between products that leave something in the second-level cache for the next.
unsafe fn run_layer(
    kernels: &Kernels,
    encoder: &Encoder,
    layer: &Layer,
    following: &Packed,
    starts: &[usize],
    scratch: &mut Scratch,
    pause: &mut dyn FnMut(),
) {
    let (hidden, inner) = (encoder.hidden, layer.intermediate.outputs);
    let (Some(&first), Some(&last)) = (starts.first(), starts.last()) else { return };
    let rows = last - first;
    let kept = |width: usize| width.div_ceil(kernels.kept_per_word);
    grow(&mut scratch.qkv, rows * 3 * hidden + SLACK);
    grow(&mut scratch.attended, rows * kept(hidden));
    grow(&mut scratch.inner, rows.min(BLOCK) * kept(inner));
    let Scratch { x, qkv, attended, inner: inner_rows, operand, attention } = scratch;
    let x = x.as_mut_ptr().add(first * hidden);
    let (qkv, attended, inner_rows) = (qkv.as_mut_ptr(), attended.as_mut_ptr(), inner_rows.as_mut_ptr());
    let mut multiply = |input: Input, [weights, next]: [&Packed; 2], finish: Finish, out: *mut u32| {
        (kernels.multiply)(input, weights, next, finish, out, operand);
    };
    let Layer { qkv: qkv_weights, attention_output, intermediate, output, .. } = layer;
    for block in blocks(rows) {
        let (from, to) = (x.add(block.start * hidden), qkv.add(block.start * 3 * hidden));
        let input = Input { rows: Form::Values(from), width: hidden, count: block.len() };
        multiply(input, [qkv_weights, attention_output], Finish::Bias, to.cast());
        if rows > BLOCK {
            pause();
        }
    }
    for pair in starts.windows(2) {
        let (row, shape) = (pair[0] - first, Shape { length: pair[1] - pair[0], hidden, heads: encoder.heads });
        (kernels.attend)(qkv.add(row * 3 * hidden), shape, attended.add(row * kept(hidden)), attention);
    }
    for block in blocks(rows) {
        let (count, rows) = (block.len(), x.add(block.start * hidden));
        let attended = Form::Kept(attended.add(block.start * kept(hidden)));
        let input = |rows: Form, width: usize| Input { rows, width, count };
        multiply(input(attended, hidden), [attention_output, intermediate], Finish::Residual, rows.cast());
        (kernels.layer_norm)(rows, count, hidden, &layer.attention_norm);
        multiply(input(Form::Values(rows), hidden), [intermediate, output], Finish::Gelu, inner_rows);
        multiply(input(Form::Kept(inner_rows), inner), [output, following], Finish::Residual, rows.cast());
        (kernels.layer_norm)(rows, count, hidden, &layer.output_norm);
        pause();
    }
}

/// Takes the next group from the sequences' starts: as many as fit into [`BLOCK`] rows, but at least one. What it answers
/// are starts too, and their end.
fn next_group<'a>(rest: &mut &'a [usize]) -> Option<&'a [usize]> {
    let (&first, others) = rest.split_first()?;
    let fit = others.iter().take_while(|&&end| end - first <= BLOCK).count().max(1);
    let group = rest.get(..=fit)?;
    *rest = &rest[fit..];
    Some(group)
}

/// All rows in blocks of equal length, at most [`BLOCK`].
fn blocks(rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let parts = rows.div_ceil(BLOCK);
    (0..parts).map(move |i| i * rows / parts..(i + 1) * rows / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_whole_sequences_that_fit_a_block() {
        for (starts, groups) in [
            (vec![0], vec![]),
            (vec![0, 5], vec![vec![0, 5]]),
            (vec![0, BLOCK, BLOCK + 1], vec![vec![0, BLOCK], vec![BLOCK, BLOCK + 1]]),
            (
                vec![0, 1, BLOCK, 3 * BLOCK, 3 * BLOCK + 2],
                vec![vec![0, 1, BLOCK], vec![BLOCK, 3 * BLOCK], vec![3 * BLOCK, 3 * BLOCK + 2]],
            ),
        ] {
            let mut rest = starts.as_slice();
            let taken: Vec<_> = std::iter::from_fn(|| next_group(&mut rest)).map(<[usize]>::to_vec).collect();
            assert_eq!(taken, groups, "{starts:?}");
        }
    }
}
