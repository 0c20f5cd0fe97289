//! Where the fields of a post stand in other people's JSON.
//!
//! A field that the mapping does not name is read from the member of its own name, as in a post of our own form.

use serde_json::Value;
use undertone_error::{Error, ErrorKind, Result};

use crate::pointer::Pointer;
use crate::value::Found;

/// What one field is.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// What stands at a place of the event; absent if nothing does, or null.
    Path(Pointer),
    /// The same for every event.
    Constant(Value),
    /// Nothing: a member of this name means something else there, and is kept among the fields we do not know.
    Absent,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// RFC 3339, like `2026-05-01T12:00:00Z`.
    #[default]
    Rfc3339,
    /// Seconds since 1970-01-01T00:00:00Z: a number, also with a fraction, or a string that holds one.
    UnixSeconds,
    /// The same in milliseconds.
    UnixMillis,
    /// The same in microseconds.
    UnixMicros,
}

impl TimeFormat {
    /// Every format, with its name in a configuration.
    pub const ALL: [(&'static str, Self); 4] = [
        ("rfc3339", Self::Rfc3339),
        ("unix_s", Self::UnixSeconds),
        ("unix_ms", Self::UnixMillis),
        ("unix_us", Self::UnixMicros),
    ];
}

/// Where a time is, and how it is written there.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeRule {
    /// Where it is.
    pub rule: Rule,
    /// How it is written.
    pub format: TimeFormat,
}

/// Where the tags are.
#[derive(Clone, Debug, PartialEq)]
pub enum Tags {
    /// In one list of strings.
    List(Rule),
    /// One string in each of these places.
    Each(Vec<Rule>),
}

/// Where the metrics are.
#[derive(Clone, Debug, PartialEq)]
pub enum Metrics {
    /// In one object of numbers.
    Object(Rule),
    /// One number in each of these places, under the name given here.
    Each(Vec<(String, Rule)>),
}

/// Where each field of a post is. Without further words: in the member of its own name.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of a post")]
pub struct Mapping {
    pub id: Rule,
    pub source: Rule,
    pub text: Rule,
    pub created_at: TimeRule,
    pub edited_at: TimeRule,
    pub deleted: Rule,
    pub author: Rule,
    pub url: Rule,
    pub lang: Rule,
    pub reply_to: Rule,
    pub metrics: Metrics,
    pub tags: Tags,
}

impl Default for Mapping {
    fn default() -> Self {
        let own = |name| Rule::Path(Pointer::member(name));
        let time = |name| TimeRule { rule: own(name), format: TimeFormat::Rfc3339 };
        Self {
            id: own("id"),
            source: own("source"),
            text: own("text"),
            created_at: time("created_at"),
            edited_at: time("edited_at"),
            deleted: own("deleted"),
            author: own("author"),
            url: own("url"),
            lang: own("lang"),
            reply_to: own("reply_to"),
            metrics: Metrics::Object(own("metrics")),
            tags: Tags::List(own("tags")),
        }
    }
}

/// The fields of one event, converted, each absent if it is not there.
#[derive(Debug, PartialEq)]
pub(crate) struct Fields {
    pub(crate) id: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) created_at_us: Option<i64>,
    pub(crate) edited_at_us: Option<i64>,
    pub(crate) deleted: bool,
    pub(crate) author: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) lang: Option<String>,
    pub(crate) reply_to: Option<String>,
    pub(crate) metrics: Vec<(String, f64)>,
    pub(crate) tags: Vec<String>,
}

impl Mapping {
    /// Reads every field from where it is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the field, for a value of a wrong type.
    pub(crate) fn read(&self, document: &Value) -> Result<Fields> {
        let find = |field, rule| Found::new(field, rule, document);
        Ok(Fields {
            id: find("id", &self.id).id()?,
            source: find("source", &self.source).string()?,
            text: find("text", &self.text).string()?,
            created_at_us: find("created_at", &self.created_at.rule).time(self.created_at.format)?,
            edited_at_us: find("edited_at", &self.edited_at.rule).time(self.edited_at.format)?,
            deleted: find("deleted", &self.deleted).flag()?,
            author: find("author", &self.author).id()?,
            url: find("url", &self.url).string()?,
            lang: find("lang", &self.lang).string()?,
            reply_to: find("reply_to", &self.reply_to).id()?,
            metrics: match &self.metrics {
                Metrics::Object(rule) => find("metrics", rule).numbers()?,
                Metrics::Each(rules) => {
                    let mut metrics = Vec::with_capacity(rules.len());
                    for (name, rule) in rules {
                        let field = format!("metrics.{name}");
                        if let Some(number) = Found::new(&field, rule, document).number()? {
                            metrics.push((name.clone(), number));
                        }
                    }
                    metrics
                }
            },
            tags: match &self.tags {
                Tags::List(rule) => find("tags", rule).strings()?,
                Tags::Each(rules) => {
                    let tags: Result<Vec<_>> = rules.iter().map(|rule| find("tags", rule).string()).collect();
                    tags?.into_iter().flatten().collect()
                }
            },
        })
    }

    /// Whether it can be what somebody wants.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the field, for constants of a wrong type, and for those with which all posts
    /// would be the same one.
    pub(crate) fn validate(&self) -> Result<()> {
        for (field, rule) in [("id", &self.id), ("text", &self.text)] {
            let error = Error::new(ErrorKind::InvalidConfig, "field cannot be read like this").with("field", field);
            match rule {
                Rule::Constant(value) => {
                    return Err(error.with("value", value).help("name the path at which each event has its own"));
                }
                Rule::Absent if field == "text" => return Err(error.help("name the path of the text")),
                _ => {}
            }
        }
        // Of an event without anything in it only the constants are left.
        self.read(&Value::Null).map(drop)
    }

    /// Every place that is read.
    pub(crate) fn paths(&self) -> Vec<Pointer> {
        let mut rules = vec![&self.id, &self.source, &self.text, &self.created_at.rule, &self.edited_at.rule];
        rules.extend([&self.deleted, &self.author, &self.url, &self.lang, &self.reply_to]);
        match &self.metrics {
            Metrics::Object(rule) => rules.push(rule),
            Metrics::Each(each) => rules.extend(each.iter().map(|(_, rule)| rule)),
        }
        match &self.tags {
            Tags::List(rule) => rules.push(rule),
            Tags::Each(each) => rules.extend(each),
        }
        let path = |rule: &Rule| match rule {
            Rule::Path(path) => Some(path.clone()),
            Rule::Constant(_) | Rule::Absent => None,
        };
        rules.into_iter().filter_map(path).collect()
    }
}
