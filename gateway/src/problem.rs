//! Problem details (RFC 9457): the one form in which REST says no.
//!
//! The guarantee: every answer of status 400 or above is `application/problem+json`, names the request in `instance`,
//! and never carries a text that was sent, a path of this machine or the cause of a fault of ours.

use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use undertone_error::Error;
use utoipa::ToSchema;

use crate::{errors::ProblemCode, rest::Dialect};

/// Problem details as RFC 9457 defines them, plus `errors` for hints on single fields.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// Which problem: `/problems/` and a code that stays the same across versions.
    #[serde(rename = "type")]
    #[schema(example = "/problems/queue-full")]
    pub type_uri: String,
    /// What the problem is, the same for every occurrence.
    pub title: &'static str,
    /// The HTTP status, also for one item of many.
    #[schema(example = 429)]
    pub status: u16,
    /// What is wrong this time, and what would mend it.
    pub detail: String,
    /// The id of the request, which the log has too. Absent inside the results of a bulk call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub instance: Option<Box<str>>,
    /// Hints on single fields of the body.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    #[serde(skip)]
    code: ProblemCode,
    #[serde(skip)]
    headers: Option<Box<Headers>>,
}

/// What stands in the head of an answer, where it is not the table that says it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Headers {
    /// The methods that a path takes.
    allow: Option<HeaderValue>,
    /// In seconds.
    retry_after: Option<u32>,
}

/// What is wrong with one field of the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where, as a JSON pointer (RFC 6901).
    #[schema(example = "/texts/3")]
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// A problem with the members of a dialect beside its own.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    #[serde(flatten)]
    members: Option<Value>,
}

/// The media type of problem details.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// All that callers are told of a fault of ours.
const FAILED: &str = "the server failed; its log has the reason under this request's id";

/// How a key may be sent. The second is what browsers ask people by.
const CHALLENGES: [&str; 2] = ["Bearer realm=\"undertone\"", "Basic realm=\"undertone\", charset=\"UTF-8\""];

impl Problem {
    /// A problem of this code. The detail says what is wrong and what would mend it.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let row = code.row();
        Self {
            type_uri: format!("/problems/{}", row.code),
            title: row.title,
            status: row.http.as_u16(),
            detail: detail.into(),
            instance: None,
            errors: Vec::new(),
            code,
            headers: None,
        }
    }

    /// A bug of ours, of which the log tells more than callers may know.
    pub(crate) fn failed() -> Self {
        Self::new(ProblemCode::Internal, FAILED)
    }

    /// Adds a hint on one field, named by its JSON pointer.
    #[must_use]
    pub fn field(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Says which methods the path takes.
    #[must_use]
    pub(crate) fn allow(mut self, methods: HeaderValue) -> Self {
        self.headers.get_or_insert_default().allow = Some(methods);
        self
    }

    /// Says after how many seconds a retry may succeed, where that is known better than the table knows it.
    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.headers.get_or_insert_default().retry_after = Some(seconds);
        self
    }

    /// After how many seconds a retry may succeed.
    pub(crate) fn retries_after(&self) -> Option<u32> {
        let known = self.headers.as_ref().and_then(|headers| headers.retry_after);
        known.or(self.code.row().retry_after)
    }

    /// Which problem it is.
    pub fn code(&self) -> ProblemCode {
        self.code
    }

    /// The answer itself, in the name of one request, with what clients of this dialect look for.
    pub(crate) fn into_answer(mut self, request_id: &str, dialect: Dialect) -> Response {
        let row = self.code.row();
        self.instance = Some(request_id.into());
        let (code, retry_after) = (self.code, self.retries_after());
        let allow = self.headers.take().and_then(|headers| headers.allow);
        let members = dialect.members(&self);
        let mut response = (row.http, Json(Said { problem: &self, members })).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(methods) = allow {
            headers.insert(header::ALLOW, methods);
        }
        if code == ProblemCode::Unauthenticated {
            for challenge in CHALLENGES {
                headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
        }
        response
    }
}

impl From<&Error> for Problem {
    /// Callers see the message of an error that they, or a full or slow server, caused; never its context or cause.
    fn from(error: &Error) -> Self {
        let code = ProblemCode::from(error.kind());
        if code.is_ours() {
            return Self::new(code, FAILED);
        }
        match error.mend() {
            Some(mend) if code.row().http.is_client_error() => Self::new(code, format!("{}; {mend}", error.message())),
            _ => Self::new(code, error.message()),
        }
    }
}

impl IntoResponse for Problem {
    /// Only the status: the middleware, which knows the request's id, writes the body.
    fn into_response(self) -> Response {
        let mut response = self.code.row().http.into_response();
        response.extensions_mut().insert(Raised(Box::new(self)));
        response
    }
}

/// A problem on its way to the middleware that renders it.
#[derive(Clone)]
pub(crate) struct Raised(pub(crate) Box<Problem>);

#[cfg(test)]
mod tests {
    use undertone_error::ErrorKind;

    use super::*;

    #[test]
    fn faults_of_ours_keep_their_cause_to_themselves() {
        let error = Error::new(ErrorKind::Internal, "secret").with("path", "/home/ann").source("cause").help("look");
        let problem = Problem::from(&error);
        assert!(!serde_json::to_string(&problem).expect("serialises").contains("secret"));
    }

    #[test]
    fn faults_of_callers_say_what_would_mend_them_but_no_context() {
        let error = Error::new(ErrorKind::InvalidInput, "text is odd").with("path", "/home/ann").help("send less");
        assert_eq!(Problem::from(&error).detail, "text is odd; send less");
    }
}
