//! The rate that a core's multipliers can reach: what a share of peak is a share of.

use std::time::{Duration, Instant};

use crate::{Isa, Precision};

/// Multiply-and-add steps in a row that a core does in registers alone, in operations a second (a multiplication and an
/// addition are two): twelve independent sums of the kernels' own inner step, without a load. Runs for about `time`, and
/// answers the best of several parts, since what is looked for is what the core can do.
///
/// # Panics
/// Never; a set that the processor lacks is measured as the portable one.
pub fn peak(isa: Isa, precision: Precision, time: Duration) -> f64 {
    let isa = if isa.is_available() { isa } else { Isa::Portable };
    let layout = isa.layout(precision);
    let lanes = if isa.has_vnni() { 16 } else { 8 };
    let operations = (2 * layout.per_word * lanes * SUMS * STEPS) as f64;
    let (started, mut best) = (Instant::now(), f64::INFINITY);
    while started.elapsed() < time {
        let began = Instant::now();
        // SAFETY: the set is available.
        let sum = unsafe { burn::run(isa, precision) };
        std::hint::black_box(sum);
        best = best.min(began.elapsed().as_secs_f64());
    }
    operations / best
}

/// Independent sums: more than a multiplier's latency times two of them.
const SUMS: usize = 12;

/// Steps of one measurement: a few hundred microseconds.
const STEPS: usize = 1 << 16;

mod burn {
    use super::{STEPS, SUMS};
    use crate::dot::{Bf16, Bytes, Dot, Fp32};
    use crate::simd::Simd;
    use crate::simd::portable::Portable;
    use crate::{Isa, Precision};

    /// The loop, with `$opaque` making a vector that the compiler knows nothing about; else it would multiply once for all.
    macro_rules! steps {
        ($simd:ty, $dot:ty, $opaque:expr) => {{
            let mut acc = [<$dot as Dot<$simd>>::zero(); SUMS];
            let a = <$simd>::splat_word(0);
            let b = <$simd>::splat_word(std::hint::black_box(0));
            for _ in 0..STEPS {
                for sum in &mut acc {
                    *sum = <$dot as Dot<$simd>>::step(*sum, $opaque(a), b);
                }
            }
            acc.into_iter().map(|sum| <$simd>::sum(<$dot as Dot<$simd>>::value(sum))).sum()
        }};
    }

    pub(super) unsafe fn run(isa: Isa, precision: Precision) -> f32 {
        match (isa, precision) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::Fp32) => x86::avx2_fp32(),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::Bf16) => x86::avx2_bf16(),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::Int8) => x86::avx2_int8(),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Precision::Fp32) => x86::avx512_fp32(),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Precision::Bf16) => x86::avx512_widened_bf16(),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Precision::Bf16) => x86::avx512_bf16(),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Bf16, Precision::Int8) => x86::avx512_int8(),
            (_, Precision::Fp32) => steps!(Portable, Fp32, std::hint::black_box),
            (_, Precision::Bf16) => steps!(Portable, Bf16, std::hint::black_box),
            (_, Precision::Int8) => steps!(Portable, Bytes, std::hint::black_box),
        }
    }

    #[cfg(target_arch = "x86_64")]
    mod x86 {
        use std::arch::asm;

        use super::*;
        use crate::simd::avx2::Avx2;
        use crate::simd::avx512::Avx512;

        macro_rules! compiled_for {
            ($($name:ident: $features:literal, $simd:ty, $dot:ty, $register:ident;)*) => {
                $(
                    #[target_feature(enable = $features)]
                    pub(super) unsafe fn $name() -> f32 {
                        steps!($simd, $dot, |mut words| {
                            asm!("/* {0} */", inout($register) words, options(nomem, nostack, preserves_flags));
                            words
                        })
                    }
                )*
            };
        }

        compiled_for! {
            avx2_fp32: "avx2,fma", Avx2, Fp32, ymm_reg;
            avx2_bf16: "avx2,fma", Avx2, Bf16, ymm_reg;
            avx2_int8: "avx2,fma", Avx2, Bytes, ymm_reg;
            avx512_fp32: "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", Avx512<false>, Fp32, zmm_reg;
            avx512_widened_bf16: "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", Avx512<false>, Bf16, zmm_reg;
            avx512_bf16: "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16", Avx512<true>, Bf16, zmm_reg;
            avx512_int8: "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", Avx512<false>, Bytes, zmm_reg;
        }
    }
}
