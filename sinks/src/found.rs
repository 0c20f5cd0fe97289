//! A post as stores show it, whichever it is found in.

use undertone_proto::EventTime;

/// A post at its latest version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundPost {
    /// Its id across sources.
    pub uid: String,
    /// Where it was posted.
    pub source: String,
    /// Its id there.
    pub id: String,
    /// Who posted it.
    pub author: Option<String>,
    /// Where it can be read.
    pub url: Option<String>,
    /// What was said; stores that can do so cut it after [`TEXT_CHARS`] characters.
    pub text: String,
    /// Its language, in ISO 639-3.
    pub language: Option<String>,
    /// The label of its sentiment.
    pub label: Option<String>,
    /// -1 to 1.
    pub polarity: Option<f64>,
    /// When it was posted.
    pub created_at_us: EventTime,
    /// Its tags.
    pub tags: Vec<String>,
}

/// As much of a text as anybody is shown, and a character more, by which it is known that there is more.
pub const TEXT_CHARS: usize = 2001;
