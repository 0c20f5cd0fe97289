//! The OpenAPI 3.1 document, generated from the handlers and types themselves, so that it cannot describe another API.
//!
//! What a call can fail with comes from the table of errors: [`ScoringProblems`] for calls that score, and what every path
//! that wants a key has besides.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::{
        Content, Ref, RefOr, Response as Described, ResponseBuilder,
        path::Operation,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::{arrow, dead, embed, handlers, openai, posts, query, score, stream, tei};
use crate::{
    access,
    errors::ProblemCode,
    problem::{CONTENT_TYPE, Problem},
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Undertone",
        description = "Sentiment of social posts: scores on demand, and a live view of the stream.\n\nEvery error is \
                       problem details (RFC 9457, `application/problem+json`); the last part of its `type` is a code \
                       that stays the same. Every answer carries `x-request-id`. A server that has keys wants one for \
                       everything but `/livez` and `/readyz`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        score::score,
        arrow::score,
        stream::score,
        embed::embed,
        score::models,
        tei::predict,
        tei::embed,
        tei::info,
        openai::embeddings,
        openai::model,
        posts::posts,
        dead::replay,
        query::series,
        query::tags,
        query::latest,
        query::search,
        query::similar,
        handlers::overview,
        handlers::live,
        handlers::livez,
        handlers::readyz,
        handlers::metrics,
        serve,
    ),
    tags(
        (name = "scoring", description = "Texts in, scores out"),
        (name = "dialects", description = "The same, as clients of text-embeddings-inference and OpenAI ask for it"),
        (name = "stream", description = "Posts in, and dead letters once more"),
        (name = "queries", description = "What the stream has stored"),
        (name = "live", description = "What the stream is doing"),
        (name = "operations", description = "Health, metrics, and this document"),
    ),
    components(schemas(Problem)),
    modifiers(&KeysWanted),
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

/// What every call that scores can fail with.
pub(crate) struct ScoringProblems;

impl IntoResponses for ScoringProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        use ProblemCode as P;
        problems(&[
            P::InvalidJson,
            P::InvalidHeader,
            P::BodyTimeout,
            P::BodyTooLarge,
            P::TooManyTexts,
            P::TextTooLong,
            P::UnsupportedMediaType,
            P::UnsupportedEncoding,
            P::InvalidInput,
            P::EmptyList,
            P::EmptyText,
            P::UnknownHead,
            P::QueueFull,
            P::Internal,
            P::ShuttingDown,
            P::Unavailable,
            P::DeadlineExceeded,
        ])
    }
}

/// What a stream of texts can fail with before it begins.
pub(crate) struct StreamProblems;

impl IntoResponses for StreamProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        use ProblemCode as P;
        problems(&[
            P::InvalidHeader,
            P::UnsupportedMediaType,
            P::UnsupportedEncoding,
            P::InvalidInput,
            P::UnknownHead,
            P::QueueFull,
            P::Internal,
            P::ShuttingDown,
        ])
    }
}

/// What taking posts in can fail with.
pub(crate) struct IngestProblems;

impl IntoResponses for IngestProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        use ProblemCode as P;
        problems(&[
            P::InvalidJson,
            P::InvalidHeader,
            P::BodyTimeout,
            P::BodyTooLarge,
            P::TooManyTexts,
            P::TooLarge,
            P::UnsupportedMediaType,
            P::UnsupportedEncoding,
            P::InvalidInput,
            P::EmptyList,
            P::QueueFull,
            P::Internal,
            P::ShuttingDown,
            P::Unavailable,
            P::DeadlineExceeded,
        ])
    }
}

/// What sending dead letters again can fail with.
pub(crate) struct ReplayProblems;

impl IntoResponses for ReplayProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        use ProblemCode as P;
        problems(&[
            P::InvalidJson,
            P::InvalidHeader,
            P::StoreNotConfigured,
            P::NotFound,
            P::BodyTimeout,
            P::Conflict,
            P::BodyTooLarge,
            P::UnsupportedMediaType,
            P::UnsupportedEncoding,
            P::InvalidInput,
            P::QueueFull,
            P::Internal,
            P::ShuttingDown,
            P::Unavailable,
            P::DeadlineExceeded,
        ])
    }
}

/// What every query can fail with.
pub(crate) struct QueryProblems;

impl IntoResponses for QueryProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        problems(&QUERIES)
    }
}

const QUERIES: [ProblemCode; 9] = {
    use ProblemCode as P;
    [
        P::InvalidHeader,
        P::StoreNotConfigured,
        P::TooLarge,
        P::InvalidInput,
        P::QueueFull,
        P::Internal,
        P::ShuttingDown,
        P::Unavailable,
        P::DeadlineExceeded,
    ]
};

/// What a query for similar posts can fail with.
pub(crate) struct SimilarProblems;

impl IntoResponses for SimilarProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        use ProblemCode as P;
        problems(&[&QUERIES[..], &[P::TextTooLong, P::EmptyText, P::NotFound, P::Unsupported]].concat())
    }
}

/// One response a status, which names its codes.
fn problems(codes: &[ProblemCode]) -> BTreeMap<String, RefOr<Described>> {
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for code in codes {
        let row = code.row();
        named.entry(row.http.as_str().to_owned()).or_default().push(format!("`{}`", row.code));
    }
    named.into_iter().map(|(status, codes)| (status, RefOr::T(problem(&codes.join(", "))))).collect()
}

fn problem(codes: &str) -> Described {
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new().description(codes).content(CONTENT_TYPE, content).build()
}

/// Says which paths want a key, and what they answer without one.
struct KeysWanted;

impl Modify for KeysWanted {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let header = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-key")));
        components.security_schemes.insert("bearer".to_owned(), RefOr::T(bearer));
        components.security_schemes.insert("key".to_owned(), RefOr::T(header));
        for (path, item) in &mut document.paths.paths {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                if access::wants_key(path) {
                    want_key(operation, access::takes_rate(path));
                }
            }
        }
    }
}

fn want_key(operation: &mut Operation, rated: bool) {
    let none: [&str; 0] = [];
    operation.security = Some(vec![
        SecurityRequirement::default(),
        SecurityRequirement::new("bearer", none),
        SecurityRequirement::new("key", none),
    ]);
    let mut further = vec![ProblemCode::Unauthenticated];
    if rated {
        further.push(ProblemCode::RateLimited);
    }
    for (status, response) in problems(&further) {
        match (operation.responses.responses.get_mut(&status), response) {
            (Some(RefOr::T(there)), RefOr::T(more)) => {
                there.description = format!("{}, {}", there.description, more.description)
            }
            (_, response) => {
                operation.responses.responses.insert(status, response);
            }
        }
    }
}
