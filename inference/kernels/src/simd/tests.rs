//! Each set's functions against the portable ones, lane for lane, on the processor that runs the test.

use super::portable::Portable;
use super::{Simd, from_bf16, to_bf16};
use crate::Isa;

/// Sixteen lanes, enough for every set.
const FLOATS: [f32; 32] = [
    0.0, -0.0, 1.0, -1.5, 2.5, 3.5, -2.5, 1e-20, 1e20, -3.3, 100.25, -7e-3, 0.1, 88.0, -87.0, 12345.678, //
    4.0, 0.5, -1.0, 1.5, -2.0, 0.3, 7.5, 1e20, 1e-20, 2.2, -0.25, 3e-3, -9.0, 0.01, 0.02, -1e4,
];
const WORDS: [u32; 32] = [
    0,
    1,
    0x7f80_1234,
    0xffff_ffff,
    0x8000_7fff,
    0x0102_0304,
    0xff80_7f01,
    0x1234_5678,
    42,
    0x00ff_00ff,
    0xff00_ff00,
    7,
    9,
    0x7fff_7fff,
    0x0080_0080,
    0xdead_beef,
    3,
    0x0001_0001,
    0x4321_8765,
    0x0fff_f0ff,
    0x7f7f_7f7f,
    0x8181_8181,
    0xfeed_f00d,
    0x00ab_cdef,
    5,
    0x8080_8080,
    0x7fff_8001,
    0x1111_2222,
    0x3333_4444,
    0x5555_6666,
    0x0707_0707,
    0xfdfd_fdfd,
];
/// bf16 pairs of moderate size.
fn pairs(seed: f32) -> [u32; 32] {
    std::array::from_fn(|i| {
        let value = |j: usize| u32::from(to_bf16(((i * 2 + j) as f32 * 0.37 + seed).sin() * 3.0));
        value(0) | value(1) << 16
    })
}

/// Signed bytes of which neighbours add up to at most 128, the largest among them.
fn weights() -> [u32; 16] {
    const ROW: [[i8; 4]; 4] = [[64, 64, -64, -64], [127, 1, -128, 0], [0, -127, 33, 90], [-1, -2, 3, 4]];
    std::array::from_fn(|i| u32::from_le_bytes(ROW[i % 4].map(i8::cast_unsigned)))
}

unsafe fn float<S: Simd>(v: S::F) -> Vec<f32> {
    let mut out = vec![0.0; S::LANES];
    S::store(out.as_mut_ptr(), v);
    out
}

unsafe fn word<S: Simd>(v: S::W) -> Vec<u32> {
    let mut out = vec![0; S::LANES];
    S::store_words(out.as_mut_ptr(), v);
    out
}

