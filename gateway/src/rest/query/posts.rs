//! `GET /v1/query/latest`, `GET /v1/query/search` and `GET /v1/query/similar`.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, Uri},
};
use serde::{Deserialize, Serialize};
use undertone_inference::Lane;
use undertone_proto::EventTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Call, DeadlineHeader, not_configured, now, params};
use crate::{
    Gateway,
    errors::ProblemCode,
    live::cut,
    problem::Problem,
    queries::{Hit, Kind, Like, Neighbour, PostsQuery, StoredPost, rfc3339},
    rest::observe::Arrived,
    telemetry,
};

/// Posts that are answered if nobody says how many, and at most. Of those that are found by what they say, whole texts come from
/// the store.
const LATEST: (usize, usize) = (50, 1000);
const FOUND: (usize, usize) = (20, 100);

/// As much of a text as is answered.
const TEXT_CHARS: usize = 2000;

/// The longest words to search for, in bytes.
const WORDS_BYTES: usize = 1000;

const DAY_US: i64 = 86_400_000_000;

/// The longest time that the latest posts are looked for in, in days.
const DAYS: i64 = 62;

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

/// Posts of a time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Latest {
    /// The store that answered: `clickhouse`, or `opensearch`.
    #[schema(example = "clickhouse")]
    store: &'static str,
    /// The start of the time that was looked at.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    from: EventTime,
    /// Its end.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    to: EventTime,
    /// Those that were posted last first, each as it is now.
    posts: Vec<StoredPost>,
}

/// Posts that have the words.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Found {
    /// The store that answered: `opensearch`.
    #[schema(example = "opensearch")]
    store: &'static str,
    /// How many there are, counted up to 10,000.
    total: u64,
    /// The best first.
    hits: Vec<Hit>,
}

/// Posts that are alike.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alike {
    /// The store that answered: `qdrant`.
    #[schema(example = "qdrant")]
    store: &'static str,
    /// The most similar first.
    neighbours: Vec<Neighbour>,
}

