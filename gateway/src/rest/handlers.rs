//! Health, metrics and the live view. Nothing here waits for the scorer.

use std::convert::Infallible;

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response, Sse, sse::Event},
};
use futures::{Stream, StreamExt};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    Gateway, access::Caller, errors::ProblemCode, live::Overview, problem::Problem, readiness::Report, telemetry,
};

/// The answer of `/livez`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Alive {
    /// Always true: a process that is not alive does not answer.
    alive: bool,
}

/// Whether the process is alive
#[utoipa::path(
    get,
    path = "/livez",
    tag = "operations",
    operation_id = "livez",
    responses((status = 200, description = "it is", body = Alive))
)]
pub(super) async fn livez() -> Json<Alive> {
    Json(Alive { alive: true })
}

/// Whether the process should get traffic
///
/// Ready means that every part is `ready` or `degraded`. Parts that are not say why, to callers with a key if this server
/// has keys.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    operation_id = "readyz",
    responses(
        (status = 200, description = "every part is ready", body = Report),
        (status = 503, description = "a part is starting, stopping, or has failed", body = Report),
    )
)]
pub(super) async fn readyz(State(gateway): State<Gateway>, caller: Option<Extension<Caller>>) -> Response {
    let report = gateway.report();
    // The door for operations knows no callers, and tells everybody.
    let report = if caller.is_none_or(|Extension(caller)| caller.known) { report } else { report.without_reasons() };
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report)).into_response()
}

/// Metrics in Prometheus' text format
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    operation_id = "metrics",
    responses(
        (status = 200, description = "every metric of the process", body = String, content_type = "text/plain"),
        (status = 404, description = "metrics are switched off", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn metrics(State(gateway): State<Gateway>) -> Result<Response, Problem> {
    let Some(handle) = &gateway.metrics else {
        return Err(Problem::new(ProblemCode::NotFound, "metrics are switched off"));
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response())
}

/// What the stream is doing, now
///
/// The same object as the events of `/v1/live`, at most a second old: `now_ms` is its moment. Asking more often than once
/// a second answers the same again.
#[utoipa::path(
    get,
    path = "/v1/overview",
    tag = "live",
    operation_id = "overview",
    responses((status = 200, description = "rates, totals, lag, mood by topic, the latest posts and dead letters",
               body = Overview))
)]
pub(super) async fn overview(State(gateway): State<Gateway>) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::CONTENT_TYPE, "application/json")];
    (headers, gateway.broadcast.latest().to_string()).into_response()
}

/// What the stream is doing, once a second
///
/// Server-sent events named `overview`, each with the same object as `/v1/overview`: one at once, then one a second. A
/// reader that is slow misses some and gets the latest. The stream ends when the server shuts down.
#[utoipa::path(
    get,
    path = "/v1/live",
    tag = "live",
    operation_id = "live",
    responses(
        (status = 200, description = "events without end", body = String, content_type = "text/event-stream"),
        (status = 429, description = "`queue-full`: too many readers", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "`shutting-down`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn live(
    State(gateway): State<Gateway>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Problem> {
    if gateway.shutdown.is_cancelled() {
        return Err(Problem::new(ProblemCode::ShuttingDown, "the server starts no new streams; try again"));
    }
    let Ok(reader) = gateway.readers.clone().try_acquire_owned() else {
        telemetry::refused("readers");
        let detail = format!("{} readers are listening, which is all that fit", gateway.limits.live_readers);
        return Err(Problem::new(ProblemCode::QueueFull, detail));
    };
    let events = gateway.broadcast.subscribe().map(move |overview| {
        // The stream holds its place among the readers for as long as it lives.
        let _ = &reader;
        Ok(Event::default().event("overview").data(&*overview))
    });
    Ok(Sse::new(events))
}
