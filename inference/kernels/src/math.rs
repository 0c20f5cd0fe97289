//! Functions of a lane: exp and GELU.

use crate::simd::Simd;

/// e^x, within 2 ulp for x in -87..=88 and clamped to that range; NaN stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial of
/// degree 6 in r (the coefficients of Cephes' `expf`). ln 2 is split in two, so that n ln 2 is exact.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // In this order of operands a value that is not a number stays one.
    let x = S::max(S::splat(-87.0), S::min(S::splat(88.0), x));
    let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
    let r = S::fma(n, S::splat(-0.693_359_4), x);
    let r = S::fma(n, S::splat(2.121_944_4e-4), r);
    let mut p = S::splat(1.987_569_1e-4);
    p = S::fma(p, r, S::splat(1.398_2e-3));
    p = S::fma(p, r, S::splat(8.333_452e-3));
    p = S::fma(p, r, S::splat(4.166_579_6e-2));
    p = S::fma(p, r, S::splat(1.666_666_5e-1));
    p = S::fma(p, r, S::splat(0.5));
    let p = S::add(S::fma(S::mul(r, r), p, r), S::splat(1.0));
    S::mul(p, S::exp2(n))
}

/// GELU as BERT has it, x Φ(x) with the normal distribution Φ, within 2e-7. With t = |x| it is t - t Φ(-t) above zero and
/// -t Φ(-t) below. The eighth root of Φ(-t) is so smooth that a polynomial of degree 8 follows it up to 5.6, to 3e-9 in the
/// result (fitted by least squares, reweighted until the largest errors were alike), and beyond that t Φ(-t) is below 1e-7.
/// That is 13 multiplications, where erf by Abramowitz and Stegun 7.1.26 took twice as many and a division, to the same error.
#[inline(always)]
pub(crate) unsafe fn gelu<S: Simd>(x: S::F) -> S::F {
    // In this order of operands a value that is not a number stays one.
    let t = S::min(S::splat(5.6), S::abs(x));
    let mut p = S::splat(-2.958_799_5e-7);
    p = S::fma(p, t, S::splat(7.479_526_6e-6));
    p = S::fma(p, t, S::splat(-6.025_749_5e-5));
    p = S::fma(p, t, S::splat(3.429_462_6e-5));
    p = S::fma(p, t, S::splat(1.504_363e-3));
    p = S::fma(p, t, S::splat(-6.719_563e-4));
    p = S::fma(p, t, S::splat(-3.192_807_7e-2));
    p = S::fma(p, t, S::splat(-9.145_741e-2));
    p = S::fma(p, t, S::splat(9.170_04e-1));
    let p = S::mul(p, p);
    let p = S::mul(p, p);
    // x/2 + (|x|/2 - t Φ(-t)), so that minus infinity is not hidden.
    let half = S::mul(x, S::splat(0.5));
    S::add(half, S::fma(S::mul(S::sub(S::splat(0.0), t), p), p, S::abs(half)))
}
