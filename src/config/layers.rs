//! Lays file, environment and flags over each other, and remembers which of them each value came from.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};
use undertone_error::{Error, ErrorKind, Result};

/// Values from several places, later ones over earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    merged: Table,
    origins: Origins,
}

/// Where each key's value came from.
#[derive(Debug, Default)]
pub(crate) struct Origins(BTreeMap<String, String>);

impl Origins {
    /// The place that `key` (dotted) got its value from.
    pub(crate) fn of(&self, key: &str) -> String {
        self.0.get(key).cloned().unwrap_or_else(|| "the default".to_owned())
    }
}

impl Layers {
    /// Adds a TOML file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with the path, and line and column where the file is not TOML.
    pub(crate) fn file(mut self, path: &Path) -> Result<Self> {
        let fail = |message: &str| Error::new(ErrorKind::InvalidConfig, message).with("path", path.display());
        let text = std::fs::read_to_string(path)
            .map_err(|e| fail("cannot read configuration file").source(e).help("check the path given with --config"))?;
        let table: Table =
            text.parse().map_err(|e: toml::de::Error| fail("configuration file is not TOML").source(e))?;
        self.overlay(table, &path.display().to_string());
        Ok(self)
    }

    /// Adds `UNDERTONE_SECTION__KEY=value` variables. A value is read as TOML where it is TOML, else as a string.
    pub(crate) fn environment(mut self, variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut variables: Vec<_> = variables.collect();
        variables.sort();
        for (name, value) in variables {
            let Some(path) = name.strip_prefix("UNDERTONE_").filter(|path| path.contains("__")) else { continue };
            let keys: Vec<String> = path.split("__").map(str::to_lowercase).collect();
            self.overlay(nested(&keys, parse_value(&value)), &name);
        }
        self
    }

    /// Adds one flag's value, if it was given.
    pub(crate) fn flag(mut self, flag: &str, key: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            let keys: Vec<String> = key.split('.').map(str::to_owned).collect();
            self.overlay(nested(&keys, value.into()), flag);
        }
        self
    }

    fn overlay(&mut self, table: Table, origin: &str) {
        merge(&mut self.merged, table, &mut String::new(), origin, &mut self.origins.0);
    }

    /// Reads the result as `T`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the key, the value and where it came from.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<(T, Origins)> {
        let Self { merged, origins } = self;
        let shown = Value::Table(merged.clone());
        match serde_path_to_error::deserialize(merged) {
            Ok(value) => Ok((value, origins)),
            Err(error) => {
                let key = error.path().to_string();
                let found = key.split('.').try_fold(&shown, |value, part| value.get(part));
                let problem = error.into_inner().message().trim().to_owned();
                let mut failure = Error::new(ErrorKind::InvalidConfig, "configuration is wrong").with("key", &key);
                if let Some(value) = found.filter(|value| !value.is_table() && !is_secret(&key)) {
                    failure = failure.with("value", value);
                }
                Err(failure.with("from", origins.of(&key)).help(problem))
            }
        }
    }
}

/// Whether the value of a key, known or not, may be something that is not to be printed.
fn is_secret(key: &str) -> bool {
    if key.starts_with("gateway.keys.") {
        // Whoever mistakes the place of a hash for that of a key would see it in a log.
        return true;
    }
    // Where the name of a variable belongs, somebody may have written its value.
    let name = key.rsplit('.').next().unwrap_or(key).trim_end_matches("_env");
    let says = ["secret", "password", "credential"].iter().any(|word| name.contains(word));
    let ends = ["token", "access_key", "api_key"].iter().any(|word| name.ends_with(word));
    says || ends
}

fn merge(into: &mut Table, from: Table, path: &mut String, origin: &str, origins: &mut BTreeMap<String, String>) {
    for (key, value) in from {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&key);
        if value.is_table() {
            // A section has an origin too: it may be one that nobody knows.
            origins.insert(path.clone(), origin.to_owned());
        }
        match (into.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(table)) => merge(below, table, path, origin, origins),
            (_, Value::Table(table)) => {
                let mut below = Table::new();
                merge(&mut below, table, path, origin, origins);
                into.insert(key, Value::Table(below));
            }
            (_, value) => {
                origins.insert(path.clone(), origin.to_owned());
                into.insert(key, value);
            }
        }
        path.truncate(length);
    }
}

fn nested(keys: &[String], value: Value) -> Table {
    let mut table = Table::new();
    match keys {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            table.insert(key.clone(), Value::Table(nested(rest, value)));
        }
    }
    table
}

fn parse_value(text: &str) -> Value {
    let as_toml = format!("v = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
    as_toml.unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        kafka: Kafka,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Kafka {
        brokers: String,
        #[serde(default)]
        retries: u32,
    }

    fn variables(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn flags_win_over_variables_and_variables_over_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("u.toml");
        std::fs::write(&path, "[kafka]\nbrokers = 'file:1'\nretries = 1\n").expect("a file");
        let layers = Layers::default().file(&path).expect("readable");
        let layers =
            layers.environment(variables(&[("UNDERTONE_KAFKA__BROKERS", "env:1"), ("UNDERTONE_KAFKA__RETRIES", "2")]));
        let (sample, origins) = layers.flag("--retries", "kafka.retries", Some(3)).read::<Sample>().expect("valid");
        assert_eq!((sample.kafka.brokers.as_str(), sample.kafka.retries), ("env:1", 3));
        assert_eq!(origins.of("kafka.brokers"), "UNDERTONE_KAFKA__BROKERS");
        assert_eq!(origins.of("kafka.retries"), "--retries");
    }

    #[test]
    fn errors_name_key_value_and_origin() {
        let layers = Layers::default()
            .environment(variables(&[("UNDERTONE_KAFKA__BROKERS", "b:1"), ("UNDERTONE_KAFKA__RETRIES", "many")]));
        let message = layers.read::<Sample>().expect_err("a wrong type").to_string();
        for part in ["kafka.retries", "many", "UNDERTONE_KAFKA__RETRIES"] {
            assert!(message.contains(part), "{message} should name {part}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        let layers = Layers::default().environment(variables(&[("UNDERTONE_KAFKA__PASSWORD", "hunter2")]));
        let message = layers.read::<Sample>().expect_err("an unknown key").to_string();
        assert!(message.contains("password") && !message.contains("hunter2"), "{message}");
        for (key, secret) in [("storage.s3.secret", true), ("catalog.token", true), ("catalog.token_env", true)] {
            assert_eq!(is_secret(key), secret, "{key}");
        }
        assert!(!is_secret("inference.token_budget") && !is_secret("inference.bulk_tokens"));
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let layers = Layers::default().environment(variables(&[("UNDERTONE_KAFKA__BROKERZ", "b:1")]));
        let message = layers.read::<Sample>().expect_err("an unknown key").to_string();
        assert!(message.contains("brokerz") && message.contains("brokers"), "{message}");
    }
}
