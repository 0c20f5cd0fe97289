//! What was stored stays readable. `compat/vN/` holds records as they were once written, what they said, and the fields
//! that they were written with; none of these folders ever changes. A version that is newer than what they hold gets a
//! folder of its own: `cargo test --release -p undertone-proto --test compat -- --ignored` makes it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use serde::Serialize;
use serde_json::Value;
use undertone_proto::v1::{
    DeadLetter, Entities, FILE_DESCRIPTOR_SET, HeadScores, Model, Origin, Outcome, Probability, ScoredPost, outcome,
};

/// A message as it is stored, by the name of its files.
struct Sample {
    name: &'static str,
    bytes: Vec<u8>,
    said: Value,
}

/// Reads a message of this name.
fn decode(name: &str, bytes: &[u8]) -> Value {
    fn read<M: Message + Default + Serialize>(bytes: &[u8]) -> Value {
        serde_json::to_value(M::decode(bytes).expect("a message")).expect("JSON")
    }
    match name {
        "origin" => read::<Origin>(bytes),
        "scored_post" => read::<ScoredPost>(bytes),
        "dead_letter" => read::<DeadLetter>(bytes),
        "outcome_scored" | "outcome_dead" | "outcome_tombstone" => read::<Outcome>(bytes),
        other => panic!("no message is stored as {other}"),
    }
}

/// One of each message that is stored, with something in every field.
fn samples() -> Vec<Sample> {
    let owned = |word: &str| vec![word.to_owned()];
    let origin = Origin { cluster: "cluster".into(), topic: "topic".into(), partition: 3, offset: 1 << 40 };
    let probability = |label: &str, value| Probability { label: label.into(), value };
    let post = ScoredPost {
        origin: Some(origin.clone()),
        uid: "5b2a0e1c-0000-5000-8000-000000000007".into(),
        version: (1_777_636_800_250 << 20) + 7,
        run: "live".into(),
        source: "forum".into(),
        id: "t3_7".into(),
        text: "so good ☕".into(),
        created_at_us: 1_777_636_800_000_000,
        edited_at_us: Some(1_777_636_800_250_000),
        deleted: true,
        author: Some("ann".into()),
        url: Some("https://forum.example/7".into()),
        declared_language: Some("en".into()),
        reply_to: Some("t3_6".into()),
        metrics: [("likes".to_owned(), 2.5)].into(),
        tags: owned("tea"),
        extra_json: r#"{"board":"tea"}"#.into(),
        clean_text: "so good".into(),
        language: Some("eng".into()),
        entities: Some(Entities {
            hashtags: owned("tea"),
            mentions: owned("bob"),
            urls: owned("https://x.example"),
            emoji: owned("☕"),
        }),
        late: true,
        heads: vec![HeadScores {
            head: "sentiment".into(),
            label: "positive".into(),
            probabilities: vec![probability("negative", 0.25), probability("positive", 0.75)],
        }],
        sentiment: Some("positive".into()),
        polarity: Some(0.5),
        confidence: Some(0.75),
        embedding: vec![0.5, -0.125],
        tokens: 4,
        truncated: true,
        model: Some(Model { name: "m".into(), revision: "6b46".into(), precision: "int8".into() }),
        ingested_at_us: 1_777_636_801_000_000,
        scored_at_us: 1_777_636_801_500_000,
        in_domain: Some(true),
    };
    let letter = DeadLetter {
        origin: Some(origin.clone()),
        stage: "parse".into(),
        reason: "post is not UTF-8".into(),
        payload: vec![0xff, 1, 0],
        payload_sha256: "9f86".into(),
        payload_bytes: 3,
        attempts: 2,
        ingested_at_us: 1_777_636_801_000_000,
        dead_at_us: 1_777_636_801_500_000,
    };
    let tombstone = ScoredPost { origin: Some(origin.clone()), deleted: true, ..ScoredPost::default() };
    let outcome = |kind| Outcome { kind: Some(kind) }.encode_to_vec();
    [
        ("origin", origin.encode_to_vec()),
        ("scored_post", post.encode_to_vec()),
        ("dead_letter", letter.encode_to_vec()),
        ("outcome_scored", outcome(outcome::Kind::Scored(post))),
        ("outcome_tombstone", outcome(outcome::Kind::Scored(tombstone))),
        ("outcome_dead", outcome(outcome::Kind::Dead(letter))),
    ]
    .into_iter()
    .map(|(name, bytes)| Sample { name, said: decode(name, &bytes), bytes })
    .collect()
}

/// One line a field of `records.proto`: its message, number, name and type.
fn fields() -> BTreeSet<String> {
    fn describe(message: &DescriptorProto, name: &str, into: &mut BTreeSet<String>) {
        for field in &message.field {
            let kind = match field.r#type() {
                Type::Message | Type::Enum => field.type_name().to_owned(),
                simple => simple.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
            };
            let label = match field.label() {
                Label::Repeated => "repeated ",
                _ if field.proto3_optional() => "optional ",
                _ if field.oneof_index.is_some() => "oneof ",
                _ => "",
            };
            into.insert(format!("{name} {} {} {label}{kind}", field.number(), field.name()));
        }
        for nested in &message.nested_type {
            describe(nested, &format!("{name}.{}", nested.name()), into);
        }
    }
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
    let records = set.file.iter().find(|file| file.name() == "undertone/v1/records.proto").expect("records.proto");
    let mut lines = BTreeSet::new();
    for message in &records.message_type {
        describe(message, message.name(), &mut lines);
    }
    lines
}

