//! Model folders: what a sound one gives, and that a faulty one is refused with file, key and mend.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly, and so may its helpers"
)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use support::Tiny;
use tch::{Kind, Tensor};
use undertone_error::ErrorKind;
use undertone_inference::{Engine, EngineConfig, HeadKind, Lane, Precision, Request, Scored};

fn start(folder: &Path) -> undertone_error::Result<Engine> {
    Engine::start(folder, EngineConfig { workers: 1, precision: Precision::Fp32, ..EngineConfig::default() })
}

async fn score(tiny: &Tiny, text: &str) -> Scored {
    let folder = tiny.write();
    start(folder.path()).unwrap().score(Request::new(text)).await.unwrap()
}

/// A score as if the model of `other` had given it, in the same time: revisions differ with every byte.
fn by(other: &Scored, scored: Scored) -> Scored {
    Scored { model: Arc::clone(&other.model), times: other.times, ..scored }
}

#[tokio::test]
async fn a_full_folder_gives_heads_polarity_and_information() {
    let folder = Tiny::new().write();
    let engine = start(folder.path()).unwrap();
    let model = engine.model();
    assert_eq!(
        (model.name.as_str(), model.dimensions, model.max_tokens, model.normalizer.as_str()),
        ("tiny", 32, 32, "social-1")
    );
    assert_eq!(model.sentiment_head.as_deref(), Some("sentiment"));
    assert_eq!(
        model.heads.iter().map(|h| (h.name.as_str(), h.kind)).collect::<Vec<_>>(),
        [("sentiment", HeadKind::Softmax), ("topics", HeadKind::Sigmoid)]
    );
    assert_eq!((model.revision.len(), model.short_revision().len()), (64, 12));

    let scored = engine.score(Request::new("gooood  #coffeeTime @me")).await.unwrap();
    assert_eq!(scored.clean_text, "good #coffee Time @user");
    let [negative, neutral, positive] = scored.heads[0].probabilities[..] else { panic!("three labels") };
    assert!((negative + neutral + positive - 1.0).abs() < 1e-6);
    assert!((scored.polarity.unwrap() - f64::from(positive) + f64::from(negative)).abs() < 1e-6);
    let largest = negative.max(neutral).max(positive);
    assert_eq!(scored.confidence, Some(largest));
    let names = [("bad", "negative"), ("so-so", "neutral"), ("good", "positive")];
    let expected =
        names.iter().find(|(label, _)| *label == scored.heads[0].label_name()).map(|(_, side)| (*side).to_owned());
    assert_eq!(scored.sentiment, expected);
    let length: f32 = scored.embedding.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-5);
}

/// The heads against a computation by hand: logits / temperature, softmax.
#[tokio::test]
async fn probabilities_follow_from_the_embedding_by_hand() {
    let mut tiny = Tiny::new();
    tiny.manifest.as_mut().unwrap()["heads"][0]["input"] = json!("embedding");
    let scored = score(&tiny, "abc def").await;
    let tensor = |name: &str| &tiny.heads.iter().find(|(n, _)| n == name).unwrap().1;
    let logits = tensor("heads.sentiment.weight").matmul(&Tensor::from_slice(&scored.embedding))
        + tensor("heads.sentiment.bias");
    let expected = Vec::<f32>::try_from((logits / 1.5).softmax(0, Kind::Float)).unwrap();
    assert!(support::distance(&scored.heads[0].probabilities, &expected) < 1e-6);
}

#[tokio::test]
async fn a_prefix_and_half_precision_change_little_or_nothing() {
    let plain = score(&Tiny::new(), "abc def").await;
    let mut prefixed = Tiny::new();
    prefixed.weights.iter_mut().for_each(|(name, _)| *name = format!("bert.{name}"));
    assert_eq!(by(&plain, score(&prefixed, "abc def").await), plain);
    for (kind, tolerance) in [(Kind::Half, 2e-3), (Kind::BFloat16, 2e-2)] {
        let mut half = Tiny::new();
        half.weights.iter_mut().for_each(|(_, tensor)| *tensor = tensor.to_kind(kind));
        let distance = support::distance(&score(&half, "abc def").await.embedding, &plain.embedding);
        assert!(distance > 0.0 && distance < tolerance, "{kind:?}: {distance}");
    }
}

#[tokio::test]
async fn heads_may_lie_in_the_model_file_and_embeddings_may_be_projected() {
    let apart = score(&Tiny::new(), "abc").await;
    let mut one_file = Tiny::new();
    one_file.weights.append(&mut one_file.heads);
    assert_eq!(by(&apart, score(&one_file, "abc").await), apart);
    let projection = Tensor::zeros([3, support::HIDDEN], (Kind::Float, tch::Device::Cpu));
    one_file.weights.push(("to_three.weight".to_owned(), projection));
    one_file.weights.push(("to_three.bias".to_owned(), Tensor::from_slice(&[3f32, 0.0, 4.0])));
    one_file.manifest.as_mut().unwrap()["embedding"] = json!({"projection": "to_three"});
    let scored = score(&one_file, "abc").await;
    assert!(support::distance(&scored.embedding, &[0.6, 0.0, 0.8]) < 1e-6);
    assert_eq!(scored.heads, apart.heads, "heads read the pooled vector");
}

