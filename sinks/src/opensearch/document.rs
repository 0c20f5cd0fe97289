//! A post as a document, and the index that it lies in.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};
use serde::Serialize;
use undertone_proto::timestamp;
use undertone_proto::v1::ScoredPost;

use crate::latest::held;

/// How a day is written in the name of an index.
const DAY: &str = "%Y.%m.%d";
/// What the index of all other days is called after.
const OTHER: &str = "other";

/// One document. The names are the fields', and `template` has their types.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    uid: &'a str,
    version: i64,
    deleted: bool,
    source: &'a str,
    id: &'a str,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<&'a str>,
    text: &'a str,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    mentions: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    polarity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    scores: BTreeMap<&'a str, BTreeMap<&'a str, f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    ingested_at: Timestamp,
    scored_at: Timestamp,
}

impl<'a> Document<'a> {
    /// The document of a post. Times that come from no clock become the nearest that an index can hold.
    pub(super) fn of(post: &'a ScoredPost) -> Self {
        let time = |us| timestamp(held(us));
        Self {
            uid: &post.uid,
            version: post.version,
            deleted: post.deleted,
            source: &post.source,
            id: &post.id,
            created_at: time(post.created_at_us),
            edited_at: post.edited_at_us.map(time),
            author: post.author.as_deref(),
            url: post.url.as_deref(),
            reply_to: post.reply_to.as_deref(),
            language: post.language.as_deref(),
            text: &post.text,
            tags: undertone_proto::topics(post),
            mentions: post.entities.as_ref().map(|entities| entities.mentions.as_slice()).unwrap_or_default(),
            label: post.sentiment.as_deref(),
            polarity: post.polarity,
            confidence: post.confidence,
            scores: post
                .heads
                .iter()
                .map(|head| (&*head.head, head.probabilities.iter().map(|p| (&*p.label, p.value)).collect()))
                .collect(),
            model: post.model.as_ref().map(|model| &*model.revision),
            ingested_at: time(post.ingested_at_us),
            scored_at: time(post.scored_at_us),
        }
    }
}

/// The index of a post: that of its day, which every version of it shares. Days that no post of today's networks can be of
/// have one index together, so that a wild clock does not open thousands.
pub(super) fn index(alias: &str, post: &ScoredPost) -> String {
    let day = timestamp(held(post.created_at_us)).strftime(DAY).to_string();
    if ("2000.01.01".."2100.01.01").contains(&day.as_str()) {
        format!("{alias}-{day}")
    } else {
        format!("{alias}-{OTHER}")
    }
}

/// The day that an index is called after; none of one that is called in any other way.
pub(super) fn day_of(alias: &str, index: &str) -> Option<Date> {
    let day = suffix(alias, index)?;
    Date::strptime(DAY, day).ok().filter(|date| date.strftime(DAY).to_string() == day)
}

/// Whether an index is called as ours are, and not after a longer alias.
pub(super) fn is_ours(alias: &str, index: &str) -> bool {
    day_of(alias, index).is_some() || suffix(alias, index) == Some(OTHER)
}

fn suffix<'a>(alias: &str, index: &'a str) -> Option<&'a str> {
    index.strip_prefix(alias)?.strip_prefix('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posts_lie_in_the_index_of_their_day() {
        let of = |created_at_us| index("posts", &ScoredPost { created_at_us, ..ScoredPost::default() });
        assert_eq!(of(1_777_636_800_000_000), "posts-2026.05.01");
        assert_eq!(of(1_777_593_600_000_000), of(1_777_636_800_000_000));
        for wild in [i64::MIN, 0, i64::MAX] {
            assert_eq!(of(wild), "posts-other");
        }
    }

    #[test]
    fn a_tombstone_has_no_scores_and_is_marked() {
        let tombstone = ScoredPost { deleted: true, ..ScoredPost::default() };
        let json = serde_json::to_string(&Document::of(&tombstone)).expect("JSON");
        assert!(json.contains(r#""deleted":true"#) && !json.contains("polarity") && !json.contains("scores"), "{json}");
    }
}
