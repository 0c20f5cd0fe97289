//! One field's value in an event, and its conversions. Null is absent, and so is the empty string where a string, an id
//! or a time may stand.

use jiff::Timestamp;
use serde_json::{Number, Value};
use undertone_error::{Error, ErrorKind, Result};

use crate::EventTime;
use crate::mapping::{Rule, TimeFormat};

/// As much of a value is shown in an error.
const SHOWN_CHARS: usize = 60;

/// What was found for a field. Every conversion fails with [`ErrorKind::InvalidInput`], naming field, place and value.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    field: &'a str,
    rule: &'a Rule,
    value: Option<&'a Value>,
}

impl<'a> Found<'a> {
    pub(crate) fn new(field: &'a str, rule: &'a Rule, document: &'a Value) -> Self {
        let value = match rule {
            Rule::Path(path) => path.find(document),
            Rule::Constant(value) => Some(value),
            Rule::Absent => None,
        };
        Self { field, rule, value: value.filter(|value| !value.is_null()) }
    }

    pub(crate) fn string(self) -> Result<Option<String>> {
        match self.value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(other) => Err(self.wrong_type("a string", other)),
        }
    }

    /// Ids are strings, but many sources send numbers. Of a number beyond 64 bits no reader keeps every digit: two posts
    /// would become one.
    pub(crate) fn id(self) -> Result<Option<String>> {
        match self.value {
            Some(Value::Number(number)) if is_exact(number) => Ok(Some(number.to_string())),
            Some(other @ Value::Number(_)) => Err(self.wrong_type("a string, or a number of at most 64 bits", other)),
            _ => self.string(),
        }
    }

    pub(crate) fn flag(self) -> Result<bool> {
        match self.value {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong_type("true or false", other)),
        }
    }

    pub(crate) fn number(self) -> Result<Option<f64>> {
        let Some(value) = self.value else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong_type("a number", value))
    }

    pub(crate) fn strings(self) -> Result<Vec<String>> {
        let wrong = |value: &Value| self.wrong_type("a list of strings", value);
        match self.value {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => {
                let string = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| wrong(value));
                values.iter().map(string).collect()
            }
            Some(other) => Err(wrong(other)),
        }
    }

    pub(crate) fn numbers(self) -> Result<Vec<(String, f64)>> {
        let wrong = |value: &Value| self.wrong_type("an object of numbers", value);
        match self.value {
            None => Ok(Vec::new()),
            Some(Value::Object(values)) => {
                let number = |value: &Value| value.as_f64().ok_or_else(|| wrong(value));
                values.iter().map(|(name, value)| Ok((name.clone(), number(value)?))).collect()
            }
            Some(other) => Err(wrong(other)),
        }
    }

    pub(crate) fn time(self, format: TimeFormat) -> Result<Option<EventTime>> {
        let Some(value) = self.value.filter(|value| value.as_str() != Some("")) else { return Ok(None) };
        let time = match format {
            TimeFormat::Rfc3339 => {
                let Value::String(text) = value else { return Err(self.wrong_type("a time in RFC 3339", value)) };
                text.parse::<Timestamp>().map_err(|e| self.no_time(value, RFC_3339).source(e))?
            }
            // What never was, as Reddit writes it.
            _ if value == &Value::Bool(false) => return Ok(None),
            TimeFormat::UnixSeconds => self.unix(value, 1_000_000)?,
            TimeFormat::UnixMillis => self.unix(value, 1000)?,
            TimeFormat::UnixMicros => self.unix(value, 1)?,
        };
        Ok(Some(time.as_microsecond()))
    }

    /// A number of units of `unit_us` microseconds since 1970.
    fn unix(&self, value: &Value, unit_us: i64) -> Result<Timestamp> {
        let number = match value {
            Value::Number(number) => Some(number.clone()),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else { return Err(self.wrong_type("a number since 1970", value)) };
        let us = match number.as_i64() {
            Some(whole) => whole.checked_mul(unit_us),
            // Beyond any time it saturates.
            None => number.as_f64().map(|number| (number * unit_us as f64).round() as i64),
        };
        us.and_then(|us| Timestamp::from_microsecond(us).ok()).ok_or_else(|| self.no_time(value, UNIX))
    }

    fn wrong_type(&self, wanted: &str, got: &Value) -> Error {
        self.bad("field has a wrong type", got).help(format!("{} must be {wanted}", self.field))
    }

    fn no_time(&self, got: &Value, help: &str) -> Error {
        self.bad("field is not a time", got).help(help)
    }

    fn bad(&self, message: &str, got: &Value) -> Error {
        let mut shown = got.to_string();
        if let Some((cut, _)) = shown.char_indices().nth(SHOWN_CHARS) {
            shown.truncate(cut);
            shown.push('…');
        }
        about(self.field, self.rule, Error::new(ErrorKind::InvalidInput, message)).with("value", shown)
    }
}

