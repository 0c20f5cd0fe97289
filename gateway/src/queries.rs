//! What the gateway needs of stores to answer queries, so that it knows none of them and can be tested without one.
//!
//! Each kind of question is a trait of its own, since each store can answer some and not others. Who implements one sees to it
//! that dropping the future gives the question up.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Serialize, Serializer};
use undertone_error::Result;
use undertone_proto::{EventTime, timestamp};
use utoipa::ToSchema;

/// Only posts with each of these that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Where they were posted.
    pub source: Option<String>,
    /// Their language.
    pub language: Option<String>,
    /// Their label.
    pub label: Option<String>,
    /// One of their tags, in the form that tags are stored in.
    pub tag: Option<String>,
}

/// The length of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub enum Window {
    /// A minute.
    #[serde(rename = "1m")]
    Minute,
    /// An hour.
    #[serde(rename = "1h")]
    Hour,
}

/// What is counted: posts of whole windows, by when they were posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChartQuery {
    /// The start of the first window.
    pub from_us: EventTime,
    /// The end of the last one.
    pub until_us: EventTime,
    /// How long they are.
    pub window: Window,
    /// Which posts.
    pub filter: Filter,
}

/// The posts of one label in one window.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct SeriesPoint {
    /// The start of the window.
    #[serde(rename = "start", serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub start_us: EventTime,
    /// The label; null for posts without one.
    #[schema(required = true)]
    pub label: Option<String>,
    /// How many posts.
    pub posts: u64,
    /// Their mean polarity, -1 to 1; null if none has one.
    #[schema(required = true)]
    pub mean_polarity: Option<f64>,
}

/// How often a tag is used.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TagCount {
    /// The tag, without `#`.
    pub tag: String,
    /// In how many posts.
    pub posts: u64,
    /// Their mean polarity, -1 to 1; null if none has one.
    #[schema(required = true)]
    pub mean_polarity: Option<f64>,
}

/// Counts posts.
#[async_trait]
pub trait Charts: Send + Sync + 'static {
    /// The store's name in answers.
    fn name(&self) -> &'static str;

    /// Counts and mean polarity by window and label, in the order of both; windows without posts are left out.
    ///
    /// # Errors
    /// Those of the store.
    async fn series(&self, query: ChartQuery) -> Result<Vec<SeriesPoint>>;

    /// The most used tags, those of most posts first.
    ///
    /// # Errors
    /// Those of the store; `TooLarge` for more than it can count.
    async fn tags(&self, query: ChartQuery, limit: usize) -> Result<Vec<TagCount>>;
}

/// What is asked: each question to the store that answers it, if there is one.
#[derive(Clone, Default)]
pub struct Queries {
    /// Time series and tags.
    pub charts: Option<Arc<dyn Charts>>,
}

/// A time as it stands in answers.
pub(crate) fn rfc3339<S: Serializer>(time: &EventTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&timestamp(*time))
}
