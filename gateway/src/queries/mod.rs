//! Questions about what the stream has stored: what the gateway needs of stores to answer them, so that it knows none of them
//! and can be tested without one, and how they are asked through either door.
//!
//! Each kind of question is a trait of its own, since each store can answer some and not others. Who implements one sees to it
//! that dropping the future gives the question up.

mod bounds;
mod call;
mod charts;
mod posts;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Serialize, Serializer};
use undertone_error::Result;
use undertone_proto::{EventTime, timestamp};
use utoipa::ToSchema;
use uuid::Uuid;

pub(crate) use self::{bounds::wrong, charts::*, posts::*};

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
    /// The latest posts.
    pub latest: Option<Arc<dyn Latest>>,
    /// Full-text search.
    pub search: Option<Arc<dyn Search>>,
    /// Similar posts.
    pub similar: Option<Arc<dyn Similar>>,
}

/// What kind of question a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Charts,
    Latest,
    Search,
    Similar,
}

impl Kind {
    /// How many there are.
    pub(crate) const COUNT: usize = 4;
}

/// A time as it stands in answers.
pub(crate) fn rfc3339<S: Serializer>(time: &EventTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&timestamp(*time))
}

/// Which posts are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostsQuery {
    /// Only those from here on.
    pub from_us: Option<EventTime>,
    /// Only those before.
    pub until_us: Option<EventTime>,
    /// Only those with what it names.
    pub filter: Filter,
    /// The most.
    pub limit: usize,
}

/// What posts are compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Like {
    /// A text.
    Text {
        /// Its embedding.
        embedding: Vec<f32>,
        /// The revision of the model that made it.
        revision: String,
    },
    /// A post, by its uid.
    Post(Uuid),
}

/// A post as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct StoredPost {
    /// Its id across sources.
    pub uid: String,
    /// Where it was posted.
    pub source: String,
    /// Its id there.
    pub id: String,
    /// Who posted it.
    #[schema(required = true)]
    pub author: Option<String>,
    /// Where it can be read.
    #[schema(required = true)]
    pub url: Option<String>,
    /// What was said; after 2,000 characters it is cut, and ends with `…`.
    pub text: String,
    /// Its language, in ISO 639-3.
    #[schema(required = true)]
    pub language: Option<String>,
    /// The label of its sentiment.
    #[schema(required = true)]
    pub label: Option<String>,
    /// -1 to 1.
    #[schema(required = true)]
    pub polarity: Option<f64>,
    /// When it was posted.
    #[serde(rename = "created_at", serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at_us: EventTime,
    /// Its tags, without `#`.
    pub tags: Vec<String>,
}

/// A post that has the words.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Hit {
    /// The post.
    pub post: StoredPost,
    /// Pieces of its text as HTML: escaped, with what was found in `<em>`.
    #[schema(example = json!(["a pot of <em>green</em> <em>tea</em> &amp; rain"]))]
    pub highlights: Vec<String>,
}

/// A post that is near.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Neighbour {
    /// The cosine of both embeddings, -1 to 1.
    pub similarity: f32,
    /// The post.
    pub post: StoredPost,
}

/// Knows what was posted last.
#[async_trait]
pub trait Latest: Send + Sync + 'static {
    /// The store's name in answers.
    fn name(&self) -> &'static str;

    /// The latest posts, each as it is now, those that were posted last first.
    ///
    /// # Errors
    /// Those of the store; `TooLarge` for more than it can look at.
    async fn latest(&self, query: PostsQuery) -> Result<Vec<StoredPost>>;
}

/// Finds posts by their words.
#[async_trait]
pub trait Search: Send + Sync + 'static {
    /// The store's name in answers.
    fn name(&self) -> &'static str;

    /// How many posts match, and the best of them.
    ///
    /// # Errors
    /// Those of the store; `InvalidInput` for words that it cannot search for, `TooLarge` for more than it can answer.
    async fn search(&self, words: String, query: PostsQuery) -> Result<(u64, Vec<Hit>)>;
}

/// Finds posts that are alike.
#[async_trait]
pub trait Similar: Send + Sync + 'static {
    /// The store's name in answers.
    fn name(&self) -> &'static str;

    /// The most similar posts; `None` if they are to be like a post that it has no embedding of.
    ///
    /// # Errors
    /// Those of the store.
    async fn similar(&self, like: Like, query: PostsQuery) -> Result<Option<Vec<Neighbour>>>;
}
