//! What can be asked of the stores that count: ClickHouse, and the tables of Gold.
//!
//! The guarantee: both answer the same question alike, but for what they count. ClickHouse counts each post once, as it is
//! now. Gold counts every version of a post, and a deletion takes nothing away: see `docs/tables.md`.

use undertone_proto::EventTime;

/// The length of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grain {
    /// `…_1m`
    Minute,
    /// `…_1h`
    Hour,
}

impl Grain {
    /// In microseconds.
    pub(crate) fn length_us(self) -> i64 {
        match self {
            Self::Minute => 60_000_000,
            Self::Hour => 3_600_000_000,
        }
    }
}

/// What is counted: posts whose `created_at` is in `[from_us, until_us)`, and with each of these, if it is named. Gold knows
/// whole windows only: both ends are their starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChartQuery {
    /// The first microsecond.
    pub from_us: EventTime,
    /// The first microsecond after.
    pub until_us: EventTime,
    /// Only posts of this source.
    pub source: Option<String>,
    /// Only posts in this language.
    pub language: Option<String>,
    /// Only posts with this tag.
    pub tag: Option<String>,
    /// Only posts with this label.
    pub label: Option<String>,
}

/// The posts of one label in one minute or hour.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its first microsecond.
    pub start_us: EventTime,
    /// The label; absent if they have none.
    pub label: Option<String>,
    /// How many posts.
    pub posts: u64,
    /// Their mean polarity, -1 to 1; absent if none has one.
    pub mean_polarity: Option<f64>,
}

/// How often a tag is used.
#[derive(Clone, Debug, PartialEq)]
pub struct TagCount {
    /// The tag.
    pub tag: String,
    /// In how many posts.
    pub posts: u64,
    /// Their mean polarity, -1 to 1; absent if none has one.
    pub mean_polarity: Option<f64>,
}
