//! AVX2 with FMA: eight lanes.

use std::arch::x86_64::*;

use super::Simd;

/// Eight lanes of a 256-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

const LANES: usize = 8;

/// All bits set in the first `n` lanes.
#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lane)
}

/// bf16 in the low half of each lane, rounded to nearest even.
#[inline(always)]
unsafe fn rounded_bf16(v: __m256) -> __m256i {
    let bits = _mm256_castps_si256(v);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    _mm256_srli_epi32::<16>(rounded)
}

/// The lower bf16 of each word, widened.
#[inline(always)]
unsafe fn even_bf16(words: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
}

/// The upper bf16 of each word, widened.
#[inline(always)]
unsafe fn odd_bf16(words: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(0xffff_0000_u32.cast_signed())))
}

impl Simd for Avx2 {
    const LANES: usize = LANES;
    type F = __m256;
    type W = __m256i;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        _mm256_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        _mm256_storeu_ps(p, v);
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> __m256 {
        _mm256_maskload_ps(p, mask(n))
    }
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, v: __m256, n: usize) {
        _mm256_maskstore_ps(p, mask(n), v);
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        _mm256_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn fill(a: __m256, n: usize, x: f32) -> __m256 {
        _mm256_blendv_ps(_mm256_set1_ps(x), a, _mm256_castsi256_ps(mask(n)))
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        _mm256_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        _mm256_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        _mm256_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn abs(a: __m256) -> __m256 {
        _mm256_andnot_ps(_mm256_set1_ps(-0.0), a)
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256 {
        _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
    }
    #[inline(always)]
    unsafe fn exp2(a: __m256) -> __m256 {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
    }
    #[inline(always)]
    unsafe fn sum(a: __m256) -> f32 {
        let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
    }
    #[inline(always)]
    unsafe fn largest(a: __m256) -> f32 {
        let half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_max_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
    }

    #[inline(always)]
    unsafe fn load_words(p: *const u32) -> __m256i {
        _mm256_loadu_si256(p.cast())
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut u32, v: __m256i) {
        _mm256_storeu_si256(p.cast(), v);
    }
    #[inline(always)]
    unsafe fn splat_word(x: u32) -> __m256i {
        _mm256_set1_epi32(x.cast_signed())
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, rows: usize, columns: usize, to: *mut f32, to_stride: usize) {
        let mut a = [_mm256_setzero_ps(); LANES];
        for (r, row) in a.iter_mut().enumerate() {
            if r < rows {
                let from = from.add(r * stride);
                *row = if columns < LANES { Self::load_part(from, columns) } else { Self::load(from) };
            }
        }
        // Four rows at a time within halves, then the halves.
        let mut b = a;
        for r in [0, 4] {
            let (x, y) = (_mm256_unpacklo_ps(a[r], a[r + 1]), _mm256_unpacklo_ps(a[r + 2], a[r + 3]));
            let (z, w) = (_mm256_unpackhi_ps(a[r], a[r + 1]), _mm256_unpackhi_ps(a[r + 2], a[r + 3]));
            b[r] = _mm256_shuffle_ps::<0b0100_0100>(x, y);
            b[r + 1] = _mm256_shuffle_ps::<0b1110_1110>(x, y);
            b[r + 2] = _mm256_shuffle_ps::<0b0100_0100>(z, w);
            b[r + 3] = _mm256_shuffle_ps::<0b1110_1110>(z, w);
        }
        for i in 0..4 {
            a[i] = _mm256_permute2f128_ps::<0x20>(b[i], b[4 + i]);
            a[4 + i] = _mm256_permute2f128_ps::<0x31>(b[i], b[4 + i]);
        }
        for (c, &row) in a.iter().enumerate() {
            if c < columns {
                _mm256_storeu_ps(to.add(c * to_stride), row);
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u32) {
        _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }
    #[inline(always)]
    unsafe fn add_words(a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(a, b)
    }
    #[inline(always)]
    unsafe fn as_floats(a: __m256i) -> __m256 {
        _mm256_castsi256_ps(a)
    }
    #[inline(always)]
    unsafe fn to_floats(a: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(a)
    }
    #[inline(always)]
    unsafe fn to_ints(a: __m256) -> __m256i {
        _mm256_cvtps_epi32(a)
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))))
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: __m256) {
        let low = rounded_bf16(v);
        let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(low, low));
        _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(packed));
    }
    #[inline(always)]
    unsafe fn store_u8(p: *mut u8, v: __m256i) {
        let words = _mm256_permute4x64_epi64::<0b1000>(_mm256_packs_epi32(v, v));
        let words = _mm256_castsi256_si128(words);
        _mm_storel_epi64(p.cast(), _mm_packus_epi16(words, words));
    }

    // There is no bf16 instruction: the two halves are widened and multiplied in fp32.
    #[inline(always)]
    unsafe fn dot_bf16(acc: __m256, a: __m256i, b: __m256i) -> __m256 {
        _mm256_fmadd_ps(odd_bf16(a), odd_bf16(b), _mm256_fmadd_ps(even_bf16(a), even_bf16(b), acc))
    }
    #[inline(always)]
    unsafe fn dot_u8i8(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        let pairs = _mm256_maddubs_epi16(a, b);
        _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}
