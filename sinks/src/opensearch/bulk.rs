//! The bulk request, and what its answer means for each post.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_proto::v1::ScoredPost;

use super::document::{Document, index};
use crate::latest::Answer;

/// What of the answer is sent: of a million good documents, a million numbers.
pub(super) const ANSWER: &str =
    "items.index.status,items.index.error.type,items.index.error.reason,items.index.error.caused_by.reason";

/// Errors of a document that are about what is in it. Whatever is not listed here is about the index.
const OF_DOCUMENTS: [&str; 3] =
    ["mapper_parsing_exception", "document_parsing_exception", "strict_dynamic_mapping_exception"];

/// An index that takes nothing.
const BLOCKED: &str = "cluster_block_exception";

#[derive(Serialize)]
struct Action<'a> {
    index: Target<'a>,
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: &'a str,
    version: i64,
    version_type: &'static str,
}

/// The body of the request for `posts`, compressed.
///
/// # Errors
/// [`ErrorKind::Internal`] if a post cannot be written as JSON.
pub(super) fn body(alias: &str, posts: &[&ScoredPost]) -> Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(posts.len() * 1024);
    for post in posts {
        let index = index(alias, post);
        let target = Target { index, id: &post.uid, version: post.version, version_type: "external_gte" };
        let internal = "post cannot be written as JSON";
        serde_json::to_writer(&mut plain, &Action { index: target }).context(ErrorKind::Internal, internal)?;
        plain.push(b'\n');
        serde_json::to_writer(&mut plain, &Document::of(post)).context(ErrorKind::Internal, internal)?;
        plain.push(b'\n');
    }
    let mut packed = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    packed.write_all(&plain).context(ErrorKind::Internal, "cannot compress a request")?;
    packed.finish().context(ErrorKind::Internal, "cannot compress a request")
}

#[derive(Debug, Deserialize)]
struct Outcome {
    items: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    index: Item,
}

#[derive(Debug, Deserialize)]
struct Item {
    status: u16,
    error: Option<ItemError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ItemError {
    #[serde(rename = "type")]
    kind: String,
    reason: String,
    caused_by: Option<Cause>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
}

impl ItemError {
    fn said(&self) -> String {
        let cause = self.caused_by.as_ref().map(|cause| format!(": {}", cause.reason)).unwrap_or_default();
        format!("{}: {}{cause}", self.kind, self.reason)
    }
}

/// What the answer to a request for `posts` posts says about each.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if one of them failed for a reason that is not its own, or if the answer is none.
pub(super) fn answers(body: &[u8], posts: usize) -> Result<Vec<Answer>> {
    let cut = || Error::new(ErrorKind::Unavailable, "answer to a bulk request is none");
    let outcome: Outcome = serde_json::from_slice(body).map_err(|e| cut().source(e))?;
    if outcome.items.len() != posts {
        return Err(cut().with("posts", posts).with("items", outcome.items.len()));
    }
    outcome.items.into_iter().map(|entry| judge(&entry.index)).collect()
}

fn judge(item: &Item) -> Result<Answer> {
    let none = ItemError::default();
    let error = item.error.as_ref().unwrap_or(&none);
    // Of all arguments that may be illegal, only this is a document's: the others are settings of the index.
    let immense = error.kind == "illegal_argument_exception" && error.said().contains("immense term");
    match item.status {
        // 409: it holds a later version.
        200 | 201 | 409 => Ok(Answer::Stored),
        400 if immense || OF_DOCUMENTS.contains(&error.kind.as_str()) => Ok(Answer::Rejected(error.said())),
        // A block comes with 429, too, if it is that of a full disk; it lasts for longer than a few tries.
        429 | 502..=504 if error.kind != BLOCKED => Ok(Answer::Again(error.said())),
        status => {
            let failed = Error::new(ErrorKind::Unavailable, "index takes no documents").with("status", status);
            let help = match error.kind.as_str() {
                BLOCKED => Some("take the block off the index; a full disk sets one, too"),
                "index_not_found_exception" => Some("may indices be made (action.auto_create_index)?"),
                "validation_exception" => Some("does the cluster hold as many shards as it may?"),
                _ => None,
            };
            let failed = match help {
                Some(help) => failed.help(help),
                None => failed,
            };
            Err(failed.source(error.said()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn item(status: u16, kind: &str, reason: &str) -> String {
        format!(r#"{{"index":{{"status":{status},"error":{{"type":"{kind}","reason":"{reason}"}}}}}}"#)
    }

    fn judged(item: &str) -> Result<Vec<Answer>> {
        answers(format!(r#"{{"items":[{{"index":{{"status":201}}}},{item}]}}"#).as_bytes(), 2)
    }

    #[test]
    fn every_status_means_what_it_does_to_the_post_or_to_the_index() {
        let stored = item(409, "version_conflict_engine_exception", "current version [9] is higher");
        assert_eq!(judged(&stored).expect("an older version"), [Answer::Stored, Answer::Stored]);
        for (kind, reason) in [
            ("mapper_parsing_exception", "failed to parse field [author]"),
            ("illegal_argument_exception", "Document contains at least one immense term"),
        ] {
            let rejected = judged(&item(400, kind, reason)).expect("a document's own fault");
            assert!(matches!(&rejected[1], Answer::Rejected(said) if said.contains(reason)), "{rejected:?}");
        }
        let again = judged(&item(429, "rejected_execution_exception", "queue is full")).expect("later");
        assert!(matches!(&again[1], Answer::Again(_)), "{again:?}");
        for (status, kind) in [
            (403, "cluster_block_exception"),
            (429, "cluster_block_exception"),
            (404, "index_not_found_exception"),
            (400, "validation_exception"),
            (400, "illegal_argument_exception"),
            (500, "no_such_thing"),
        ] {
            let error = judged(&item(status, kind, "because")).expect_err(kind);
            assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains(kind), "{error}");
        }
    }

    #[test]
    fn half_an_answer_is_none() {
        for body in ["", "{\"items\":[{\"index\":{\"sta", "{\"items\":[]}"] {
            assert_eq!(answers(body.as_bytes(), 1).expect_err(body).kind(), ErrorKind::Unavailable);
        }
    }

    #[test]
    fn a_request_names_index_uid_and_version_of_each_post() {
        let post = ScoredPost {
            uid: "u".to_owned(),
            version: 7,
            created_at_us: 1_777_636_800_000_000,
            ..ScoredPost::default()
        };
        let packed = body("posts", &[&post, &post]).expect("a body");
        let mut plain = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut plain).expect("gzip");
        let lines: Vec<_> = plain.lines().collect();
        let action = r#"{"index":{"_index":"posts-2026.05.01","_id":"u","version":7,"version_type":"external_gte"}}"#;
        assert_eq!((lines.len(), lines[0], lines[2]), (4, action, action));
    }
}
