//! How much a query may ask for, the same over REST and gRPC.
//!
//! The guarantee: whatever is asked, the answer is bounded: at most [`MAX_WINDOWS`] windows, and as many entries as the limit
//! says. Ends of a time that lie inside a window are moved to its ends, the same for every store. What is wrong is named by
//! its parameter.

use std::ops::Range;

use undertone_proto::{EventTime, v1::ScoredPost};

use super::{Filter, Window};
use crate::{errors::ProblemCode, problem::Problem};

/// The most windows of one answer.
const MAX_WINDOWS: i64 = 1500;

/// The longest word to filter by, in bytes.
const WORD_BYTES: usize = 512;

/// 1900 to 2299: what every store can hold.
const TIMES: Range<EventTime> = -2_208_988_800_000_000..10_413_792_000_000_000;

impl Window {
    fn length_us(self) -> i64 {
        match self {
            Self::Minute => 60_000_000,
            Self::Hour => 3_600_000_000,
        }
    }

    /// How far back a query looks that does not say.
    fn usual_us(self) -> i64 {
        match self {
            Self::Minute => 60 * 60_000_000,
            Self::Hour => 24 * 3_600_000_000,
        }
    }
}

/// A parameter that is wrong.
pub(crate) fn wrong(name: &str, reason: impl Into<String>) -> Problem {
    let reason = reason.into();
    Problem::new(ProblemCode::InvalidInput, format!("{name}: {reason}")).field(format!("/{name}"), reason)
}

/// How many entries are wanted.
pub(super) fn limit(asked: Option<u64>, usual: usize, most: usize) -> Result<usize, Problem> {
    let Some(asked) = asked else { return Ok(usual) };
    match usize::try_from(asked) {
        Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(wrong("limit", format!("write a number from 1 to {most}"))),
    }
}

/// What posts are filtered by, as stores have it.
pub(super) fn filter(asked: Filter) -> Result<Filter, Problem> {
    Ok(Filter {
        source: word("source", asked.source)?,
        language: word("language", asked.language)?,
        label: word("label", asked.label)?,
        tag: word("tag", asked.tag)?.map(stored_tag).transpose()?,
    })
}

fn word(name: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    match &value {
        Some(value) if value.is_empty() => Err(wrong(name, "it is empty; leave it out")),
        Some(value) if value.len() > WORD_BYTES => Err(wrong(name, format!("it is longer than {WORD_BYTES} bytes"))),
        _ => Ok(value),
    }
}

/// A tag in the form in which stores have it.
fn stored_tag(tag: String) -> Result<String, Problem> {
    let stored = undertone_proto::topics(&ScoredPost { tags: vec![tag], ..ScoredPost::default() });
    stored.into_iter().next().ok_or_else(|| wrong("tag", "no post has such a tag; write one of 1 to 100 characters"))
}

/// A moment that every store can hold.
pub(super) fn moment(name: &str, asked: Option<EventTime>) -> Result<Option<EventTime>, Problem> {
    match asked {
        Some(time) if !TIMES.contains(&time) => Err(wrong(name, "write a time of the years 1900 to 2299")),
        asked => Ok(asked),
    }
}

/// The whole windows that a query is about.
pub(super) fn windows(
    window: Window,
    from: Option<EventTime>,
    to: Option<EventTime>,
    now: EventTime,
) -> Result<Range<EventTime>, Problem> {
    let (from, to) = (moment("from", from)?, moment("to", to)?);
    let range = whole(window, ends(from, to, window.usual_us(), now)?);
    if count(window, &range) > MAX_WINDOWS {
        let longest = match window {
            Window::Minute => "25 hours; windows of an hour take 62 days",
            Window::Hour => "62 days",
        };
        return Err(wrong(
            "from",
            format!("it is more than {MAX_WINDOWS} windows before `to`: ask for at most {longest}"),
        ));
    }
    Ok(range)
}

/// The time that posts are counted in where nobody asks for windows: whole minutes, or whole hours if it is long.
pub(super) fn span(
    from: Option<EventTime>,
    to: Option<EventTime>,
    now: EventTime,
) -> Result<(Window, Range<EventTime>), Problem> {
    let (from, to) = (moment("from", from)?, moment("to", to)?);
    let asked = ends(from, to, Window::Hour.usual_us(), now)?;
    let minutes = whole(Window::Minute, asked.clone());
    if count(Window::Minute, &minutes) <= MAX_WINDOWS {
        return Ok((Window::Minute, minutes));
    }
    let hours = whole(Window::Hour, asked);
    if count(Window::Hour, &hours) <= MAX_WINDOWS {
        return Ok((Window::Hour, hours));
    }
    Err(wrong("from", "it is more than 62 days before `to`: ask for less"))
}

/// From and to as they were asked for, or as is usual.
pub(super) fn ends(
    from: Option<EventTime>,
    to: Option<EventTime>,
    usual_us: i64,
    now: EventTime,
) -> Result<Range<EventTime>, Problem> {
    let to = to.unwrap_or(now);
    let from = from.unwrap_or(to - usual_us);
    if from >= to {
        return Err(wrong("from", "it is not before `to`, which is now if it is left out"));
    }
    Ok(from..to)
}

/// The same, from the start of the first window to the end of the last one.
fn whole(window: Window, range: Range<EventTime>) -> Range<EventTime> {
    let length = window.length_us();
    let up = |time: EventTime| (time + length - 1).div_euclid(length) * length;
    range.start.div_euclid(length) * length..up(range.end)
}

