use serde_json::{Value, json};

use super::*;

fn full() -> Value {
    json!({
        "format": 1, "name": "m", "normalizer": "social-1", "languages": ["eng"], "pooling": "mean", "max_tokens": 128,
        "embedding": {"normalize": true},
        "heads": [
            {"name": "sentiment", "labels": ["negative", "neutral", "positive"], "temperature": 1.5},
            {"name": "emotion", "labels": ["joy", "anger"], "kind": "sigmoid", "file": "emotion.safetensors"}
        ],
        "sentiment": {"head": "sentiment", "negative": "negative", "neutral": "neutral", "positive": "positive"}
    })
}

fn parse(value: &Value) -> Result<Manifest> {
    Manifest::parse(value.to_string().as_bytes())
}

#[test]
fn a_full_manifest_is_read() {
    let manifest = parse(&full()).unwrap();
    assert_eq!(manifest.normalizer, Normalizer::Social1);
    assert_eq!(manifest.languages().unwrap().codes(), ["eng"]);
    assert_eq!(manifest.heads.iter().map(|h| h.kind).collect::<Vec<_>>(), [HeadKind::Softmax, HeadKind::Sigmoid]);
    assert_eq!(manifest.sentiment.unwrap().sides, [Side::Negative, Side::Neutral, Side::Positive]);
}

#[test]
fn the_format_alone_is_enough() {
    assert_eq!(parse(&json!({"format": 1})).unwrap(), Manifest::default());
}

#[test]
fn stars_are_added_up() {
    let stars = json!({
        "format": 1,
        "heads": [{"name": "stars", "labels": ["1", "2", "3", "4", "5"]}],
        "sentiment": {"head": "stars", "negative": ["1", "2"], "neutral": "3", "positive": ["4", "5"]}
    });
    let map = parse(&stars).unwrap().sentiment.unwrap();
    assert_eq!(map.sides, [Side::Negative, Side::Negative, Side::Neutral, Side::Positive, Side::Positive]);
}

#[test]
fn every_fault_names_its_key() {
    let table = [
        ("/format", json!(2), "format"),
        ("/normalizer", json!("social-0"), "social-0"),
        ("/languages", json!(["eng", "en"]), "languages[1]"),
        ("/languages", json!([]), "languages"),
        ("/max_tokens", json!(2), "max_tokens"),
        ("/max_tokens", json!("many"), "max_tokens"),
        ("/pooling", json!("max"), "pooling"),
        ("/heads/0/name", json!("a/b"), "heads[0].name"),
        ("/heads/1/name", json!("sentiment"), "heads[1].name"),
        ("/heads/1/labels", json!([]), "heads[1].labels"),
        ("/heads/1/labels", json!(["joy", "joy"]), "heads[1].labels"),
        ("/heads/0/temperature", json!(0), "heads[0].temperature"),
        ("/heads/0/kind", json!("maximum"), "heads[0].kind"),
        ("/heads/0/file", json!("../x"), "heads[0].file"),
        ("/sentiment/head", json!("mood"), "sentiment.head"),
        ("/sentiment/head", json!("emotion"), "sentiment.head"),
        ("/sentiment/negative", json!("bad"), "sentiment.negative"),
        ("/sentiment/positive", json!("negative"), "sentiment.positive"),
        ("/sentiment/positive", json!([]), "sentiment"),
    ];
    for (pointer, value, named) in table {
        let mut manifest = full();
        *manifest.pointer_mut(pointer).unwrap_or(&mut Value::Null) = value.clone();
        if pointer == "/heads/0/file" {
            manifest["heads"][0]["file"] = value.clone();
        } else if pointer == "/heads/0/kind" {
            manifest["heads"][0]["kind"] = value.clone();
        }
        let error = parse(&manifest).expect_err(pointer);
        assert!(error.to_string().contains(named) && error.to_string().contains(FILE), "{pointer} = {value}: {error}");
    }
}

#[test]
fn misspelt_keys_are_refused() {
    let mut manifest = full();
    manifest["heads"][0]["temprature"] = json!(2);
    let error = parse(&manifest).unwrap_err();
    assert!(error.to_string().contains("temprature"), "{error}");
}
