//! From ClickHouse's errors to ours: which are about a post, and which about the server.

use undertone_error::{Error, ErrorKind};

use crate::latest::Refusal;

/// More of what a server says helps nobody: a schema mismatch repeats every column.
const SAID_CHARS: usize = 400;

/// The codes that are about what is in a row: a constraint that it violates, a value that a column cannot hold. Whatever is
/// not listed here is about the server.
const OF_ROWS: [u32; 5] = [
    128, // TOO_LARGE_ARRAY_SIZE
    131, // TOO_LARGE_STRING_SIZE
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    469, // VIOLATED_CONSTRAINT
    691, // UNKNOWN_ELEMENT_OF_ENUM
];

/// What an error of the client means.
pub(super) fn refusal(doing: &'static str, error: &clickhouse::error::Error) -> Refusal {
    let said = said(error);
    match code(&said) {
        Some(code) if OF_ROWS.contains(&code) => Refusal::Posts(said),
        code => {
            let failed = Error::new(ErrorKind::Unavailable, doing);
            let failed = match help(code, error) {
                Some(help) => failed.help(help),
                None => failed,
            };
            Refusal::Store(failed.source(said))
        }
    }
}

/// The same where rows are read: an answer over its limit is what was asked for, and no fault of the server's.
pub(super) fn unread(error: &clickhouse::error::Error) -> Error {
    match code(&said(error)) {
        Some(TOO_MUCH) => {
            Error::new(ErrorKind::TooLarge, "the rows are too large for one answer").help("ask for fewer of them")
        }
        _ => failed("cannot read from the table", error),
    }
}

/// TOO_MANY_ROWS_OR_BYTES
const TOO_MUCH: u32 = 396;

/// The same where no row is written.
pub(super) fn failed(doing: &'static str, error: &clickhouse::error::Error) -> Error {
    match refusal(doing, error) {
        Refusal::Store(error) => error,
        Refusal::Posts(said) => Error::new(ErrorKind::Unavailable, doing).source(said),
    }
}

fn help(code: Option<u32>, error: &clickhouse::error::Error) -> Option<&'static str> {
    match (code, error) {
        (Some(192..=195 | 516), _) => Some("check clickhouse.user and its password"),
        (Some(497), _) => Some("grant the user SELECT and INSERT on the table"),
        (Some(164), _) => Some("the user or the server is read-only: allow this user to write"),
        (Some(60 | 81), _) => Some("`undertone init` makes the table; the database must be there"),
        (Some(243), _) => Some("free some of the server's disk"),
        (Some(_), _) => None,
        (None, clickhouse::error::Error::SchemaMismatch(_)) => Some("`undertone check` says how the table differs"),
        (None, _) => Some("is the server up, and is clickhouse.url right?"),
    }
}

/// The code in "Code: 60. DB::Exception: …".
fn code(said: &str) -> Option<u32> {
    let (_, rest) = said.split_once("Code: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What an error and its causes say, on one line.
fn said(error: &clickhouse::error::Error) -> String {
    let all = crate::iceberg::causes(error);
    let line = all.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SAID_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use clickhouse::error::Error as Said;
    use undertone_error::Fault;

    use super::*;

    #[test]
    fn an_answer_over_its_limit_is_told_from_a_server_that_fails() {
        let said = |text: &str| unread(&Said::BadResponse(text.to_owned())).kind();
        assert_eq!(
            said("Code: 396. DB::Exception: Limit for result exceeded, max bytes: 128.00 MiB"),
            ErrorKind::TooLarge
        );
        assert_eq!(said("Code: 241. DB::Exception: Memory limit exceeded"), ErrorKind::Unavailable);
    }

    #[test]
    fn only_listed_codes_are_about_posts_and_everything_else_waits() {
        for (text, of_post) in [
            ("Code: 469. DB::Exception: Constraint `c` is violated", true),
            ("Code: 516. DB::Exception: default: Authentication failed", false),
            ("Code: 60. DB::Exception: Table default.posts does not exist", false),
            ("Code: 243. DB::Exception: Cannot reserve 1.00 MiB", false),
            ("Code: 252. DB::Exception: Too many parts", false),
            ("502 Bad Gateway", false),
            ("", false),
        ] {
            match refusal("cannot insert", &Said::BadResponse(text.to_owned())) {
                Refusal::Posts(said) => assert!(of_post && said.contains(text), "{said}"),
                Refusal::Store(error) => assert!(!of_post && error.fault() == Fault::Outside, "{error}"),
            }
        }
    }
}
