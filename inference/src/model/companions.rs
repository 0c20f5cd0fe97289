//! What the files beside `config.json` say in a folder of transformers or sentence-transformers: how long texts may be,
//! and how vectors are pooled. All of them may be absent; those that are read belong to the model's revision.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use undertone_error::{Error, ErrorKind, Result};

use super::folder::{parse_json, read};
use super::manifest::Pooling;

/// The tokeniser's own limit.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The limit of a sentence-transformers model.
const SENTENCE_CONFIG: &str = "sentence_bert_config.json";
/// How a sentence-transformers model pools.
const POOLING: &str = "1_Pooling/config.json";
/// What a sentence-transformers model consists of.
const MODULES: &str = "modules.json";

/// Those of the files that are there.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let all = [TOKENIZER_CONFIG, SENTENCE_CONFIG, POOLING, MODULES];
    all.into_iter().filter(|file| folder.join(file).is_file()).map(str::to_owned).collect()
}

fn read_if_there<T: serde::de::DeserializeOwned>(folder: &Path, file: &'static str) -> Result<Option<T>> {
    if !folder.join(file).is_file() {
        return Ok(None);
    }
    parse_json(file, &read(folder, file)?).map(Some)
}

/// The most tokens of a text by these files. "No limit" is written as a huge number by transformers, and anything that
/// leaves no room for text is no limit either.
pub(crate) fn token_limit(folder: &Path) -> Result<Option<usize>> {
    let limit = |file, key: &str| -> Result<Option<usize>> {
        let values: Option<Map<String, Value>> = read_if_there(folder, file)?;
        let value = values.as_ref().and_then(|values| values.get(key)).and_then(Value::as_u64);
        Ok(value.and_then(|value| usize::try_from(value).ok()).filter(|&value| value >= 3))
    };
    let limits = [limit(TOKENIZER_CONFIG, "model_max_length")?, limit(SENTENCE_CONFIG, "max_seq_length")?];
    Ok(limits.into_iter().flatten().min())
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
}

/// The pooling of a sentence-transformers folder.
///
/// # Errors
/// `Unsupported` for a pooling or a module that we do not compute, `InvalidConfig` for a damaged file.
pub(crate) fn pooling(folder: &Path) -> Result<Option<Pooling>> {
    let refuse = |file: &str, key: String, value: &str, help: &str| {
        Error::new(ErrorKind::Unsupported, "embedding is made in a way that we do not compute")
            .with("file", file)
            .with("key", key)
            .with("value", value)
            .help(help)
    };
    let modules: Vec<Module> = read_if_there(folder, MODULES)?.unwrap_or_default();
    for (index, module) in modules.iter().enumerate() {
        let name = module.kind.rsplit('.').next().unwrap_or_default();
        if !matches!(name, "Transformer" | "Pooling" | "Normalize") {
            let help = "we compute Transformer, Pooling and Normalize; describe the model in an undertone.json";
            return Err(refuse(MODULES, format!("[{index}].type"), &module.kind, help));
        }
    }
    let Some(values) = read_if_there::<Map<String, Value>>(folder, POOLING)? else { return Ok(None) };
    let by_name = values.get("pooling_mode").and_then(Value::as_str).map(|mode| ("pooling_mode", mode));
    let chosen: Vec<(&str, &str)> = match by_name {
        Some(named) => vec![named],
        None => values
            .iter()
            .filter(|(_, value)| **value == Value::Bool(true))
            .filter_map(|(key, _)| Some((key.as_str(), key.strip_prefix("pooling_mode_")?)))
            .collect(),
    };
    match chosen[..] {
        [(_, "mean" | "mean_tokens")] => Ok(Some(Pooling::Mean)),
        [(_, "cls" | "cls_token")] => Ok(Some(Pooling::Cls)),
        [] => Err(refuse(POOLING, "pooling_mode".to_owned(), "none", "set pooling_mode_mean_tokens or _cls_token")),
        [(key, value)] => Err(refuse(POOLING, key.to_owned(), value, "we compute mean and cls")),
        [(key, _), ..] => Err(refuse(POOLING, key.to_owned(), "one of several", "we compute one of mean and cls")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content.to_string()).unwrap();
        }
        folder
    }

    #[test]
    fn the_smallest_sane_limit_holds() {
        let limit = |own: Value, sentence: Value| {
            let files = [
                (TOKENIZER_CONFIG, json!({"model_max_length": own})),
                (SENTENCE_CONFIG, json!({"max_seq_length": sentence})),
            ];
            token_limit(folder(&files).path()).unwrap()
        };
        assert_eq!(limit(json!(512), json!(256)), Some(256));
        assert_eq!(limit(json!(128), json!(null)), Some(128));
        assert_eq!(limit(json!(1e30), json!(null)), None);
        assert_eq!(limit(json!(0), json!(2)), None);
        assert_eq!(token_limit(folder(&[]).path()).unwrap(), None);
    }

    #[test]
    fn poolings_are_read_or_refused_by_name() {
        let pool = |config: Value| pooling(folder(&[(POOLING, config)]).path());
        assert_eq!(
            pool(json!({"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true})).unwrap(),
            Some(Pooling::Mean)
        );
        assert_eq!(pool(json!({"pooling_mode_cls_token": true, "include_prompt": true})).unwrap(), Some(Pooling::Cls));
        assert_eq!(pool(json!({"pooling_mode": "mean"})).unwrap(), Some(Pooling::Mean));
        for (config, named) in [
            (json!({"pooling_mode_max_tokens": true}), "pooling_mode_max_tokens"),
            (json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}), "pooling_mode_"),
            (json!({"pooling_mode": "lasttoken"}), "lasttoken"),
            (json!({}), "pooling_mode"),
        ] {
            let error = pool(config).unwrap_err();
            assert!(error.to_string().contains(named) && error.to_string().contains(POOLING), "{error}");
        }
        let dense = json!([{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Dense"}]);
        let error = pooling(folder(&[(MODULES, dense)]).path()).unwrap_err();
        assert!(error.to_string().contains("[1].type") && error.to_string().contains("Dense"), "{error}");
    }
}
