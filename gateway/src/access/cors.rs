//! Which pages of other origins may read answers (CORS): none, unless they are named.
//!
//! A browser asks before it sends JSON from another origin, and is told no by silence. That protects people whose browser
//! knows a key, or stands inside a network where none is wanted.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};

use crate::Gateway;

/// The origins whose pages may read answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors(Vec<HeaderValue>);

const METHODS: &str = "GET, HEAD, POST";
/// What callers may send: every header that a call can be given, and those of a trace, which a browser's own tracing adds.
const HEADERS: &str =
    "authorization, content-type, traceparent, tracestate, x-api-key, x-lane, x-request-id, x-timeout-ms";
/// What callers may read of an answer beside the few headers that are always theirs.
const EXPOSED: &str = "allow, retry-after, server-timing, www-authenticate, x-request-id";

impl Cors {
    /// Takes an origin as browsers write it: `https://page.example`, with a port if it is not the usual one, without a
    /// path. False if it is none.
    pub fn add(&mut self, origin: &str) -> bool {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let good = host.is_some_and(|host| {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]".contains(&b))
        });
        match HeaderValue::from_str(origin) {
            Ok(value) if good => self.0.push(value),
            _ => return false,
        }
        true
    }

    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.0.contains(origin).then(|| origin.clone())
    }
}

/// Answers what browsers ask beforehand, and marks what they may read. Outside of the keys: browsers ask without one.
pub(crate) async fn share(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    if gateway.cors.0.is_empty() {
        return next.run(request).await;
    }
    let allowed = gateway.cors.allowed(request.headers());
    let asks =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut answer = match (asks, &allowed) {
        (true, Some(_)) => {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            let headers = answer.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
            answer
        }
        _ => next.run(request).await,
    };
    let headers = answer.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for (origin, good) in [
            ("https://page.example", true),
            ("http://127.0.0.1:5173", true),
            ("http://[::1]:5173", true),
            ("*", false),
            ("null", false),
            ("page.example", false),
            ("https://", false),
            ("https://page.example/", false),
            ("https://Page.example", false),
            ("https://a@page.example", false),
        ] {
            assert_eq!(Cors::default().add(origin), good, "{origin}");
        }
    }
}
