//! REST, and the page.
//!
//! Every answer passes [`observe::observe`], which gives it a request id, renders problems, catches panics, counts and
//! logs. Handlers answer data or a [`Problem`](crate::Problem); they know neither the request's id nor the log.

mod arrow;
mod body;
mod dead;
mod dialect;
mod embed;
mod handlers;
mod linger;
mod observe;
mod openai;
pub(crate) mod openapi;
mod page;
mod posts;
mod query;
mod score;
mod stream;
mod tei;
mod whole;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{get, post},
};

use crate::{Gateway, access};
pub(crate) use dialect::Dialect;
pub(crate) use observe::harmless_id;

/// Every path that is not a file of the page. Metrics carry these names, and every one is in the OpenAPI document
/// except those that serve the page.
pub(crate) const ROUTES: [&str; 26] = [
    "/",
    "/docs",
    "/docs/",
    "/v1/score",
    "/v1/score/arrow",
    "/v1/score/stream",
    "/v1/embed",
    "/v1/posts",
    "/v1/dead/replay",
    "/v1/query/series",
    "/v1/query/tags",
    "/v1/query/latest",
    "/v1/query/search",
    "/v1/query/similar",
    "/v1/models",
    "/v1/models/{model}",
    "/v1/embeddings",
    "/v1/overview",
    "/v1/live",
    "/predict",
    "/embed",
    "/info",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
];

pub(crate) fn router(gateway: Gateway) -> Router {
    let routes = Router::new()
        .route("/", get(page::index))
        .route("/docs", get(page::docs))
        .route("/docs/", get(page::docs))
        .route("/v1/score", post(score::score))
        .route("/v1/score/arrow", post(arrow::score))
        .route("/v1/score/stream", post(stream::score))
        .route("/v1/embed", post(embed::embed))
        .route("/v1/posts", post(posts::posts))
        .route("/v1/dead/replay", post(dead::replay))
        .route("/v1/query/series", get(query::series))
        .route("/v1/query/tags", get(query::tags))
        .route("/v1/query/latest", get(query::latest))
        .route("/v1/query/search", get(query::search))
        .route("/v1/query/similar", get(query::similar))
        .route("/v1/models", get(score::models))
        .route("/v1/models/{model}", get(openai::model))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/predict", post(tei::predict))
        .route("/embed", post(tei::embed))
        .route("/info", get(tei::info))
        .route("/v1/overview", get(handlers::overview))
        .route("/v1/live", get(handlers::live))
        .route("/livez", get(handlers::livez))
        .route("/readyz", get(handlers::readyz))
        .route("/metrics", get(handlers::metrics))
        .route("/openapi.json", get(openapi::serve))
        .fallback(page::file)
        .with_state(gateway.clone());
    // Around the router, not inside it, so that what the router adds to a refusal (`Allow`) is seen too.
    Router::new()
        .fallback_service(routes)
        .layer(from_fn_with_state(gateway.clone(), access::guard))
        .layer(from_fn_with_state(gateway.clone(), observe::observe))
        .layer(from_fn_with_state(gateway, access::share))
}

/// What a process answers that serves nothing but itself.
pub(crate) fn operations(gateway: Gateway) -> Router {
    let routes = Router::new()
        .route("/livez", get(handlers::livez))
        .route("/readyz", get(handlers::readyz))
        .route("/metrics", get(handlers::metrics))
        .with_state(gateway.clone());
    Router::new().fallback_service(routes).layer(from_fn_with_state(gateway, observe::observe))
}

/// The name of a path in metrics and logs: a closed set, whatever callers ask for.
fn template(path: &str) -> &'static str {
    match ROUTES.iter().find(|route| **route == path) {
        Some(route) => route,
        None if path.strip_prefix("/v1/models/").is_some_and(|name| !name.is_empty() && !name.contains('/')) => {
            "/v1/models/{model}"
        }
        None if page::find(path).is_some() => "/{file}",
        None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_path_of_the_callers_making_never_names_a_series() {
        let cases =
            [("/v1/score", "/v1/score"), ("/index.html", "/{file}"), ("/v1/score/x", "unknown"), ("", "unknown")];
        for (path, wanted) in cases {
            assert_eq!(super::template(path), wanted, "{path}");
        }
    }
}