/// Everything that a set can do, as named rows of 32 lanes. Runs twice or four times over vectors of LANES.
#[inline(always)]
unsafe fn everything<S: Simd>() -> Vec<(&'static str, Vec<f64>)> {
    let mut rows: Vec<(&'static str, Vec<f64>)> = Vec::new();
    let mut put = |name: &'static str, values: Vec<f64>| match rows.iter_mut().find(|(known, _)| *known == name) {
        Some((_, row)) => row.extend(values),
        None => rows.push((name, values)),
    };
    let floats = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
    let words = |v: Vec<u32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
    let (left, right, weights) = (pairs(0.2), pairs(1.1), weights());
    for at in (0..16).step_by(S::LANES) {
        let (a, b) = (S::load(FLOATS.as_ptr().add(at)), S::load(FLOATS.as_ptr().add(16 + at)));
        put("add", floats(float::<S>(S::add(a, b))));
        put("sub", floats(float::<S>(S::sub(a, b))));
        put("mul", floats(float::<S>(S::mul(a, b))));
        put("max", floats(float::<S>(S::max(a, b))));
        put("min", floats(float::<S>(S::min(a, b))));
        put(
            "max keeps NaN on the right",
            floats(float::<S>(S::max(a, S::splat(f32::NAN)))).iter().map(|x| f64::from(x.is_nan())).collect(),
        );
        put(
            "min keeps NaN on the right",
            floats(float::<S>(S::min(a, S::splat(f32::NAN)))).iter().map(|x| f64::from(x.is_nan())).collect(),
        );
        put("abs", floats(float::<S>(S::abs(a))));
        put("fma", floats(float::<S>(S::fma(S::min(a, S::splat(50.0)), b, a))));
        let small = S::max(S::min(a, S::splat(100.0)), S::splat(-100.0));
        put("round", floats(float::<S>(S::round(small))));
        put("exp2", floats(float::<S>(S::exp2(S::round(small)))));
        put("to_ints", words(word::<S>(S::to_ints(small))));
        put("exp", floats(float::<S>(crate::math::exp::<S>(a))));
        put("gelu", floats(float::<S>(crate::math::gelu::<S>(small))));
        let mut bf16 = vec![0u16; S::LANES];
        S::store_bf16(bf16.as_mut_ptr(), a);
        put("bf16", bf16.iter().map(|&x| f64::from(x)).collect());
        put("load_bf16", floats(float::<S>(S::load_bf16(bf16.as_ptr()))));
        let bytes = S::to_ints(S::max(S::min(S::abs(a), S::splat(300.0)), S::splat(0.0)));
        let mut octets = vec![0u8; S::LANES];
        S::store_u8(octets.as_mut_ptr(), bytes);
        put("u8", octets.iter().map(|&x| f64::from(x)).collect());
        let (x, y) = (S::load_words(WORDS.as_ptr().add(at)), S::load_words(WORDS.as_ptr().add(16 + at)));
        put("to_floats", floats(float::<S>(S::to_floats(x))));
        let weights = S::load_words(weights.as_ptr().add(at));
        put("dot_u8i8", words(word::<S>(S::dot_u8i8(y, x, weights))));
        put(
            "dot_bf16",
            floats(float::<S>(S::dot_bf16(
                b,
                S::load_words(left.as_ptr().add(at)),
                S::load_words(right.as_ptr().add(at)),
            ))),
        );
        for n in 0..S::LANES {
            let mut part = [9.0f32; 16];
            S::store_part(part.as_mut_ptr(), S::load_part(FLOATS.as_ptr().add(at), n), n);
            let right = part
                .iter()
                .enumerate()
                .all(|(i, &x)| if i < n { x.to_bits() == FLOATS[at + i].to_bits() } else { x == 9.0 });
            let zeros = float::<S>(S::load_part(FLOATS.as_ptr().add(at), n))[n..].iter().all(|&x| x == 0.0);
            put("parts", vec![f64::from(right && zeros)]);
        }
        for n in 0..S::LANES {
            let filled = float::<S>(S::fill(a, n, -3.0));
            let right = filled.iter().enumerate().all(|(i, &x)| x == if i < n { FLOATS[at + i] } else { -3.0 });
            put("parts", vec![f64::from(right)]);
        }
        for n in 0..=S::LANES {
            let mut turned = vec![9.0f32; 16 * S::LANES];
            let source: Vec<f32> = (0..20 * S::LANES).map(|i| i as f32 + 1.0).collect();
            S::transpose(source.as_ptr(), 20, n, S::LANES - n / 2, turned.as_mut_ptr(), 16);
            let right = turned.iter().enumerate().all(|(i, &x)| {
                let (column, row) = (i / 16, i % 16);
                let want = match () {
                    () if column >= S::LANES - n / 2 || row >= S::LANES => 9.0,
                    () if row < n => source[row * 20 + column],
                    () => 0.0,
                };
                x == want
            });
            put("parts", vec![f64::from(right)]);
        }
        put("add_words", words(word::<S>(S::add_words(x, y))));
        put("splat", words(word::<S>(S::splat_word(0xdead_beef))));
        put("as_floats", floats(float::<S>(S::as_floats(S::load_words(left.as_ptr().add(at))))));
    }
    let mut sum = 0.0;
    let mut largest = f32::MIN;
    for at in (0..16).step_by(S::LANES) {
        let v = S::load(FLOATS.as_ptr().add(16 + at));
        let v = S::min(v, S::splat(100.0));
        sum += S::sum(v);
        largest = largest.max(S::largest(v));
    }
    put("sum", vec![f64::from(sum)]);
    put("largest", vec![f64::from(largest)]);
    rows
}

