//! Charts: counts and mean polarity by minute or hour, and the most used tags.

use clickhouse::Row;
use serde::Deserialize;
use undertone_error::Result;

use super::ClickHouse;
use super::failure::unread;
use crate::chart::{ChartQuery, Grain, Point, TagCount};

/// The largest answer that is read.
const ANSWER_BYTES: u64 = 128 << 20;

/// A point as it comes from the server.
#[derive(Debug, Row, Deserialize)]
struct PointRow {
    start_us: i64,
    label: String,
    posts: u64,
    mean_polarity: Option<f64>,
}

/// The count of a tag as it comes from the server.
#[derive(Debug, Row, Deserialize)]
struct TagRow {
    tag: String,
    posts: u64,
    mean_polarity: Option<f64>,
}

/// The condition and what is bound to it. The days come first: they are what the table is sorted by.
///
/// Rows that the table's TTL may take are left out at once: parts lose them one by one, and where the tombstone of a post
/// goes first, the post would be shown again until its part is merged.
fn condition(query: &ChartQuery, retention_days: Option<u32>) -> (String, Vec<&str>) {
    let mut sql = "p.day BETWEEN toDate32(fromUnixTimestamp64Micro(?, 'UTC')) AND toDate32(fromUnixTimestamp64Micro(?, 'UTC')) \
                   AND created_at >= fromUnixTimestamp64Micro(?, 'UTC') AND created_at < fromUnixTimestamp64Micro(?, 'UTC')"
        .to_owned();
    if let Some(days) = retention_days {
        sql.push_str(&format!(" AND p.day > toDate32(today()) - {days}"));
    }
    let mut bound = Vec::new();
    for (test, value) in [
        ("p.source = ?", &query.source),
        ("p.language = ?", &query.language),
        ("has(p.tags, ?)", &query.tag),
        ("p.label = ?", &query.label),
    ] {
        if let Some(value) = value {
            sql.push_str(" AND ");
            sql.push_str(test);
            bound.push(value.as_str());
        }
    }
    (sql, bound)
}

impl ClickHouse {
    /// Counts and mean polarity by time and label, in the order of both.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn chart(&self, query: &ChartQuery, grain: Grain) -> Result<Vec<Point>> {
        // The server's functions for the start of a minute know no times before 1970.
        let start = format!(
            "toUnixTimestamp64Micro(created_at) - positiveModulo(toUnixTimestamp64Micro(created_at), {})",
            grain.length_us()
        );
        let select = format!(
            "SELECT toInt64({start}) AS start_us, toString(label) AS label, count() AS posts, avg(polarity) AS mean_polarity"
        );
        let rows: Vec<PointRow> = self.run(&select, query, "GROUP BY start_us, label ORDER BY start_us, label").await?;
        let point = |row: PointRow| Point {
            start_us: row.start_us,
            label: Some(row.label).filter(|label| !label.is_empty()),
            posts: row.posts,
            mean_polarity: row.mean_polarity,
        };
        Ok(rows.into_iter().map(point).collect())
    }

    /// The most used tags.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn top_tags(&self, query: &ChartQuery, limit: usize) -> Result<Vec<TagCount>> {
        let select = "SELECT toString(arrayJoin(tags)) AS tag, count() AS posts, avg(polarity) AS mean_polarity";
        let end = format!("GROUP BY tag ORDER BY posts DESC, tag LIMIT {limit}");
        let rows: Vec<TagRow> = self.run(select, query, &end).await?;
        let count = |row: TagRow| TagCount { tag: row.tag, posts: row.posts, mean_polarity: row.mean_polarity };
        Ok(rows.into_iter().map(count).collect())
    }

    /// The rows of a SELECT over the posts that a query is about.
    pub(super) async fn run<T>(&self, select: &str, query: &ChartQuery, end: &str) -> Result<Vec<T>>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let (condition, bound) = condition(query, self.config.retention_days);
        // No version of a post is in another partition than the rest, so that each partition can be merged for itself.
        let settings = format!(
            "SETTINGS do_not_merge_across_partitions_select_final = 1, max_result_bytes = {ANSWER_BYTES}, \
             result_overflow_mode = 'throw'"
        );
        let sql = format!("{select} FROM {} AS p FINAL WHERE {condition} {end} {settings}", self.table());
        let (from, until) = (query.from_us, query.until_us);
        let query = self.reading.query(&sql).bind(from).bind(until).bind(from).bind(until);
        let query = bound.into_iter().fold(query, |query, value| query.bind(value));
        query.fetch_all::<T>().await.map_err(|e| unread(&e))
    }
}
