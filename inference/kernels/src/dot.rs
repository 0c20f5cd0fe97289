//! What one 32-bit word of an operand holds in each precision, and how words are multiplied.
//!
//! A product's left operand is rows of words, its right operand packed panels of words (`gemm`). A word holds one f32, two
//! bf16, or four bytes. The int8 arithmetic makes the same integers of the same row on every
//! processor: activations are asymmetric 8-bit
//! values a row, `x ≈ scale (q - zero)`, weights symmetric 8-bit values a channel, sums exact in i32; the zero point is
//! taken out afterwards with the sum of the column's weights. Weights are packed so that the processors whose byte product
//! saturates at 16 bits (AVX2) never do (`pack`).

use crate::simd::Simd;

/// What a row's scale and zero point are, for integer operands: `x ≈ scale (q - zero)`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RowScale {
    pub(crate) scale: f32,
    /// What is subtracted, times the sum of the column's weights.
    pub(crate) zero: f32,
}

/// One way to multiply words.
pub(crate) trait Dot<S: Simd> {
    /// Values in a word.
    const PER_WORD: usize;
    /// Whether sums are integers that a scale turns into values.
    const SCALED: bool;
    /// A vector of sums.
    type Acc: Copy;

    unsafe fn zero() -> Self::Acc;
    unsafe fn step(acc: Self::Acc, a: S::W, b: S::W) -> Self::Acc;
    unsafe fn load(p: *const u32) -> Self::Acc;
    unsafe fn store(p: *mut u32, acc: Self::Acc);
    unsafe fn value(acc: Self::Acc) -> S::F;
    /// Values in a word of a row that only the next product reads. Where a word can be made without knowing its whole row,
    /// such a row is words already; else it is floats.
    const KEPT_PER_WORD: usize;
    /// Keeps LANES values of such a row, from the value `at` on.
    #[inline(always)]
    unsafe fn keep(row: *mut u32, at: usize, v: S::F) {
        S::store(row.cast::<f32>().add(at), v);
    }
    /// Keeps `n < LANES` values.
    #[inline(always)]
    unsafe fn keep_part(row: *mut u32, at: usize, v: S::F, n: usize) {
        S::store_part(row.cast::<f32>().add(at), v, n);
    }
    /// Writes a row of `k` values as words, with zeros up to a whole word; answers its scale.
    unsafe fn prepare(row: *const f32, k: usize, words: *mut u32) -> RowScale;
}

/// One f32 a word.
pub(crate) struct Fp32;

impl<S: Simd> Dot<S> for Fp32 {
    const PER_WORD: usize = 1;
    const SCALED: bool = false;
    const KEPT_PER_WORD: usize = 1;
    type Acc = S::F;

    #[inline(always)]
    unsafe fn zero() -> S::F {
        S::splat(0.0)
    }
    #[inline(always)]
    unsafe fn step(acc: S::F, a: S::W, b: S::W) -> S::F {
        S::fma(S::as_floats(a), S::as_floats(b), acc)
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> S::F {
        S::load(p.cast())
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, acc: S::F) {
        S::store(p.cast(), acc);
    }
    #[inline(always)]
    unsafe fn value(acc: S::F) -> S::F {
        acc
    }
    #[inline(always)]
    unsafe fn prepare(row: *const f32, k: usize, words: *mut u32) -> RowScale {
        std::ptr::copy_nonoverlapping(row.cast::<u32>(), words, k);
        RowScale::default()
    }
}

/// Two bf16 a word.
pub(crate) struct Bf16;

impl<S: Simd> Dot<S> for Bf16 {
    const PER_WORD: usize = 2;
    const SCALED: bool = false;
    const KEPT_PER_WORD: usize = 2;
    type Acc = S::F;

