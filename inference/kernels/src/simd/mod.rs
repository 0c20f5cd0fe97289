//! Vectors of 32-bit lanes. Every kernel is written once over [`Simd`] and compiled for each instruction set, so the
//! arithmetic that is tested through the portable vectors is the arithmetic that the others run; only the short functions
//! of the modules below differ, and each is held to the portable one by a test.

pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod portable;

/// A vector of [`Simd::LANES`] lanes of 32 bits, as floats or as words.
///
/// # Safety
/// Every function may be called only on a processor that has the instruction set, and every pointer must be good for the
/// lanes that the function reads or writes. Functions are inlined into a caller that is compiled for the set.
pub(crate) trait Simd: Copy {
    /// How many 32-bit lanes a vector has.
    const LANES: usize;
    /// Lanes as f32.
    type F: Copy;
    /// Lanes as 32-bit words: an i32, two bf16, or four bytes.
    type W: Copy;

    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, v: Self::F);
    /// The first `n < LANES` lanes from memory, the others zero.
    unsafe fn load_part(p: *const f32, n: usize) -> Self::F;
    /// The first `n < LANES` lanes to memory.
    unsafe fn store_part(p: *mut f32, v: Self::F, n: usize);
    unsafe fn splat(x: f32) -> Self::F;
    /// The first `n < LANES` lanes of `a`, the others `x`.
    unsafe fn fill(a: Self::F, n: usize, x: f32) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    /// `a * b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    unsafe fn round(a: Self::F) -> Self::F;
    /// 2 to the power of an integral `a` in -126..=127.
    unsafe fn exp2(a: Self::F) -> Self::F;
    unsafe fn sum(a: Self::F) -> f32;
    unsafe fn largest(a: Self::F) -> f32;

    unsafe fn load_words(p: *const u32) -> Self::W;
    unsafe fn store_words(p: *mut u32, v: Self::W);
    unsafe fn splat_word(x: u32) -> Self::W;
    /// Up to LANES rows of up to LANES values, at `stride`, to as many rows as there were columns, at `to_stride`: each
    /// of LANES values, with zeros behind those that were read.
    unsafe fn transpose(from: *const f32, stride: usize, rows: usize, columns: usize, to: *mut f32, to_stride: usize);
    /// Asks for a cache line. Any address will do.
    unsafe fn prefetch(p: *const u32);
    unsafe fn add_words(a: Self::W, b: Self::W) -> Self::W;
    /// The same bits as floats.
    unsafe fn as_floats(a: Self::W) -> Self::F;
    /// Signed integers to the nearest floats.
    unsafe fn to_floats(a: Self::W) -> Self::F;
    /// Floats within the range of i32 to the nearest integers.
    unsafe fn to_ints(a: Self::F) -> Self::W;

    /// LANES bf16 values from memory, widened.
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    /// LANES floats to memory as bf16, to nearest even. Values must be finite.
    unsafe fn store_bf16(p: *mut u16, v: Self::F);
    /// LANES integers to memory as u8: none may be negative, and those above 255 become 255.
    unsafe fn store_u8(p: *mut u8, v: Self::W);

    /// `acc + a0 * b0 + a1 * b1` over the two bf16 of each word, in fp32; the order of the sum is the set's own.
    unsafe fn dot_bf16(acc: Self::F, a: Self::W, b: Self::W) -> Self::F;
    /// `acc + Σ a_i * b_i` over the four bytes of each word, `a` unsigned and `b` signed, in i32. The first two products must add
    /// up to an i16, and so must the last two.
    unsafe fn dot_u8i8(acc: Self::W, a: Self::W, b: Self::W) -> Self::W;
}

/// bf16 by rounding to nearest even.
pub(crate) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// The float that a bf16 stands for.
pub(crate) fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

#[cfg(test)]
mod tests;
