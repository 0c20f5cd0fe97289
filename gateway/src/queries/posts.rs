//! Stored posts: which are asked for, and what is answered.

use serde::Serialize;
use tokio::time::Instant;
use undertone_inference::Lane;
use undertone_proto::EventTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Filter, Hit, Kind, Like, Neighbour, PostsQuery, StoredPost,
    bounds::{self, wrong},
    call::{Call, not_configured, now},
    rfc3339,
};
use crate::{Gateway, errors::ProblemCode, live::cut, problem::Problem, telemetry};

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

/// The latest posts of a time, as somebody asked.
pub(crate) struct AskedLatest {
    pub(crate) from: Option<EventTime>,
    pub(crate) to: Option<EventTime>,
    pub(crate) limit: Option<u64>,
    pub(crate) filter: Filter,
}

/// Posts that have words, as somebody asked.
pub(crate) struct AskedSearch {
    pub(crate) words: String,
    pub(crate) from: Option<EventTime>,
    pub(crate) to: Option<EventTime>,
    pub(crate) limit: Option<u64>,
    pub(crate) filter: Filter,
}

/// Posts that are alike, as somebody asked.
pub(crate) struct AskedSimilar {
    pub(crate) like: AskedLike,
    pub(crate) limit: Option<u64>,
    pub(crate) filter: Filter,
}

/// What posts are compared with, before it is embedded.
#[derive(Debug)]
pub(crate) enum AskedLike {
    Text(String),
    Uid(Uuid),
}

impl AskedLike {
    /// The one of the two that was given.
    ///
    /// # Errors
    /// `invalid-input` for none or both, and for what is no UUID.
    pub(crate) fn either(text: Option<String>, uid: Option<String>) -> Result<Self, Problem> {
        match (text, uid) {
            (Some(text), None) => Ok(Self::Text(text)),
            (None, Some(uid)) => {
                let uid = uid.parse().map_err(|_| wrong("uid", "write a UUID, as answers have it"))?;
                Ok(Self::Uid(uid))
            }
            (None, None) => Err(wrong("text", "there is nothing to compare with; give text or uid")),
            (Some(_), Some(_)) => Err(wrong("uid", "there is a text as well; give one of the two")),
        }
    }
}

/// Posts of a time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LatestPosts {
    /// The store that answered: `clickhouse`, `opensearch`, or `tables`.
    #[schema(example = "tables")]
    pub(crate) store: &'static str,
    /// The start of the time that was looked at.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(crate) from: EventTime,
    /// Its end.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(crate) to: EventTime,
    /// Those that were posted last first, each as it is now.
    pub(crate) posts: Vec<StoredPost>,
}

/// Posts that have the words.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Found {
    /// The store that answered: `opensearch`.
    #[schema(example = "opensearch")]
    pub(crate) store: &'static str,
    /// How many there are, counted up to 10,000.
    pub(crate) total: u64,
    /// The best first.
    pub(crate) hits: Vec<Hit>,
}

/// Posts that are alike.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alike {
    /// The store that answered: `qdrant`.
    #[schema(example = "qdrant")]
    pub(crate) store: &'static str,
    /// The most similar first.
    pub(crate) neighbours: Vec<Neighbour>,
}

/// Answers the latest posts by the deadline.
///
/// # Errors
/// What is wrong with what is asked, or with the store.
pub(crate) async fn latest(gateway: &Gateway, asked: AskedLatest, deadline: Instant) -> Result<LatestPosts, Problem> {
    let keys = "clickhouse.url or opensearch.url, \
                or let it write tables (run.roles) or read those of a REST catalog (catalog.kind)";
    let store = gateway.queries.latest.as_deref().ok_or_else(|| not_configured("the latest posts", keys))?;
    let AskedLatest { from, to, limit, filter } = asked;
    let limit = bounds::limit(limit, LATEST.0, LATEST.1)?;
    let range = bounds::ends(bounds::moment("from", from)?, bounds::moment("to", to)?, DAY_US, now())?;
    if range.end - range.start > DAYS * DAY_US {
        return Err(wrong("from", format!("it is more than {DAYS} days before `to`: ask for less")));
    }
    let filter = bounds::filter(filter)?;
    let query = PostsQuery { from_us: Some(range.start), until_us: Some(range.end), filter, limit };
    let call = Call::begin(Kind::Latest, gateway, deadline)?;
    let mut posts = call.ask(store.name(), store.latest(query)).await?;
    posts.iter_mut().for_each(shorten);
    Ok(LatestPosts { store: store.name(), from: range.start, to: range.end, posts })
}

