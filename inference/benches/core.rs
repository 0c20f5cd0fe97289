//! Tokenise, encode and end to end, on the shipped model (or the one that `UNDERTONE_TEST_MODEL` names).
//!
//! `cargo bench --profile release -p undertone-inference`. Throughput is texts a second; a batch is 32 ragged texts, and
//! the encoder runs on one thread, as each worker does. "by the crate" is what `tokenize` took before it had a path of its
//! own, and takes for a file or a text that it leaves to the crate.

#![allow(clippy::expect_used, missing_docs, reason = "a bench stops at the first error")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokenizers::{Tokenizer, TruncationParams};
use undertone_inference::model::{ModelFolder, Network};
use undertone_inference::tokenize::TextTokenizer;
use undertone_inference::{Engine, EngineConfig, Lane};

fn model() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/sentiment");
    std::env::var_os("UNDERTONE_TEST_MODEL").map_or_else(default, PathBuf::from)
}

/// Posts of 3 to about 60 tokens.
fn posts(count: usize) -> Vec<String> {
    let parts = [
        "the espresso at the corner place is still the best in town 😍",
        "third delay this week, nobody says why",
        "@transit_desk your app shows the wrong platform again, see https://example.org/p/77",
        "#SundayRun done!!! legs are gone",
        "honestly? fine.",
        "I wanted to like the new stadium, and the view is great, but two hours in a queue for a cold drink is too much",
    ];
    let post = |i: usize| (0..=i % 3).map(|j| parts[(i * 5 + j * 7) % parts.len()]).collect::<Vec<_>>().join(" ");
    (0..count).map(post).collect()
}

fn benches(c: &mut Criterion) {
    let folder = ModelFolder::open(&model()).expect("the model folder opens; `scripts/setup.py run` fetches it");
    let tokenizer =
        TextTokenizer::new(folder.tokenizer_json(), folder.max_tokens(), folder.vocabulary()).expect("a tokeniser");
    let normalizer = folder.manifest().normalizer();
    let texts = posts(256);

    let mut group = c.benchmark_group("prepare");
    group.throughput(Throughput::Elements(texts.len() as u64));
    group.bench_function("normalize", |b| {
        b.iter(|| texts.iter().map(|text| normalizer.apply(black_box(text)).len()).sum::<usize>())
    });
    group.bench_function("tokenize", |b| {
        b.iter(|| {
            texts
                .iter()
                .map(|text| tokenizer.encode(black_box(text)).map_or(0, |tokens| tokens.ids.len()))
                .sum::<usize>()
        });
    });
    let mut by_crate = Tokenizer::from_bytes(folder.tokenizer_json()).expect("a tokeniser");
    let truncation = TruncationParams { max_length: folder.max_tokens(), ..TruncationParams::default() };
    by_crate.with_padding(None).with_truncation(Some(truncation)).expect("a length");
    group.bench_function("tokenize, by the crate", |b| {
        let tokens = |text: &String| by_crate.encode_fast(text.as_str(), true).map_or(0, |encoding| encoding.len());
        b.iter(|| texts.iter().map(|text| tokens(black_box(text))).sum::<usize>());
    });
    group.finish();

    tch::set_num_threads(1);
    let network = Network::load(&folder).expect("weights");
    let tokens: Vec<_> = texts.iter().map(|text| tokenizer.encode(text).expect("tokens")).collect();
    let mut group = c.benchmark_group("encode");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    for size in [1, 8, 32] {
        let batch = network.pack(&tokens[..size]);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(format!("{size} texts, {} tokens", batch.tokens()), |b| {
            b.iter(|| network.encoder().forward(black_box(&batch)).expect("a batch runs"));
        });
    }
    group.finish();

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let engine =
        Engine::start(&model(), EngineConfig { cache_bytes: 0, ..EngineConfig::default() }).expect("an engine");
    let mut group = c.benchmark_group("engine");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(texts.len() as u64));
    group.bench_function("256 bulk texts, text to scores", |b| {
        b.iter(|| runtime.block_on(engine.score_all(texts.clone(), Lane::Bulk)).len());
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("one interactive text at a time", |b| {
        b.iter(|| runtime.block_on(engine.score_all(texts[..1].to_vec(), Lane::Interactive)).len());
    });
    group.finish();
    runtime.block_on(engine.shutdown());
}

criterion_group!(core, benches);
criterion_main!(core);
