//! Queries of the gateway, put to the stores that this process knows of.
//!
//! Nothing is connected to before it is asked, so that a store that is down keeps nobody from starting. ClickHouse comes before the
//! tables: it counts each post as it is now, and in milliseconds.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use undertone_error::Result;
use undertone_gateway::queries::{ChartQuery, Charts, Filter, Queries, SeriesPoint, TagCount, Window};
use undertone_sinks::chart::{self, Grain};
use undertone_sinks::clickhouse::ClickHouse;
use undertone_sinks::iceberg::{IcebergStore, Reader, StoreConfig};

use crate::config::Config;

/// What answers which question. `written` reads the tables that this process writes.
pub(super) fn open(config: &Config, written: Option<Reader>) -> Queries {
    for unread in &config.readable.unread {
        tracing::warn!(store = unread.store, reason = unread.reason, "queries do not ask this store");
    }
    let readable = &config.readable;
    let tables = match (written, &readable.tables) {
        (Some(reader), _) => Some(Tables::Ours(reader)),
        (None, Some(config)) => Some(Tables::Others { config: Box::new(config.clone()), reader: OnceCell::new() }),
        (None, None) => None,
    };
    let clickhouse = readable.clickhouse.clone().map(|config| InClickHouse(ClickHouse::new(config)));
    let charts: Option<Arc<dyn Charts>> = match (clickhouse, tables) {
        (Some(clickhouse), _) => Some(Arc::new(clickhouse)),
        (None, Some(tables)) => Some(Arc::new(tables)),
        (None, None) => None,
    };
    Queries { charts }
}

/// The tables of Gold.
enum Tables {
    /// That this process writes.
    Ours(Reader),
    /// That others write, and that are connected to when they are asked for.
    Others { config: Box<StoreConfig>, reader: OnceCell<Reader> },
}

impl Tables {
    async fn reader(&self) -> Result<&Reader> {
        match self {
            Self::Ours(reader) => Ok(reader),
            Self::Others { config, reader } => {
                reader.get_or_try_init(|| async { Ok(IcebergStore::connect(config).await?.reader()) }).await
            }
        }
    }
}

/// The table of the latest of every post.
struct InClickHouse(ClickHouse);

#[async_trait]
impl Charts for Tables {
    fn name(&self) -> &'static str {
        "tables"
    }

    async fn series(&self, query: ChartQuery) -> Result<Vec<SeriesPoint>> {
        let (query, grain) = asked(query);
        Ok(self.reader().await?.series(&query, grain).await?.into_iter().map(point).collect())
    }

    async fn tags(&self, query: ChartQuery, limit: usize) -> Result<Vec<TagCount>> {
        let (query, grain) = asked(query);
        Ok(self.reader().await?.top_tags(&query, grain, limit).await?.into_iter().map(count).collect())
    }
}

#[async_trait]
impl Charts for InClickHouse {
    fn name(&self) -> &'static str {
        "clickhouse"
    }

    async fn series(&self, query: ChartQuery) -> Result<Vec<SeriesPoint>> {
        let (query, grain) = asked(query);
        Ok(self.0.chart(&query, grain).await?.into_iter().map(point).collect())
    }

    async fn tags(&self, query: ChartQuery, limit: usize) -> Result<Vec<TagCount>> {
        let (query, _) = asked(query);
        Ok(self.0.top_tags(&query, limit).await?.into_iter().map(count).collect())
    }
}

fn asked(query: ChartQuery) -> (chart::ChartQuery, Grain) {
    let grain = match query.window {
        Window::Minute => Grain::Minute,
        Window::Hour => Grain::Hour,
    };
    let ChartQuery { from_us, until_us, filter: Filter { source, language, label, tag }, .. } = query;
    (chart::ChartQuery { from_us, until_us, source, language, tag, label }, grain)
}

fn point(point: chart::Point) -> SeriesPoint {
    let chart::Point { start_us, label, posts, mean_polarity } = point;
    SeriesPoint { start_us, label, posts, mean_polarity }
}

fn count(count: chart::TagCount) -> TagCount {
    let chart::TagCount { tag, posts, mean_polarity } = count;
    TagCount { tag, posts, mean_polarity }
}
