//! The index template: what every day's index is like.

use serde_json::{Map, Value, json};

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

/// What differs between the template that is there and the one that should be. What users have added is none of our business.
pub(super) fn differences(is: &Value, wanted: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (pointer, what) in [
        ("/index_patterns", "which indices it is for"),
        ("/template/aliases", "its alias"),
        ("/template/mappings/dynamic", "what it does with other fields"),
        ("/template/mappings/dynamic_templates", "how it maps probabilities"),
    ] {
        if is.pointer(pointer) != wanted.pointer(pointer) {
            found.push(format!("{what} differs"));
        }
    }
    let settings = object(wanted, "/template/settings/index");
    for (name, value) in settings.into_iter().flatten() {
        let is = is.pointer(&format!("/template/settings/index/{name}")).unwrap_or(&Value::Null);
        if is != value {
            found.push(format!("{name} is {is}, not {value}"));
        }
    }
    fields(object(is, "/template/mappings/properties"), wanted, &mut found);
    found
}

/// The same of an index that is there. It may have more: what its documents brought to the probabilities.
pub(super) fn index_differences(alias: &str, is: &Value, wanted: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let filter = |of: &Value, place: &str| of.pointer(&format!("{place}/aliases/{alias}/filter")).cloned();
    match is.pointer(&format!("/aliases/{alias}")) {
        None => found.push(format!("alias {alias} does not show it")),
        Some(_) if filter(is, "") != filter(wanted, "/template") => {
            found.push(format!("alias {alias} shows other posts of it than it should"));
        }
        Some(_) => {}
    }
    fields(object(is, "/mappings/properties"), wanted, &mut found);
    found
}

fn object<'a>(of: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    of.pointer(pointer).and_then(Value::as_object)
}

fn fields(is: Option<&Map<String, Value>>, wanted: &Value, found: &mut Vec<String>) {
    for (name, mapping) in object(wanted, "/template/mappings/properties").into_iter().flatten() {
        match is.and_then(|is| is.get(name)) {
            None => found.push(format!("it has no field {name}")),
            Some(other) if !covers(other, mapping) => found.push(format!("field {name} is {other}, not {mapping}")),
            Some(_) => {}
        }
    }
}

/// Whether a mapping does all that another says. That a field with fields of its own is an object goes without saying.
fn covers(is: &Value, wanted: &Value) -> bool {
    let said = |(key, value): (&String, &Value)| {
        is.get(key) == Some(value) || (value == "object" && is.get("properties").is_some())
    };
    wanted.as_object().is_some_and(|wanted| wanted.iter().all(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Value {
        template(&OpenSearchConfig {
            url: String::new(),
            index: "posts".to_owned(),
            shards: 1,
            replicas: 0,
            retention_days: None,
            login: None,
        })
    }

    #[test]
    fn an_index_as_the_template_makes_it_differs_in_nothing_whatever_its_documents_brought() {
        let template = wanted()["template"].clone();
        let mut index = json!({"aliases": template["aliases"], "mappings": template["mappings"]});
        // As the server tells it once there is one.
        index["mappings"]["properties"]["scores"] =
            json!({"dynamic": "true", "properties": {"irony": {"properties": {"yes": {"type": "float"}}}}});
        assert_eq!(index_differences("posts", &index, &wanted()), Vec::<String>::new());
        index["mappings"]["properties"]["author"] = json!({"type": "integer"});
        index["aliases"]["posts"] = json!({});
        let said = index_differences("posts", &index, &wanted()).join("\n");
        assert!(said.contains("author") && said.contains("shows other posts"), "{said}");
        index["aliases"] = json!({});
        assert_eq!(index_differences("posts", &index, &wanted())[0], "alias posts does not show it");
    }

    #[test]
    fn what_differs_is_named_and_fields_of_the_users_do_not() {
        let wanted = wanted();
        let mut is = wanted.clone();
        is["template"]["mappings"]["properties"]["team"] = json!({"type": "keyword"});
        assert_eq!(differences(&is, &wanted), Vec::<String>::new());
        is["template"]["mappings"]["properties"]["author"] = json!({"type": "integer"});
        is["template"]["aliases"] = json!({"posts": {}});
        is["template"]["settings"]["index"]["number_of_shards"] = json!("3");
        let said = differences(&is, &wanted).join("\n");
        for words in ["author", "alias", "number_of_shards is \"3\", not \"1\""] {
            assert!(said.contains(words), "{said}");
        }
    }
}
