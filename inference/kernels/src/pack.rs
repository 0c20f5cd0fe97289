//! Packing weights for the kernels of one instruction set and precision.

use crate::gemm::Packed;
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
        panels: vec![0; padded * words],
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
            packed.panels[(panel * words + word) * columns + lane] = bits;
        }
        if layout.precision == Precision::Int8 {
            packed.scales[output] = scale;
            packed.zeros[output] = scale * sum as f32;
        }
    }
    packed
}

/// The symmetric scale of a channel: its largest magnitude is 127 steps.
fn scale_of(row: &[f32]) -> f32 {
    let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    if largest > 0.0 { largest / 127.0 } else { 1.0 }
}
