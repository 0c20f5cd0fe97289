//! The index template: what every day's index is like.

use serde_json::{Value, json};

use super::OpenSearchConfig;

/// A longer word is kept and not indexed: a term over 32,766 bytes would have its document refused.
const KEYWORD_CHARS: u32 = 8_191;

/// The name of the template.
pub(super) fn name(config: &OpenSearchConfig) -> String {
    format!("undertone-{}", config.index)
}

/// The template of all indices of `config`. Fields that are not listed are stored and not indexed, so that no post can
/// change the mapping for the next.
pub(super) fn template(config: &OpenSearchConfig) -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": KEYWORD_CHARS});
    let date = json!({"type": "date"});
    let stored = json!({"type": "keyword", "index": false, "doc_values": false});
    json!({
        "index_patterns": [format!("{}-*", config.index)],
        "priority": 200,
        "template": {
            "settings": {"index": {
                "number_of_shards": config.shards.to_string(),
                "number_of_replicas": config.replicas.to_string(),
                "codec": "best_compression",
            }},
            "mappings": {
                "dynamic": "false",
                // Labels are the model's, so these are known only when they come. Numbers alone: a head is an object.
                "dynamic_templates": [{"scores": {
                    "path_match": "scores.*",
                    "match_mapping_type": "double",
                    "mapping": {"type": "float"},
                }}],
                "properties": {
                    "uid": keyword,
                    "version": {"type": "long"},
                    "deleted": {"type": "boolean"},
                    "source": keyword,
                    "id": keyword,
                    "created_at": date,
                    "edited_at": date,
                    "author": keyword,
                    "url": stored,
                    "reply_to": keyword,
                    "language": keyword,
                    "text": {"type": "text"},
                    "tags": keyword,
                    "mentions": keyword,
                    "label": keyword,
                    "polarity": {"type": "float"},
                    "confidence": {"type": "float"},
                    "scores": {"type": "object", "dynamic": "true"},
                    "model": keyword,
                    "ingested_at": date,
                    "scored_at": date,
                },
            },
            "aliases": {config.index.clone(): {"filter": {"term": {"deleted": false}}}},
        },
    })
}

/// What differs between the template that is there and the one that should be, by the parts that the promise rests on.
pub(super) fn differences(is: &Value, wanted: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (pointer, what) in
        [("/template/aliases", "its alias"), ("/template/mappings/dynamic", "what it does with other fields")]
    {
        if is.pointer(pointer) != wanted.pointer(pointer) {
            found.push(format!("{what} differs"));
        }
    }
    let fields = |of: &Value| of.pointer("/template/mappings/properties").and_then(Value::as_object).cloned();
    let (is, wanted) = (fields(is).unwrap_or_default(), fields(wanted).unwrap_or_default());
    for (name, mapping) in &wanted {
        match is.get(name) {
            None => found.push(format!("it has no field {name}")),
            Some(other) if other != mapping => found.push(format!("field {name} is {other}, not {mapping}")),
            Some(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_and_fields_of_the_users_do_not() {
        let config = OpenSearchConfig {
            url: String::new(),
            index: "posts".to_owned(),
            shards: 1,
            replicas: 0,
            retention_days: None,
            login: None,
        };
        let wanted = template(&config);
        let mut is = wanted.clone();
        is["template"]["mappings"]["properties"]["team"] = json!({"type": "keyword"});
        assert_eq!(differences(&is, &wanted), Vec::<String>::new());
        is["template"]["mappings"]["properties"]["author"] = json!({"type": "integer"});
        is["template"]["aliases"] = json!({"posts": {}});
        let said = differences(&is, &wanted).join("\n");
        assert!(said.contains("author") && said.contains("alias"), "{said}");
    }
}
