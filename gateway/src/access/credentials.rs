//! The key that a request carries, wherever its client puts it.
//!
//! `authorization: Bearer KEY` is what OpenAI's and Hugging Face's clients send, `x-api-key: KEY` what many others do. The
//! password of `authorization: Basic` counts too, whatever the user's name: a browser asks for one by itself, so that the
//! page works with keys.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};

/// A longer one is no key, and is not looked at.
const LONGEST: usize = 1024;

/// The key that was sent, if one was.
pub(super) fn sent(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let value = match headers.get(header::AUTHORIZATION) {
        Some(value) => from_authorization(value.as_bytes()),
        None => headers.get("x-api-key").map(|value| Cow::Borrowed(value.as_bytes())),
    };
    value.filter(|key| !key.is_empty() && key.len() <= LONGEST)
}

fn from_authorization(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Cow::Borrowed(rest));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") || rest.len() > 2 * LONGEST {
        return None;
    }
    let decoded = STANDARD.decode(rest).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(Cow::Owned(decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_place_is_looked_at() {
        let long = format!("Bearer {}", "x".repeat(LONGEST + 1));
        for (name, value, wanted) in [
            ("authorization", "Bearer ut_1", Some("ut_1")),
            ("authorization", "bearer  ut_1 ", Some("ut_1")),
            ("authorization", "Basic YW5uOnV0XzE=", Some("ut_1")),
            ("authorization", "Basic OnV0XzE=", Some("ut_1")),
            ("authorization", "Basic YW5u", None),
            ("authorization", "Basic !!!", None),
            ("authorization", "ut_1", None),
            ("authorization", "Bearer ", None),
            ("authorization", "Digest ut_1", None),
            ("authorization", &long, None),
            ("x-api-key", "ut_1", Some("ut_1")),
            ("x-api-key", "", None),
            ("cookie", "ut_1", None),
        ] {
            let name: header::HeaderName = name.parse().expect("a name");
            let headers = HeaderMap::from_iter([(name, value.parse().expect("a value"))]);
            assert_eq!(sent(&headers).as_deref(), wanted.map(str::as_bytes), "{value}");
        }
    }
}