fn count(window: Window, range: &Range<EventTime>) -> i64 {
    (range.end - range.start) / window.length_us()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: EventTime = 1_777_636_830_000_000; // 2026-05-01T12:00:30Z
    const MINUTE: i64 = 60_000_000;
    const HOUR: i64 = 60 * MINUTE;

    fn named(problem: &Problem) -> &str {
        assert_eq!(problem.code(), ProblemCode::InvalidInput);
        problem.errors[0].pointer.trim_start_matches('/')
    }

    fn at(text: &str) -> EventTime {
        text.parse::<jiff::Timestamp>().expect(text).as_microsecond()
    }

    #[test]
    fn limits_and_words_hold_at_their_edges() {
        for (asked, wanted) in [(None, Some(20)), (Some(1), Some(1)), (Some(1000), Some(1000))] {
            assert_eq!(limit(asked, 20, 1000).ok(), wanted);
        }
        for asked in [0, 1001, u64::MAX] {
            assert_eq!(named(&limit(Some(asked), 20, 1000).expect_err("out of range")), "limit");
        }
        let filtered = |source: &str, tag: &str| {
            let (source, tag) = (Some(source.to_owned()), Some(tag.to_owned()));
            filter(Filter { source, tag, ..Filter::default() })
        };
        let good = filtered("forum", "#Green  Tea").expect("good");
        assert_eq!((good.source.as_deref(), good.tag.as_deref()), (Some("forum"), Some("green tea")));
        for (source, tag, name) in [
            ("", "a", "source"),
            (&*"x".repeat(513), "a", "source"),
            ("a", "", "tag"),
            ("a", "##", "tag"),
            ("a", &"x".repeat(101), "tag"),
        ] {
            assert_eq!(named(&filtered(source, tag).expect_err(name)), name);
        }
    }

    #[test]
    fn times_are_whole_windows_and_bounded() {
        let noon = at("2026-05-01T12:00:00Z");
        let asked = |window, from: Option<&str>, to: Option<&str>| {
            windows(window, from.map(at), to.map(at), NOW).map(|r| (r.start - noon, r.end - noon))
        };
        for (window, from, to, wanted) in [
            (Window::Minute, None, None, (-60 * MINUTE, MINUTE)),
            (Window::Hour, None, None, (-24 * HOUR, HOUR)),
            (Window::Minute, Some("2026-05-01T12:00:00Z"), Some("2026-05-01T12:01:00Z"), (0, MINUTE)),
            (Window::Minute, Some("2026-05-01T12:00:59.9Z"), Some("2026-05-01T12:01:00.000001Z"), (0, 2 * MINUTE)),
            (Window::Hour, Some("2026-05-01T11:59:59Z"), Some("2026-05-01T12:00:01Z"), (-HOUR, HOUR)),
            (Window::Minute, Some("2026-04-30T11:00:00Z"), Some("2026-05-01T12:00:00Z"), (-25 * HOUR, 0)),
            (Window::Minute, None, Some("1969-12-31T23:59:59.5Z"), (-noon - HOUR - MINUTE, -noon)),
        ] {
            assert_eq!(asked(window, from, to).expect("good"), wanted, "{from:?} {to:?}");
        }
        for (window, from, to, name) in [
            (Window::Minute, Some("2026-04-30T10:59:59Z"), Some("2026-05-01T12:00:00Z"), "from"),
            (Window::Hour, Some("2020-04-30T11:00:00Z"), None, "from"),
            (Window::Minute, Some("2026-05-01T12:00:00Z"), Some("2026-05-01T12:00:00Z"), "from"),
            (Window::Minute, Some("2027-01-01T00:00:00Z"), None, "from"),
            (Window::Minute, None, Some("2300-01-01T00:00:00Z"), "to"),
            (Window::Minute, Some("-009999-01-02T01:59:59Z"), None, "from"),
        ] {
            assert_eq!(named(&asked(window, from, to).expect_err(name)), name, "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_long_time_is_counted_by_hours() {
        let span = |from: &str| {
            span(Some(at(from)), Some(at("2026-05-01T12:00:30Z")), NOW)
                .map(|(window, range)| (window, NOW - range.start))
        };
        assert_eq!(span("2026-05-01T11:00:10Z").expect("an hour"), (Window::Minute, HOUR + MINUTE / 2));
        assert_eq!(span("2026-04-28T12:00:10Z").expect("days"), (Window::Hour, 72 * HOUR + MINUTE / 2));
        assert_eq!(named(&span("2026-02-01T00:00:00Z").expect_err("months")), "from");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_is_covered_by_few_whole_windows(from in TIMES, length in 1..100_000_000_000_000i64, hours: bool) {
            let window = if hours { Window::Hour } else { Window::Minute };
            let to = (from + length).min(TIMES.end - 1).max(from + 1);
            match windows(window, Some(from), Some(to), NOW) {
                Ok(range) => {
                    let unit = window.length_us();
                    prop_assert!(range.start <= from && from - range.start < unit);
                    prop_assert!(range.end >= to && range.end - to < unit);
                    prop_assert_eq!((range.start.rem_euclid(unit), range.end.rem_euclid(unit)), (0, 0));
                    prop_assert!(count(window, &range) <= MAX_WINDOWS);
                }
                Err(problem) => {
                    prop_assert_eq!(named(&problem), "from");
                    prop_assert!(to - from > (MAX_WINDOWS - 2) * window.length_us());
                }
            }
        }
    }
}
