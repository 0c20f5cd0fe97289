//! A post of our own form in one pass over its bytes.
//!
//! The guarantee: what is read here is what [`Mapping::read`](crate::Mapping) would read out of the document, without making
//! one first. Whatever is not as it should be, or could mean two things, is left to that, which knows what to say of it.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::mapping::Fields;

/// The fields, and what is not one of them; `None` for what must be looked at more closely.
pub(crate) fn read(json: &[u8]) -> Option<(Fields, Map<String, Value>)> {
    let plain: Plain = serde_json::from_str(std::str::from_utf8(json).ok()?).ok()?;
    let fields = Fields {
        id: plain.id,
        source: plain.source,
        text: plain.text,
        created_at_us: plain.created_at,
        edited_at_us: plain.edited_at,
        deleted: plain.deleted.unwrap_or_default(),
        author: plain.author,
        url: plain.url,
        lang: plain.lang,
        reply_to: plain.reply_to,
        metrics: plain.metrics,
        tags: plain.tags.unwrap_or_default(),
    };
    Some((fields, plain.extra))
}

/// Two members of one name are an error.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Plain {
    #[serde(deserialize_with = "id")]
    id: Option<String>,
    #[serde(deserialize_with = "string")]
    source: Option<String>,
    #[serde(deserialize_with = "string")]
    text: Option<String>,
    #[serde(deserialize_with = "time")]
    created_at: Option<i64>,
    #[serde(deserialize_with = "time")]
    edited_at: Option<i64>,
    deleted: Option<bool>,
    #[serde(deserialize_with = "id")]
    author: Option<String>,
    #[serde(deserialize_with = "string")]
    url: Option<String>,
    #[serde(deserialize_with = "string")]
    lang: Option<String>,
    #[serde(deserialize_with = "id")]
    reply_to: Option<String>,
    #[serde(deserialize_with = "numbers")]
    metrics: Vec<(String, f64)>,
    tags: Option<Vec<String>>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

fn string<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
}

/// Microseconds, of a time in RFC 3339 that is written without escapes.
fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let Some(text) = Option::<&str>::deserialize(from)?.filter(|text| !text.is_empty()) else { return Ok(None) };
    Ok(Some(text.parse::<Timestamp>().map_err(D::Error::custom)?.as_microsecond()))
}

/// A string, or a whole number from 0 on, of 64 bits.
fn id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    struct Id;

    impl Visitor<'_> for Id {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an id")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok((!text.is_empty()).then(|| text.to_owned()))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string()))
        }
    }

    from.deserialize_any(Id)
}

/// How names begin that serde_json keeps to itself, and gives a meaning in a value.
const KEPT: &str = "$serde_json::";
/// Each name is compared to those before it: more are left to whoever has a table of them.
const MOST_NUMBERS: usize = 32;

/// Numbers by name, in order.
fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, f64)>, D::Error> {
    struct Numbers;

    impl<'de> Visitor<'de> for Numbers {
        type Value = Vec<(String, f64)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of few numbers, each of a name of its own")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
            let mut numbers: Self::Value = Vec::new();
            while let Some((name, number)) = pairs.next_entry::<String, f64>()? {
                if numbers.len() == MOST_NUMBERS
                    || name.starts_with(KEPT)
                    || numbers.iter().any(|(other, _)| *other == name)
                {
                    return Err(A::Error::custom(format_args!("{name} is one too many")));
                }
                numbers.push((name, number));
            }
            Ok(numbers)
        }
    }

    from.deserialize_any(Numbers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Mapping;

    /// What the mapping reads of the same bytes, and what it leaves.
    fn closely(json: &str) -> Option<(Fields, Map<String, Value>)> {
        let mapping = Mapping::default();
        let document = Value::Object(serde_json::from_str(json).ok()?);
        let fields = mapping.read(&document).ok()?;
        let Value::Object(mut extra) = document else { return None };
        extra.retain(|name, _| !mapping.paths().iter().any(|path| path.is_member(name)));
        Some((fields, extra))
    }

    #[test]
    fn a_usual_post_is_read_here() {
        let full = r#"{"id":7,"source":"x","text":"hi \u00e9\n","created_at":"2026-05-01T12:00:00+02:00","edited_at":null,"deleted":false,
            "author":"","url":"u","lang":"en","reply_to":12,"metrics":{"likes":3,"share":0.5,"e":-1},"tags":["tea"],"k":{"v":[1]},"z":null}"#;
        for json in [full, "{}", r#"{"text":"hi"}"#, r#"{"deleted":true,"id":"7","created_at":""}"#] {
            let plain = read(json.as_bytes());
            assert!(plain.is_some() && plain == closely(json), "{json}");
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_others() {
        for json in [
            "",
            "[]",
            "7",
            "{",
            "{} {}",
            r#"{"id":1.5}"#,
            r#"{"id":-1}"#,
            r#"{"id":true}"#,
            r#"{"id":1,"id":2}"#,
            r#"{"metrics":{"a":1,"a":2}}"#,
            r#"{"metrics":{"a":"1"}}"#,
            r#"{"text":5}"#,
            r#"{"tags":[null]}"#,
            r#"{"created_at":"yesterday"}"#,
            r#"{"created_at":"2026-05-01T12:00:00\u005a"}"#,
        ] {
            assert_eq!(read(json.as_bytes()), None, "{json}");
        }
        assert_eq!(read(b"{\"text\":\"\xff\"}"), None);
    }

    proptest! {
        /// Of what somebody might write under any of the names, also twice.
        #[test]
        fn it_reads_what_the_mapping_reads(
            members in proptest::collection::vec((
                proptest::sample::select(vec![
                    "id", "source", "text", "created_at", "edited_at", "deleted", "author", "url", "lang", "reply_to", "metrics", "tags", "k", "",
                    "$serde_json::private::RawValue", r"\u0069d", r"t\u0065xt",
                ]),
                proptest::sample::select(vec![
                    "null", "true", "false", "0", "7", "-7", "-0", "1.5", "1e3", "18446744073709551615", "18446744073709551616", "\"\"",
                    "\"a\"", r#""\u00e9\n""#, r#""\ud83d\ude00""#, r#""\ud83d""#, "\"2026-05-01T12:00:00Z\"", "\"2026-05-01\"", "[]", "{}", r#"["a","b",""]"#, "[1]",
                    r#"{"a":1}"#, r#"{"a":1,"b":-0.25}"#, r#"{"a":1,"a":2}"#, r#"{"a":null}"#, r#"{"a":[{"b":1}]}"#, "nul",
                    r#"{"$serde_json::private::RawValue":1}"#, r#"{"$serde_json::private::RawValue":"{\"b\":1}"}"#, r#"{"a":1,"$serde_json::private::RawValue":"7"}"#,
                ]),
            ), 0..6),
            end in proptest::sample::select(vec!["}", "}", "}", "} ", "}x", ""]),
        ) {
            let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let json = format!("{{{}{end}", members.join(","));
            if let Some(plain) = read(json.as_bytes()) {
                prop_assert_eq!(Some(plain), closely(&json), "{}", json);
            }
        }
    }
}
