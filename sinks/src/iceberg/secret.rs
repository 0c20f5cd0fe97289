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

    /// The value, for the one place that sends it.
    pub(super) fn reveal(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.variable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_where_it_came_from_and_not_what_it_is() {
        let secret = Secret::new("TOKEN", "hunter2");
        assert_eq!((format!("{secret:?}").as_str(), secret.reveal()), ("$TOKEN", "hunter2"));
    }
}
