//! Full-text search, with filters and highlights.

use bytes::Bytes;
use jiff::Timestamp;
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_proto::{EventTime, timestamp};

use super::OpenSearch;
use super::failure::{refused, unanswered};
use super::store::PATIENCE;
use crate::found::FoundPost;

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
    pub limit: usize,
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
    /// The post.
    pub post: FoundPost,
    /// Pieces of the text as HTML: escaped, with what was found in `<em>`.
    pub highlights: Vec<String>,
}

/// What of a document is asked for.
#[derive(Deserialize)]
struct Shown {
    uid: String,
    source: String,
    id: String,
    author: Option<String>,
    url: Option<String>,
    text: String,
    language: Option<String>,
    label: Option<String>,
    polarity: Option<f64>,
    created_at: Timestamp,
    #[serde(default)]
    tags: Vec<String>,
}

const SHOWN: [&str; 11] =
    ["uid", "source", "id", "author", "url", "text", "language", "label", "polarity", "created_at", "tags"];

/// The largest answer that is read.
const ANSWER_BYTES: u64 = 128 << 20;

/// As much of a text as is looked through for highlights: a server refuses to look through a million characters.
const HIGHLIT_CHARS: u32 = 500_000;

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
    source: Shown,
    #[serde(default)]
    highlight: Highlight,
}

#[derive(Default, Deserialize)]
struct Highlight {
    #[serde(default)]
    text: Vec<String>,
}

/// What words may say. Not that they are like others: a few such words become more than a server searches for.
const SYNTAX: &str = "AND|OR|NOT|PHRASE|PREFIX|PRECEDENCE|ESCAPE|WHITESPACE";

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
        words => {
            json!({"simple_query_string": {"query": words, "fields": ["text"], "default_operator": "and", "flags": SYNTAX}})
        }
    };
    let latest = json!({"created_at": "desc"});
    let sort = if query.words.trim().is_empty() { json!([latest, "uid"]) } else { json!(["_score", latest, "uid"]) };
    json!({
        "query": {"bool": {"must": [must], "filter": filter}},
        "_source": SHOWN,
        "highlight": {"fields": {"text": {}}, "encoder": "html", "max_analyzer_offset": HIGHLIT_CHARS},
        "sort": sort,
        "size": query.limit,
    })
}

impl OpenSearch {
    /// Posts that match, as readers see them: deleted ones are not among them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the server cannot search for such words, [`ErrorKind::TooLarge`] if the posts are too many
    /// bytes, and those of the server.
    pub async fn search(&self, query: &SearchQuery) -> Result<Hits> {
        let doing = "cannot search";
        let path = format!("/{}/_search?ignore_unavailable=true", self.config.index);
        let body = Bytes::from(request(query).to_string());
        let sent = self.transport.send(Method::Post, &path, HeaderMap::new(), None::<&()>, Some(body), Some(PATIENCE));
        let answer = sent.await.map_err(|e| unanswered(doing, &e))?;
        let status = answer.status_code().as_u16();
        if answer.content_length().is_some_and(|length| length > ANSWER_BYTES) {
            let error = Error::new(ErrorKind::TooLarge, "the posts that were found are too large for one answer");
            return Err(error.help("ask for fewer of them"));
        }
        let said = answer.bytes().await.map_err(|e| unanswered(doing, &e))?;
        match status {
            200 => {}
            400 => {
                let error = Error::new(ErrorKind::InvalidInput, "the words cannot be searched for");
                return Err(error.with("error", refused(doing, status, &said)).help("write fewer, or simpler ones"));
            }
            _ => return Err(refused(doing, status, &said)),
        }
        let answer: Answer = serde_json::from_slice(&said).context(ErrorKind::Unavailable, doing)?;
        let hit = |hit: RawHit| Hit { post: found(hit.source), highlights: hit.highlight.text };
        Ok(Hits { total: answer.hits.total.value, hits: answer.hits.hits.into_iter().map(hit).collect() })
    }
}

fn found(shown: Shown) -> FoundPost {
    let Shown { uid, source, id, author, url, text, language, label, polarity, created_at, tags } = shown;
    let created_at_us = created_at.as_microsecond();
    FoundPost { uid, source, id, author, url, text, language, label, polarity, created_at_us, tags }
}

#[cfg(test)]
mod tests {
    use undertone_proto::v1::ScoredPost;

    use super::*;
    use crate::opensearch::document::Document;

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let post = ScoredPost {
            uid: "0b9c".to_owned(),
            text: "what a day".to_owned(),
            created_at_us: 1_777_636_800_000_001,
            tags: vec!["Tea".to_owned()],
            ..ScoredPost::default()
        };
        let written = serde_json::to_string(&Document::of(&post)).expect("JSON");
        let read = found(serde_json::from_str(&written).expect("a document"));
        let (uid, text, created_at_us) = (post.uid, post.text, post.created_at_us);
        assert_eq!(read, FoundPost { uid, text, created_at_us, tags: vec!["tea".to_owned()], ..FoundPost::default() });
    }

    #[test]
    fn without_words_the_latest_come_first_and_filters_are_no_part_of_the_score() {
        let query =
            SearchQuery { from_us: Some(0), label: Some("positive".to_owned()), limit: 7, ..SearchQuery::default() };
        let asked = request(&query);
        assert_eq!(asked.pointer("/query/bool/must/0"), Some(&json!({"match_all": {}})));
        assert_eq!(
            asked.pointer("/query/bool/filter"),
            Some(&json!([{"term": {"label": "positive"}}, {"range": {"created_at": {"gte": "1970-01-01T00:00:00Z"}}}]))
        );
        assert_eq!((&asked["sort"][0], &asked["size"]), (&json!({"created_at": "desc"}), &json!(7)));
        let asked = request(&SearchQuery { words: " tea ".to_owned(), ..query });
        assert_eq!(asked.pointer("/query/bool/must/0/simple_query_string/query"), Some(&json!("tea")));
        assert_eq!(asked["sort"][0], "_score");
    }
}
