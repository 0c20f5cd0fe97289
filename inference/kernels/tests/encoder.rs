//! The whole encoder, in every instruction set that this processor has and in every precision, against a plain forward
//! pass in f64.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly, and so may its helpers")]

mod reference;

use proptest::prelude::*;
use undertone_kernels::{Batch, Encoder, Isa, Pooling, Precision, Scratch};

use reference::{Model, Shape};

const PRECISIONS: [Precision; 3] = [Precision::Fp32, Precision::Bf16, Precision::Int8];

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

/// A layer norm before the pooling keeps values near 1, so these are errors of a value.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 2e-5,
        Precision::Bf16 => 0.05,
        Precision::Int8 => 0.12,
    }
}

fn run(encoder: &Encoder, texts: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let ids: Vec<u32> = texts.concat();
    let mut starts = vec![0];
    starts.extend(texts.iter().scan(0, |end, text| {
        *end += text.len();
        Some(*end)
    }));
    let positions = counted(&starts);
    let batch = Batch { ids: &ids, positions: &positions, starts: &starts };
    let vectors = encoder.forward(batch, &mut Scratch::default()).unwrap();
    vectors.chunks(encoder.hidden()).map(<[f32]>::to_vec).collect()
}

/// Each token's place in its sequence.
fn counted(starts: &[usize]) -> Vec<u32> {
    starts.windows(2).flat_map(|pair| 0..pair[1].saturating_sub(pair[0]) as u32).collect()
}

fn distance(one: &[f32], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(&a, &b)| (f64::from(a) - b).abs()).fold(0.0, f64::max)
}

fn cosine(one: &[f32], other: &[f64]) -> f64 {
    let dot: f64 = one.iter().zip(other).map(|(&a, &b)| f64::from(a) * b).sum();
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    dot / (length(&mut one.iter().map(|&x| f64::from(x))) * length(&mut other.iter().copied()))
}

fn texts(lengths: &[usize], vocabulary: usize) -> Vec<Vec<u32>> {
    lengths
        .iter()
        .enumerate()
        .map(|(i, &n)| (0..n).map(|t| ((i * 31 + t * 7 + t * t) % vocabulary) as u32).collect())
        .collect()
}

