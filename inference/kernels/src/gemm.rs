//! Products of activations with packed weights.
//!
//! Weights [outputs, inputs] are packed once into panels of `NV` vectors of columns: the words of one step of the inner
//! dimension lie side by side, so the inner loop reads them in order, and each lane is one output. A tile of up to
//! [`TILE_ROWS`] rows by one panel stays in registers over the whole inner loop: 6 x 2 vectors of the 16 that AVX2 has,
//! 6 x 4 of the 32 of AVX-512. A panel is used for all rows of a block before the next one is read, so it stays in the
//! first-level cache, and the block's rows in the second.

use crate::dot::{Dot, RowScale};
use crate::encoder::grow;
use crate::math;
use crate::simd::Simd;

/// Rows in a tile.
pub(crate) const TILE_ROWS: usize = 6;

/// Words of the inner dimension that are run through before the next tile: a panel's part is then 16 KiB with AVX2.
const INNER: usize = 256;

/// Weights of one fully connected layer, packed for one instruction set and precision.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    pub(crate) outputs: usize,
    /// Words in a row of the left operand.
    pub(crate) words: usize,
    /// [panels, words, columns of a panel].
    pub(crate) panels: Vec<u32>,
    /// One bias an output, padded with zeros to whole panels.
    pub(crate) bias: Vec<f32>,
    /// What a column's integer sums are multiplied with; empty for floats.
    pub(crate) scales: Vec<f32>,
    /// `scale * Σ weights` of a column, for operands whose zero point is still in them.
    pub(crate) zeros: Vec<f32>,
}

/// What happens to a sum before it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The bias is added.
    Bias,
    /// The bias is added, then GELU.
    Gelu,
    /// The bias and what the output held before are added.
    Residual,
}

/// Rows of words: the left operand.
#[derive(Clone, Copy)]
struct Rows<'a> {
    words: *const u32,
    /// Words from one row to the next.
    stride: usize,
    /// One a row for integer operands.
    scales: &'a [RowScale],
}

/// What is multiplied: `count` rows of `width` values that lie without gaps.
#[derive(Clone, Copy)]
pub(crate) struct Input {
    pub(crate) rows: *const f32,
    pub(crate) width: usize,
    pub(crate) count: usize,
}

/// Buffers of a product: rows as words, their scales, and sums between the parts of a long inner dimension.
#[derive(Debug, Default)]
pub(crate) struct Operand {
    words: Vec<u32>,
    scales: Vec<RowScale>,
    partial: Vec<u32>,
}

/// `out = finish(input x weights)`; the rows of `out` lie without gaps too.
///
/// # Safety
/// `input` and `out` must be good for their rows; `weights` must be packed for `S`, `D` and `V`.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd, D: Dot<S>, const V: usize>(
    input: Input,
    weights: &Packed,
    finish: Finish,
    out: *mut f32,
    operand: &mut Operand,
) {
    let Input { rows, width, count } = input;
    let words = weights.words;
    let rows = if D::PER_WORD == 1 {
        // Floats are words as they are.
        Rows { words: rows.cast(), stride: width, scales: &[] }
    } else {
        grow(&mut operand.words, count * words);
        grow(&mut operand.scales, count);
        for r in 0..count {
            let scale = D::prepare(rows.add(r * width), width, operand.words.as_mut_ptr().add(r * words));
            *operand.scales.get_unchecked_mut(r) = scale;
        }
        Rows { words: operand.words.as_ptr(), stride: words, scales: &operand.scales }
    };
    product::<S, D, V>(rows, count, weights, finish, out, &mut operand.partial);
}

/// Adds the products of `R` rows with one panel to the sums, over `k` words.
///
/// # Safety
/// `a` must be good for `R` rows of `k` words at `stride`, `b` for `k` steps of `step` words.
#[inline(always)]
pub(crate) unsafe fn accumulate<S: Simd, D: Dot<S>, const R: usize, const V: usize>(
    acc: &mut [[D::Acc; V]; R],
    a: *const u32,
    stride: usize,
    b: *const u32,
    step: usize,
    k: usize,
) {
    // One pointer a row, and hidden from the compiler how they hang together: it would recompute each from the stride in
    // every step, and those additions cost more than the loads.
    let mut rows = [a; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = a.add(r * stride);
    }
    let rows = std::hint::black_box(rows);
    let mut b = b;
    let mut i = 0;
    while i + 1 < k {
        multiply_step::<S, D, R, V>(acc, &rows, i, b);
        multiply_step::<S, D, R, V>(acc, &rows, i + 1, b.add(step));
        b = b.add(2 * step);
        i += 2;
    }
    if i < k {
        multiply_step::<S, D, R, V>(acc, &rows, i, b);
    }
}

