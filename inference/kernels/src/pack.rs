//! Packing weights for the kernels of one instruction set and precision.

use crate::gemm::{Packed, Panels};
use crate::simd::to_bf16;
use crate::{Layout, Precision};

/// Weights [outputs, inputs] and a bias [outputs] in the order that the kernels read.
pub(crate) fn pack(weight: &[f32], bias: &[f32], layout: Layout) -> Packed {
    let outputs = bias.len();
    let inputs = weight.len() / outputs.max(1);
    let (columns, per_word) = (layout.columns, layout.per_word);
    let (words, padded) = (inputs.div_ceil(per_word), outputs.next_multiple_of(columns));
    let mut packed = Packed {
        outputs,
        words,
        panels: Panels::zeros(padded * words),
        bias: vec![0.0; padded],
        scales: Vec::new(),
        zeros: Vec::new(),
    };
    packed.bias[..outputs].copy_from_slice(bias);
    if layout.precision == Precision::Int8 {
        (packed.scales, packed.zeros) = (vec![0.0; padded], vec![0.0; padded]);
    }
    for (output, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
        let (panel, lane) = (output / columns, output % columns);
        let scale = scale_of(row);
        let mut sum = 0;
        for word in 0..words {
            let values = &row[word * per_word..inputs.min((word + 1) * per_word)];
            let mut bits = 0u32;
            for (i, &value) in values.iter().enumerate() {
                bits |= match layout.precision {
                    Precision::Fp32 => value.to_bits(),
                    Precision::Bf16 => u32::from(to_bf16(value)) << (16 * i),
                    Precision::Int8 => {
                        let q = (value / scale).round_ties_even().clamp(-127.0, 127.0) as i32;
                        sum += q;
                        let width = 32 / per_word;
                        // The lowest `width` bits of the two's complement.
                        (q.cast_unsigned() & (u32::MAX >> (32 - width))) << (width * i)
                    }
                };
            }
            packed.panels.set((panel * words + word) * columns + lane, bits);
        }
        if layout.precision == Precision::Int8 {
            packed.scales[output] = scale;
            packed.zeros[output] = scale * sum as f32;
        }
    }
    packed
}

/// The symmetric scale of a channel: no value is more than 127 steps, and no two that are multiplied together are more than
/// [`PAIR`] steps.
fn scale_of(row: &[f32]) -> f32 {
    let step = |pair: &[f32]| {
        let largest = pair.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        (largest / 127.0).max(pair.iter().map(|value| value.abs()).sum::<f32>() / PAIR)
    };
    let scale = row.chunks(2).map(step).fold(0f32, f32::max);
    if scale > 0.0 { scale } else { 1.0 }
}

/// The most that the magnitudes of two neighbours may add up to before they are rounded. AVX2 adds their products with
/// activations of up to 255 in 16 bits and saturates there; 255 * (127 + 1) is within them, and costs a channel less than
/// a fifth of its steps, since the largest weight rarely stands beside another large one.
const PAIR: f32 = 127.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;

    proptest! {
        #[test]
        fn bytes_never_saturate_and_are_close(weight in prop::collection::vec(-3f32..3.0, 1..40), outlier in 0usize..40, factor in 1f32..60.0) {
            let mut weight = weight;
            if let Some(value) = weight.get_mut(outlier) {
                *value *= factor;
            }
            let inputs = weight.len();
            let packed = pack(&weight, &[0.0], Isa::Portable.layout(Precision::Int8));
            let columns = Isa::Portable.layout(Precision::Int8).columns;
            let scale = packed.scales[0];
            let panels = packed.panels.words();
            let bytes: Vec<i32> = (0..packed.words)
                .flat_map(|word| panels[word * columns].to_le_bytes().map(|byte| i32::from(byte.cast_signed())))
                .collect();
            for pair in bytes.chunks(2) {
                prop_assert!(255 * pair.iter().map(|q| q.abs()).sum::<i32>() <= i32::from(i16::MAX), "{:?}", pair);
            }
            for (value, q) in weight.iter().zip(&bytes) {
                prop_assert!((value - *q as f32 * scale).abs() <= 0.5001 * scale, "{value} became {q} steps of {scale}");
            }
            prop_assert!(bytes[inputs..].iter().all(|&q| q == 0));
            // No coarser than is needed: some pair is at its limit, or some value.
            prop_assert!(bytes.chunks(2).any(|pair| pair.iter().map(|q| q.abs()).sum::<i32>() >= 126));
        }
    }

    #[test]
    fn panels_hold_every_weight_once_and_zeros_behind() {
        let weight: Vec<f32> = (0..18 * 5).map(|i| i as f32 + 1.0).collect();
        let packed = pack(&weight, &[0.5; 18], Isa::Portable.layout(Precision::Fp32));
        let columns = Isa::Portable.layout(Precision::Fp32).columns;
        assert_eq!(
            (packed.outputs, packed.words, packed.panels.words().len(), packed.bias.len()),
            (18, 5, 2 * columns * 5, 2 * columns)
        );
        let panels = packed.panels.words();
        for output in 0..18 {
            for word in 0..5 {
                let bits = panels[(output / columns * 5 + word) * columns + output % columns];
                assert_eq!(f32::from_bits(bits), weight[output * 5 + word]);
            }
        }
        assert_eq!(panels.iter().filter(|&&bits| bits != 0).count(), 18 * 5);
        assert_eq!(packed.bias[18..], vec![0.0; 2 * columns - 18]);
    }
}
