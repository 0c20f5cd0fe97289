//! Queries of the gateway, put to the stores that this process knows of.
//!
//! Nothing is connected to before it is asked, so that a store that is down keeps nobody from starting. ClickHouse comes before the
//! tables: it counts each post as it is now, and in milliseconds. So does OpenSearch where the latest posts are asked for.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use undertone_error::Result;
use undertone_gateway::queries::{
    ChartQuery, Charts, Filter, Hit, Latest, Like, Neighbour, PostsQuery, Queries, Search, SeriesPoint, Similar,
    StoredPost, TagCount, Window,
};
use undertone_sinks::chart::{self, Grain};
use undertone_sinks::clickhouse::ClickHouse;
use undertone_sinks::found::FoundPost;
use undertone_sinks::iceberg::{IcebergStore, Reader, StoreConfig};
use undertone_sinks::opensearch::{OpenSearch, SearchQuery};
use undertone_sinks::qdrant::{self, Qdrant, SimilarQuery};

use crate::config::Config;

/// What answers which question. `written` reads the tables that this process writes.
///
/// # Errors
/// [`undertone_error::ErrorKind::InvalidConfig`] for an address that is none.
pub(super) fn open(config: &Config, written: Option<Reader>) -> Result<Queries> {
    for unread in &config.readable.unread {
        tracing::warn!(store = unread.store, reason = unread.reason, "queries do not ask this store");
    }
    let readable = &config.readable;
    let tables = match (written, &readable.tables) {
        (Some(reader), _) => Some(Tables::Ours(reader)),
        (None, Some(config)) => Some(Tables::Others { config: Box::new(config.clone()), reader: OnceCell::new() }),
        (None, None) => None,
    };
    let tables = tables.map(Arc::new);
    let clickhouse = readable.clickhouse.clone().map(|config| Arc::new(InClickHouse(ClickHouse::new(config))));
    let opensearch = readable.opensearch.clone().map(OpenSearch::new).transpose()?;
    let opensearch = opensearch.map(|store| Arc::new(InOpenSearch(store)));
    let qdrant = readable.qdrant.clone().map(Qdrant::without_model).transpose()?;
    let charts: Option<Arc<dyn Charts>> = match (clickhouse.clone(), tables.clone()) {
        (Some(clickhouse), _) => Some(clickhouse),
        (None, Some(tables)) => Some(tables),
        (None, None) => None,
    };
    let latest: Option<Arc<dyn Latest>> = match (clickhouse, opensearch.clone(), tables) {
        (Some(clickhouse), ..) => Some(clickhouse),
        (None, Some(opensearch), _) => Some(opensearch),
        (None, None, Some(tables)) => Some(tables),
        (None, None, None) => None,
    };
    Ok(Queries {
        charts,
        latest,
        search: opensearch.map(|store| -> Arc<dyn Search> { store }),
        similar: qdrant.map(|store| -> Arc<dyn Similar> { Arc::new(InQdrant(store)) }),
    })
}

/// The tables of Silver and Gold.
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

/// The tables' name in answers.
const TABLES: &str = "tables";

/// The table of the latest of every post.
struct InClickHouse(ClickHouse);

/// The documents of the latest of every post.
struct InOpenSearch(OpenSearch);

/// The vectors of the latest of every post.
struct InQdrant(Qdrant);

#[async_trait]
impl Charts for Tables {
    fn name(&self) -> &'static str {
        TABLES
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

#[async_trait]
impl Latest for InClickHouse {
    fn name(&self) -> &'static str {
        "clickhouse"
    }

    async fn latest(&self, query: PostsQuery) -> Result<Vec<StoredPost>> {
        let (query, limit) = of_a_time(query);
        Ok(self.0.latest(&query, limit).await?.into_iter().map(post).collect())
    }
}

#[async_trait]
impl Latest for Tables {
    fn name(&self) -> &'static str {
        TABLES
    }

    async fn latest(&self, query: PostsQuery) -> Result<Vec<StoredPost>> {
        let (query, limit) = of_a_time(query);
        Ok(self.reader().await?.latest(&query, limit).await?.into_iter().map(post).collect())
    }
}

#[async_trait]
impl Latest for InOpenSearch {
    fn name(&self) -> &'static str {
        "opensearch"
    }

    async fn latest(&self, query: PostsQuery) -> Result<Vec<StoredPost>> {
        let (_, hits) = self.search(String::new(), query).await?;
        Ok(hits.into_iter().map(|hit| hit.post).collect())
    }
}

#[async_trait]
impl Search for InOpenSearch {
    fn name(&self) -> &'static str {
        "opensearch"
    }

    async fn search(&self, words: String, query: PostsQuery) -> Result<(u64, Vec<Hit>)> {
        let PostsQuery { from_us, until_us, filter: Filter { source, language, label, tag }, limit } = query;
        let found =
            self.0.search(&SearchQuery { words, source, language, label, tag, from_us, until_us, limit }).await?;
        let hits = found.hits.into_iter().map(|hit| Hit { post: post(hit.post), highlights: hit.highlights });
        Ok((found.total, hits.collect()))
    }
}

#[async_trait]
impl Similar for InQdrant {
    fn name(&self) -> &'static str {
        "qdrant"
    }

    async fn similar(&self, like: Like, query: PostsQuery) -> Result<Option<Vec<Neighbour>>> {
        let like = match like {
            Like::Text { embedding, revision } => qdrant::Like::Text { embedding, revision },
            Like::Post(uid) => qdrant::Like::Post(uid.to_string()),
        };
        let PostsQuery { filter: Filter { source, language, label, tag }, limit, .. } = query;
        let found = self.0.similar(SimilarQuery { like, source, language, label, tag, limit }).await?;
        let near = |found: qdrant::Neighbour| Neighbour { similarity: found.similarity, post: post(found.post) };
        Ok(found.map(|found| found.into_iter().map(near).collect()))
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

fn of_a_time(query: PostsQuery) -> (chart::ChartQuery, usize) {
    let PostsQuery { from_us, until_us, filter: Filter { source, language, label, tag }, limit } = query;
    let (from_us, until_us) = (from_us.unwrap_or(i64::MIN), until_us.unwrap_or(i64::MAX));
    (chart::ChartQuery { from_us, until_us, source, language, tag, label }, limit)
}

fn point(point: chart::Point) -> SeriesPoint {
    let chart::Point { start_us, label, posts, mean_polarity } = point;
    SeriesPoint { start_us, label, posts, mean_polarity }
}

fn count(count: chart::TagCount) -> TagCount {
    let chart::TagCount { tag, posts, mean_polarity } = count;
    TagCount { tag, posts, mean_polarity }
}

fn post(post: FoundPost) -> StoredPost {
    let FoundPost { uid, source, id, author, url, text, language, label, polarity, created_at_us, tags } = post;
    StoredPost { uid, source, id, author, url, text, language, label, polarity, created_at_us, tags }
}
