//! Parameters of a query, read from what stands behind its path. What is wrong is named by its parameter.

use axum::http::Uri;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use undertone_proto::EventTime;

use crate::{
    errors::ProblemCode,
    problem::Problem,
    queries::{Window, wrong},
};

/// The parameters, as they were written.
pub(super) fn read<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    serde_urlencoded::from_str(uri.query().unwrap_or_default()).map_err(|error| {
        let reason: String = error.to_string().chars().take(200).collect();
        Problem::new(ProblemCode::InvalidInput, format!("the query cannot be understood: {reason}"))
    })
}

/// How many entries are wanted. Out of what range is not decided here, but a number it must be.
pub(super) fn limit(asked: Option<&str>) -> Result<Option<u64>, Problem> {
    asked.map(|asked| asked.parse().map_err(|_| wrong("limit", "write a whole number"))).transpose()
}

/// How long a window is wanted.
pub(super) fn window(asked: Option<&str>) -> Result<Window, Problem> {
    match asked {
        None | Some("1m") => Ok(Window::Minute),
        Some("1h") => Ok(Window::Hour),
        Some(_) => Err(wrong("window", "write 1m or 1h")),
    }
}

/// A moment.
pub(super) fn time(name: &str, asked: Option<&str>) -> Result<Option<EventTime>, Problem> {
    let Some(asked) = asked else { return Ok(None) };
    let time: Timestamp = asked.parse().map_err(|_| wrong(name, "write a time like 2026-05-01T12:00:00Z"))?;
    Ok(Some(time.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Some2 {
        source: Option<String>,
        limit: Option<String>,
    }

    #[test]
    fn parameters_are_read_once_and_unknown_ones_are_named() {
        let read = |query: &str| read::<Some2>(&format!("/v1/query/tags{query}").parse().expect("a uri"));
        for query in ["", "?"] {
            assert_eq!(read(query).expect(query), Some2::default());
        }
        assert_eq!(read("?source=a%26b+c").expect("one").source.as_deref(), Some("a&b c"));
        for (query, word) in [("?sourc=a", "sourc"), ("?limit=1&limit=2", "limit")] {
            let problem = read(query).expect_err(query);
            assert!(problem.detail.contains(word), "{}", problem.detail);
        }
    }

    #[test]
    fn numbers_windows_and_times_are_read_as_they_are_written() {
        assert_eq!((limit(None).ok(), limit(Some("17")).ok()), (Some(None), Some(Some(17))));
        assert_eq!((window(None).ok(), window(Some("1h")).ok()), (Some(Window::Minute), Some(Window::Hour)));
        let noon = Some(1_777_636_800_000_000);
        for text in ["2026-05-01T12:00:00Z", "2026-05-01T14:00:00+02:00"] {
            assert_eq!(time("to", Some(text)).ok(), Some(noon), "{text}");
        }
        let named = |problem: Problem| problem.errors[0].pointer.clone();
        for text in ["-1", "1.0", "", "ten", "99999999999999999999"] {
            assert_eq!(named(limit(Some(text)).expect_err(text)), "/limit");
        }
        for text in ["yesterday", "2026-05-01", "", "2026-05-01T12:00:00"] {
            assert_eq!(named(time("from", Some(text)).expect_err(text)), "/from");
        }
        assert_eq!(named(window(Some("1d")).expect_err("a day")), "/window");
    }
}
