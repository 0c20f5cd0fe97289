//! From an instruction set and a precision to the functions that were compiled for them.

use crate::attention::{self, Shape, attend};
use crate::dot::{Bf16, Bytes, Dot, Fp32};
use crate::gemm::{Finish, Input, Operand, Packed, multiply};
use crate::rows::{Norm, Word, embed, layer_norms, mean};
use crate::simd::portable::Portable;
use crate::{Isa, Precision};

/// The functions of a forward pass. Each may be called only on a processor that has the set it was compiled for.
pub(crate) struct Kernels {
    /// [`embed`]
    pub(crate) embed: unsafe fn(*mut f32, Word<'_>, &[f32]),
    /// [`layer_norms`]
    pub(crate) layer_norm: unsafe fn(*mut f32, usize, usize, &Norm),
    /// [`mean`]
    pub(crate) mean: unsafe fn(*const f32, usize, usize, *mut f32),
    /// [`attend`]
    pub(crate) attend: unsafe fn(*const f32, Shape, *mut u32, &mut attention::Scratch),
    /// [`multiply`]
    pub(crate) multiply: unsafe fn(Input, &Packed, &Packed, Finish, *mut u32, &mut Operand),
    /// [`Dot::KEPT_PER_WORD`]
    pub(crate) kept_per_word: usize,
}

impl Kernels {
    /// The functions of a set and a precision.
    pub(crate) fn of(isa: Isa, precision: Precision) -> &'static Self {
        match (isa, precision) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::Fp32) => &x86::AVX2_FP32,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::Bf16) => &x86::AVX2_BF16,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::Int8) => &x86::AVX2_INT8,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Precision::Fp32) => &x86::AVX512_FP32,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Precision::Bf16) => &x86::AVX512_WIDENED_BF16,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Precision::Bf16) => &x86::AVX512_BF16,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Precision::Int8) => &x86::AVX512_INT8,
            (_, Precision::Fp32) => &PORTABLE_FP32,
            (_, Precision::Bf16) => &PORTABLE_BF16,
            (_, Precision::Int8) => &PORTABLE_INT8,
        }
    }
}

/// Functions for one set: those that all precisions share, then a product for each precision.
macro_rules! kernels {
    ($(#[$attribute:meta])* $simd:ty, $vectors:literal; $($(#[$more:meta])* $name:ident $multiply:ident $attend:ident $product:ty, $dot:ty;)*) => {
        $(#[$attribute])*
        unsafe fn embed_row(row: *mut f32, word: Word<'_>, position: &[f32]) {
            embed::<$simd>(row, word, position);
        }
        $(#[$attribute])*
        unsafe fn norm_rows(rows: *mut f32, count: usize, n: usize, norm: &Norm) {
            layer_norms::<$simd>(rows, count, n, norm);
        }
        $(#[$attribute])*
        unsafe fn mean_rows(rows: *const f32, count: usize, n: usize, out: *mut f32) {
            mean::<$simd>(rows, count, n, out);
        }
        $(
            $(#[$more])*
            unsafe fn $multiply(input: Input, weights: &Packed, next: &Packed, finish: Finish, out: *mut u32, operand: &mut Operand) {
                multiply::<$product, $dot, $vectors>(input, weights, next, finish, out, operand);
            }
            $(#[$more])*
            unsafe fn $attend(qkv: *const f32, shape: Shape, out: *mut u32, scratch: &mut attention::Scratch) {
                attend::<$product, $dot>(qkv, shape, out, scratch);
            }
            pub(in crate::dispatch) static $name: Kernels = Kernels {
                embed: embed_row,
                layer_norm: norm_rows,
                mean: mean_rows,
                attend: $attend,
                multiply: $multiply,
                kept_per_word: <$dot as Dot<$product>>::KEPT_PER_WORD,
            };
        )*
    };
}

mod portable {
    use super::*;

    kernels! { Portable, 2;
        FP32 multiply_fp32 attend_fp32 Portable, Fp32;
        BF16 multiply_bf16 attend_bf16 Portable, Bf16;
        INT8 multiply_int8 attend_int8 Portable, Bytes;
    }
}
use portable::{BF16 as PORTABLE_BF16, FP32 as PORTABLE_FP32, INT8 as PORTABLE_INT8};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use crate::simd::avx2::Avx2;
    use crate::simd::avx512::Avx512;

    pub(super) use avx2::{BF16 as AVX2_BF16, FP32 as AVX2_FP32, INT8 as AVX2_INT8};
    pub(super) use avx512::{
        BF16 as AVX512_WIDENED_BF16, FP32 as AVX512_FP32, INT8 as AVX512_INT8, NATIVE_BF16 as AVX512_BF16,
    };

    mod avx2 {
        use super::*;

        kernels! {
            #[target_feature(enable = "avx2,fma")] Avx2, 2;
            #[target_feature(enable = "avx2,fma")] FP32 multiply_fp32 attend_fp32 Avx2, Fp32;
            #[target_feature(enable = "avx2,fma")] BF16 multiply_bf16 attend_bf16 Avx2, Bf16;
            #[target_feature(enable = "avx2,fma")] INT8 multiply_int8 attend_int8 Avx2, Bytes;
        }
    }

    mod avx512 {
        use super::*;

        kernels! {
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")] Avx512<false>, 4;
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")] FP32 multiply_fp32 attend_fp32 Avx512<false>, Fp32;
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")] BF16 multiply_bf16 attend_bf16 Avx512<false>, Bf16;
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")] INT8 multiply_int8 attend_int8 Avx512<false>, Bytes;
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")] NATIVE_BF16 multiply_native_bf16 attend_native_bf16 Avx512<true>, Bf16;
        }
    }
}
