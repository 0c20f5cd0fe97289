//! From what a server or its connection says to our errors: all of them are waited for.

use undertone_error::{Error, ErrorKind};

/// More of what a server says helps nobody.
const SAID_CHARS: usize = 400;

/// A request that was not answered.
pub(super) fn unanswered(doing: &'static str, error: &opensearch::Error) -> Error {
    let failed = Error::new(ErrorKind::Unavailable, doing).source(crate::iceberg::causes(error));
    failed.help("is the server up, and is opensearch.url right?")
}

/// A request that was answered with another status than it should be.
pub(super) fn refused(doing: &'static str, status: u16, body: &[u8]) -> Error {
    let said = String::from_utf8_lossy(body);
    let said: String = said.chars().take(SAID_CHARS).collect();
    let error = Error::new(ErrorKind::Unavailable, doing).with("status", status).source(said);
    match status {
        401 => error.help("check opensearch.user and its password"),
        403 => error.help("may this user do this, and is the cluster free of blocks (a full disk sets one)?"),
        404 => error.help("is opensearch.url right? `undertone init` makes what is written to"),
        _ => error,
    }
}
