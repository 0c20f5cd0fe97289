//! A value that is sent and never shown.

use std::fmt;

/// A password, key or token, with the variable it came from: that name is what messages say instead of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    variable: String,
}

impl Secret {
    /// The value of an environment variable.
    pub fn new(variable: impl Into<String>, value: impl Into<String>) -> Self {
        Self { value: value.into(), variable: variable.into() }
    }

    /// The variable that holds it.
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// `text` with the variable's name where the value stood.
    pub(super) fn hide_in(&self, text: &str) -> String {
        text.replace(&self.value, &format!("{self:?}"))
    }

    /// The value, for the one place that sends it.
    pub(crate) fn reveal(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.variable)
    }
}

/// `text` without what looks like a JSON web token: `eyJ….….…`, which is a JSON object in base64, two more parts, and dots.
pub(super) fn without_tokens(text: &str) -> String {
    let (mut kept, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("eyJ") {
        let (before, from) = rest.split_at(start);
        let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=');
        let end = from.find(|c| !of_token(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        kept.push_str(before);
        kept.push_str(if word.matches('.').count() >= 2 { "eyJ…" } else { word });
        rest = after;
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_of_what_others_say() {
        let secret = Secret::new("TOKEN", "hunter2");
        assert_eq!(secret.hide_in("no hunter2 here, hunter2"), "no $TOKEN here, $TOKEN");
        for (said, wanted) in [
            ("bad token eyJhbGci.eyJzdWIi.c2ln-_x, sorry", "bad token eyJ…, sorry"),
            ("\"eyJa.b.c\" and eyJd.e.f", "\"eyJ…\" and eyJ…"),
            ("é eyJa.b is none", "é eyJa.b is none"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without_tokens(said), wanted);
        }
    }

    #[test]
    fn a_secret_shows_where_it_came_from_and_not_what_it_is() {
        let secret = Secret::new("TOKEN", "hunter2");
        assert_eq!((format!("{secret:?}").as_str(), secret.reveal()), ("$TOKEN", "hunter2"));
    }
}