#[test]
fn every_set_and_precision_computes_the_same_encoder() {
    for pooling in [Pooling::Mean, Pooling::First] {
        // Shapes as they are used, and shapes that fill neither a vector, nor a word, nor a panel.
        for (hidden, heads, inner) in [(64, 4, 128), (48, 3, 100), (36, 4, 50), (33, 3, 67), (10, 5, 9), (128, 2, 300)]
        {
            let model = Model::random(Shape { hidden, heads, inner, layers: 3, vocabulary: 97, positions: 160 }, 7);
            let texts = texts(&[1, 2, 3, 5, 7, 16, 17, 31, 33, 64, 100, 160, 1], 97);
            for isa in available() {
                for precision in PRECISIONS {
                    let encoder = model.encoder(isa, precision, pooling);
                    for (text, vector) in texts.iter().zip(run(&encoder, &texts)) {
                        let expected = model.forward(text, pooling);
                        let off = distance(&vector, &expected);
                        // Narrow rows of random weights are a poor case for quantising: there the direction counts.
                        let close = off < tolerance(precision)
                            || (precision != Precision::Fp32 && cosine(&vector, &expected) > 0.995);
                        assert!(
                            close,
                            "{isa} {precision:?} {hidden}/{heads}/{inner}, {} tokens: off by {off}",
                            text.len()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_token_takes_the_position_that_it_is_given() {
    let model = Model::random(Shape { hidden: 64, heads: 4, inner: 96, layers: 2, vocabulary: 50, positions: 64 }, 5);
    let (ids, positions) = ([3, 1, 4, 1, 5], [1, 0, 2, 0, 3]);
    let expected = model.forward_at(&ids, &positions, Pooling::Mean);
    assert!(
        distance(&model.forward(&ids, Pooling::Mean).iter().map(|&x| x as f32).collect::<Vec<_>>(), &expected) > 0.01
    );
    for isa in available() {
        for precision in PRECISIONS {
            let batch = Batch { ids: &ids, positions: &positions, starts: &[0, ids.len()] };
            let encoder = model.encoder(isa, precision, Pooling::Mean);
            let vector = encoder.forward(batch, &mut Scratch::default()).unwrap();
            assert!(distance(&vector, &expected) < tolerance(precision), "{isa} {precision:?}");
        }
    }
}

#[test]
fn int8_gives_the_same_integers_on_every_set() {
    let model = Model::random(Shape { hidden: 64, heads: 4, inner: 256, layers: 1, vocabulary: 50, positions: 64 }, 3);
    let texts = texts(&[3, 20, 40, 64], 50);
    let reference = run(&model.encoder(Isa::Portable, Precision::Int8, Pooling::Mean), &texts);
    for isa in available() {
        let vectors = run(&model.encoder(isa, Precision::Int8, Pooling::Mean), &texts);
        for (one, other) in reference.iter().zip(&vectors) {
            let other: Vec<f64> = other.iter().map(|&x| f64::from(x)).collect();
            // One row that rounds the other way at a border moves the result by more than fp32's rounding; none by much.
            assert!(distance(one, &other) < 0.02 && cosine(one, &other) > 0.9999, "{isa}: {}", distance(one, &other));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_vector_does_not_depend_on_the_batch(lengths in prop::collection::vec(1usize..90, 1..20), seed in 0u64..1000) {
        let model = Model::random(Shape { hidden: 64, heads: 4, inner: 96, layers: 2, vocabulary: 97, positions: 90 }, seed);
        let texts = texts(&lengths, 97);
        for isa in available() {
            for precision in PRECISIONS {
                let encoder = model.encoder(isa, precision, Pooling::Mean);
                let together = run(&encoder, &texts);
                for (text, vector) in texts.iter().zip(&together) {
                    let alone = run(&encoder, std::slice::from_ref(text));
                    // Not one bit: a row's sums run in the same order, whichever rows share its tile.
                    prop_assert_eq!(&alone[0], vector, "{} {:?}", isa, precision);
                }
            }
        }
    }
}

#[test]
fn what_runs_in_the_pauses_of_a_batch_changes_nothing_in_it() {
    let model = Model::random(Shape { hidden: 32, heads: 2, inner: 64, layers: 2, vocabulary: 10, positions: 200 }, 1);
    let (long, short) = (texts(&[3, 150, 40, 40], 10), texts(&[70, 2], 10));
    for isa in available() {
        for precision in PRECISIONS {
            let encoder = model.encoder(isa, precision, Pooling::Mean);
            let (expected, in_pause) = (run(&encoder, &long), run(&encoder, &short));
            let ids = long.concat();
            let starts = [0, 3, 153, 193, 233];
            let (positions, mut scratch, mut pauses) = (counted(&starts), Scratch::default(), 0);
            let batch = Batch { ids: &ids, positions: &positions, starts: &starts };
            let mut pause = || {
                pauses += 1;
                assert_eq!(run(&encoder, &short), in_pause, "{isa} {precision:?}");
            };
            let found = encoder.forward_with_pauses(batch, &mut scratch, &mut pause).unwrap();
            assert_eq!(found, expected.concat(), "{isa} {precision:?}");
            // Four groups of rows a layer, of which that of 150 has three blocks, each with two pauses.
            assert_eq!(pauses, 2 * (1 + 6 + 1 + 1), "{isa} {precision:?}");
        }
    }
}

#[test]
fn what_is_not_finite_stays_visible() {
    // Weights are finite, but activations overflow: a layer norm that scales by 1e38 is followed by a product.
    for isa in available() {
        for precision in PRECISIONS {
            let mut model =
                Model::random(Shape { hidden: 32, heads: 2, inner: 64, layers: 1, vocabulary: 10, positions: 16 }, 1);
            model.norm.weight.fill(3e38);
            let vectors = run(&model.encoder(isa, precision, Pooling::Mean), &[vec![1, 2, 3]]);
            assert!(vectors[0].iter().any(|x| !x.is_finite()), "{isa} {precision:?} hides an overflow: {vectors:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = Model::random(Shape { hidden: 32, heads: 2, inner: 64, layers: 1, vocabulary: 10, positions: 16 }, 1);
    let encoder = model.encoder(Isa::best(), Precision::Fp32, Pooling::Mean);
    let run_at = |ids: &[u32], positions: &[u32], starts: &[usize]| {
        encoder.forward(Batch { ids, positions, starts }, &mut Scratch::default())
    };
    let refused =
        |ids: &[u32], starts: &[usize]| run_at(ids, &counted(&[0, ids.len()]), starts).unwrap_err().to_string();
    assert!(refused(&[1, 10], &[0, 2]).contains("vocabulary of 10"));
    assert!(refused(&[1; 17], &[0, 17]).contains("16 positions"));
    for starts in [&[][..], &[0], &[1, 3], &[0, 2], &[0, 2, 2, 3], &[0, 4, 3]] {
        assert!(
            refused(&[1, 2, 3], starts).contains("start") || refused(&[1, 2, 3], starts).contains("begins"),
            "{starts:?}"
        );
    }
    for positions in [&[][..], &[0], &[0, 1, 2], &[0, 16]] {
        assert!(run_at(&[1, 2], positions, &[0, 2]).unwrap_err().to_string().contains("position"), "{positions:?}");
    }
    assert_eq!(run_at(&[], &[], &[0]).unwrap(), [0f32; 0]);
    // Floats pass on what is not finite; integers would hide it.
    let mut damaged = model.clone();
    damaged.layers[0].output.weight[5] = f32::NAN;
    let error = damaged.try_encoder(Isa::best(), Precision::Int8, Pooling::Mean).unwrap_err().to_string();
    assert!(error.contains("output") && error.contains("not finite"), "{error}");
    for isa in available() {
        for precision in [Precision::Fp32, Precision::Bf16] {
            let vectors = run(&damaged.encoder(isa, precision, Pooling::Mean), &[vec![1, 2]]);
            assert!(vectors[0].iter().any(|x| x.is_nan()), "{isa} {precision:?}");
        }
        let mut words = model.clone();
        words.words[3 * 32] = f32::NAN;
        let vectors = run(&words.encoder(isa, Precision::Int8, Pooling::Mean), &[vec![1, 2], vec![2, 3]]);
        assert!(vectors[0].iter().all(|x| x.is_finite()) && vectors[1].iter().any(|x| x.is_nan()), "{isa}");
    }
    damaged.layers[0].output.weight.pop();
    assert!(damaged.try_encoder(Isa::best(), Precision::Fp32, Pooling::Mean).is_err());
}
