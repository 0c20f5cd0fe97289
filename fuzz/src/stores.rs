//! What stands behind the gateway: a model, a log and stores that answer at once and refuse nothing, so that whatever goes
//! wrong is the gateway's.

use std::sync::Arc;

use async_trait::async_trait;
use undertone_error::Result;
use undertone_gateway::{
    Intake, NewPost, Place, Replay, ReplayOf, Replayed, Scorer,
    queries::{
        ChartQuery, Charts, Hit, Latest, Like, Neighbour, PostsQuery, Queries, Search, SeriesPoint, Similar,
        StoredPost, TagCount,
    },
};
use undertone_inference::{ModelInfo, Request, Scored};

use crate::fake;

pub(crate) struct Model(pub(crate) Arc<ModelInfo>);

#[async_trait]
impl Scorer for Model {
    fn model(&self) -> Arc<ModelInfo> {
        Arc::clone(&self.0)
    }

    async fn score(&self, request: Request) -> Result<Scored> {
        Ok(fake::scored(&request.text))
    }
}

pub(crate) struct Log;

#[async_trait]
impl Intake for Log {
    async fn take_in(&self, posts: Vec<NewPost>) -> Vec<Result<Place>> {
        (0..posts.len() as i64).map(|offset| Ok(Place { partition: 0, offset })).collect()
    }
}

pub(crate) struct Letters;

#[async_trait]
impl Replay for Letters {
    fn sinks(&self) -> Vec<&'static str> {
        vec!["qdrant", "opensearch", "clickhouse"]
    }

    async fn replay(&self, of: ReplayOf) -> Result<Replayed> {
        Ok(Replayed { events: of.limit.unwrap_or(usize::MAX), refused: 0 })
    }
}

pub(crate) struct Store;

impl Store {
    pub(crate) fn queries() -> Queries {
        let store = Arc::new(Self);
        Queries {
            charts: Some(store.clone()),
            latest: Some(store.clone()),
            search: Some(store.clone()),
            similar: Some(store),
        }
    }
}

/// A post that says what was asked, whatever characters that has.
fn post(query: &PostsQuery) -> StoredPost {
    StoredPost {
        uid: "0b9c1c3e-5b1f-5f0e-8a53-0b9c1c3e5b1f".to_owned(),
        source: query.filter.source.clone().unwrap_or_default(),
        id: "p1".to_owned(),
        author: query.filter.label.clone(),
        url: None,
        text: format!("{query:?}").repeat(20),
        language: query.filter.language.clone(),
        label: None,
        polarity: Some(0.5),
        created_at_us: query.from_us.unwrap_or(i64::MAX),
        tags: query.filter.tag.clone().into_iter().collect(),
    }
}

#[async_trait]
impl Charts for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    async fn series(&self, query: ChartQuery) -> Result<Vec<SeriesPoint>> {
        Ok(vec![SeriesPoint { start_us: query.from_us, label: query.filter.label, posts: 2, mean_polarity: None }])
    }

    async fn tags(&self, query: ChartQuery, limit: usize) -> Result<Vec<TagCount>> {
        let tag = query.filter.source.unwrap_or_default();
        Ok(vec![TagCount { tag, posts: limit as u64, mean_polarity: Some(f64::NAN) }])
    }
}

#[async_trait]
impl Latest for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    async fn latest(&self, query: PostsQuery) -> Result<Vec<StoredPost>> {
        Ok(vec![post(&query)])
    }
}

#[async_trait]
impl Search for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    async fn search(&self, words: String, query: PostsQuery) -> Result<(u64, Vec<Hit>)> {
        Ok((1, vec![Hit { post: post(&query), highlights: vec![words] }]))
    }
}

#[async_trait]
impl Similar for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    async fn similar(&self, _: Like, query: PostsQuery) -> Result<Option<Vec<Neighbour>>> {
        Ok(Some(vec![Neighbour { similarity: 0.75, post: post(&query) }]))
    }
}
