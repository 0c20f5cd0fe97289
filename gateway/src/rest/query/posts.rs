//! `GET /v1/query/latest`, `GET /v1/query/search` and `GET /v1/query/similar`.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, Uri},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{DeadlineHeader, deadline, params};
use crate::{
    Gateway,
    problem::Problem,
    queries::{self, Alike, AskedLatest, AskedLike, AskedSearch, AskedSimilar, Filter, Found, LatestPosts},
    rest::observe::Arrived,
};

/// Which posts are answered.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct LatestParams {
    /// The most posts, 1 to 1000; left out, 50.
    #[param(nullable = false, value_type = Option<u32>, minimum = 1, maximum = 1000, example = 10)]
    limit: Option<String>,
    /// Only posts from here on; left out, a day before `to`.
    #[param(nullable = false, format = DateTime)]
    from: Option<String>,
    /// Only posts before; left out, now. At most 62 days after `from`.
    #[param(nullable = false, format = DateTime)]
    to: Option<String>,
    /// Only posts of this source.
    #[param(nullable = false)]
    source: Option<String>,
    /// Only posts in this language, in ISO 639-3.
    #[param(nullable = false)]
    language: Option<String>,
    /// Only posts with this label.
    #[param(nullable = false, example = "positive")]
    label: Option<String>,
    /// Only posts with this tag.
    #[param(nullable = false)]
    tag: Option<String>,
}

/// What is searched for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchParams {
    /// Words that a post must have, all of them; `"exact words"`, `this | that`, `-without`, `begin*`. At most 1,000 bytes.
    #[param(example = "green tea")]
    q: String,
    /// The most posts, 1 to 100; left out, 20.
    #[param(nullable = false, value_type = Option<u32>, minimum = 1, maximum = 100, example = 10)]
    limit: Option<String>,
    /// Only posts from here on.
    #[param(nullable = false, format = DateTime)]
    from: Option<String>,
    /// Only posts before.
    #[param(nullable = false, format = DateTime)]
    to: Option<String>,
    /// Only posts of this source.
    #[param(nullable = false)]
    source: Option<String>,
    /// Only posts in this language, in ISO 639-3.
    #[param(nullable = false, example = "eng")]
    language: Option<String>,
    /// Only posts with this label.
    #[param(nullable = false)]
    label: Option<String>,
    /// Only posts with this tag.
    #[param(nullable = false)]
    tag: Option<String>,
}

/// What posts are compared with: a text or a post.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct SimilarParams {
    /// A text. It is embedded here.
    #[param(nullable = false, example = "the espresso here is wonderful")]
    text: Option<String>,
    /// Instead of a text, a post that was answered before, which is not answered itself.
    #[param(nullable = false, format = "uuid")]
    uid: Option<String>,
    /// The most posts, 1 to 100; left out, 20.
    #[param(nullable = false, value_type = Option<u32>, minimum = 1, maximum = 100, example = 5)]
    limit: Option<String>,
    /// Only posts of this source.
    #[param(nullable = false)]
    source: Option<String>,
    /// Only posts in this language, in ISO 639-3.
    #[param(nullable = false)]
    language: Option<String>,
    /// Only posts with this label.
    #[param(nullable = false)]
    label: Option<String>,
    /// Only posts with this tag.
    #[param(nullable = false)]
    tag: Option<String>,
}

/// The latest posts
///
/// Posts as they are now, those that were posted last first. ClickHouse answers if it is configured, or else OpenSearch, or else the tables.
#[utoipa::path(
    get,
    path = "/v1/query/latest",
    tag = "queries",
    operation_id = "query_latest",
    params(LatestParams, DeadlineHeader),
    responses(
        (status = 200, description = "posts, the latest first", body = LatestPosts),
        crate::rest::openapi::QueryProblems,
    )
)]
pub(in crate::rest) async fn latest(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<LatestPosts>, Problem> {
    let LatestParams { limit, from, to, source, language, label, tag } = params::read(&uri)?;
    let asked = AskedLatest {
        from: params::time("from", from.as_deref())?,
        to: params::time("to", to.as_deref())?,
        limit: params::limit(limit.as_deref())?,
        filter: Filter { source, language, label, tag },
    };
    let by = deadline(&gateway, arrived, &headers)?;
    queries::latest(&gateway, asked, by).await.map(Json)
}

/// Full-text search
///
/// Posts whose text has the words, the best first, with pieces of the text that show where. OpenSearch answers.
#[utoipa::path(
    get,
    path = "/v1/query/search",
    tag = "queries",
    operation_id = "query_search",
    params(SearchParams, DeadlineHeader),
    responses(
        (status = 200, description = "posts, the best first", body = Found),
        crate::rest::openapi::QueryProblems,
    )
)]
pub(in crate::rest) async fn search(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Found>, Problem> {
    let SearchParams { q, limit, from, to, source, language, label, tag } = params::read(&uri)?;
    let asked = AskedSearch {
        words: q,
        from: params::time("from", from.as_deref())?,
        to: params::time("to", to.as_deref())?,
        limit: params::limit(limit.as_deref())?,
        filter: Filter { source, language, label, tag },
    };
    let by = deadline(&gateway, arrived, &headers)?;
    queries::search(&gateway, asked, by).await.map(Json)
}

/// Similar posts
///
/// Posts whose embeddings are nearest to that of a text, or of a post, by cosine. Give one of `text` and `uid`. Qdrant answers; a
/// text is compared with the posts that the model of this server has embedded.
#[utoipa::path(
    get,
    path = "/v1/query/similar",
    tag = "queries",
    operation_id = "query_similar",
    params(SimilarParams, DeadlineHeader),
    responses(
        (status = 200, description = "posts, the most similar first", body = Alike),
        crate::rest::openapi::SimilarProblems,
    )
)]
pub(in crate::rest) async fn similar(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Alike>, Problem> {
    let SimilarParams { text, uid, limit, source, language, label, tag } = params::read(&uri)?;
    let asked = AskedSimilar {
        like: AskedLike::either(text, uid)?,
        limit: params::limit(limit.as_deref())?,
        filter: Filter { source, language, label, tag },
    };
    let by = deadline(&gateway, arrived, &headers)?;
    queries::similar(&gateway, asked, by).await.map(Json)
}
