//! `[source.mapping]`: where other people's JSON has the fields of a post.
//!
//! ```toml
//! [source.mapping]
//! id = "/data/name"                                          # a JSON Pointer (RFC 6901)
//! source = { value = "forum" }                               # the same for every post
//! text = "/data/selftext"
//! created_at = { path = "/data/created_utc", format = "unix_s" }   # rfc3339 (default), unix_s, unix_ms, unix_us
//! lang = false                                               # theirs means something else
//! tags = ["/data/board", "/data/flair"]                      # or one path, of a list
//! metrics.likes = "/data/ups"                                # or metrics = "/data/counts", an object of numbers
//! ```
//!
//! A field that is not named here is read from the member of its own name.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::mapping::{Metrics, Rule, Tags, TimeFormat, TimeRule};
use undertone_proto::{Mapping, PostReader};

use super::layers::Origins;
use super::wrong;

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMapping {
    id: Option<RawRule>,
    source: Option<RawRule>,
    text: Option<RawRule>,
    created_at: Option<RawTime>,
    edited_at: Option<RawTime>,
    deleted: Option<RawRule>,
    author: Option<RawRule>,
    url: Option<RawRule>,
    lang: Option<RawRule>,
    reply_to: Option<RawRule>,
    metrics: Option<RawMetrics>,
    tags: Option<RawTags>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
#[serde(
    expecting = "write a JSON Pointer like \"/data/body\", { value = \"the same for all\" }, or false where there is none"
)]
enum RawRule {
    Path(String),
    Flag(bool),
    At { path: String },
    Constant { value: Value },
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
#[serde(
    expecting = "write { path = \"/data/at\", format = \"unix_ms\" }, a JSON Pointer to a time in RFC 3339, or false"
)]
enum RawTime {
    At { path: String, format: String },
    Plain(RawRule),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
#[serde(
    expecting = "write a JSON Pointer to an object of numbers, or one for each metric: metrics.likes = \"/data/ups\""
)]
enum RawMetrics {
    Object(RawRule),
    Each(BTreeMap<String, RawRule>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
#[serde(expecting = "write a JSON Pointer to a list of strings, or a list of JSON Pointers to one string each")]
enum RawTags {
    List(RawRule),
    Each(Vec<RawRule>),
}

impl RawMapping {
    /// A reader that follows the mapping.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the key, the value, where it came from, and what would be right.
    pub(super) fn reader(self, origins: &Origins) -> Result<PostReader> {
        let named = |field: &str, error: &Error| refused(origins, field, error);
        let mut mapping = Mapping::default();
        for (field, rule, raw) in [
            ("id", &mut mapping.id, self.id),
            ("source", &mut mapping.source, self.source),
            ("text", &mut mapping.text, self.text),
            ("deleted", &mut mapping.deleted, self.deleted),
            ("author", &mut mapping.author, self.author),
            ("url", &mut mapping.url, self.url),
            ("lang", &mut mapping.lang, self.lang),
            ("reply_to", &mut mapping.reply_to, self.reply_to),
        ] {
            if let Some(raw) = raw {
                *rule = raw.rule().map_err(|e| named(field, &e))?;
            }
        }
        for (field, rule, raw) in [
            ("created_at", &mut mapping.created_at, self.created_at),
            ("edited_at", &mut mapping.edited_at, self.edited_at),
        ] {
            if let Some(raw) = raw {
                *rule = raw.rule().map_err(|e| named(field, &e))?;
            }
        }
        match self.metrics {
            None => {}
            Some(RawMetrics::Object(raw)) => {
                mapping.metrics = Metrics::Object(raw.rule().map_err(|e| named("metrics", &e))?);
            }
            Some(RawMetrics::Each(each)) => {
                let rule = |(name, raw): (String, RawRule)| match raw.rule() {
                    Ok(rule) => Ok((name, rule)),
                    Err(e) => Err(named(&format!("metrics.{name}"), &e)),
                };
                mapping.metrics = Metrics::Each(each.into_iter().map(rule).collect::<Result<_>>()?);
            }
        }
        match self.tags {
            None => {}
            Some(RawTags::List(raw)) => mapping.tags = Tags::List(raw.rule().map_err(|e| named("tags", &e))?),
            Some(RawTags::Each(each)) => {
                let rules = each.into_iter().map(|raw| raw.rule().map_err(|e| named("tags", &e)));
                mapping.tags = Tags::Each(rules.collect::<Result<_>>()?);
            }
        }
        PostReader::new(mapping).map_err(|error| {
            let field = error.context().iter().find(|(key, _)| *key == "field");
            named(field.map_or("text", |(_, field)| field), &error)
        })
    }
}

impl RawRule {
    fn rule(self) -> Result<Rule> {
        match self {
            Self::Path(path) | Self::At { path } => Ok(Rule::Path(path.parse()?)),
            Self::Constant { value } => Ok(Rule::Constant(value)),
            Self::Flag(false) => Ok(Rule::Absent),
            Self::Flag(true) => {
                let error = Error::new(ErrorKind::InvalidConfig, "field cannot be read like this").with("value", true);
                Err(error.help("leave the key out to read the member of that name"))
            }
        }
    }
}

impl RawTime {
    fn rule(self) -> Result<TimeRule> {
        match self {
            Self::Plain(raw) => Ok(TimeRule { rule: raw.rule()?, format: TimeFormat::Rfc3339 }),
            Self::At { path, format } => {
                let Some((_, known)) = TimeFormat::ALL.into_iter().find(|(name, _)| *name == format) else {
                    let names = TimeFormat::ALL.map(|(name, _)| name).join(", ");
                    let error = Error::new(ErrorKind::InvalidConfig, "time format is unknown").with("value", format);
                    return Err(error.help(format!("formats are {names}")));
                };
                Ok(TimeRule { rule: Rule::Path(path.parse()?), format: known })
            }
        }
    }
}

/// The error of one field as an error of its key.
fn refused(origins: &Origins, field: &str, error: &Error) -> Error {
    let value = error.context().iter().find(|(key, _)| ["path", "value"].contains(key));
    let value = value.map_or("false", |(_, value)| value);
    wrong(origins, &format!("source.mapping.{field}"), &value, error.mend().unwrap_or(error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Layers};

    fn load(mapping: &str) -> Result<Config> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("u.toml");
        std::fs::write(&path, format!("[model]\ndir = 'm'\n[source]\ninput = 'x.jsonl'\n{mapping}")).expect("a file");
        Config::load(Layers::default().file(&path).expect("readable"))
    }

    #[test]
    fn every_form_is_read() {
        let config = load(
            r#"
            [source.mapping]
            id = { path = "/n" }
            source = { value = "forum" }
            text = "/d/b"
            created_at = { path = "/t", format = "unix_ms" }
            edited_at = "/e"
            lang = false
            tags = ["/a", { value = "all" }]
            metrics.likes = "/up"
            metrics.path = "/p"
            "#,
        );
        let event = br#"{"n":7,"d":{"b":"hi"},"t":1777636800000,"e":"2026-05-01T12:00:01Z","lang":{},"a":"tea","up":2,"p":3,"url":"u"}"#;
        let post = config.expect("a good configuration").posts.read(event, 0).expect("a good post");
        assert_eq!((post.id.as_str(), post.source.as_str(), post.text.as_str()), ("7", "forum", "hi"));
        assert_eq!((post.created_at_us, post.edited_at_us), (1_777_636_800_000_000, Some(1_777_636_801_000_000)));
        assert_eq!((post.lang, post.url.as_deref(), post.tags), (None, Some("u"), vec!["tea".into(), "all".into()]));
        assert_eq!(post.metrics, [("likes".to_owned(), 2.0), ("path".to_owned(), 3.0)]);
        assert_eq!(Value::Object(post.extra).to_string(), r#"{"lang":{}}"#);
        let whole = load("[source.mapping]\ntags = '/t'\nmetrics = { path = '/m' }\n").expect("a good configuration");
        let post = whole.posts.read(br#"{"text":"hi","t":["a"],"m":{"b":1}}"#, 0).expect("a good post");
        assert_eq!((post.tags, post.metrics), (vec!["a".to_owned()], vec![("b".to_owned(), 1.0)]));
    }

    #[test]
    fn errors_name_key_value_origin_and_mend() {
        let cases = [
            ("text = 'data.body'", ["source.mapping.text", "data.body", "/data/body"]),
            ("text = ''", ["source.mapping.text", "value: ", "/body"]),
            ("text = { value = 'hi' }", ["source.mapping.text", "hi", "path"]),
            ("text = false", ["source.mapping.text", "false", "path"]),
            ("id = true", ["source.mapping.id", "true", "leave the key out"]),
            ("id = { value = 7 }", ["source.mapping.id", "7", "path"]),
            ("id = 7", ["source.mapping.id", "7", "JSON Pointer"]),
            ("author = { path = '/a', format = 'unix_s' }", ["source.mapping.author", "JSON Pointer", "false"]),
            ("source = { value = 7 }", ["source.mapping.source", "7", "must be a string"]),
            ("created_at = { path = '/t', format = 'unix' }", ["source.mapping.created_at", "unix", "unix_ms"]),
            ("created_at = { path = 't', format = 'unix_s' }", ["source.mapping.created_at", "value: t", "/t"]),
            ("created_at = { format = 'unix_s' }", ["source.mapping.created_at", "path", "unix_ms"]),
            ("tags = ['/a', 'b']", ["source.mapping.tags", "value: b", "/b"]),
            ("tags = 1", ["source.mapping.tags", "value: 1", "list of"]),
            ("metrics.likes = 'up'", ["source.mapping.metrics.likes", "value: up", "/up"]),
            ("metrics.likes = { value = 'many' }", ["source.mapping.metrics.likes", "many", "must be a number"]),
            ("body = '/b'", ["source.mapping.body", "body", "text"]),
        ];
        for (line, words) in cases {
            let error = load(&format!("[source.mapping]\n{line}\n")).expect_err("a wrong mapping");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            let message = error.to_string();
            for word in words.into_iter().chain(["u.toml"]) {
                assert!(message.contains(word), "{line}: {message} should say: {word}");
            }
        }
    }

    #[test]
    fn a_mapping_has_nothing_to_map_without_an_input() {
        let layers = Layers::default().flag("--model", "model.dir", Some("m"));
        let error = Config::load(layers.flag("--mapping", "source.mapping.text", Some("/body")));
        let message = error.expect_err("a mapping of the generator's posts").to_string();
        assert!(message.contains("source.mapping") && message.contains("--input"), "{message}");
    }
}
