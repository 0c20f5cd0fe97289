//! AVX-512 (F, BW, DQ, VL) with VNNI: sixteen lanes. `BF16` tells whether the set has its bf16 instructions too; Ice Lake
//! has not.

use std::arch::x86_64::*;

use super::Simd;

/// Sixteen lanes of a 512-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>;

const LANES: usize = 16;

/// The first `n` lanes.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    (1u32 << n).wrapping_sub(1) as __mmask16
}

/// bf16 in the low half of each lane, rounded to nearest even.
#[inline(always)]
unsafe fn rounded_bf16(v: __m512) -> __m512i {
    let bits = _mm512_castps_si512(v);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm512_srli_epi32::<16>(rounded)
}

/// The lower bf16 of each word, widened.
#[inline(always)]
unsafe fn even_bf16(words: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
}

/// The upper bf16 of each word, widened.
#[inline(always)]
unsafe fn odd_bf16(words: __m512i) -> __m512 {
    _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32.cast_signed())))
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    const LANES: usize = LANES;
    type F = __m512;
    type W = __m512i;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        _mm512_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        _mm512_storeu_ps(p, v);
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> __m512 {
        _mm512_maskz_loadu_ps(mask(n), p)
    }
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, v: __m512, n: usize) {
        _mm512_mask_storeu_ps(p, mask(n), v);
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn fill(a: __m512, n: usize, x: f32) -> __m512 {
        _mm512_mask_blend_ps(mask(n), _mm512_set1_ps(x), a)
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        _mm512_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        _mm512_abs_ps(a)
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
    }
    #[inline(always)]
    unsafe fn exp2(a: __m512) -> __m512 {
        let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        _mm512_reduce_add_ps(a)
    }
    #[inline(always)]
    unsafe fn largest(a: __m512) -> f32 {
        _mm512_reduce_max_ps(a)
    }

    #[inline(always)]
    unsafe fn load_words(p: *const u32) -> __m512i {
        _mm512_loadu_si512(p.cast())
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut u32, v: __m512i) {
        _mm512_storeu_si512(p.cast(), v);
    }
    #[inline(always)]
    unsafe fn splat_word(x: u32) -> __m512i {
        _mm512_set1_epi32(x.cast_signed())
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, rows: usize, columns: usize, to: *mut f32, to_stride: usize) {
        let columns_mask = if columns < LANES { mask(columns) } else { !0 };
        let mut a = [_mm512_setzero_ps(); LANES];
        for (r, row) in a.iter_mut().enumerate() {
            if r < rows {
                *row = _mm512_maskz_loadu_ps(columns_mask, from.add(r * stride));
            }
        }
        // Four rows at a time within quarters, then the quarters.
        let mut b = a;
        for r in (0..LANES).step_by(4) {
            let (x, y) = (_mm512_unpacklo_ps(a[r], a[r + 1]), _mm512_unpacklo_ps(a[r + 2], a[r + 3]));
            let (z, w) = (_mm512_unpackhi_ps(a[r], a[r + 1]), _mm512_unpackhi_ps(a[r + 2], a[r + 3]));
            b[r] = _mm512_shuffle_ps::<0b0100_0100>(x, y);
            b[r + 1] = _mm512_shuffle_ps::<0b1110_1110>(x, y);
            b[r + 2] = _mm512_shuffle_ps::<0b0100_0100>(z, w);
            b[r + 3] = _mm512_shuffle_ps::<0b1110_1110>(z, w);
        }
        for i in 0..4 {
            // Quarter q of b[4 j + i] holds column 4 q + i of rows 4 j to 4 j + 3.
            let (x, y) = (
                _mm512_shuffle_f32x4::<0b10_00_10_00>(b[i], b[4 + i]),
                _mm512_shuffle_f32x4::<0b10_00_10_00>(b[8 + i], b[12 + i]),
            );
            let (z, w) = (
                _mm512_shuffle_f32x4::<0b11_01_11_01>(b[i], b[4 + i]),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(b[8 + i], b[12 + i]),
            );
            a[i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(x, y);
            a[4 + i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(z, w);
            a[8 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(x, y);
            a[12 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(z, w);
        }
        for (c, &row) in a.iter().enumerate() {
            if c < columns {
                _mm512_storeu_ps(to.add(c * to_stride), row);
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u32) {
        _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }
    #[inline(always)]
    unsafe fn add_words(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi32(a, b)
    }
    #[inline(always)]
    unsafe fn as_floats(a: __m512i) -> __m512 {
        _mm512_castsi512_ps(a)
    }
    #[inline(always)]
    unsafe fn to_floats(a: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(a)
    }
    #[inline(always)]
    unsafe fn to_ints(a: __m512) -> __m512i {
        _mm512_cvtps_epi32(a)
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))))
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: __m512) {
        if BF16 {
            // The cast changes the type alone.
            return _mm256_storeu_si256(p.cast(), std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v)));
        }
        _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(rounded_bf16(v)));
    }
    #[inline(always)]
    unsafe fn store_u8(p: *mut u8, v: __m512i) {
        _mm_storeu_si128(p.cast(), _mm512_cvtusepi32_epi8(v));
    }

    #[inline(always)]
    unsafe fn dot_bf16(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
        if BF16 {
            // The casts change the type alone: `__m512bh` is the same 512 bits.
            return _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            );
        }
        _mm512_fmadd_ps(odd_bf16(a), odd_bf16(b), _mm512_fmadd_ps(even_bf16(a), even_bf16(b), acc))
    }
    #[inline(always)]
    unsafe fn dot_u8i8(acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(acc, a, b)
    }
}
