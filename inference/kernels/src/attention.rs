//! Attention within one sequence, on the packed rows of queries, keys and values. Scores are scaled already: the factor
//! 1/√width is folded into the queries' weights. Keys are transposed in registers, a block of LANES x LANES at a time:
//! value by value it took longer than both products together.

use crate::dot::{Dot, Fp32};
use crate::encoder::grow;
use crate::gemm::{Ahead, TILE_ROWS, accumulate};
use crate::rows::exponentials;
use crate::simd::Simd;

/// Vectors of columns in a tile of scores or of results.
const V: usize = 2;

/// The head's keys, transposed, and the scores of a tile of queries.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    keys: Vec<f32>,
    scores: Vec<f32>,
}

/// One sequence's place and shape.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) length: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
}

/// `out` [length, hidden], kept for the next product ([`Dot::keep`]), from `qkv` [length, 3 * hidden].
///
/// # Safety
/// `qkv` must be good for those rows and for `V * LANES` more values, `out` for its rows.
#[inline(always)]
pub(crate) unsafe fn attend<S: Simd, D: Dot<S>>(qkv: *const f32, shape: Shape, out: *mut u32, scratch: &mut Scratch) {
    let kept = shape.hidden.div_ceil(D::KEPT_PER_WORD);
    let Shape { length, hidden, heads } = shape;
    let (width, stride, columns) = (hidden / heads, 3 * hidden, V * S::LANES);
    let padded = length.next_multiple_of(columns);
    grow(&mut scratch.keys, width * padded);
    grow(&mut scratch.scores, TILE_ROWS * padded + S::LANES);
    let (keys, scores) = (scratch.keys.as_mut_ptr(), scratch.scores.as_mut_ptr());
    for head in 0..heads {
        let query = qkv.add(head * width);
        transpose::<S>(query.add(hidden), stride, length, width, padded, keys);
        let value = query.add(2 * hidden);
        let tiles = length.div_ceil(TILE_ROWS);
        for t in 0..tiles {
            let (row, end) = (t * length / tiles, (t + 1) * length / tiles);
            let tile = Head {
                query: query.add(row * stride),
                keys,
                value,
                out: out.add(row * kept),
                kept,
                at: head * width,
                padded,
                width,
                shape,
            };
            match end - row {
                1 => tile.attend::<S, D, 1>(scores),
                2 => tile.attend::<S, D, 2>(scores),
                3 => tile.attend::<S, D, 3>(scores),
                4 => tile.attend::<S, D, 4>(scores),
                5 => tile.attend::<S, D, 5>(scores),
                _ => tile.attend::<S, D, 6>(scores),
            }
        }
    }
}

/// Keys [length, width] at `stride` to [width, padded], with zeros behind `length`.
#[inline(always)]
unsafe fn transpose<S: Simd>(
    keys: *const f32,
    stride: usize,
    length: usize,
    width: usize,
    padded: usize,
    out: *mut f32,
) {
    for t in (0..padded).step_by(S::LANES) {
        let rows = length.saturating_sub(t).min(S::LANES);
        for d in (0..width).step_by(S::LANES) {
            let columns = (width - d).min(S::LANES);
            S::transpose(keys.wrapping_add(t * stride + d), stride, rows, columns, out.add(d * padded + t), padded);
        }
    }
}

/// A tile of queries of one head.
struct Head {
    query: *const f32,
    keys: *const f32,
    value: *const f32,
    /// The first of the tile's rows.
    out: *mut u32,
    /// Words in one of them.
    kept: usize,
    /// The head's first column.
    at: usize,
    padded: usize,
    width: usize,
    shape: Shape,
}

impl Head {
    #[inline(always)]
    unsafe fn attend<S: Simd, D: Dot<S>, const R: usize>(&self, scores: *mut f32) {
        let columns = V * S::LANES;
        let stride = 3 * self.shape.hidden;
        for column in (0..self.padded).step_by(columns) {
            let mut acc = [[<Fp32 as Dot<S>>::zero(); V]; R];
            let keys = self.keys.add(column).cast();
            accumulate::<S, Fp32, R, V>(
                &mut acc,
                self.query.cast(),
                stride,
                keys,
                self.padded,
                self.width,
                Ahead::nothing(keys),
            );
            for (r, sums) in acc.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    S::store(scores.add(r * self.padded + column + v * S::LANES), sum);
                }
            }
        }
        let mut factors = [0.0; R];
        for (r, factor) in factors.iter_mut().enumerate() {
            *factor = exponentials::<S>(scores.add(r * self.padded), self.shape.length);
        }
        for column in (0..self.width).step_by(columns) {
            let mut acc = [[<Fp32 as Dot<S>>::zero(); V]; R];
            let value = self.value.add(column).cast();
            accumulate::<S, Fp32, R, V>(
                &mut acc,
                scores.cast(),
                self.padded,
                value,
                stride,
                self.shape.length,
                Ahead::nothing(value),
            );
            for (r, (sums, &factor)) in acc.iter().zip(&factors).enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let at = column + v * S::LANES;
                    if at >= self.width {
                        break;
                    }
                    let (row, value) = (self.out.add(r * self.kept), S::mul(sum, S::splat(factor)));
                    match self.width - at {
                        left if left >= S::LANES => D::keep(row, self.at + at, value),
                        left => D::keep_part(row, self.at + at, value, left),
                    }
                }
            }
        }
    }
}
