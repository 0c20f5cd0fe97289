//! What happens to every request whatever it asks for: it gets an id, its panics become answers, its problem a body, and
//! it is counted and logged, without a word of what it carried.

use std::{panic::AssertUnwindSafe, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use futures::FutureExt;
use tokio::time::Instant;
use tracing::{Instrument, field::Empty};
use undertone_inference::Lane;
use undertone_trace as trace;
use uuid::Uuid;

use super::{Dialect, linger, template};
use crate::{
    Gateway,
    errors::ProblemCode,
    moderation,
    problem::{Problem, Raised},
    telemetry,
};

const REQUEST_ID: &str = "x-request-id";
const LONGEST_ID: usize = 128;

/// When the request's head was read: deadlines count from here.
#[derive(Clone, Copy)]
pub(super) struct Arrived(pub(super) Instant);

/// The request's id, for problems that are part of an answer which has begun.
#[derive(Clone)]
pub(super) struct RequestId(pub(super) String);

/// How long the parts of a call took, in the extensions of its answer.
#[derive(Clone, Copy)]
pub(super) struct Stages {
    /// Reading the body and making sense of it.
    pub(super) read: Duration,
    /// From there to the last text's score.
    pub(super) score: Duration,
}

fn server_timing(total: Duration, stages: Option<Stages>) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let total = format!("total;dur={:.1}", ms(total));
    match stages {
        Some(Stages { read, score }) => format!("{total}, read;dur={:.1}, score;dur={:.1}", ms(read), ms(score)),
        None => total,
    }
}

/// The calls that score, and take one of the places for such.
const SCORING: [&str; 7] =
    ["/v1/score", "/v1/score/arrow", "/v1/score/stream", "/v1/embed", "/v1/embeddings", "/predict", "/embed"];

/// What is asked for without end, or is not worth a trace of its own.
const UNTRACED: [&str; 11] = [
    "/",
    "/docs",
    "/docs/",
    "/{file}",
    "unknown",
    "/openapi.json",
    "/livez",
    "/readyz",
    "/metrics",
    "/v1/live",
    "/v1/overview",
];

/// The refusal of a call that scores, while every place is taken: ten times as many calls as fit must not cost the texts
/// that do, so it comes before everything else, and without a line in the log of what was answered. Where callers have
/// keys, theirs are looked at first, on the usual way.
fn shed(gateway: &Gateway, method: &Method, route: &str) -> Option<Problem> {
    let scores = *method == Method::POST && SCORING.contains(&route);
    let problem = (scores && gateway.keys.is_empty()).then(|| gateway.full()).flatten()?;
    moderation::refused(gateway.scorer.wait(Lane::Interactive));
    Some(problem)
}

pub(super) async fn observe(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let arrived = Instant::now();
    let mut request = linger::to_its_end(request, &gateway.limits);
    let id = request_id(request.headers().get(REQUEST_ID));
    let route = template(request.uri().path());
    let dialect = Dialect::of(request.uri().path());
    let method = method_name(request.method());
    if let Some(problem) = shed(&gateway, request.method(), route) {
        tracing::debug!(request_id = %id, route, "call refused, every place is taken");
        return counted(problem.into_answer(&id, dialect), &id, method, route, arrived);
    }
    drop(gateway);
    let _in_flight = telemetry::InFlight::new();
    request.extensions_mut().insert(Arrived(arrived));
    request.extensions_mut().insert(RequestId(id.clone()));

    let span = tracing::info_span!("http", request_id = %id, method, route, caller = Empty, trace_id = Empty);
    let traced = traced(method, route, request.headers(), &span);
    let work = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone());
    let answer = trace::within(traced.as_ref(), work).await;
    let _entered = span.enter();
    let answer = answer.unwrap_or_else(|_| {
        tracing::error!("request handler panicked");
        raise(Problem::failed())
    });
    let answer = counted(render(answer, &id, dialect), &id, method, route, arrived);
    if let Some(traced) = traced {
        traced.count("http.response.status_code", answer.status().as_u16().into());
        if answer.status().is_server_error() {
            traced.failed();
        }
    }
    tracing::info!(status = answer.status().as_u16(), seconds = arrived.elapsed().as_secs_f64(), "request answered");
    answer
}

/// The trace that a call is a part of, if that is sampled. What the page and probes ask for all the time begins none.
fn traced(method: &'static str, route: &'static str, headers: &HeaderMap, span: &tracing::Span) -> Option<trace::Span> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if !trace::is_on() || (UNTRACED.contains(&route) && header(trace::TRACEPARENT).is_none()) {
        return None;
    }
    let traced = trace::call(|| format!("{method} {route}").into(), header)?;
    traced.word("http.request.method", method);
    traced.word("http.route", route);
    span.record("trace_id", traced.trace_id());
    Some(traced)
}

/// Counts an answer, and gives it the headers that every one has.
fn counted(mut answer: Response, id: &str, method: &'static str, route: &'static str, arrived: Instant) -> Response {
    let took = arrived.elapsed();
    let stages = answer.extensions().get::<Stages>().copied();
    let headers = answer.headers_mut();
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&server_timing(took, stages)) {
        headers.insert("server-timing", value);
    }
    telemetry::http_answered(method, route, answer.status().as_u16(), took);
    answer
}

/// The caller's id, or a new one.
fn request_id(given: Option<&HeaderValue>) -> String {
    let given = given.and_then(|value| value.to_str().ok());
    harmless_id(given).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The caller's id if it is one that can stand in a header, a log line and a URI reference.
pub(crate) fn harmless_id(given: Option<&str>) -> Option<&str> {
    given.filter(|id| {
        (1..=LONGEST_ID).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    })
}

fn raise(problem: Problem) -> Response {
    axum::response::IntoResponse::into_response(problem)
}

/// Gives every error its body: a handler's own problem, or one for what the router refused by itself.
fn render(mut answer: Response, id: &str, dialect: Dialect) -> Response {
    if let Some(Raised(problem)) = answer.extensions_mut().remove() {
        return problem.into_answer(id, dialect);
    }
    match answer.status() {
        StatusCode::METHOD_NOT_ALLOWED => {
            let allow = answer.headers().get(header::ALLOW).cloned().unwrap_or(HeaderValue::from_static(""));
            let detail = format!("this path takes {}", allow.to_str().unwrap_or_default().replace(',', ", "));
            Problem::new(ProblemCode::MethodNotAllowed, detail).allow(allow).into_answer(id, dialect)
        }
        _ => answer,
    }
}

/// Methods are a closed set in metrics; anything a caller makes up is "other".
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_in_milliseconds() {
        let ms = Duration::from_millis;
        assert_eq!(server_timing(ms(12), None), "total;dur=12.0");
        let stages = Stages { read: Duration::from_micros(150), score: ms(9) };
        assert_eq!(server_timing(ms(12), Some(stages)), "total;dur=12.0, read;dur=0.1, score;dur=9.0");
    }

    #[test]
    fn ids_of_callers_are_kept_only_if_they_are_harmless() {
        let kept = |id: &str| {
            let value = HeaderValue::from_str(id).expect("a header value");
            request_id(Some(&value)) == id
        };
        assert!(kept("req-7_a.b~c"));
        assert!(kept(&"x".repeat(LONGEST_ID)));
        for id in ["", "a b", "a\"b", "a/b", "a=b", &"x".repeat(LONGEST_ID + 1)] {
            assert!(!kept(id), "{id:?}");
        }
        assert_ne!(request_id(None), request_id(None));
    }
}