/// One word of the inner dimension.
#[inline(always)]
unsafe fn multiply_step<S: Simd, D: Dot<S>, const R: usize, const V: usize>(
    acc: &mut [[D::Acc; V]; R],
    rows: &[*const u32; R],
    i: usize,
    b: *const u32,
) {
    let mut columns = [S::splat_word(0); V];
    for (v, column) in columns.iter_mut().enumerate() {
        *column = S::load_words(b.add(v * S::LANES));
    }
    for (sums, row) in acc.iter_mut().zip(rows) {
        let word = S::splat_word(*row.add(i));
        for (sum, &column) in sums.iter_mut().zip(&columns) {
            *sum = D::step(*sum, word, column);
        }
    }
}

/// One tile of a product.
struct Tile<'a> {
    rows: Rows<'a>,
    /// The first row of the tile.
    row: usize,
    /// The first column of the panel.
    column: usize,
    panel: *const u32,
    /// Where in the inner dimension it begins and ends.
    from: usize,
    to: usize,
}

/// Sums of a tile over a part of the inner dimension; the last part finishes them.
#[inline(always)]
unsafe fn tile<S: Simd, D: Dot<S>, const R: usize, const V: usize>(
    tile: &Tile<'_>,
    weights: &Packed,
    finish: Finish,
    partial: *mut u32,
    out: *mut f32,
) {
    let mut acc = [[D::zero(); V]; R];
    if tile.from > 0 {
        for (r, sums) in acc.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = D::load(partial.add((r * V + v) * S::LANES));
            }
        }
    }
    let width = V * S::LANES;
    let rows = tile.rows.words.add(tile.row * tile.rows.stride + tile.from);
    accumulate::<S, D, R, V>(
        &mut acc,
        rows,
        tile.rows.stride,
        tile.panel.add(tile.from * width),
        width,
        tile.to - tile.from,
    );
    if tile.to < weights.words {
        for (r, sums) in acc.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                D::store(partial.add((r * V + v) * S::LANES), sum);
            }
        }
        return;
    }
    for (r, sums) in acc.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            let column = tile.column + v * S::LANES;
            if column >= weights.outputs {
                break;
            }
            let mut value = D::value(sum);
            let bias = S::load(weights.bias.as_ptr().add(column));
            if D::SCALED {
                let scale = *tile.rows.scales.get_unchecked(tile.row + r);
                value = S::mul(value, S::load(weights.scales.as_ptr().add(column)));
                value = S::sub(value, S::mul(S::splat(scale.zero), S::load(weights.zeros.as_ptr().add(column))));
                value = S::fma(value, S::splat(scale.scale), bias);
            } else {
                value = S::add(value, bias);
            }
            if finish == Finish::Gelu {
                value = math::gelu::<S>(value);
            }
            let to = out.add((tile.row + r) * weights.outputs + column);
            let left = weights.outputs - column;
            if left >= S::LANES {
                if finish == Finish::Residual {
                    value = S::add(value, S::load(to));
                }
                S::store(to, value);
            } else {
                if finish == Finish::Residual {
                    value = S::add(value, S::load_part(to, left));
                }
                S::store_part(to, value, left);
            }
        }
    }
}

/// `rows x weights`, finished, into `out` [count, outputs]. `partial` holds sums between the parts of a
/// long inner dimension and grows as needed.
///
/// # Safety
/// `rows` must be good for `count` rows of `weights.words` words, its scales for `count` (integer operands), `out` for
/// `count` rows of `weights.outputs` values; `weights` must be packed for `S`, `D` and `V`.
#[inline(always)]
unsafe fn product<S: Simd, D: Dot<S>, const V: usize>(
    rows: Rows<'_>,
    count: usize,
    weights: &Packed,
    finish: Finish,
    out: *mut f32,
    partial: &mut Vec<u32>,
) {
    let width = V * S::LANES;
    let tiles = count.div_ceil(TILE_ROWS);
    grow(partial, tiles * TILE_ROWS * width);
    for (index, column) in (0..weights.outputs).step_by(width).enumerate() {
        let panel = weights.panels.as_ptr().add(index * weights.words * width);
        let mut from = 0;
        while from < weights.words {
            let left = weights.words - from;
            // Parts of equal length, so that none is short.
            let to = from + left.div_ceil(left.div_ceil(INNER));
            for t in 0..tiles {
                // Tiles of equal height, so that none is low.
                let (row, end) = (t * count / tiles, (t + 1) * count / tiles);
                let place = Tile { rows, row, column, panel, from, to };
                let partial = partial.as_mut_ptr().add(t * TILE_ROWS * width);
                match end - row {
                    1 => tile::<S, D, 1, V>(&place, weights, finish, partial, out),
                    2 => tile::<S, D, 2, V>(&place, weights, finish, partial, out),
                    3 => tile::<S, D, 3, V>(&place, weights, finish, partial, out),
                    4 => tile::<S, D, 4, V>(&place, weights, finish, partial, out),
                    5 => tile::<S, D, 5, V>(&place, weights, finish, partial, out),
                    _ => tile::<S, D, 6, V>(&place, weights, finish, partial, out),
                }
            }
            from = to;
        }
    }
}
