//! What can be held to the CPU's encoder without a GPU: everything but the kernels. A replica runs on any device, so the
//! packing, the copy, the pooling and the order are tested on this one.

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;
use tch::Reduction;

use super::*;
use crate::model::shape::EncoderShape;
use crate::model::weights::Weights;

const WORDS: u32 = 50;
const POSITIONS: usize = 24;

/// A small BERT with random weights.
fn encoder(pooling: Pooling) -> Encoder {
    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_act": "gelu", "architectures": ["BertModel"],
    });
    let shape = EncoderShape::parse(config.to_string().as_bytes()).unwrap();
    weights(folder.path());
    Encoder::load(&Weights::read(folder.path(), "model.safetensors").unwrap(), &shape, pooling).unwrap()
}

fn weights(folder: &Path) {
    tch::manual_seed(7);
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    let mut add = |name: &str, shape: &[i64]| {
        let tensor = Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.3;
        tensors.insert(name.to_owned(), tensor);
    };
    for (name, rows) in [("word", i64::from(WORDS)), ("position", POSITIONS as i64), ("token_type", 2)] {
        add(&format!("embeddings.{name}_embeddings.weight"), &[rows, 32]);
    }
    let mut layer = |name: &str, outputs: i64, inputs: Option<i64>| {
        add(&format!("{name}.bias"), &[outputs]);
        add(&format!("{name}.weight"), &inputs.map_or(vec![outputs], |inputs| vec![outputs, inputs]));
    };
    layer("embeddings.LayerNorm", 32, None);
    for index in 0..2 {
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        for part in ["query", "key", "value"] {
            layer(&name(&format!("attention.self.{part}")), 32, Some(32));
        }
        layer(&name("attention.output.dense"), 32, Some(32));
        layer(&name("attention.output.LayerNorm"), 32, None);
        layer(&name("intermediate.dense"), 64, Some(32));
        layer(&name("output.dense"), 32, Some(64));
        layer(&name("output.LayerNorm"), 32, None);
    }
    let list: Vec<_> = tensors.iter().collect();
    Tensor::write_safetensors(&list, folder.join("model.safetensors")).unwrap();
}

fn replica(encoder: &Encoder, kind: Kind) -> Replica {
    Replica::new(encoder, Device::Cpu, kind, Attention::Groups).unwrap()
}

/// As a GPU's worker, on the CPU and without a stream.
fn worker(encoder: &Encoder) -> Cuda {
    let replicas = vec![replica(encoder, Kind::Float), replica(encoder, Kind::Float)];
    Cuda { replicas, mine: 0, stream: None, precision: Precision::Fp32, next: Arc::new(AtomicUsize::new(0)) }
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    if a.numel() == 0 { 0.0 } else { (a - b).abs().max().double_value(&[]) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn staging_pooling_and_order_give_the_reference(
        sequences in prop::collection::vec(prop::collection::vec(0..WORDS, 1..POSITIONS), 0..12),
        cls in any::<bool>(),
    ) {
        let encoder = encoder(if cls { Pooling::Cls } else { Pooling::Mean });
        let batch = Packed::new(&sequences, None);
        let expected = Encoder::forward(&encoder, &batch).unwrap();
        let found = worker(&encoder).forward(&batch).unwrap();
        prop_assert_eq!((found.kind(), found.device()), (Kind::Float, Device::Cpu));
        prop_assert!(difference(&found, &expected) < 1e-5);
    }
}

#[test]
fn bf16_stays_close_to_fp32() {
    let encoder = encoder(Pooling::Mean);
    let batch = Packed::new(&(1..20).map(|n| (0..n).collect::<Vec<u32>>()).collect::<Vec<_>>(), None);
    let expected = Encoder::forward(&encoder, &batch).unwrap();
    let staging = Staging::new(&batch, encoder.limits()).unwrap();
    let found = replica(&encoder, Kind::BFloat16).run(&batch, &staging).unwrap();
    assert_eq!(found.kind(), Kind::Float);
    let ones = Tensor::ones([19], (Kind::Float, Device::Cpu));
    let loss = Tensor::cosine_embedding_loss(&found, &expected, &ones, 0.0, Reduction::Mean).double_value(&[]);
    assert!(loss > 0.0, "the precision must have an effect");
    assert!(loss < 1e-3, "1 - cosine is {loss}");
}

#[test]
fn workers_take_the_gpus_in_turn() {
    let first = worker(&encoder(Pooling::Mean));
    assert_eq!(first.sizing(), Sizing { workers: Some(4), gpu: true });
    let taken: Vec<_> =
        (0..4).map(|_| first.next.load(Ordering::Relaxed) % 2).zip((0..4).map(|_| first.share())).collect();
    assert_eq!(taken.len(), 4);
    assert_eq!(first.next.load(Ordering::Relaxed), 4, "each share took a turn");
    let batch = Packed::new(&[vec![1, 2, 3]], None);
    let expected = first.forward(&batch).unwrap();
    for (_, worker) in taken {
        assert!(difference(&worker.forward(&batch).unwrap(), &expected) < 1e-6);
    }
}

#[test]
fn warming_runs_every_size_and_leaves_nothing_behind() {
    let worker = worker(&encoder(Pooling::Mean));
    let batch = Packed::new(&[vec![1, 2, 3]], None);
    let before = worker.forward(&batch).unwrap();
    worker.warm().unwrap();
    assert!(difference(&worker.forward(&batch).unwrap(), &before) == 0.0);
}

#[test]
fn a_text_that_cannot_run_fails_before_the_device() {
    let worker = worker(&encoder(Pooling::Mean));
    for bad in [vec![WORDS], vec![0; POSITIONS + 1]] {
        let error = worker.forward(&Packed::new(&[vec![1], bad], None)).expect_err("no embedding");
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    assert!(worker.forward(&Packed::new(&[vec![1]], None)).is_ok());
}

#[test]
fn attention_is_chosen_by_what_every_gpu_has() {
    let gpu = |major, minor| (0, Gpu { name: "GPU".to_owned(), capability: (major, minor) });
    assert_eq!(Attention::choose(Precision::Bf16, &[gpu(9, 0), gpu(8, 0)]), Attention::Flash);
    assert_eq!(Attention::choose(Precision::Fp16, &[gpu(9, 0), gpu(7, 5)]), Attention::Efficient);
    assert_eq!(Attention::choose(Precision::Fp32, &[gpu(9, 0)]), Attention::Groups);
}
