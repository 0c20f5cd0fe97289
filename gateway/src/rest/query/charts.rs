//! `GET /v1/query/series` and `GET /v1/query/tags`.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, Uri},
};
use serde::{Deserialize, Serialize};
use undertone_proto::EventTime;
use utoipa::{IntoParams, ToSchema};

use super::{Call, DeadlineHeader, not_configured, now, params};
use crate::{
    Gateway,
    problem::Problem,
    queries::{ChartQuery, Kind, SeriesPoint, TagCount, Window, rfc3339},
    rest::observe::Arrived,
};

/// Tags that are answered if nobody says how many, and at most.
const TAGS: (usize, usize) = (20, 1000);

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

/// A time series.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Series {
    /// The store that answered: `clickhouse`, which counts each post as it is now, or `tables`, which count every version.
    #[schema(example = "tables")]
    store: &'static str,
    /// The length of a window.
    window: Window,
    /// The start of the first window.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    from: EventTime,
    /// The end of the last window.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    to: EventTime,
    /// The windows that have posts, by time and label.
    points: Vec<SeriesPoint>,
}

/// The most used tags.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tags {
    /// The store that answered: `clickhouse`, which counts each post as it is now, or `tables`, which count every version.
    #[schema(example = "tables")]
    store: &'static str,
    /// The start of the time that they were counted in.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    from: EventTime,
    /// Its end.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    to: EventTime,
    /// Those of most posts first.
    tags: Vec<TagCount>,
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
    let store = charts(&gateway)?;
    let asked: SeriesParams = params::read(&uri)?;
    let window = params::window(asked.window.as_deref())?;
    let range = params::windows(window, asked.from.as_deref(), asked.to.as_deref(), now())?;
    let filter = params::filter(asked.source, asked.language, asked.label, asked.tag)?;
    let query = ChartQuery { from_us: range.start, until_us: range.end, window, filter };
    let call = Call::begin(Kind::Charts, &gateway, arrived, &headers)?;
    let points = call.ask(store.name(), store.series(query)).await?;
    Ok(Json(Series { store: store.name(), window, from: range.start, to: range.end, points }))
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
    let store = charts(&gateway)?;
    let asked: TagsParams = params::read(&uri)?;
    let (window, range) = params::span(asked.from.as_deref(), asked.to.as_deref(), now())?;
    let limit = params::limit(asked.limit.as_deref(), TAGS.0, TAGS.1)?;
    let filter = params::filter(asked.source, asked.language, asked.label, None)?;
    let query = ChartQuery { from_us: range.start, until_us: range.end, window, filter };
    let call = Call::begin(Kind::Charts, &gateway, arrived, &headers)?;
    let tags = call.ask(store.name(), store.tags(query, limit)).await?;
    Ok(Json(Tags { store: store.name(), from: range.start, to: range.end, tags }))
}

fn charts(gateway: &Gateway) -> Result<&dyn crate::queries::Charts, Problem> {
    let keys = "clickhouse.url, or let it write tables (run.roles) or read those of a REST catalog (catalog.kind)";
    gateway.queries.charts.as_deref().ok_or_else(|| not_configured("charts", keys))
}