fn compare(isa: Isa, rows: &[(&'static str, Vec<f64>)]) {
    // SAFETY: plain Rust.
    let expected = unsafe { everything::<Portable>() };
    assert_eq!(rows.len(), expected.len());
    for ((name, row), (_, want)) in rows.iter().zip(&expected) {
        if *name == "parts" {
            assert!(row.iter().all(|&ok| ok == 1.0), "{isa}: {name}");
            continue;
        }
        assert_eq!(row.len(), want.len(), "{isa}: {name}");
        for (lane, (got, want)) in row.iter().zip(want).enumerate() {
            // A fused product rounds once, a plain one twice; sums may run in another order.
            let close =
                (got - want).abs() <= 4e-6 * want.abs().max(1e-6) || got == want || (got.is_nan() && want.is_nan());
            assert!(close, "{isa}: {name}, lane {lane}: {got}, portable {want}");
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::avx2::Avx2;
    use super::super::avx512::Avx512;
    use super::*;

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2() -> Vec<(&'static str, Vec<f64>)> {
        everything::<Avx2>()
    }
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn avx512() -> Vec<(&'static str, Vec<f64>)> {
        everything::<Avx512<false>>()
    }
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
    unsafe fn avx512_bf16() -> Vec<(&'static str, Vec<f64>)> {
        everything::<Avx512<true>>()
    }

    #[test]
    fn every_set_that_this_processor_has_agrees_with_the_portable_one() {
        // SAFETY: each runs only where its set is available.
        unsafe {
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                match isa {
                    Isa::Portable => compare(isa, &everything::<Portable>()),
                    Isa::Avx2 => compare(isa, &avx2()),
                    Isa::Avx512 => compare(isa, &avx512()),
                    Isa::Avx512Bf16 => compare(isa, &avx512_bf16()),
                }
            }
        }
    }
}

#[test]
fn the_portable_functions_are_right() {
    // SAFETY: plain Rust.
    unsafe {
        for x in FLOATS {
            let e = float::<Portable>(crate::math::exp::<Portable>(Portable::splat(x)))[0];
            let want = f64::from(x).clamp(-87.0, 88.0).exp();
            assert!((f64::from(e) - want).abs() < 5e-7 * want, "exp({x}) = {e}, want {want}");
        }
        assert!(float::<Portable>(crate::math::exp::<Portable>(Portable::splat(f32::NAN)))[0].is_nan());
        assert!(float::<Portable>(crate::math::gelu::<Portable>(Portable::splat(f32::NAN)))[0].is_nan());
        for (x, want) in [
            (0.0, 0.0),
            (1.0, 0.841_344_7),
            (-1.0, -0.158_655_25),
            (3.0, 2.995_950_3),
            (-3.0, -0.004_049_69),
            (20.0, 20.0),
            (-20.0, 0.0),
        ] {
            let got = float::<Portable>(crate::math::gelu::<Portable>(Portable::splat(x)))[0];
            assert!((got - want).abs() < 5e-7 * want.abs().max(1.0), "gelu({x}) = {got}, want {want}");
        }
        // Φ by its series, whose terms alternate but are small enough for f64 up to 6.
        for i in -6000..=6000 {
            let x = i as f32 / 1000.0;
            let (z, mut term) = (f64::from(x), f64::from(x));
            let mut sum = term;
            for n in 1..120 {
                term *= -z * z / (2.0 * f64::from(n));
                sum += term / f64::from(2 * n + 1);
            }
            let want = z * (0.5 + sum / (2.0 * std::f64::consts::PI).sqrt());
            let got = f64::from(float::<Portable>(crate::math::gelu::<Portable>(Portable::splat(x)))[0]);
            assert!((got - want).abs() < 3e-7 * want.abs().max(1.0), "gelu({x}) = {got}, want {want}");
        }
        for x in [f32::INFINITY, f32::NEG_INFINITY] {
            assert!(
                !float::<Portable>(crate::math::gelu::<Portable>(Portable::splat(x)))[0].is_finite(),
                "{x} is hidden"
            );
        }
        assert_eq!(float::<Portable>(Portable::round(Portable::splat(2.5)))[0], 2.0);
        assert_eq!(float::<Portable>(Portable::round(Portable::splat(-3.5)))[0], -4.0);
    }
    for (x, want) in
        [(1.0f32, 0x3f80), (-2.0, 0xc000), (1.003_906_3, 0x3f80), (1.011_718_8, 0x3f82), (f32::INFINITY, 0x7f80)]
    {
        assert_eq!(to_bf16(x), want, "{x}");
    }
    assert!(from_bf16(to_bf16(f32::NAN)).is_nan());
}