fn compat() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat")
}

fn folder(version: u32) -> PathBuf {
    compat().join(format!("v{version}"))
}

/// Versions are numbered from 1 without a gap.
fn newest() -> u32 {
    (1..).take_while(|version| folder(*version).exists()).last().unwrap_or(0)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn stored_fields(version: u32) -> BTreeSet<String> {
    let text = String::from_utf8(read(&folder(version).join("fields.txt"))).expect("text");
    text.lines().map(str::to_owned).collect()
}

/// What `found` lacks of `expected`. What it has beyond that must say nothing: fields that were added since.
fn differences(expected: &Value, found: &Value, path: &str, into: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, value) in expected {
                differences(value, found.get(name).unwrap_or(&Value::Null), &format!("{path}/{name}"), into);
            }
            let added = found.iter().filter(|(name, value)| !expected.contains_key(*name) && !is_default(value));
            into.extend(added.map(|(name, value)| format!("{path}/{name} should say nothing, and says {value}")));
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                differences(expected, found, &format!("{path}/{index}"), into);
            }
        }
        _ if expected == found => {}
        _ => into.push(format!("{path} should say {expected}, and says {found}")),
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_default),
    }
}

/// Paths below `value` at which nothing is said.
fn empty_places(value: &Value, path: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, value)| empty_places(value, &format!("{path}/{name}"), into));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().filter(|item| !item.is_number()).for_each(|item| empty_places(item, path, into));
        }
        _ if is_default(value) => into.push(path.to_owned()),
        _ => {}
    }
}

#[test]
fn stored_bytes_of_every_version_say_what_they_said() {
    assert!(newest() > 0, "nothing is stored in {}", compat().display());
    for version in 1..=newest() {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder(version)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "bin") {
                continue;
            }
            let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
            let expected = serde_json::from_slice(&read(&path.with_extension("json"))).expect("JSON");
            let mut found = Vec::new();
            differences(&expected, &decode(&name, &read(&path)), "", &mut found);
            assert!(found.is_empty(), "{}: {found:#?}", path.display());
            names.push(name);
        }
        assert!(names.len() >= samples().len(), "version {version} holds only {names:?}");
    }
}

#[test]
fn no_field_that_was_ever_stored_has_changed() {
    let fields = fields();
    for version in 1..=newest() {
        let stored = stored_fields(version);
        let changed: Vec<_> = stored.difference(&fields).collect();
        assert!(changed.is_empty(), "records.proto can no longer read version {version}: it lacks {changed:#?}");
    }
}

#[test]
fn what_is_written_today_is_stored_too() {
    let how = "store it: cargo test --release -p undertone-proto --test compat -- --ignored";
    for sample in samples() {
        let path = folder(newest()).join(format!("{}.bin", sample.name));
        assert!(
            fs::read(&path).is_ok_and(|stored| stored == sample.bytes),
            "{} is another today; {how}",
            path.display()
        );
    }
    assert_eq!(stored_fields(newest()), fields(), "{how}");
}

#[test]
fn the_samples_leave_no_field_out() {
    for sample in samples().iter().filter(|sample| sample.name != "outcome_tombstone") {
        let mut empty = Vec::new();
        empty_places(&sample.said, "", &mut empty);
        assert!(empty.is_empty(), "{} says nothing in {empty:?}", sample.name);
    }
}

#[test]
fn a_change_of_a_field_is_noticed() {
    let cases = [
        (r#"{"a":1}"#, r#"{"a":1}"#, true),
        (r#"{"a":1}"#, r#"{"a":1,"b":0,"c":null,"d":{"e":""}}"#, true),
        (r#"{"a":1}"#, r#"{"a":1,"b":2}"#, false),
        (r#"{"a":1}"#, r#"{"b":1}"#, false),
        (r#"{"a":[{"b":1}]}"#, r#"{"a":[{"b":2}]}"#, false),
        (r#"{"a":[1,2]}"#, r#"{"a":[1]}"#, false),
    ];
    for (expected, found, same) in cases {
        let [from, to] = [expected, found].map(|json| serde_json::from_str(json).expect("JSON"));
        let mut differing = Vec::new();
        differences(&from, &to, "", &mut differing);
        assert_eq!(differing.is_empty(), same, "{expected} {found}: {differing:?}");
    }
}

#[test]
#[ignore = "makes the folder of a new version"]
fn store_what_is_written_today() {
    let known = newest() > 0
        && stored_fields(newest()) == fields()
        && samples().iter().all(|sample| read(&folder(newest()).join(format!("{}.bin", sample.name))) == sample.bytes);
    if known {
        return;
    }
    let folder = folder(newest() + 1);
    fs::create_dir_all(&folder).expect("a folder");
    for sample in samples() {
        let json = serde_json::to_string_pretty(&sample.said).expect("JSON") + "\n";
        fs::write(folder.join(format!("{}.bin", sample.name)), sample.bytes).expect("written");
        fs::write(folder.join(format!("{}.json", sample.name)), json).expect("written");
    }
    let lines: String = fields().into_iter().map(|line| line + "\n").collect();
    fs::write(folder.join("fields.txt"), lines).expect("written");
}
