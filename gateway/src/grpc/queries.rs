//! `undertone.v1.Queries`: what [`crate::queries`] answers, as messages.

use tokio::time::Instant;
use tonic::{Request, Response, Status};
use undertone_proto::v1::{
    self, LatestRequest, LatestResponse, PostFilter, SearchHit, SearchRequest, SearchResponse, SeriesRequest,
    SeriesResponse, SimilarRequest, SimilarResponse, TagsRequest, TagsResponse, queries_server::Queries,
    similar_request,
};

use super::call::{Call, unary};
use crate::{
    Gateway,
    problem::Problem,
    queries::{
        self, AskedLatest, AskedLike, AskedSearch, AskedSeries, AskedSimilar, AskedTags, Filter, Hit, Neighbour,
        SeriesPoint, StoredPost, TagCount, Window, wrong,
    },
};

#[tonic::async_trait]
impl Queries for Gateway {
    async fn series(&self, request: Request<SeriesRequest>) -> Result<Response<SeriesResponse>, Status> {
        unary("undertone.v1.Queries/Series", request, async |call, message| {
            let SeriesRequest { window, from_us, to_us, filter: by } = message;
            let asked = AskedSeries { window: asked_window(window)?, from: from_us, to: to_us, filter: filter(by) };
            let said = queries::series(self, asked, deadline(self, &call)).await?;
            Ok(SeriesResponse {
                store: said.store.to_owned(),
                window: window_message(said.window).into(),
                from_us: said.from,
                to_us: said.to,
                points: said.points.into_iter().map(point).collect(),
            })
        })
        .await
    }

    async fn tags(&self, request: Request<TagsRequest>) -> Result<Response<TagsResponse>, Status> {
        unary("undertone.v1.Queries/Tags", request, async |call, message| {
            let TagsRequest { from_us, to_us, limit, filter: by } = message;
            let filter = filter(by);
            if filter.tag.is_some() {
                return Err(wrong("tag", "tags are counted of all posts; leave it out"));
            }
            let asked = AskedTags { from: from_us, to: to_us, limit: limit.map(u64::from), filter };
            let said = queries::tags(self, asked, deadline(self, &call)).await?;
            Ok(TagsResponse {
                store: said.store.to_owned(),
                from_us: said.from,
                to_us: said.to,
                tags: said.tags.into_iter().map(tag).collect(),
            })
        })
        .await
    }

    async fn latest(&self, request: Request<LatestRequest>) -> Result<Response<LatestResponse>, Status> {
        unary("undertone.v1.Queries/Latest", request, async |call, message| {
            let LatestRequest { from_us, to_us, limit, filter: by } = message;
            let asked = AskedLatest { from: from_us, to: to_us, limit: limit.map(u64::from), filter: filter(by) };
            let said = queries::latest(self, asked, deadline(self, &call)).await?;
            Ok(LatestResponse {
                store: said.store.to_owned(),
                from_us: said.from,
                to_us: said.to,
                posts: said.posts.into_iter().map(post).collect(),
            })
        })
        .await
    }

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        unary("undertone.v1.Queries/Search", request, async |call, message| {
            let SearchRequest { q, from_us, to_us, limit, filter: by } = message;
            let (limit, filter) = (limit.map(u64::from), filter(by));
            let asked = AskedSearch { words: q, from: from_us, to: to_us, limit, filter };
            let said = queries::search(self, asked, deadline(self, &call)).await?;
            Ok(SearchResponse {
                store: said.store.to_owned(),
                total: said.total,
                hits: said.hits.into_iter().map(hit).collect(),
            })
        })
        .await
    }

    async fn similar(&self, request: Request<SimilarRequest>) -> Result<Response<SimilarResponse>, Status> {
        unary("undertone.v1.Queries/Similar", request, async |call, message| {
            let SimilarRequest { like, limit, filter: by } = message;
            let (text, uid) = match like {
                Some(similar_request::Like::Text(text)) => (Some(text), None),
                Some(similar_request::Like::Uid(uid)) => (None, Some(uid)),
                None => (None, None),
            };
            let (like, filter) = (AskedLike::either(text, uid)?, filter(by));
            let asked = AskedSimilar { like, limit: limit.map(u64::from), filter };
            let said = queries::similar(self, asked, deadline(self, &call)).await?;
            Ok(SimilarResponse {
                store: said.store.to_owned(),
                neighbours: said.neighbours.into_iter().map(neighbour).collect(),
            })
        })
        .await
    }
}

fn deadline(gateway: &Gateway, call: &Call) -> Instant {
    call.deadline(|asked| gateway.limits.granted(asked))
}

fn asked_window(window: i32) -> Result<Window, Problem> {
    match v1::Window::try_from(window) {
        Ok(v1::Window::Unspecified | v1::Window::Minute) => Ok(Window::Minute),
        Ok(v1::Window::Hour) => Ok(Window::Hour),
        Err(_) => Err(wrong("window", "write WINDOW_MINUTE or WINDOW_HOUR")),
    }
}

fn window_message(window: Window) -> v1::Window {
    match window {
        Window::Minute => v1::Window::Minute,
        Window::Hour => v1::Window::Hour,
    }
}

fn filter(asked: Option<PostFilter>) -> Filter {
    let PostFilter { source, language, label, tag } = asked.unwrap_or_default();
    Filter { source, language, label, tag }
}

fn point(point: SeriesPoint) -> v1::SeriesPoint {
    let SeriesPoint { start_us, label, posts, mean_polarity } = point;
    v1::SeriesPoint { start_us, label, posts, mean_polarity }
}

fn tag(count: TagCount) -> v1::TagCount {
    let TagCount { tag, posts, mean_polarity } = count;
    v1::TagCount { tag, posts, mean_polarity }
}

fn hit(hit: Hit) -> SearchHit {
    SearchHit { post: Some(post(hit.post)), highlights: hit.highlights }
}

fn neighbour(near: Neighbour) -> v1::Neighbour {
    v1::Neighbour { similarity: near.similarity, post: Some(post(near.post)) }
}

fn post(post: StoredPost) -> v1::StoredPost {
    let StoredPost { uid, source, id, author, url, text, language, label, polarity, created_at_us, tags } = post;
    v1::StoredPost { uid, source, id, author, url, text, language, label, polarity, created_at_us, tags }
}