/// Answers the posts that have the words, by the deadline.
///
/// # Errors
/// What is wrong with what is asked, or with the store.
pub(crate) async fn search(gateway: &Gateway, asked: AskedSearch, deadline: Instant) -> Result<Found, Problem> {
    let store = gateway.queries.search.as_deref();
    let store = store.ok_or_else(|| not_configured("full texts", "opensearch.url"))?;
    let AskedSearch { words, from, to, limit, filter } = asked;
    if words.trim().is_empty() {
        return Err(wrong("q", "there are no words in it; the latest posts want none"));
    }
    if words.len() > WORDS_BYTES {
        return Err(wrong("q", format!("it is longer than {WORDS_BYTES} bytes")));
    }
    let limit = bounds::limit(limit, FOUND.0, FOUND.1)?;
    let (from_us, until_us) = (bounds::moment("from", from)?, bounds::moment("to", to)?);
    if from_us.zip(until_us).is_some_and(|(from, until)| from >= until) {
        return Err(wrong("from", "it is not before `to`"));
    }
    let filter = bounds::filter(filter)?;
    let query = PostsQuery { from_us, until_us, filter, limit };
    let call = Call::begin(Kind::Search, gateway, deadline)?;
    let (total, mut hits) = call.ask(store.name(), store.search(words, query)).await?;
    hits.iter_mut().for_each(|hit| shorten(&mut hit.post));
    Ok(Found { store: store.name(), total, hits })
}

/// Answers the posts that are alike, by the deadline.
///
/// # Errors
/// What is wrong with what is asked, with the text, or with the store; `not-found` for a post that has no embedding.
pub(crate) async fn similar(gateway: &Gateway, asked: AskedSimilar, deadline: Instant) -> Result<Alike, Problem> {
    let store = gateway.queries.similar.as_deref();
    let store = store.ok_or_else(|| not_configured("embeddings", "qdrant.url"))?;
    let AskedSimilar { like, limit, filter } = asked;
    let limit = bounds::limit(limit, FOUND.0, FOUND.1)?;
    let filter = bounds::filter(filter)?;
    let call = Call::begin(Kind::Similar, gateway, deadline)?;
    let like = match like {
        AskedLike::Text(text) => embed(gateway, text, &call).await?,
        AskedLike::Uid(uid) => Like::Post(uid),
    };
    let query = PostsQuery { from_us: None, until_us: None, filter, limit };
    let neighbours = call.ask(store.name(), store.similar(like, query)).await?;
    let mut neighbours = neighbours.ok_or_else(|| {
        Problem::new(ProblemCode::NotFound, "uid: no post of this uid has an embedding; it may have been deleted")
    })?;
    neighbours.iter_mut().for_each(|neighbour| shorten(&mut neighbour.post));
    Ok(Alike { store: store.name(), neighbours })
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
        assert!(matches!(AskedLike::either(some("a"), None), Ok(AskedLike::Text(text)) if text == "a"));
        assert!(matches!(AskedLike::either(None, some(uid)), Ok(AskedLike::Uid(found)) if found.to_string() == uid));
        for (text, id, name) in [(None, None, "/text"), (some("a"), some(uid), "/uid"), (None, some("p1"), "/uid")] {
            assert_eq!(AskedLike::either(text, id).expect_err(name).errors[0].pointer, name);
        }
    }
}