/// The latest posts
///
/// Posts as they are now, those that were posted last first. ClickHouse answers if it is configured, and otherwise OpenSearch.
#[utoipa::path(
    get,
    path = "/v1/query/latest",
    tag = "queries",
    operation_id = "query_latest",
    params(LatestParams, DeadlineHeader),
    responses(
        (status = 200, description = "posts, the latest first", body = Latest),
        crate::rest::openapi::QueryProblems,
    )
)]
pub(in crate::rest) async fn latest(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Latest>, Problem> {
    let keys = "clickhouse.url or opensearch.url";
    let store = gateway.queries.latest.as_deref().ok_or_else(|| not_configured("the latest posts", keys))?;
    let asked: LatestParams = params::read(&uri)?;
    let limit = params::limit(asked.limit.as_deref(), LATEST.0, LATEST.1)?;
    let (from, to) = (params::time("from", asked.from.as_deref())?, params::time("to", asked.to.as_deref())?);
    let range = params::ends(from, to, DAY_US, now())?;
    if range.end - range.start > DAYS * DAY_US {
        return Err(params::wrong("from", format!("it is more than {DAYS} days before `to`: ask for less")));
    }
    let filter = params::filter(asked.source, asked.language, asked.label, asked.tag)?;
    let query = PostsQuery { from_us: Some(range.start), until_us: Some(range.end), filter, limit };
    let call = Call::begin(Kind::Latest, &gateway, arrived, &headers)?;
    let mut posts = call.ask(store.name(), store.latest(query)).await?;
    posts.iter_mut().for_each(shorten);
    Ok(Json(Latest { store: store.name(), from: range.start, to: range.end, posts }))
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
    let store = gateway.queries.search.as_deref();
    let store = store.ok_or_else(|| not_configured("full texts", "opensearch.url"))?;
    let asked: SearchParams = params::read(&uri)?;
    if asked.q.trim().is_empty() {
        return Err(params::wrong("q", "there are no words in it; /v1/query/latest wants none"));
    }
    if asked.q.len() > WORDS_BYTES {
        return Err(params::wrong("q", format!("it is longer than {WORDS_BYTES} bytes")));
    }
    let limit = params::limit(asked.limit.as_deref(), FOUND.0, FOUND.1)?;
    let (from_us, until_us) = (params::time("from", asked.from.as_deref())?, params::time("to", asked.to.as_deref())?);
    if from_us.zip(until_us).is_some_and(|(from, until)| from >= until) {
        return Err(params::wrong("from", "it is not before `to`"));
    }
    let filter = params::filter(asked.source, asked.language, asked.label, asked.tag)?;
    let query = PostsQuery { from_us, until_us, filter, limit };
    let call = Call::begin(Kind::Search, &gateway, arrived, &headers)?;
    let (total, mut hits) = call.ask(store.name(), store.search(asked.q, query)).await?;
    hits.iter_mut().for_each(|hit| shorten(&mut hit.post));
    Ok(Json(Found { store: store.name(), total, hits }))
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
    let store = gateway.queries.similar.as_deref();
    let store = store.ok_or_else(|| not_configured("embeddings", "qdrant.url"))?;
    let asked: SimilarParams = params::read(&uri)?;
    let limit = params::limit(asked.limit.as_deref(), FOUND.0, FOUND.1)?;
    let filter = params::filter(asked.source, asked.language, asked.label, asked.tag)?;
    let like = either(asked.text, asked.uid)?;
    let call = Call::begin(Kind::Similar, &gateway, arrived, &headers)?;
    let like = match like {
        Either::Text(text) => embed(&gateway, text, &call).await?,
        Either::Uid(uid) => Like::Post(uid),
    };
    let query = PostsQuery { from_us: None, until_us: None, filter, limit };
    let neighbours = call.ask(store.name(), store.similar(like, query)).await?;
    let mut neighbours = neighbours.ok_or_else(|| {
        Problem::new(ProblemCode::NotFound, "uid: no post of this uid has an embedding; it may have been deleted")
    })?;
    neighbours.iter_mut().for_each(|neighbour| shorten(&mut neighbour.post));
    Ok(Json(Alike { store: store.name(), neighbours }))
}

/// What posts are compared with, before it is embedded.
#[derive(Debug)]
enum Either {
    Text(String),
    Uid(Uuid),
}

fn either(text: Option<String>, uid: Option<String>) -> Result<Either, Problem> {
    match (text, uid) {
        (Some(text), None) => Ok(Either::Text(text)),
        (None, Some(uid)) => {
            let uid = uid.parse().map_err(|_| params::wrong("uid", "write a UUID, as answers have it"))?;
            Ok(Either::Uid(uid))
        }
        (None, None) => Err(params::wrong("text", "there is nothing to compare with; give text or uid")),
        (Some(_), Some(_)) => Err(params::wrong("uid", "there is a text as well; give one of the two")),
    }
}

/// The text as the model sees it. Somebody waits for it.
async fn embed(gateway: &Gateway, text: String, call: &Call) -> Result<Like, Problem> {
    let outcomes = gateway.score_texts(vec![text], Some(Lane::Interactive), call.deadline).await;
    telemetry::texts("query", 1, &outcomes);
    let nothing = || Problem::new(ProblemCode::Internal, "the text was not scored");
    let scored = outcomes?.into_iter().next().ok_or_else(nothing)?.map_err(|problem| {
        let detail = problem.detail.clone();
        problem.field("/text", detail)
    })?;
    if scored.embedding.is_empty() {
        return Err(Problem::new(ProblemCode::Unsupported, "the model has no embeddings"));
    }
    Ok(Like::Text { embedding: scored.embedding, revision: scored.model.revision.clone() })
}

fn shorten(post: &mut StoredPost) {
    post.text = cut(&post.text, TEXT_CHARS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posts_are_like_a_text_or_like_a_post() {
        let uid = "0b9c1c3e-5b1f-5f0e-8a53-0b9c1c3e5b1f";
        let some = |text: &str| Some(text.to_owned());
        assert!(matches!(either(some("a"), None), Ok(Either::Text(text)) if text == "a"));
        assert!(matches!(either(None, some(uid)), Ok(Either::Uid(found)) if found.to_string() == uid));
        for (text, id, name) in [(None, None, "/text"), (some("a"), some(uid), "/uid"), (None, some("p1"), "/uid")] {
            assert_eq!(either(text, id).expect_err(name).errors[0].pointer, name);
        }
    }
}
