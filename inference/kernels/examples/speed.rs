//! How fast the encoder runs on one core, beside what the core's multipliers can do.
//!
//!     cargo run --release -p undertone-kernels --example speed [-- SECONDS [LENGTH] [SET] [PRECISION]]
//!
//! Random weights in the shape of MiniLM (6 layers, 384 wide), batches of 512 tokens in texts of LENGTH (25). SET and
//! PRECISION, as the table names them, leave out the other rows.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::time::{Duration, Instant};

use undertone_kernels::{
    Batch, Encoder, EncoderWeights, Isa, LayerWeights, LinearWeights, NormWeights, Pooling, Precision, Scratch, peak,
};

const HIDDEN: usize = 384;
const INNER: usize = 1536;
const LAYERS: usize = 6;

fn main() {
    let (numbers, names): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.parse::<f64>().is_ok());
    let arguments: Vec<f64> = numbers.iter().filter_map(|word| word.parse().ok()).collect();
    let is_set = |name: &String| Isa::from_name(name).is_some();
    let wanted = |name: &str, of_sets: bool| {
        let mut asked = names.iter().filter(|name| is_set(name) == of_sets).peekable();
        asked.peek().is_none() || asked.any(|word| word.eq_ignore_ascii_case(name))
    };
    let time = Duration::from_secs_f64(arguments.first().copied().unwrap_or(2.0));
    let length = arguments.get(1).map_or(25, |&n| n as usize);
    let texts = 512 / length;
    println!("set          precision   GOP/s peak   GOP/s   share   tokens/s   one text, ms");
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available() && wanted(isa.name(), true)) {
        for precision in [Precision::Fp32, Precision::Bf16, Precision::Int8] {
            if !wanted(&format!("{precision:?}"), false) {
                continue;
            }
            let encoder = encoder(isa, precision);
            let best = peak(isa, precision, Duration::from_millis(300));
            let batch = seconds(&encoder, texts, length, time);
            let single = seconds(&encoder, 1, length, time / 4);
            let tokens = (texts * length) as f64;
            // Two operations a weight, and the two products of attention.
            let operations =
                tokens * (2 * LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER + 2 * length * HIDDEN)) as f64;
            println!(
                "{:<12} {:<9} {:>12.0} {:>7.0} {:>6.0}% {:>10.0} {:>14.2}",
                isa.name(),
                format!("{precision:?}"),
                best / 1e9,
                operations / batch / 1e9,
                100.0 * operations / batch / best,
                tokens / batch,
                single * 1e3
            );
        }
    }
}

/// Processor time of a batch, so that a busy machine does not count as a slow kernel.
fn seconds(encoder: &Encoder, texts: usize, length: usize, time: Duration) -> f64 {
    let ids: Vec<u32> = (0..texts * length).map(|i| (i * 7919 % 1000) as u32).collect();
    let positions: Vec<u32> = (0..texts * length).map(|i| (i % length) as u32).collect();
    let starts: Vec<usize> = (0..=texts).map(|i| i * length).collect();
    let batch = Batch { ids: &ids, positions: &positions, starts: &starts };
    let mut scratch = Scratch::default();
    let mut run = || std::hint::black_box(encoder.forward(batch, &mut scratch).unwrap());
    run();
    let (began, before, mut runs) = (Instant::now(), on_processor(), 0);
    while began.elapsed() < time || runs < 3 {
        run();
        runs += 1;
    }
    (on_processor() - before) / f64::from(runs)
}

/// Seconds that this thread has spent on a processor.
fn on_processor() -> f64 {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    status.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn encoder(isa: Isa, precision: Precision) -> Encoder {
    let mut random = 1u64;
    let mut values = move |n: usize, scale: f32| -> Vec<f32> {
        (0..n)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((random >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
            })
            .collect()
    };
    let norm = || NormWeights { weight: vec![1.0; HIDDEN], bias: vec![0.0; HIDDEN] };
    let weights = EncoderWeights {
        hidden: HIDDEN,
        heads: 12,
        words: values(1000 * HIDDEN, 0.1),
        positions: values(512 * HIDDEN, 0.1),
        norm: norm(),
        epsilon: 1e-12,
        pooling: Pooling::Mean,
    };
    let mut encoder = Encoder::new(weights, isa, precision).unwrap();
    for _ in 0..LAYERS {
        let mut linear = |outputs: usize, inputs: usize| LinearWeights {
            weight: values(outputs * inputs, 0.05),
            bias: values(outputs, 0.05),
        };
        let layer = LayerWeights {
            qkv: linear(3 * HIDDEN, HIDDEN),
            attention_output: linear(HIDDEN, HIDDEN),
            attention_norm: norm(),
            intermediate: linear(INNER, HIDDEN),
            output: linear(HIDDEN, INNER),
            output_norm: norm(),
        };
        encoder.push(layer).unwrap();
    }
    encoder
}
