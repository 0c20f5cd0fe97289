//! Vectors as arrays: what every instruction set is compared with, and what runs where there is none.

use super::{Simd, from_bf16, to_bf16};

const LANES: usize = 8;

/// Eight lanes in plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type F = [f32; LANES];
type W = [u32; LANES];

#[inline(always)]
fn map(a: F, f: impl Fn(f32) -> f32) -> F {
    a.map(f)
}

#[inline(always)]
fn zip(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn halves(word: u32) -> [u16; 2] {
    [word as u16, (word >> 16) as u16]
}

impl Simd for Portable {
    const LANES: usize = LANES;
    type F = F;
    type W = W;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        p.cast::<F>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: F) {
        p.cast::<F>().write_unaligned(v);
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> F {
        let mut v = [0.0; LANES];
        std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n);
        v
    }
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, v: F, n: usize) {
        std::ptr::copy_nonoverlapping(v.as_ptr(), p, n);
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn fill(a: F, n: usize, x: f32) -> F {
        std::array::from_fn(|i| if i < n { a[i] } else { x })
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
    // As the instructions have it: the second operand where either is not a number.
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(a: F) -> F {
        map(a, f32::abs)
    }
    // Not `mul_add`: without the instruction that is a call for each lane.
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    // Adding and taking away 1.5 * 2^23 leaves the nearest integer; `round_ties_even` is a call where SSE4.1 is not given.
    #[inline(always)]
    unsafe fn round(a: F) -> F {
        const SHIFT: f32 = 12_582_912.0;
        map(a, |x| if x.abs() < 4_194_304.0 { (x + SHIFT) - SHIFT } else { x })
    }
    #[inline(always)]
    unsafe fn exp2(a: F) -> F {
        map(a, |x| f32::from_bits((x as i32 + 127).cast_unsigned() << 23))
    }
    #[inline(always)]
    unsafe fn sum(a: F) -> f32 {
        let half: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
        (half[0] + half[2]) + (half[1] + half[3])
    }
    #[inline(always)]
    unsafe fn largest(a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    unsafe fn load_words(p: *const u32) -> W {
        p.cast::<W>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut u32, v: W) {
        p.cast::<W>().write_unaligned(v);
    }
    #[inline(always)]
    unsafe fn splat_word(x: u32) -> W {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, rows: usize, columns: usize, to: *mut f32, to_stride: usize) {
        for c in 0..columns {
            let row = std::array::from_fn(|r| if r < rows { *from.add(r * stride + c) } else { 0.0 });
            Self::store(to.add(c * to_stride), row);
        }
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u32) {}
    #[inline(always)]
    unsafe fn add_words(a: W, b: W) -> W {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn as_floats(a: W) -> F {
        a.map(f32::from_bits)
    }
    #[inline(always)]
    unsafe fn to_floats(a: W) -> F {
        a.map(|x| x.cast_signed() as f32)
    }
    #[inline(always)]
    unsafe fn to_ints(a: F) -> W {
        Self::round(a).map(|x| (x as i32).cast_unsigned())
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> F {
        p.cast::<[u16; LANES]>().read_unaligned().map(from_bf16)
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: F) {
        p.cast::<[u16; LANES]>().write_unaligned(v.map(to_bf16));
    }
    #[inline(always)]
    unsafe fn store_u8(p: *mut u8, v: W) {
        p.cast::<[u8; LANES]>().write_unaligned(v.map(|x| x.min(255) as u8));
    }

    #[inline(always)]
    unsafe fn dot_bf16(acc: F, a: W, b: W) -> F {
        std::array::from_fn(|i| {
            let ([a0, a1], [b0, b1]) = (halves(a[i]), halves(b[i]));
            acc[i] + from_bf16(a0) * from_bf16(b0) + from_bf16(a1) * from_bf16(b1)
        })
    }
    #[inline(always)]
    unsafe fn dot_u8i8(acc: W, a: W, b: W) -> W {
        std::array::from_fn(|i| {
            let (a, b) = (a[i].to_le_bytes(), b[i].to_le_bytes().map(u8::cast_signed));
            let sum: i32 = (0..4).map(|j| i32::from(a[j]) * i32::from(b[j])).sum();
            acc[i].wrapping_add(sum.cast_unsigned())
        })
    }
}
