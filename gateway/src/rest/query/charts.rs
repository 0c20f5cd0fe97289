//! `GET /v1/query/series` and `GET /v1/query/tags`.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, Uri},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{DeadlineHeader, deadline, params};
use crate::{
    Gateway,
    problem::Problem,
    queries::{self, AskedSeries, AskedTags, Filter, Series, Tags},
    rest::observe::Arrived,
};

/// Which posts are counted, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeriesParams {
    /// The length of a window: `1m`, or `1h`.
    #[param(nullable = false, example = "1m")]
    window: Option<String>,
    /// Only posts from here on, moved to the start of its window; left out, an hour before `to`, or a day with `window=1h`.
    #[param(nullable = false, format = DateTime, example = "2026-05-01T11:00:00Z")]
    from: Option<String>,
    /// Only posts before, moved to the end of its window; left out, now. At most 1,500 windows after `from`.
    #[param(nullable = false, format = DateTime, example = "2026-05-01T12:00:00Z")]
    to: Option<String>,
    /// Only posts of this source.
    #[param(nullable = false)]
    source: Option<String>,
    /// Only posts in this language, in ISO 639-3.
    #[param(nullable = false)]
    language: Option<String>,
    /// Only posts with this label.
    #[param(nullable = false)]
    label: Option<String>,
    /// Only posts with this tag.
    #[param(nullable = false)]
    tag: Option<String>,
}

/// Which tags are counted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct TagsParams {
    /// Only posts from here on, moved to the start of its minute; left out, a day before `to`.
    #[param(nullable = false, format = DateTime, example = "2026-05-01T00:00:00Z")]
    from: Option<String>,
    /// Only posts before, moved to the end of its minute; left out, now. At most 62 days after `from`; more than 25 hours after it,
    /// both are moved to the ends of hours.
    #[param(nullable = false, format = DateTime, example = "2026-05-02T00:00:00Z")]
    to: Option<String>,
    /// The most tags, 1 to 1000; left out, 20.
    #[param(nullable = false, value_type = Option<u32>, minimum = 1, maximum = 1000, example = 10)]
    limit: Option<String>,
    /// Only posts of this source.
    #[param(nullable = false)]
    source: Option<String>,
    /// Only posts in this language, in ISO 639-3.
    #[param(nullable = false)]
    language: Option<String>,
    /// Only posts with this label.
    #[param(nullable = false)]
    label: Option<String>,
}

/// Mood over time
///
/// How many posts there are in each window by label, and their mean polarity, by when they were posted. ClickHouse answers if it is
/// configured, and otherwise the tables of Gold, which are as fresh as their last commit.
#[utoipa::path(
    get,
    path = "/v1/query/series",
    tag = "queries",
    operation_id = "query_series",
    params(SeriesParams, DeadlineHeader),
    responses(
        (status = 200, description = "the windows that have posts", body = Series, example = json!({
            "store": "tables", "window": "1m", "from": "2026-05-01T11:00:00Z", "to": "2026-05-01T12:00:00Z",
            "points": [{"start": "2026-05-01T11:07:00Z", "label": "positive", "posts": 12, "mean_polarity": 0.61}]
        })),
        crate::rest::openapi::QueryProblems,
    )
)]
pub(in crate::rest) async fn series(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Series>, Problem> {
    let SeriesParams { window, from, to, source, language, label, tag } = params::read(&uri)?;
    let asked = AskedSeries {
        window: params::window(window.as_deref())?,
        from: params::time("from", from.as_deref())?,
        to: params::time("to", to.as_deref())?,
        filter: Filter { source, language, label, tag },
    };
    let by = deadline(&gateway, arrived, &headers)?;
    queries::series(&gateway, asked, by).await.map(Json)
}

/// The most used tags
///
/// The tags of most posts, and the mean polarity of these. The same stores answer as for `/v1/query/series`.
#[utoipa::path(
    get,
    path = "/v1/query/tags",
    tag = "queries",
    operation_id = "query_tags",
    params(TagsParams, DeadlineHeader),
    responses(
        (status = 200, description = "those of most posts first", body = Tags, example = json!({
            "store": "clickhouse", "from": "2026-05-01T00:00:00Z", "to": "2026-05-02T00:00:00Z",
            "tags": [{"tag": "tea", "posts": 1834, "mean_polarity": 0.42}]
        })),
        crate::rest::openapi::QueryProblems,
    )
)]
pub(in crate::rest) async fn tags(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<Tags>, Problem> {
    let TagsParams { from, to, limit, source, language, label } = params::read(&uri)?;
    let asked = AskedTags {
        from: params::time("from", from.as_deref())?,
        to: params::time("to", to.as_deref())?,
        limit: params::limit(limit.as_deref())?,
        filter: Filter { source, language, label, tag: None },
    };
    let by = deadline(&gateway, arrived, &headers)?;
    queries::tags(&gateway, asked, by).await.map(Json)
}
