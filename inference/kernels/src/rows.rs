//! What happens to one row: layer norm, the embedding of a token, pooling.

use crate::math;
use crate::simd::Simd;

/// Weights of a layer norm over rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) epsilon: f32,
}

/// Layer norm of `count` rows of `n` values, in place.
#[inline(always)]
pub(crate) unsafe fn layer_norms<S: Simd>(rows: *mut f32, count: usize, n: usize, norm: &Norm) {
    for r in 0..count {
        layer_norm::<S>(rows.add(r * n), n, norm);
    }
}

/// Layer norm of a row of `n` values in place: (x - mean) / √(variance + ε) · weight + bias, in two passes over the values,
/// so that a large mean costs no precision.
#[inline(always)]
unsafe fn layer_norm<S: Simd>(row: *mut f32, n: usize, norm: &Norm) {
    let whole = n - n % S::LANES;
    let part = n - whole;
    // Four sums at once: one would wait for itself, an addition's latency for each vector.
    let fours = n - n % (4 * S::LANES);
    let mut sums = [S::splat(0.0); 4];
    for i in (0..fours).step_by(4 * S::LANES) {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = S::add(*sum, S::load(row.add(i + j * S::LANES)));
        }
    }
    for i in (fours..whole).step_by(S::LANES) {
        sums[0] = S::add(sums[0], S::load(row.add(i)));
    }
    if part > 0 {
        sums[1] = S::add(sums[1], S::load_part(row.add(whole), part));
    }
    let mean = S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]))) / n as f32;
    let means = S::splat(mean);
    let mut squares = [S::splat(0.0); 4];
    for i in (0..fours).step_by(4 * S::LANES) {
        for (j, square) in squares.iter_mut().enumerate() {
            let v = S::sub(S::load(row.add(i + j * S::LANES)), means);
            *square = S::fma(v, v, *square);
        }
    }
    for i in (fours..whole).step_by(S::LANES) {
        let v = S::sub(S::load(row.add(i)), means);
        squares[0] = S::fma(v, v, squares[0]);
    }
    let mut square = S::sum(S::add(S::add(squares[0], squares[1]), S::add(squares[2], squares[3])));
    for i in whole..n {
        square += (*row.add(i) - mean) * (*row.add(i) - mean);
    }
    let factor = 1.0 / (square / n as f32 + norm.epsilon).sqrt();
    let factors = S::splat(factor);
    let (weight, bias) = (norm.weight.as_ptr(), norm.bias.as_ptr());
    for i in (0..whole).step_by(S::LANES) {
        let v = S::mul(S::sub(S::load(row.add(i)), means), factors);
        S::store(row.add(i), S::fma(v, S::load(weight.add(i)), S::load(bias.add(i))));
    }
    for i in whole..n {
        row.add(i).write((*row.add(i) - mean) * factor * *weight.add(i) + *bias.add(i));
    }
}

/// `row = word + position`, the word in bf16 or f32.
#[inline(always)]
pub(crate) unsafe fn embed<S: Simd>(row: *mut f32, word: Word<'_>, position: &[f32]) {
    let n = position.len();
    let whole = n - n % S::LANES;
    match word {
        Word::F32(word) => {
            for i in (0..whole).step_by(S::LANES) {
                S::store(row.add(i), S::add(S::load(word.as_ptr().add(i)), S::load(position.as_ptr().add(i))));
            }
            for i in whole..n {
                row.add(i).write(word.get_unchecked(i) + position.get_unchecked(i));
            }
        }
        Word::Bf16(word) => {
            for i in (0..whole).step_by(S::LANES) {
                S::store(row.add(i), S::add(S::load_bf16(word.as_ptr().add(i)), S::load(position.as_ptr().add(i))));
            }
            for i in whole..n {
                row.add(i).write(crate::simd::from_bf16(*word.get_unchecked(i)) + position.get_unchecked(i));
            }
        }
    }
}

/// A row of the table of words.
#[derive(Clone, Copy)]
pub(crate) enum Word<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

/// The mean of `count` rows of `n` values.
#[inline(always)]
pub(crate) unsafe fn mean<S: Simd>(rows: *const f32, count: usize, n: usize, out: *mut f32) {
    let factor = S::splat(1.0 / count as f32);
    let whole = n - n % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        let mut sum = S::splat(0.0);
        for r in 0..count {
            sum = S::add(sum, S::load(rows.add(r * n + i)));
        }
        S::store(out.add(i), S::mul(sum, factor));
    }
    for i in whole..n {
        let sum: f32 = (0..count).map(|r| *rows.add(r * n + i)).sum();
        out.add(i).write(sum / count as f32);
    }
}

/// Replaces `n` scores by e^(score - largest) and answers the reciprocal of their sum. A vector behind them must be good to
/// read, and to write up to whole vectors.
#[inline(always)]
pub(crate) unsafe fn exponentials<S: Simd>(scores: *mut f32, n: usize) -> f32 {
    let whole = n - n % S::LANES;
    // The row is padded to whole vectors with scores that count for nothing. They are put in their place in a register:
    // a vector that is loaded from what was just written in smaller pieces waits until all of them are in the cache.
    let last = S::fill(S::load(scores.add(whole)), n - whole, f32::MIN);
    let mut largest = S::max(last, S::splat(f32::MIN));
    for i in (0..whole).step_by(S::LANES) {
        largest = S::max(S::load(scores.add(i)), largest);
    }
    let largest = S::splat(S::largest(largest));
    let mut sum = S::splat(0.0);
    for i in (0..whole).step_by(S::LANES) {
        let e = math::exp::<S>(S::sub(S::load(scores.add(i)), largest));
        S::store(scores.add(i), e);
        sum = S::add(sum, e);
    }
    if n > whole {
        let e = math::exp::<S>(S::sub(last, largest));
        S::store(scores.add(whole), e);
        sum = S::add(sum, e);
    }
    // e^-87 of the padding is below what an f32 sum of 1 and more can tell.
    1.0 / S::sum(sum)
}
