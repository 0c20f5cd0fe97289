//! Products of activations with packed weights.
//!
//! Weights [outputs, inputs] are packed once into panels of `NV` vectors of columns: the words of one step of the inner
//! dimension lie side by side, so the inner loop reads them in order, and each lane is one output. A tile of up to
//! [`TILE_ROWS`] rows by one panel stays in registers over the whole inner loop: 6 x 2 vectors of the 16 that AVX2 has,
//! 6 x 4 of the 32 of AVX-512. A panel is used for all rows of a block before the next one is read, so it stays in the
//! first-level cache, and the block's rows in the second. Weights are larger than what caches are worth on a shared
//! machine, so they pass by once for a block of rows (`forward`), and the next part of a panel, or the first panel of the
//! next product, is asked for while this one is multiplied.
//!
//! Measured on Zen 4, which multiplies one 512-bit vector a cycle: the inner loop reaches 98 to 99 percent of that over 96
//! to 384 words, from the first-level cache and from the second alike. Tiles of 8 x 3, 12 x 2 and 5 x 4 do the same within
//! a percent, and so do loops without the prefetch. What is lost lies around the loop: rows that left the second-level
//! cache before they were read (`forward`), address look-ups (`memory`), and what is done with a finished tile.

use std::sync::Arc;

use crate::dot::{Dot, RowScale};
use crate::encoder::grow;
use crate::math;
use crate::memory::{CacheLine, Lines};
use crate::simd::Simd;

/// Rows in a tile.
pub(crate) const TILE_ROWS: usize = 6;

/// Words of the inner dimension that are run through before the next tile: a panel's part is then 24 KiB with AVX2.
const INNER: usize = 384;

/// Words of rows that stay in the second-level cache: 384 KiB of the 512 KiB or more that processors have.
const RESIDENT: usize = 96 << 10;

/// Weights of one fully connected layer, packed for one instruction set and precision.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    pub(crate) outputs: usize,
    /// Words in a row of the left operand.
    pub(crate) words: usize,
    /// [panels, words, columns of a panel].
    pub(crate) panels: Panels,
    /// One bias an output, padded with zeros to whole panels.
    pub(crate) bias: Vec<f32>,
    /// What a column's integer sums are multiplied with; empty for floats.
    pub(crate) scales: Vec<f32>,
    /// `scale * Σ weights` of a column, for operands whose zero point is still in them.
    pub(crate) zeros: Vec<f32>,
}

/// Words from the start of a cache line on.
#[derive(Debug)]
pub(crate) enum Panels {
    /// While they are packed.
    Own(Vec<CacheLine>),
    /// A part of a layer's lines, and where it begins.
    Shared(Arc<Lines>, usize),
}

impl Default for Panels {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl Panels {
    /// `words` zeros.
    pub(crate) fn zeros(words: usize) -> Self {
        Self::Own(vec![CacheLine::default(); words.div_ceil(16)])
    }

    /// All words, and zeros up to a whole line.
    #[cfg(test)]
    pub(crate) fn words(&self) -> Vec<u32> {
        self.lines().iter().flat_map(|line| line.0).collect()
    }

    /// Writes a word; only those that are not shared yet can be.
    pub(crate) fn set(&mut self, at: usize, word: u32) {
        if let Self::Own(lines) = self {
            lines[at / 16].0[at % 16] = word;
        }
    }

    /// Moves the panels of products that follow each other into the same memory.
    pub(crate) fn share<const N: usize>(products: [&mut Packed; N]) {
        let lines = Arc::new(Lines::of(&products.each_ref().map(|packed| packed.panels.lines())));
        let mut from = 0;
        for packed in products {
            let length = packed.panels.lines().len();
            packed.panels = Self::Shared(lines.clone(), from);
            from += length;
        }
    }

    fn lines(&self) -> &[CacheLine] {
        match self {
            Self::Own(lines) => lines,
            Self::Shared(lines, from) => lines.get(*from..).unwrap_or_default(),
        }
    }