    #[inline(always)]
    unsafe fn zero() -> S::F {
        S::splat(0.0)
    }
    #[inline(always)]
    unsafe fn step(acc: S::F, a: S::W, b: S::W) -> S::F {
        S::dot_bf16(acc, a, b)
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> S::F {
        S::load(p.cast())
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, acc: S::F) {
        S::store(p.cast(), acc);
    }
    #[inline(always)]
    unsafe fn value(acc: S::F) -> S::F {
        acc
    }
    #[inline(always)]
    unsafe fn keep(row: *mut u32, at: usize, v: S::F) {
        S::store_bf16(row.cast::<u16>().add(at), v);
    }
    #[inline(always)]
    unsafe fn keep_part(row: *mut u32, at: usize, v: S::F, n: usize) {
        let mut values = [0.0; 16];
        S::store(values.as_mut_ptr(), v);
        for (i, &value) in values.iter().enumerate().take(n) {
            row.cast::<u16>().add(at + i).write(crate::simd::to_bf16(value));
        }
    }
    #[inline(always)]
    unsafe fn prepare(row: *const f32, k: usize, words: *mut u32) -> RowScale {
        let out = words.cast::<u16>();
        let whole = k - k % S::LANES;
        for i in (0..whole).step_by(S::LANES) {
            S::store_bf16(out.add(i), S::load(row.add(i)));
        }
        for i in whole..k {
            out.add(i).write(crate::simd::to_bf16(*row.add(i)));
        }
        if k % 2 == 1 {
            out.add(k).write(0);
        }
        RowScale::default()
    }
}

/// Four bytes a word: unsigned activations, signed weights.
pub(crate) struct Bytes;

/// Scale, zero point and reciprocal of a row of `k` values. A row that is not finite gets a scale that is not, so that
/// what is computed from it is not taken for a value.
#[inline(always)]
unsafe fn range<S: Simd>(row: *const f32, k: usize) -> (f32, f32, f32) {
    let zero = S::splat(0.0);
    // Four at once: one would wait for itself.
    let (mut lows, mut highs, mut poisons) = ([zero; 4], [zero; 4], [zero; 4]);
    let (whole, fours) = (k - k % S::LANES, k - k % (4 * S::LANES));
    for i in (0..fours).step_by(4 * S::LANES) {
        for j in 0..4 {
            let v = S::load(row.add(i + j * S::LANES));
            (lows[j], highs[j], poisons[j]) = (S::min(v, lows[j]), S::max(v, highs[j]), S::fma(v, zero, poisons[j]));
        }
    }
    for i in (fours..whole).step_by(S::LANES) {
        let v = S::load(row.add(i));
        (lows[0], highs[0], poisons[0]) = (S::min(v, lows[0]), S::max(v, highs[0]), S::fma(v, zero, poisons[0]));
    }
    if whole < k {
        let v = S::load_part(row.add(whole), k - whole);
        (lows[0], highs[0], poisons[0]) = (S::min(v, lows[0]), S::max(v, highs[0]), S::fma(v, zero, poisons[0]));
    }
    let low = S::min(S::min(lows[0], lows[1]), S::min(lows[2], lows[3]));
    let high = S::max(S::max(highs[0], highs[1]), S::max(highs[2], highs[3]));
    let poison = S::add(S::add(poisons[0], poisons[1]), S::add(poisons[2], poisons[3]));
    let (low, high) = (-S::largest(S::sub(zero, low)), S::largest(high));
    let width = (high - low).max(1e-30);
    let inverse = 255.0 / width;
    // 0 for finite values; infinity and NaN times zero are NaN.
    (width / 255.0 + S::sum(poison), round(-low * inverse), inverse)
}

/// To the nearest integer below 2^22, ties to even: `f32::round_ties_even` is a call on processors without SSE4.1.
#[inline(always)]
fn round(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

impl<S: Simd> Dot<S> for Bytes {
    const PER_WORD: usize = 4;
    const SCALED: bool = true;
    const KEPT_PER_WORD: usize = 1;
    type Acc = S::W;

    #[inline(always)]
    unsafe fn zero() -> S::W {
        S::splat_word(0)
    }
    #[inline(always)]
    unsafe fn step(acc: S::W, a: S::W, b: S::W) -> S::W {
        S::dot_u8i8(acc, a, b)
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> S::W {
        S::load_words(p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut u32, acc: S::W) {
        S::store_words(p, acc);
    }
    #[inline(always)]
    unsafe fn value(acc: S::W) -> S::F {
        S::to_floats(acc)
    }

    #[inline(always)]
    unsafe fn prepare(row: *const f32, k: usize, words: *mut u32) -> RowScale {
        let (scale, zero, inverse) = range::<S>(row, k);
        // Rounded before the zero point is added: the sum is exact, and alike on every processor. The least value becomes
        // 0 then, since a number and its negative round alike; the largest may become 256, which is stored as 255.
        let (zeros, inverses) = (S::splat_word((zero as i32).cast_unsigned()), S::splat(inverse));
        let out = words.cast::<u8>();
        let whole = k - k % S::LANES;
        for i in (0..whole).step_by(S::LANES) {
            S::store_u8(out.add(i), S::add_words(S::to_ints(S::mul(S::load(row.add(i)), inverses)), zeros));
        }
        for i in whole..k {
            out.add(i).write((round(*row.add(i) * inverse) + zero).clamp(0.0, 255.0) as u8);
        }
        for i in k..k.next_multiple_of(4) {
            out.add(i).write(0);
        }
        RowScale { scale, zero }
    }
}
