//! Charts: counts and mean polarity by minute or hour, and the most used tags.

use clickhouse::Row;
use serde::Deserialize;
use undertone_error::Result;
use undertone_proto::EventTime;

use super::ClickHouse;
use super::failure::failed;

/// How wide a point of a chart is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// One minute.
    Minute,
    /// One hour.
    Hour,
}

impl Grain {
    fn start(self) -> &'static str {
        match self {
            Self::Minute => "toStartOfMinute",
            Self::Hour => "toStartOfHour",
        }
    }
}

/// What is counted: posts whose `created_at` is in `[from_us, until_us)`, and with each of these, if it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChartQuery {
    /// The first microsecond.
    pub from_us: EventTime,
    /// The first microsecond after.
    pub until_us: EventTime,
    /// Only posts of this source.
    pub source: Option<String>,
    /// Only posts in this language.
    pub language: Option<String>,
    /// Only posts with this tag.
    pub tag: Option<String>,
    /// Only posts with this label.
    pub label: Option<String>,
}

/// A time series, by time and label.
pub type Chart = Vec<Point>;

/// The posts of one label in one minute or hour.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
pub struct Point {
    /// Its first second since 1970-01-01T00:00:00Z.
    pub start_s: i64,
    /// The label.
    pub label: String,
    /// How many posts.
    pub posts: u64,
    /// Their mean polarity, -1 to 1; absent if none has one.
    pub mean_polarity: Option<f64>,
}

/// How often a tag is used.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
pub struct TagCount {
    /// The tag.
    pub tag: String,
    /// In how many posts.
    pub posts: u64,
    /// Their mean polarity, -1 to 1; absent if none has one.
    pub mean_polarity: Option<f64>,
}

/// The condition and what is bound to it. The days come first: they are what the table is sorted by.
fn condition(query: &ChartQuery) -> (String, Vec<&str>) {
    let mut sql = "day BETWEEN toDate32(fromUnixTimestamp64Micro(?, 'UTC')) AND toDate32(fromUnixTimestamp64Micro(?, 'UTC')) \
                   AND created_at >= fromUnixTimestamp64Micro(?, 'UTC') AND created_at < fromUnixTimestamp64Micro(?, 'UTC')"
        .to_owned();
    let mut bound = Vec::new();
    for (test, value) in [
        ("source = ?", &query.source),
        ("language = ?", &query.language),
        ("has(tags, ?)", &query.tag),
        ("label = ?", &query.label),
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
    pub async fn chart(&self, query: &ChartQuery, grain: Grain) -> Result<Chart> {
        let select = format!(
            "SELECT toInt64(toUnixTimestamp({}(created_at))) AS start_s, toString(label) AS label, count() AS posts, \
             avg(polarity) AS mean_polarity",
            grain.start()
        );
        self.run(&select, query, "GROUP BY start_s, label ORDER BY start_s, label").await
    }

    /// The most used tags.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn top_tags(&self, query: &ChartQuery, limit: u32) -> Result<Vec<TagCount>> {
        let select = "SELECT toString(arrayJoin(tags)) AS tag, count() AS posts, avg(polarity) AS mean_polarity";
        let end = format!("GROUP BY tag ORDER BY posts DESC, tag LIMIT {limit}");
        self.run(select, query, &end).await
    }

    async fn run<T>(&self, select: &str, query: &ChartQuery, end: &str) -> Result<Vec<T>>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let (condition, bound) = condition(query);
        // No version of a post is in another partition than the rest, so that each partition can be merged for itself.
        let settings = "SETTINGS do_not_merge_across_partitions_select_final = 1";
        let sql = format!("{select} FROM {} FINAL WHERE {condition} {end} {settings}", self.table());
        let (from, until) = (query.from_us, query.until_us);
        let query = self.reading.query(&sql).bind(from).bind(until).bind(from).bind(until);
        let query = bound.into_iter().fold(query, |query, value| query.bind(value));
        query.fetch_all::<T>().await.map_err(|e| failed("cannot read from the table", &e))
    }
}