    fn as_ptr(&self) -> *const u32 {
        self.lines().as_ptr().cast()
    }
}

/// What happens to a sum before it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The bias is added.
    Bias,
    /// The bias is added, then GELU; the result is kept for the next product alone ([`Dot::keep`]).
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

/// What is multiplied: `count` rows of `width` values.
#[derive(Clone, Copy)]
pub(crate) struct Input {
    pub(crate) rows: Form,
    pub(crate) width: usize,
    pub(crate) count: usize,
}

/// Rows without gaps: of values, or of words that were kept for this product alone ([`Dot::keep`]).
#[derive(Clone, Copy)]
pub(crate) enum Form {
    Values(*const f32),
    Kept(*mut u32),
}

/// Buffers of a product: rows as words, their scales, and sums between the parts of a long inner dimension.
#[derive(Debug, Default)]
pub(crate) struct Operand {
    words: Vec<u32>,
    scales: Vec<RowScale>,
    partial: Vec<u32>,
}

/// `out = finish(input x weights)`; the rows of `out` lie without gaps too, and are floats or kept words as `finish` says.
/// The first panel of `next`, the weights of the next product, is asked for while the last one of these is multiplied.
///
/// # Safety
/// `input` and `out` must be good for their rows; `weights` must be packed for `S`, `D` and `V`.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd, D: Dot<S>, const V: usize>(
    input: Input,
    weights: &Packed,
    next: &Packed,
    finish: Finish,
    out: *mut u32,
    operand: &mut Operand,
) {
    let Input { rows, width, count } = input;
    let words = weights.words;
    let values = match rows {
        Form::Kept(rows) if D::KEPT_PER_WORD == D::PER_WORD => {
            if width < words * D::PER_WORD {
                // The second half of the last word was nobody's to write.
                (0..count).for_each(|r| rows.add(r * words).cast::<u16>().add(width).write(0));
            }
            let rows = Rows { words: rows, stride: words, scales: &[] };
            return product::<S, D, V>(rows, count, [weights, next], finish, out, &mut operand.partial);
        }
        Form::Kept(rows) => rows.cast_const().cast(),
        Form::Values(rows) => rows,
    };
    let rows = if D::PER_WORD == 1 {
        // Floats are words as they are.
        Rows { words: values.cast(), stride: width, scales: &[] }
    } else {
        grow(&mut operand.words, count * words);
        grow(&mut operand.scales, count);
        for r in 0..count {
            let scale = D::prepare(values.add(r * width), width, operand.words.as_mut_ptr().add(r * words));
            *operand.scales.get_unchecked_mut(r) = scale;
        }
        Rows { words: operand.words.as_ptr(), stride: words, scales: &operand.scales }
    };
    product::<S, D, V>(rows, count, [weights, next], finish, out, &mut operand.partial);
}

/// Words that will be needed next, to be asked for while others are multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// The first of them.
    pub(crate) from: *const u32,
    /// Words from one request to the next; there is a request for each step.
    pub(crate) stride: usize,
}

impl Ahead {
    /// Asks for what is at hand already.
    pub(crate) fn nothing(b: *const u32) -> Self {
        Self { from: b, stride: 0 }
    }
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
    ahead: Ahead,
) {
    // One pointer a row, and hidden from the compiler how they hang together: it would recompute each from the stride in
    // every step, and those additions cost more than the loads.
    let mut rows = [a; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = a.add(r * stride);
    }
    let rows = std::hint::black_box(rows);
    // Sums in variables of this function: behind a reference the compiler would write each to memory in every step.
    let mut sums = *acc;
    let (mut b, mut ahead_of) = (b, ahead.from);
    for i in 0..k {
        S::prefetch(ahead_of);
        sums = multiply_step::<S, D, R, V>(sums, &rows, i, b);
        ahead_of = ahead_of.wrapping_add(ahead.stride);
        b = b.add(step);
    }
    *acc = sums;
}

/// One word of the inner dimension.
#[inline(always)]
unsafe fn multiply_step<S: Simd, D: Dot<S>, const R: usize, const V: usize>(
    mut acc: [[D::Acc; V]; R],
    rows: &[*const u32; R],
    i: usize,
    b: *const u32,
) -> [[D::Acc; V]; R] {
    let mut columns = [S::splat_word(0); V];
    for (v, column) in columns.iter_mut().enumerate() {
        *column = S::load_words(b.add(v * S::LANES));
    }
    for r in 0..R {
        let word = S::splat_word(*rows[r].add(i));
        for v in 0..V {
            acc[r][v] = D::step(acc[r][v], word, columns[v]);
        }
    }
    acc
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
    ahead: Ahead,
}

