//! The JSON that the page draws: `GET /v1/overview`, and every event of `GET /v1/live`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::ModelRef;

/// Everything the page shows, at one moment. Times in `_ms` are milliseconds, times in `_s` seconds, since
/// 1970-01-01T00:00:00Z.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Overview {
    /// The moment.
    pub now_ms: i64,
    /// When this process started.
    pub started_ms: i64,
    /// The model that scores.
    pub model: ModelRef,
    /// How fast posts are scored.
    pub rate: Rate,
    /// Counts since this process started, or since its tables began if it was told theirs; on Kafka with some of the
    /// newest from before.
    pub totals: Totals,
    /// How far each stage is behind; empty before the first report, and where no stream runs.
    pub lag: Vec<StageLag>,
    /// Mood over event time by topic.
    pub topics: Topics,
    /// The posts that were scored last, newest first; at most 30.
    pub latest: Vec<LatestPost>,
    /// The dead letters.
    pub dead: Dead,
}

/// How fast posts are scored, by the clock of this machine.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Rate {
    /// The mean of the last 5 whole seconds.
    pub posts_per_second: f64,
    /// Posts scored in each of the last 120 whole seconds, oldest first: second and count.
    #[schema(value_type = Vec<Vec<i64>>, example = json!([[1_777_629_600, 212], [1_777_629_601, 198]]))]
    pub history: Vec<(i64, u64)>,
}

/// Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Totals {
    /// Events that were taken in.
    pub events: u64,
    /// Events that became scored posts, tombstones included.
    pub scored: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Posts whose sentiment is negative.
    pub negative: u64,
    /// Posts whose sentiment is neutral.
    pub neutral: u64,
    /// Posts whose sentiment is positive.
    pub positive: u64,
}

/// How far a stage is behind what it reads.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct StageLag {
    /// `score`, or the table or store that the stage writes.
    #[schema(example = "silver.posts")]
    pub stage: String,
    /// Events that it has not yet committed.
    pub posts: u64,
    /// The age of the oldest of them; null if it is not known.
    #[schema(required = true)]
    pub seconds: Option<f64>,
    /// Why it does not go on, if it waits for something.
    #[schema(required = true)]
    pub waiting: Option<String>,
    /// Of what part of the stage this is told; null if of all of it.
    #[schema(required = true, example = "2 of 6 partitions, those of this process")]
    pub scope: Option<String>,
}

/// Mood over event time by topic.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Topics {
    /// The width of a bucket.
    pub bucket_seconds: i64,
    /// The start of the first bucket.
    pub start_s: i64,
    /// How many buckets there are.
    pub buckets: usize,
    /// The topics with the most posts in the window, most first; at most 12.
    pub series: Vec<TopicSeries>,
}

/// One topic.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TopicSeries {
    /// The tag, without `#`.
    pub topic: String,
    /// Posts in each bucket.
    pub count: Vec<u64>,
    /// The mean polarity in each bucket, -1 to 1; null where there is none.
    pub polarity: Vec<Option<f64>>,
}

/// One scored post.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LatestPost {
    /// The post's id across sources.
    pub uid: String,
    /// Where it was posted.
    pub source: String,
    /// Its id there.
    pub id: String,
    /// Who posted it.
    #[schema(required = true)]
    pub author: Option<String>,
    /// What was said; after 500 characters it is cut, and ends with `…`.
    pub text: String,
    /// `negative`, `neutral` or `positive`.
    #[schema(required = true)]
    pub label: Option<String>,
    /// -1 to 1.
    #[schema(required = true)]
    pub polarity: Option<f64>,
    /// The calibrated probability of the label.
    #[schema(required = true)]
    pub confidence: Option<f32>,
    /// ISO 639-3.
    #[schema(required = true)]
    pub language: Option<String>,
    /// When it was posted.
    pub created_ms: i64,
    /// When it was scored.
    pub scored_ms: i64,
    /// Its topics.
    pub topics: Vec<String>,
    /// Its version, by which an edit takes its place.
    #[serde(skip)]
    pub(crate) version: i64,
}

/// The dead letters.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Dead {
    /// How many there are.
    pub total: u64,
    /// The newest, newest first; at most 10.
    pub latest: Vec<DeadPost>,
}

/// One dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadPost {
    /// The offset of its event.
    pub offset: i64,
    /// The stage that gave it up.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// Its first 120 characters.
    pub preview: String,
    /// When it was given up.
    pub at_ms: i64,
}
