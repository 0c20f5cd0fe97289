//! The OpenAPI 3.1 document, generated from the handlers and types themselves, so that it cannot describe another API.

use std::sync::LazyLock;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::OpenApi;

use super::{handlers, score};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Undertone",
        description = "Sentiment of social posts: scores on demand, and a live view of the stream.\n\nEvery error is \
                       problem details (RFC 9457, `application/problem+json`); the last part of its `type` is a code \
                       that stays the same. Every answer carries `x-request-id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        score::score,
        score::models,
        handlers::overview,
        handlers::live,
        handlers::livez,
        handlers::readyz,
        handlers::metrics,
        serve,
    ),
    tags(
        (name = "scoring", description = "Texts in, scores out"),
        (name = "live", description = "What the stream is doing"),
        (name = "operations", description = "Health, metrics, and this document"),
    ),
)]
struct Document;

static JSON: LazyLock<String> = LazyLock::new(|| document().to_json().unwrap_or_default());

/// The OpenAPI document of the REST service.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], JSON.as_str()).into_response()
}
