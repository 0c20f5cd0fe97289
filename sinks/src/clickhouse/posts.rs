//! The posts of a time, the latest first.

use clickhouse::Row;
use serde::Deserialize;
use undertone_error::Result;

use super::ClickHouse;
use crate::chart::ChartQuery;
use crate::found::{FoundPost, TEXT_CHARS};

/// A post as it comes from the server.
#[derive(Debug, Row, Deserialize)]
struct Shown {
    uid: String,
    source: String,
    id: String,
    author: Option<String>,
    url: Option<String>,
    shown_text: String,
    language: String,
    label: String,
    polarity: Option<f64>,
    created_at_us: i64,
    tags: Vec<String>,
}

impl ClickHouse {
    /// The latest posts, those that were posted last first.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn latest(&self, query: &ChartQuery, limit: usize) -> Result<Vec<FoundPost>> {
        // Conditions name the table's own columns (`p.`), whatever is selected under the same name.
        let select = format!(
            "SELECT toString(p.uid) AS uid, toString(p.source) AS source, p.id AS id, author, url, \
             substringUTF8(text, 1, {TEXT_CHARS}) AS shown_text, toString(p.language) AS language, \
             toString(p.label) AS label, polarity, toUnixTimestamp64Micro(created_at) AS created_at_us, \
             arrayMap(tag -> toString(tag), p.tags) AS tags"
        );
        let end = format!("ORDER BY created_at_us DESC, uid LIMIT {limit}");
        let rows: Vec<Shown> = self.run(&select, query, &end).await?;
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let found = |row: Shown| FoundPost {
            uid: row.uid,
            source: row.source,
            id: row.id,
            author: row.author,
            url: row.url,
            text: row.shown_text,
            language: some(row.language),
            label: some(row.label),
            polarity: row.polarity,
            created_at_us: row.created_at_us,
            tags: row.tags,
        };
        Ok(rows.into_iter().map(found).collect())
    }
}