#[tokio::test]
async fn without_a_manifest_a_folder_embeds() {
    let mut tiny = Tiny::new();
    tiny.manifest = None;
    let scored = score(&tiny, "Abc  def").await;
    assert_eq!(
        (scored.clean_text.as_str(), scored.sentiment, scored.polarity, scored.heads.len()),
        ("Abc  def", None, None, 0)
    );
}

#[test]
fn the_revision_changes_with_every_file_and_with_nothing_else() {
    let revision = |folder: &Path| start(folder).unwrap().model().revision.clone();
    let folder = Tiny::new().write();
    let first = revision(folder.path());
    assert_eq!(revision(Tiny::new().write().path()), first, "where it lies does not matter");
    fs::write(folder.path().join("notes.txt"), "not part of the model").unwrap();
    assert_eq!(revision(folder.path()), first);
    for file in ["config.json", "tokenizer.json", "undertone.json"] {
        let folder = Tiny::new().write();
        let text = fs::read_to_string(folder.path().join(file)).unwrap();
        fs::write(folder.path().join(file), text + " ").unwrap();
        assert_ne!(revision(folder.path()), first, "{file}");
    }
    for tensor in ["embeddings.LayerNorm.bias", "heads.topics.bias"] {
        let mut tiny = Tiny::new();
        tiny.change(tensor, |tensor| tensor + 1.0);
        assert_ne!(revision(tiny.write().path()), first, "{tensor}");
    }
}

#[test]
fn the_revision_covers_a_projection_in_a_file_of_its_own() {
    let revision = |bias: f32| {
        let mut tiny = Tiny::new();
        tiny.manifest = Some(json!({"format": 1, "embedding": {"projection": "to_one"}}));
        let weight = Tensor::zeros([1, support::HIDDEN], (Kind::Float, tch::Device::Cpu));
        tiny.heads =
            vec![("to_one.weight".to_owned(), weight), ("to_one.bias".to_owned(), Tensor::from_slice(&[bias]))];
        let engine = start(tiny.write().path()).unwrap();
        assert_eq!(engine.model().dimensions, 1);
        engine.model().revision.clone()
    };
    assert_eq!(revision(1.0), revision(1.0));
    assert_ne!(revision(1.0), revision(2.0));
}