/// Adds to an error the field that it is about, and where that was looked for if not under its own name.
pub(crate) fn about(field: &str, rule: &Rule, error: Error) -> Error {
    let error = error.with("field", field);
    match rule {
        Rule::Path(path) if !path.is_member(field) => error.with("path", path),
        _ => error,
    }
}

const RFC_3339: &str = "write RFC 3339, like 2026-05-01T12:00:00Z";
const UNIX: &str = "is it in this unit? [source.mapping] names it: unix_s, unix_ms or unix_us";

/// Whether it lies between -2^63 and 2^64, both excluded.
fn is_exact(number: &Number) -> bool {
    let fits = |number: f64| number > -9_223_372_036_854_775_808.0 && number < 18_446_744_073_709_551_616.0;
    match number.as_i64() {
        Some(whole) => whole > i64::MIN,
        None => number.is_u64() || number.as_f64().is_some_and(fits),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pointer::Pointer;

    fn time(value: Value, format: TimeFormat) -> Result<Option<EventTime>> {
        let document = json!({ "t": value });
        let rule = Rule::Path(Pointer::member("t"));
        Found::new("created_at", &rule, &document).time(format)
    }

    #[test]
    fn times_are_read_in_each_format() {
        use TimeFormat as F;
        let noon = 1_777_636_800_000_000;
        let cases = [
            (json!("2026-05-01T12:00:00Z"), F::Rfc3339, Some(noon)),
            (json!("2026-05-01T14:00:00+02:00"), F::Rfc3339, Some(noon)),
            (json!(1_777_636_800), F::UnixSeconds, Some(noon)),
            (json!(1_777_636_800.0), F::UnixSeconds, Some(noon)),
            (json!("1777636800"), F::UnixSeconds, Some(noon)),
            (json!(1_777_636_800.25), F::UnixSeconds, Some(noon + 250_000)),
            (json!("1777636800.000001"), F::UnixSeconds, Some(noon + 1)),
            (json!(1_777_636_800_000_i64), F::UnixMillis, Some(noon)),
            (json!("1777636800000"), F::UnixMillis, Some(noon)),
            (json!(noon), F::UnixMicros, Some(noon)),
            (json!(-1), F::UnixSeconds, Some(-1_000_000)),
            (json!(0), F::UnixSeconds, Some(0)),
            (json!(false), F::UnixSeconds, None),
            (json!(null), F::UnixSeconds, None),
            (json!(""), F::UnixMillis, None),
        ];
        for (value, format, wanted) in cases {
            assert_eq!(time(value.clone(), format).expect("a time"), wanted, "{value} as {format:?}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        use TimeFormat as F;
        let cases = [
            (json!("yesterday"), F::Rfc3339, "RFC 3339"),
            (json!("2026-05-01T12:00:00"), F::Rfc3339, "RFC 3339"),
            (json!(1_777_636_800), F::Rfc3339, "RFC 3339"),
            (json!(false), F::Rfc3339, "RFC 3339"),
            (json!(1_777_636_800_000_i64), F::UnixSeconds, "unix_ms"),
            (json!(u64::MAX), F::UnixSeconds, "unix_ms"),
            (json!(1e300), F::UnixMicros, "unix_ms"),
            (json!("NaN"), F::UnixSeconds, "a number since 1970"),
            (json!("2026-05-01T12:00:00Z"), F::UnixSeconds, "a number since 1970"),
            (json!(true), F::UnixSeconds, "a number since 1970"),
        ];
        for (value, format, wanted) in cases {
            let error = time(value.clone(), format).expect_err("no time").to_string();
            assert!(error.contains(wanted) && error.contains("created_at") && error.contains("/t"), "{value}: {error}");
        }
    }

    #[test]
    fn ids_are_strings_or_numbers_of_which_every_digit_is_kept() {
        let id = |json: &str| {
            let document = serde_json::from_str(json).expect("JSON");
            let rule = Rule::Path(Pointer::member("id"));
            Found::new("id", &rule, &document).id().map_err(|error| error.to_string())
        };
        let kept = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(id(r#"{"id":"7"}"#), kept("7"));
        assert_eq!(id(r#"{"id":18446744073709551615}"#), kept("18446744073709551615"));
        assert_eq!(id(r#"{"id":-9223372036854775807}"#), kept("-9223372036854775807"));
        assert_eq!(id(r#"{"id":1.5}"#), kept("1.5"));
        assert_eq!(id(r#"{"id":""}"#), Ok(None));
        let beyond = [r#"{"id":18446744073709551616}"#, r#"{"id":-9223372036854775808}"#];
        for wrong in beyond.into_iter().chain([r#"{"id":true}"#, r#"{"id":[1]}"#]) {
            assert!(id(wrong).expect_err("no id").contains("id must be a string"), "{wrong}");
        }
    }
}