/// Sums of a tile over a part of the inner dimension; the last part finishes them.
#[inline(always)]
unsafe fn tile<S: Simd, D: Dot<S>, const R: usize, const V: usize>(
    tile: &Tile<'_>,
    weights: &Packed,
    finish: Finish,
    partial: *mut u32,
    out: *mut u32,
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
        tile.ahead,
    );
    if tile.to < weights.words {
        for (r, sums) in acc.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                D::store(partial.add((r * V + v) * S::LANES), sum);
            }
        }
        return;
    }
    let kept = weights.outputs.div_ceil(D::KEPT_PER_WORD);
    // Column by column, so that what belongs to a column is read once.
    for v in 0..V {
        let column = tile.column + v * S::LANES;
        if column >= weights.outputs {
            break;
        }
        let left = weights.outputs - column;
        let bias = S::load(weights.bias.as_ptr().add(column));
        let (scales, zeros) = if D::SCALED {
            (S::load(weights.scales.as_ptr().add(column)), S::load(weights.zeros.as_ptr().add(column)))
        } else {
            (bias, bias)
        };
        for (r, sums) in acc.iter().enumerate() {
            let mut value = D::value(sums[v]);
            if D::SCALED {
                let scale = *tile.rows.scales.get_unchecked(tile.row + r);
                value = S::sub(S::mul(value, scales), S::mul(S::splat(scale.zero), zeros));
                value = S::fma(value, S::splat(scale.scale), bias);
            } else {
                value = S::add(value, bias);
            }
            let row = tile.row + r;
            if finish == Finish::Gelu {
                let (value, to) = (math::gelu::<S>(value), out.add(row * kept));
                match left >= S::LANES {
                    true => D::keep(to, column, value),
                    false => D::keep_part(to, column, value, left),
                }
                continue;
            }
            let to = out.cast::<f32>().add(row * weights.outputs + column);
            let residual = finish == Finish::Residual;
            if left >= S::LANES {
                S::store(to, if residual { S::add(value, S::load(to)) } else { value });
            } else {
                S::store_part(to, if residual { S::add(value, S::load_part(to, left)) } else { value }, left);
            }
        }
    }
}

/// `rows x weights`, finished, into `out` [count, outputs]. `partial` holds sums between the parts of a long inner
/// dimension and grows as needed.
///
/// # Safety
/// `rows` must be good for `count` rows of `weights.words` words, its scales for `count` (integer operands), `out` for
/// `count` rows of `weights.outputs` values; `weights` must be packed for `S`, `D` and `V`.
#[inline(always)]
unsafe fn product<S: Simd, D: Dot<S>, const V: usize>(
    rows: Rows<'_>,
    count: usize,
    [weights, following]: [&Packed; 2],
    finish: Finish,
    out: *mut u32,
    partial: &mut Vec<u32>,
) {
    let width = V * S::LANES;
    let tiles = count.div_ceil(TILE_ROWS);
    let (low, high) = (count / tiles.max(1), count % tiles.max(1));
    let panels = weights.outputs.div_ceil(width);
    // As much of the rows as stays in the second-level cache while all panels pass by.
    let resident = (RESIDENT / count.max(1)).max(INNER);
    let laps = weights.words.div_ceil(resident);
    grow(partial, if laps > 1 { panels } else { 1 } * tiles * TILE_ROWS * width);
    for lap in 0..laps {
        let (start, end) = (lap * weights.words / laps, (lap + 1) * weights.words / laps);
        let parts = (end - start).div_ceil(INNER);
        for index in 0..panels {
            let panel = weights.panels.as_ptr().add(index * weights.words * width);
            // Sums must last until the next lap, or only until the next part.
            let sums = partial.as_mut_ptr().add(if laps > 1 { index * tiles * TILE_ROWS * width } else { 0 });
            for part in 0..parts {
                // Parts of equal length, so that none is short.
                let (from, to) = (start + part * (end - start) / parts, start + (part + 1) * (end - start) / parts);
                let next = match (part + 1 < parts, index + 1 < panels) {
                    (true, _) => panel.wrapping_add(to * width),
                    (_, true) => panel.wrapping_add((start + weights.words) * width),
                    _ if lap + 1 < laps => weights.panels.as_ptr().wrapping_add(end * width),
                    _ => following.panels.as_ptr(),
                };
                let share = (to - from) * width / tiles;
                let (mut row, stride) = (0, share.div_ceil(to - from));
                for t in 0..tiles {
                    // Each tile asks for its share of the next part.
                    let ahead = Ahead { from: next.wrapping_add(t * share), stride };
                    // Tiles of equal height, so that none is low.
                    let height = low + usize::from(t < high);
                    let place = Tile { rows, row, column: index * width, panel, from, to, ahead };
                    let partial = sums.add(t * TILE_ROWS * width);
                    row += height;
                    match height {
                        1 => tile::<S, D, 1, V>(&place, weights, finish, partial, out),
                        2 => tile::<S, D, 2, V>(&place, weights, finish, partial, out),
                        3 => tile::<S, D, 3, V>(&place, weights, finish, partial, out),
                        4 => tile::<S, D, 4, V>(&place, weights, finish, partial, out),
                        5 => tile::<S, D, 5, V>(&place, weights, finish, partial, out),
                        _ => tile::<S, D, 6, V>(&place, weights, finish, partial, out),
                    }
                }
            }
        }
    }
}