/// Through every door: nothing to read is an error of that text alone, never the score of the special tokens.
#[tokio::test]
async fn a_text_of_nothing_is_an_error_and_not_neutral() {
    for normalizer in ["social-1", "none"] {
        let mut tiny = Tiny::new();
        tiny.manifest.as_mut().unwrap()["normalizer"] = json!(normalizer);
        let folder = tiny.write();
        let engine = start(folder.path()).unwrap();
        for nothing in ["", " ", "\u{0}", "\u{200b}\u{200d}", " \u{feff}\n\u{a0}"] {
            for lane in [Lane::Interactive, Lane::Bulk] {
                let texts = ["abc", nothing, "def"].map(str::to_owned).to_vec();
                let results = engine.score_all(texts, lane).await;
                let error = results[1].as_ref().unwrap_err();
                assert!(results[0].is_ok() && results[2].is_ok(), "{nothing:?} must fail alone");
                assert_eq!((error.kind(), error.retryable()), (ErrorKind::InvalidInput, false), "{nothing:?}");
                assert!(error.to_string().contains("text is empty"), "{error}");
                assert!(error.mend().is_some_and(|help| help.contains("send a text")), "{error:?}");
            }
            assert_eq!(engine.score(Request::new(nothing)).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        // Not empty, but the tokeniser drops it (a character for private use, an accent on nothing).
        for unread in ["\u{f8ff}", "\u{301}"] {
            let error = engine.score(Request::new(unread)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{unread:?}");
            assert!(error.to_string().contains("nothing that the model reads"), "{error}");
        }
        // An unknown token is something to read.
        assert!(engine.score(Request::new("哈")).await.is_ok());
    }
}

/// 32 tokens look at 32 KiB: what lies beyond costs nothing and changes nothing but `truncated`.
#[tokio::test]
async fn the_beginning_of_a_long_text_is_looked_at() {
    let folder = Tiny::new().write();
    let engine = start(folder.path()).unwrap();
    let score = async |text: String| engine.score(Request::new(text)).await.unwrap();
    let spaces = |bytes: usize| "abc".to_owned() + &" ".repeat(bytes - 3);
    let bound = 32 * 1024;
    let seen = score(spaces(bound - 1) + "z").await;
    assert_eq!((seen.clean_text.as_str(), seen.truncated), ("abc z", false));
    let unseen = score(spaces(bound) + "z").await;
    assert_eq!((unseen.clean_text.as_str(), unseen.truncated), ("abc", true));
    let between = score(spaces(bound - 1) + "é").await;
    assert_eq!((between.clean_text.as_str(), between.truncated), ("abc", true), "no character is cut in two");
    assert_eq!(between.embedding, unseen.embedding);
    for costly in ["&".to_owned() + &"amp;".repeat(250_000), "👩\u{200d}".repeat(140_000)] {
        let scored = score(costly).await;
        assert!(scored.truncated && !scored.clean_text.is_empty());
    }
}

#[test]
fn a_model_of_numbers_that_are_not_finite_does_not_start() {
    for tensor in ["heads.topics.bias", "embeddings.LayerNorm.bias"] {
        let mut tiny = Tiny::new();
        tiny.change(tensor, |tensor| tensor * f64::NAN);
        let folder = tiny.write();
        let error = start(folder.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{tensor}");
        assert!(error.to_string().contains("not finite"), "{error}");
    }
}

#[tokio::test]
async fn numbers_that_are_not_finite_are_errors_not_scores() {
    let mut tiny = Tiny::new();
    let letter = tiny.tokenizer["model"]["vocab"]["z"].as_i64().unwrap();
    tiny.change("embeddings.word_embeddings.weight", |tensor| {
        let tensor = tensor.copy();
        let _ = tensor.get(letter).fill_(f64::NAN);
        tensor
    });
    let folder = tiny.write();
    let engine = start(folder.path()).unwrap();
    let results = engine.score_all(vec!["abc".into(), "z".into(), "de".into()], Lane::Bulk).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("not finite"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = start(Path::new("/does/not/exist")).unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("/does/not/exist"), "{error}");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = Tiny::new().write();
        fs::remove_file(folder.path().join(file)).unwrap();
        let error = start(folder.path()).unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains(file), "{error}");
        assert!(error.mend().is_some());
    }
}

#[test]
fn a_damaged_file_is_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors", "heads.safetensors", "undertone.json"] {
        let folder = Tiny::new().write();
        let bytes = fs::read(folder.path().join(file)).unwrap();
        fs::write(folder.path().join(file), &bytes[..bytes.len() / 2]).unwrap();
        let error = start(folder.path()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidConfig), "{error:?}");
        assert!(error.to_string().contains(file), "{error}");
    }
}

/// Changes a sound folder so that it cannot run, and says what the error must name.
type Fault = (fn(&mut Tiny), &'static [&'static str]);

#[test]
fn what_does_not_fit_together_is_named() {
    let faults: [Fault; 9] = [
        (
            |t| t.weights.retain(|(name, _)| name != "encoder.layer.1.output.dense.bias"),
            &["model.safetensors", "encoder.layer.1.output.dense.bias", "missing"],
        ),
        (
            |t| t.change("encoder.layer.0.attention.self.key.weight", |w| w.narrow(0, 0, 16).contiguous()),
            &["encoder.layer.0.attention.self.key.weight", "[16, 32]", "[32, 32]"],
        ),
        (
            |t| t.change("embeddings.LayerNorm.weight", |w| w.to_kind(Kind::Int64)),
            &["embeddings.LayerNorm.weight", "I64", "f32, f16 or bf16"],
        ),
        (
            |t| t.heads.retain(|(name, _)| name != "heads.topics.weight"),
            &["heads.safetensors", "heads.topics.weight", "missing"],
        ),
        (
            |t| t.change("heads.sentiment.bias", |b| b.narrow(0, 0, 2).contiguous()),
            &["heads.sentiment.bias", "[2]", "[3]"],
        ),
        (|t| t.config["num_hidden_layers"] = json!(3), &["encoder.layer.2.", "config.json"]),
        (|t| t.config["vocab_size"] = json!(10), &["tokenizer.json", "vocab_size", "10"]),
        (|t| t.manifest.as_mut().unwrap()["max_tokens"] = json!(65), &["undertone.json", "max_tokens", "64"]),
        (|t| t.manifest.as_mut().unwrap()["heads"][0]["file"] = json!("more.safetensors"), &["more.safetensors"]),
    ];
    for (break_it, named) in faults {
        let mut tiny = Tiny::new();
        break_it(&mut tiny);
        let folder = tiny.write();
        let error = start(folder.path()).expect_err("a faulty folder must not load");
        for name in named {
            assert!(error.to_string().contains(name), "{error} should name {name}");
        }
        assert!(error.mend().is_some(), "{error} should say what would mend it");
    }
}
