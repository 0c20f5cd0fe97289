//! Time series and tags: what is asked, and what is answered.

use serde::Serialize;
use tokio::time::Instant;
use undertone_proto::EventTime;
use utoipa::ToSchema;

use super::{
    ChartQuery, Charts, Filter, Kind, SeriesPoint, TagCount, Window, bounds,
    call::{Call, not_configured, now},
    rfc3339,
};
use crate::{Gateway, problem::Problem};

/// Tags that are answered if nobody says how many, and at most.
const TAGS: (usize, usize) = (20, 1000);

/// Which posts are counted, and how, as somebody asked.
pub(crate) struct AskedSeries {
    pub(crate) window: Window,
    pub(crate) from: Option<EventTime>,
    pub(crate) to: Option<EventTime>,
    pub(crate) filter: Filter,
}

/// Which tags are counted, as somebody asked.
pub(crate) struct AskedTags {
    pub(crate) from: Option<EventTime>,
    pub(crate) to: Option<EventTime>,
    pub(crate) limit: Option<u64>,
    pub(crate) filter: Filter,
}

/// A time series.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Series {
    /// The store that answered: `clickhouse`, which counts each post as it is now, or `tables`, which count every version.
    #[schema(example = "tables")]
    pub(crate) store: &'static str,
    /// The length of a window.
    pub(crate) window: Window,
    /// The start of the first window.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(crate) from: EventTime,
    /// The end of the last window.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(crate) to: EventTime,
    /// The windows that have posts, by time and label.
    pub(crate) points: Vec<SeriesPoint>,
}

/// The most used tags.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tags {
    /// The store that answered: `clickhouse`, which counts each post as it is now, or `tables`, which count every version.
    #[schema(example = "tables")]
    pub(crate) store: &'static str,
    /// The start of the time that they were counted in.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(crate) from: EventTime,
    /// Its end.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(crate) to: EventTime,
    /// Those of most posts first.
    pub(crate) tags: Vec<TagCount>,
}

/// Answers a time series by the deadline.
///
/// # Errors
/// What is wrong with what is asked, or with the store.
pub(crate) async fn series(gateway: &Gateway, asked: AskedSeries, deadline: Instant) -> Result<Series, Problem> {
    let store = charts(gateway)?;
    let AskedSeries { window, from, to, filter } = asked;
    let range = bounds::windows(window, from, to, now())?;
    let filter = bounds::filter(filter)?;
    let query = ChartQuery { from_us: range.start, until_us: range.end, window, filter };
    let call = Call::begin(Kind::Charts, gateway, deadline)?;
    let points = call.ask(store.name(), store.series(query)).await?;
    Ok(Series { store: store.name(), window, from: range.start, to: range.end, points })
}

/// Answers the most used tags by the deadline.
///
/// # Errors
/// What is wrong with what is asked, or with the store.
pub(crate) async fn tags(gateway: &Gateway, asked: AskedTags, deadline: Instant) -> Result<Tags, Problem> {
    let store = charts(gateway)?;
    let AskedTags { from, to, limit, filter } = asked;
    let (window, range) = bounds::span(from, to, now())?;
    let limit = bounds::limit(limit, TAGS.0, TAGS.1)?;
    let filter = bounds::filter(filter)?;
    let query = ChartQuery { from_us: range.start, until_us: range.end, window, filter };
    let call = Call::begin(Kind::Charts, gateway, deadline)?;
    let tags = call.ask(store.name(), store.tags(query, limit)).await?;
    Ok(Tags { store: store.name(), from: range.start, to: range.end, tags })
}

fn charts(gateway: &Gateway) -> Result<&dyn Charts, Problem> {
    let keys = "clickhouse.url, or let it write tables (run.roles) or read those of a REST catalog (catalog.kind)";
    gateway.queries.charts.as_deref().ok_or_else(|| not_configured("charts", keys))
}
