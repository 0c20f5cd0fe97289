//! What `social-1` makes of 668 hard texts, case by case. A model reads what it was trained on only if this never changes.
//!
//! `data/make_social_1.py` wrote the file, from a table of texts.

use std::collections::BTreeMap;

use serde::Deserialize;
use undertone_inference::normalize::{is_blank, social_1};

const CASES: &str = include_str!("data/social-1.jsonl");

#[derive(Deserialize)]
struct Case {
    topic: String,
    text: String,
    clean_text: String,
}

#[allow(clippy::unwrap_used, reason = "the file is ours")]
fn cases() -> Vec<Case> {
    CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn social_1_reads_every_case_as_it_always_did() {
    let wrong: Vec<String> = cases()
        .iter()
        .filter_map(|Case { topic, text, clean_text }| {
            let found = social_1(text);
            (found != *clean_text).then(|| format!("{topic}: {text:?}\n  is     {found:?}\n  not    {clean_text:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn reading_a_case_again_changes_nothing() {
    for Case { text, clean_text, .. } in cases() {
        assert_eq!(social_1(&clean_text), clean_text, "{text:?}");
    }
}

#[test]
fn the_cases_are_many_and_of_every_kind() {
    let mut topics = BTreeMap::new();
    for case in cases() {
        *topics.entry(case.topic).or_insert(0) += 1;
    }
    assert!(topics.values().sum::<i32>() >= 500, "{topics:?}");
    let names: Vec<&str> = topics.keys().map(String::as_str).collect();
    let wanted = ["emoji", "emoticons", "entities", "handles", "hashtags", "links", "marks", "mixed", "stretched"];
    assert_eq!(names, wanted);
    let blank = cases().iter().filter(|case| is_blank(&case.clean_text)).count();
    assert!((5..20).contains(&blank), "{blank} cases come out blank");
}
