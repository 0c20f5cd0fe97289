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

/// GELU as BERT has it, x/2 (1 + erf(x/√2)), with erf by Abramowitz and Stegun 7.1.26 (error below 1.5e-7).
#[inline(always)]
pub(crate) unsafe fn gelu<S: Simd>(x: S::F) -> S::F {
    let z = S::abs(S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2)));
    let t = S::div(S::splat(1.0), S::fma(z, S::splat(0.327_591_1), S::splat(1.0)));
    let mut p = S::splat(1.061_405_4);
    p = S::fma(p, t, S::splat(-1.453_152));
    p = S::fma(p, t, S::splat(1.421_413_8));
    p = S::fma(p, t, S::splat(-0.284_496_74));
    p = S::fma(p, t, S::splat(0.254_829_6));
    let tail = S::mul(S::mul(p, t), exp::<S>(S::mul(S::sub(S::splat(0.0), z), z)));
    // x/2 (1 + sign(x) erf|z|) = x/2 + |x/2| (1 - tail)
    let half = S::mul(x, S::splat(0.5));
    S::fma(S::abs(half), S::sub(S::splat(1.0), tail), half)
}
