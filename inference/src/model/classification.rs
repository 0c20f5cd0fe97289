//! The classification head of a Hugging Face folder, as its `config.json` describes it: labels in the order of their
//! index, and softmax or sigmoid as transformers' own pipeline would choose.

use std::collections::HashMap;

use serde::Deserialize;
use undertone_error::{Error, ErrorKind, Result};

use super::folder::{CONFIG, parse_json};
use super::labels::obvious_sides;
use super::manifest::{HeadInput, HeadSpec};
use crate::HeadKind;

#[derive(Deserialize)]
struct Config {
    architectures: Option<Vec<String>>,
    id2label: Option<HashMap<String, String>>,
    num_labels: Option<usize>,
    problem_type: Option<String>,
}

/// The head that `config.json` describes; `None` where `architectures` names no sequence classification. It is called
/// `sentiment` if its labels are negative, neutral and positive, else `classification`.
///
/// # Errors
/// `InvalidConfig` or `Unsupported`, naming the key.
pub(crate) fn classification(json: &[u8]) -> Result<Option<HeadSpec>> {
    let config: Config = parse_json(CONFIG, json)?;
    let architectures = config.architectures.unwrap_or_default();
    if !architectures.iter().any(|name| name.ends_with("ForSequenceClassification")) {
        return Ok(None);
    }
    let labels = match config.id2label {
        Some(named) => in_order(named)?,
        // What transformers fills in where nothing is said.
        None => (0..config.num_labels.unwrap_or(2)).map(|index| format!("LABEL_{index}")).collect(),
    };
    let kind = match (config.problem_type.as_deref(), labels.len()) {
        (Some("multi_label_classification"), _) => HeadKind::Sigmoid,
        (Some("regression"), _) => return Err(regression("problem_type", "regression")),
        (None | Some("single_label_classification"), 1) => return Err(regression("id2label", "one label")),
        (None | Some("single_label_classification"), _) => HeadKind::Softmax,
        (Some(other), _) => {
            return Err(Error::new(ErrorKind::Unsupported, "classification is of a kind that we do not know")
                .with("file", CONFIG)
                .with("key", "problem_type")
                .with("value", other)
                .help("single_label_classification and multi_label_classification are known"));
        }
    };
    let obvious = kind == HeadKind::Softmax && obvious_sides(&labels).is_some();
    let name = if obvious { "sentiment" } else { "classification" }.to_owned();
    Ok(Some(HeadSpec { name, labels, kind, temperature: 1.0, input: HeadInput::Classifier, file: None }))
}

fn in_order(named: HashMap<String, String>) -> Result<Vec<String>> {
    let refuse = |what: &str, value: &str, help: &str| {
        Error::new(ErrorKind::InvalidConfig, format!("id2label {what}"))
            .with("file", CONFIG)
            .with("key", "id2label")
            .with("value", value)
            .help(help)
    };
    let mut labels = vec![String::new(); named.len()];
    for (key, label) in named {
        if label.is_empty() || labels.contains(&label) {
            return Err(refuse("names a label twice, or not at all", &label, "give each index a label of its own"));
        }
        let slot = key.parse::<usize>().ok().and_then(|index| labels.get_mut(index)).filter(|slot| slot.is_empty());
        match slot {
            Some(slot) => *slot = label,
            None => return Err(refuse("has a key out of order", &key, "number the labels from 0, without gaps")),
        }
    }
    match labels.is_empty() {
        true => Err(refuse("is empty", "{}", "list the classifier's labels by their index")),
        false => Ok(labels),
    }
}

fn regression(key: &'static str, value: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "model gives a number (regression), not probabilities of labels")
        .with("file", CONFIG)
        .with("key", key)
        .with("value", value)
        .help("use a model that classifies, with two labels or more, or multi_label_classification")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(mut config: Value) -> Result<Option<HeadSpec>> {
        if config.get("architectures").is_none() {
            config["architectures"] = json!(["BertForSequenceClassification"]);
        }
        classification(config.to_string().as_bytes())
    }

    #[test]
    fn labels_come_in_the_order_of_their_index() {
        let labels: serde_json::Map<_, _> = (0..12).map(|i| (i.to_string(), json!(format!("l{i}")))).collect();
        let head = parse(json!({"id2label": labels})).unwrap().unwrap();
        assert_eq!(head.labels, (0..12).map(|i| format!("l{i}")).collect::<Vec<_>>());
        assert_eq!((head.name.as_str(), head.kind), ("classification", HeadKind::Softmax));
    }

    #[test]
    fn kind_and_name_follow_from_the_config() {
        let three = json!({"0": "Negative", "1": "Neutral", "2": "Positive"});
        let head = |problem: Value| parse(json!({"id2label": three, "problem_type": problem})).unwrap().unwrap();
        assert_eq!((head(json!(null)).name, head(json!(null)).kind), ("sentiment".to_owned(), HeadKind::Softmax));
        let sigmoid = head(json!("multi_label_classification"));
        assert_eq!((sigmoid.name.as_str(), sigmoid.kind), ("classification", HeadKind::Sigmoid));
        assert_eq!(parse(json!({})).unwrap().unwrap().labels, ["LABEL_0", "LABEL_1"]);
        for architectures in [json!(["BertModel"]), json!(["BertForMaskedLM"]), json!(null)] {
            assert_eq!(parse(json!({"architectures": architectures, "id2label": three})).unwrap(), None);
        }
    }

    #[test]
    fn every_fault_names_its_key() {
        let table = [
            (json!({"problem_type": "regression"}), "problem_type", ErrorKind::Unsupported),
            (json!({"problem_type": "ranking"}), "problem_type", ErrorKind::Unsupported),
            (json!({"id2label": {"0": "score"}}), "id2label", ErrorKind::Unsupported),
            (json!({"id2label": {"0": "a", "2": "b"}}), "id2label", ErrorKind::InvalidConfig),
            (json!({"id2label": {"0": "a", "one": "b"}}), "id2label", ErrorKind::InvalidConfig),
            (json!({"id2label": {"0": "a", "1": "a"}}), "id2label", ErrorKind::InvalidConfig),
            (json!({"id2label": {"0": "a", "1": 7}}), "id2label", ErrorKind::InvalidConfig),
            (json!({"id2label": {}}), "id2label", ErrorKind::InvalidConfig),
        ];
        for (config, key, kind) in table {
            let error = parse(config.clone()).unwrap_err();
            assert_eq!(error.kind(), kind, "{config}");
            assert!(error.to_string().contains(key) && error.to_string().contains("config.json"), "{error}");
            assert!(error.mend().is_some());
        }
    }
}
