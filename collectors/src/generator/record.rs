//! The JSON of a post, with the fields, time formats and oddities of each source.

use jiff::Timestamp;
use serde::Serialize;
use undertone_proto::EventTime;

use super::chance::Draws;

/// Where posts come from, and how often.
pub(super) const SOURCES: [&str; 4] = ["reddit", "x", "webhook", "forum"];
pub(super) const SOURCE_SHARES: [f64; SOURCES.len()] = [0.30, 0.45, 0.10, 0.15];
pub(super) const X: usize = 1;
pub(super) const WEBHOOK: usize = 2;
const FORUM: usize = 3;

/// One post as it is sent. Absent fields are left out.
#[derive(Serialize)]
pub(super) struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) source: &'static str,
    pub(super) text: String,
    pub(super) created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edited_at: Option<String>,
    pub(super) author: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lang: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metrics: Option<Metrics>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<String>,
    #[serde(flatten)]
    pub(super) unknown: Unknown,
}

#[derive(Serialize)]
pub(super) struct Metrics {
    likes: u64,
    replies: u64,
    shares: u64,
}

/// At most one field that the schema of posts does not know.
#[derive(Default, Serialize)]
pub(super) struct Unknown {
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
}

#[derive(Serialize)]
struct Place {
    city: &'static str,
    coordinates: [f64; 2],
}

pub(super) fn metrics(draws: &mut Draws) -> Option<Metrics> {
    draws.chance(0.5).then(|| {
        // Most posts are liked by hardly anybody, a few by thousands.
        let likes = 1u64 << draws.below(13);
        Metrics { likes: draws.below(likes), replies: draws.below(1 + likes / 8), shares: draws.below(1 + likes / 16) }
    })
}

pub(super) fn unknown(draws: &mut Draws) -> Unknown {
    match draws.below(20) {
        0 => Unknown { client: Some(draws.pick(&["pocket app 3.1", "web", "terminal"])), ..Unknown::default() },
        1 => Unknown { pinned: Some(draws.chance(0.5)), ..Unknown::default() },
        2 => {
            let city = draws.pick(&["Velmar", "Marrowgate", "Port Lumen"]);
            let coordinates = [(draws.below(1800) as f64 - 900.0) / 10.0, (draws.below(3600) as f64 - 1800.0) / 10.0];
            Unknown { place: Some(Place { city, coordinates }), ..Unknown::default() }
        }
        _ => Unknown::default(),
    }
}

/// RFC 3339 as the source writes it: whole seconds, milliseconds, or local time with an offset.
pub(super) fn written(source: usize, time_us: EventTime) -> String {
    let step = if source == X || source == WEBHOOK { 1_000 } else { 1_000_000 };
    let time = Timestamp::from_microsecond(time_us - time_us.rem_euclid(step)).unwrap_or(Timestamp::MAX);
    match source {
        FORUM => time.display_with_offset(jiff::tz::offset(2)).to_string(),
        X | WEBHOOK => format!("{time:.3}"),
        _ => time.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_writes_the_same_moment_its_own_way() {
        let time = 1_777_629_600_123_456;
        let written: Vec<String> = (0..SOURCES.len()).map(|source| written(source, time)).collect();
        let wanted = [
            "2026-05-01T10:00:00Z",
            "2026-05-01T10:00:00.123Z",
            "2026-05-01T10:00:00.123Z",
            "2026-05-01T12:00:00+02:00",
        ];
        assert_eq!(written, wanted);
    }
}
