//! A post as a row.

use clickhouse::Row;
use serde::Serialize;
use undertone_proto::v1::ScoredPost;
use uuid::Uuid;

use crate::latest::{DAY_US, held};

/// One row. The names are the columns', and `schema` has their types.
#[derive(Debug, Row, Serialize)]
pub(super) struct PostRow<'a> {
    #[serde(with = "clickhouse::serde::uuid")]
    pub(super) uid: Uuid,
    pub(super) day: i32,
    pub(super) version: u64,
    pub(super) is_deleted: u8,
    pub(super) source: &'a str,
    pub(super) id: &'a str,
    pub(super) created_at: i64,
    pub(super) edited_at: Option<i64>,
    pub(super) author: Option<&'a str>,
    pub(super) url: Option<&'a str>,
    pub(super) language: &'a str,
    pub(super) text: &'a str,
    pub(super) tags: Vec<String>,
    pub(super) label: &'a str,
    pub(super) polarity: Option<f64>,
    pub(super) confidence: Option<f32>,
    pub(super) scores: Vec<(String, f32)>,
    pub(super) model: &'a str,
    pub(super) ingested_at: i64,
    pub(super) scored_at: i64,
}

impl<'a> PostRow<'a> {
    /// The row of a post, whose uid is a UUID and whose version is not negative.
    pub(super) fn of(post: &'a ScoredPost) -> Self {
        let created_at = held(post.created_at_us);
        let score = |head: &str, label: &str, value| (format!("{head}.{label}"), value);
        Self {
            uid: Uuid::try_parse(&post.uid).unwrap_or_default(),
            day: i32::try_from(created_at.div_euclid(DAY_US)).unwrap_or_default(),
            version: u64::try_from(post.version).unwrap_or_default(),
            is_deleted: u8::from(post.deleted),
            source: &post.source,
            id: &post.id,
            created_at,
            edited_at: post.edited_at_us.map(held),
            author: post.author.as_deref(),
            url: post.url.as_deref(),
            language: post.language.as_deref().unwrap_or_default(),
            text: &post.text,
            tags: undertone_proto::topics(post),
            label: post.sentiment.as_deref().unwrap_or_default(),
            polarity: post.polarity,
            confidence: post.confidence,
            scores: post
                .heads
                .iter()
                .flat_map(|head| head.probabilities.iter().map(|p| score(&head.head, &p.label, p.value)))
                .collect(),
            model: post.model.as_ref().map_or("", |model| &model.revision),
            ingested_at: held(post.ingested_at_us),
            scored_at: held(post.scored_at_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_is_that_of_the_time_also_where_a_clock_went_wild() {
        for (created_at_us, day) in [(0, 0), (-1, -1), (DAY_US, 1), (i64::MIN, -25_567), (i64::MAX, 120_529)] {
            let post = ScoredPost { created_at_us, ..ScoredPost::default() };
            let row = PostRow::of(&post);
            assert_eq!((row.day, row.created_at.div_euclid(DAY_US)), (day, i64::from(day)), "{created_at_us}");
        }
    }
}
