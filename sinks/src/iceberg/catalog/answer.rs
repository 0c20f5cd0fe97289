//! What a REST catalog's answer means, read from the error that the client crate makes of it.
//!
//! The crate keeps status and body only in the error's text, so they are read from there: the status behind `status:` or
//! `code:`, and the server's words inside the JSON that Iceberg's protocol prescribes for errors.

use undertone_error::ErrorKind;

/// An answer that was not what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// Whether it was given to the exchange of client id and secret for a token.
    pub(super) login: bool,
    /// Where it says that what was asked for is, without what may be secret in it.
    pub(super) location: Option<String>,
    /// The server's own words, or everything that is known.
    words: String,
}

/// What an answer means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Client id and secret are wrong.
    LoginRefused,
    /// No token, a wrong one, or one that has ended.
    TokenRefused,
    /// The token is good, and not good for this.
    Forbidden,
    /// What was asked for is at another address.
    Elsewhere,
    /// The server does not know what was asked for, or how it was asked.
    NotUnderstood,
    /// The server is ill or busy.
    Ill,
}

/// The longest part of an answer that is repeated: some servers answer with a page.
const WORDS: usize = 300;

/// Reads the crate's text; `None` if there was no answer at all, or none that was an error.
pub(super) fn read(text: &str) -> Option<Answer> {
    let status = ["{ status: ", "{ code: ", ", code: "].iter().find_map(|before| number_after(text, before))?;
    // Only the token exchange is answered with these.
    let login = text.contains("operation: auth") || text.contains("{ type: ");
    let words = words(text).unwrap_or(text).to_owned();
    Some(Answer { status, login, location: location(text), words })
}

/// Whether the server answered with success, and with something that is not in the protocol.
pub(super) fn is_foreign(text: &str) -> bool {
    text.contains("Failed to parse response from rest catalog server")
}

fn number_after(text: &str, before: &str) -> Option<u16> {
    let rest = text.split_once(before)?.1;
    rest.get(..3)?.parse().ok()
}

/// The header of this name, up to a query.
fn location(text: &str) -> Option<String> {
    let headers = text.split_once(", json: ").map_or(text, |(headers, _)| headers);
    let (value, _) = headers.split_once("\"location\": \"")?.1.split_once('"')?;
    value.split('?').next().map(str::to_owned)
}

/// The message in the body, or the body if it is not as the protocol says; of the rest only what was to be said.
fn words(text: &str) -> Option<&str> {
    let Some((_, rest)) = text.split_once("json: ") else {
        return text.rsplit_once(" => ").map(|(_, message)| message);
    };
    let body = rest.rsplit_once(" } => ").map_or(rest, |(body, _)| body);
    for name in ["\"message\":\"", "\"error_description\":\"", "\"error\":\""] {
        if let Some((value, _)) = body.split_once(name).and_then(|(_, rest)| rest.split_once('"')) {
            return Some(value);
        }
    }
    Some(body)
}

impl Answer {
    /// The server's words, cut after `hide` took out of them what nobody must see.
    pub(super) fn told(&self, hide: impl Fn(&str) -> String) -> String {
        hide(&self.words).chars().take(WORDS).collect()
    }

    pub(super) fn meaning(&self) -> Meaning {
        match (self.status, self.login) {
            (400..=403, true) => Meaning::LoginRefused,
            // 419 is the protocol's own: the authentication timed out.
            (401 | 419, _) => Meaning::TokenRefused,
            (403, _) => Meaning::Forbidden,
            (408 | 425 | 429, _) => Meaning::Ill,
            (300..=399, _) => Meaning::Elsewhere,
            (400..=499, _) => Meaning::NotUnderstood,
            _ => Meaning::Ill,
        }
    }
}

impl Meaning {
    /// Only what the server may get over by itself is waited for.
    pub(super) fn kind(self) -> ErrorKind {
        match self {
            Self::Ill => ErrorKind::Unavailable,
            Self::LoginRefused | Self::TokenRefused | Self::Forbidden => ErrorKind::InvalidConfig,
            Self::Elsewhere | Self::NotUnderstood => ErrorKind::InvalidConfig,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_texts_are_read() {
        let cases = [
            (
                r#"Unexpected, context: { status: 401 Unauthorized, headers: {"date": "x"}, json: {"error":{"message":"bad token","type":"NotAuthorizedException","code":401}} } => Received response with unexpected status code"#,
                Some((401, false, "bad token", Meaning::TokenRefused)),
            ),
            (
                r#"Unexpected, context: { status: 403 Forbidden, headers: {} } => Received response with unexpected status code"#,
                Some((403, false, "Received response with unexpected status code", Meaning::Forbidden)),
            ),
            (
                r#"Unexpected, context: { code: 401 Unauthorized, operation: auth, url: http://c/v1/oauth/tokens, json: {"error":"invalid_client","error_description":"who are you"} } => Received unexpected response, source: missing field"#,
                Some((401, true, "who are you", Meaning::LoginRefused)),
            ),
            (
                "DataInvalid, context: { type: invalid_client, code: 400 } => no such client",
                Some((400, true, "no such client", Meaning::LoginRefused)),
            ),
            (
                r#"Unexpected, context: { status: 404 Not Found, headers: {}, json: <html>nothing</html> } => Received response with unexpected status code"#,
                Some((404, false, "<html>nothing</html>", Meaning::NotUnderstood)),
            ),
            (
                r#"Unexpected, context: { status: 503 Service Unavailable, headers: {} } => Received response with unexpected status code"#,
                Some((503, false, "Received response with unexpected status code", Meaning::Ill)),
            ),
            (
                r#"Unexpected, context: { status: 419 <unknown status code>, headers: {} } => x"#,
                Some((419, false, "x", Meaning::TokenRefused)),
            ),
            ("Unexpected => Failed to execute http request, source: error sending request", None),
            ("TableNotFound => Tried to load a table that does not exist", None),
        ];
        for (text, wanted) in cases {
            let found = read(text);
            let found = found.as_ref().map(|it| (it.status, it.login, it.words.as_str(), it.meaning()));
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn pages_are_cut_and_answers_of_others_are_known() {
        let page = format!("Unexpected, context: {{ status: 404 Not Found, json: {} }} => x", "é".repeat(5000));
        assert_eq!(read(&page).map(|answer| answer.told(str::to_owned).chars().count()), Some(WORDS));
        let foreign =
            "Unexpected, context: { json: <html> } => Failed to parse response from rest catalog server, source: x";
        assert!(read(foreign).is_none() && is_foreign(foreign) && !is_foreign(&page));
    }

    #[test]
    fn redirects_say_where_to_without_a_query() {
        let moved = r#"Unexpected, context: { status: 302 Found, headers: {"date": "x", "location": "https://login/?code=hunter2"}, json: {"location": "no"} } => x"#;
        let answer = read(moved).expect("an answer");
        assert_eq!((answer.meaning(), answer.location.as_deref()), (Meaning::Elsewhere, Some("https://login/")));
    }

    #[test]
    fn only_an_ill_server_is_waited_for() {
        let meant = |status| Answer { status, login: false, location: None, words: String::new() }.meaning().kind();
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(meant(status), ErrorKind::Unavailable, "{status}");
        }
        for status in [301, 302, 307, 308, 400, 401, 403, 404, 405, 406, 419] {
            assert_eq!(meant(status), ErrorKind::InvalidConfig, "{status}");
        }
    }
}
