//! Full-text search, with filters and highlights.

use opensearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_proto::{EventTime, timestamp};

use super::OpenSearch;

/// What is searched for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchQuery {
    /// Words; none: all posts.
    pub words: String,
    /// Only posts of this source.
    pub source: Option<String>,
    /// Only posts in this language.
    pub language: Option<String>,
    /// Only posts with this label.
    pub label: Option<String>,
    /// Only posts with this tag.
    pub tag: Option<String>,
    /// Only posts from here on.
    pub from_us: Option<EventTime>,
    /// Only posts before.
    pub until_us: Option<EventTime>,
    /// The most hits.
    pub limit: u32,
}

/// What was found, the best first; without words the latest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Hits {
    /// How many posts match, up to 10,000.
    pub total: u64,
    /// Some of them.
    pub hits: Vec<Hit>,
}

/// One post.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document.
    pub post: Value,
    /// Pieces of the text, with what was found in `<em>`.
    pub highlights: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    hits: Found,
}

#[derive(Deserialize)]
struct Found {
    total: Total,
    hits: Vec<RawHit>,
}

#[derive(Deserialize)]
struct Total {
    value: u64,
}

#[derive(Deserialize)]
struct RawHit {
    #[serde(rename = "_source")]
    source: Value,
    #[serde(default)]
    highlight: Highlight,
}

#[derive(Default, Deserialize)]
struct Highlight {
    #[serde(default)]
    text: Vec<String>,
}

fn request(query: &SearchQuery) -> Value {
    let terms =
        [("source", &query.source), ("language", &query.language), ("label", &query.label), ("tags", &query.tag)];
    let term = |(field, value): (&str, &Option<String>)| value.as_ref().map(|value| json!({"term": {field: value}}));
    let mut filter: Vec<Value> = terms.into_iter().filter_map(term).collect();
    for (bound, time) in [("gte", query.from_us), ("lt", query.until_us)] {
        filter.extend(time.map(|time| json!({"range": {"created_at": {bound: timestamp(time).to_string()}}})));
    }
    let must = match query.words.trim() {
        "" => json!({"match_all": {}}),
        words => json!({"simple_query_string": {"query": words, "fields": ["text"], "default_operator": "and"}}),
    };
    let sort = if query.words.trim().is_empty() { json!([{"created_at": "desc"}]) } else { json!(["_score"]) };
    json!({
        "query": {"bool": {"must": [must], "filter": filter}},
        "highlight": {"fields": {"text": {}}},
        "sort": sort,
        "size": query.limit,
    })
}

impl OpenSearch {
    /// Posts that match, as readers see them: deleted ones are not among them.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn search(&self, query: &SearchQuery) -> Result<Hits> {
        let doing = "cannot search";
        let path = format!("/{}/_search?ignore_unavailable=true", self.config.index);
        let body = self.call(doing, Method::Post, &path, Some(&request(query))).await?;
        let nothing = || Error::new(ErrorKind::Unavailable, doing);
        let answer: Answer =
            serde_json::from_slice(&body.ok_or_else(nothing)?).context(ErrorKind::Unavailable, doing)?;
        let hit = |hit: RawHit| Hit { post: hit.source, highlights: hit.highlight.text };
        Ok(Hits { total: answer.hits.total.value, hits: answer.hits.hits.into_iter().map(hit).collect() })
    }
}
