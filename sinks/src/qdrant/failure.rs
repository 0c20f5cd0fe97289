//! From Qdrant's errors to ours: which are about a post, and which about the server.

use qdrant_client::QdrantError;
use undertone_error::{Error, ErrorKind};

use crate::latest::Refusal;

/// More of what a server says helps nobody.
const SAID_CHARS: usize = 400;

// gRPC's status codes; the client has them of a crate that nothing else here needs.
const UNKNOWN: i32 = 2;
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const OUT_OF_RANGE: i32 = 11;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// What an error of the client means.
pub(super) fn refusal(doing: &'static str, error: &QdrantError) -> Refusal {
    match error {
        QdrantError::ResponseError { status } | QdrantError::ResourceExhaustedError { status, .. } => {
            let cause = std::error::Error::source(status).map(|cause| format!(": {}", crate::iceberg::causes(cause)));
            let said = format!("{:?}: {}{}", status.code(), status.message(), cause.unwrap_or_default());
            judge(doing, i32::from(status.code()), &said)
        }
        other => judge(doing, UNKNOWN, &crate::iceberg::causes(other)),
    }
}

/// The same where no post is written.
pub(super) fn failed(doing: &'static str, error: &QdrantError) -> Error {
    match refusal(doing, error) {
        Refusal::Store(error) => error,
        Refusal::Posts(said) => Error::new(ErrorKind::Unavailable, doing).source(said),
    }
}

fn judge(doing: &'static str, code: i32, said: &str) -> Refusal {
    let said: String = said.chars().take(SAID_CHARS).collect();
    let failed = Error::new(ErrorKind::Unavailable, doing);
    // As the libraries of servers and of what may stand before them word it. The last half of a half is one post.
    let too_large = said.contains("message") && (said.contains("too large") || said.contains("larger than max"));
    let failed = match code {
        INVALID_ARGUMENT => return Refusal::Posts(said),
        OUT_OF_RANGE | RESOURCE_EXHAUSTED if too_large => return Refusal::Posts(said),
        UNAUTHENTICATED | PERMISSION_DENIED => failed.help("check the API key, and what it may do"),
        NOT_FOUND => failed.help("`undertone init` makes the collection; what it held before is gone"),
        UNAVAILABLE | UNKNOWN => failed.help("is the server up, and is qdrant.url its gRPC address?"),
        _ => failed,
    };
    Refusal::Store(failed.source(said))
}

#[cfg(test)]
mod tests {
    use undertone_error::Fault;

    use super::*;

    #[test]
    fn a_request_that_is_too_large_is_sent_in_halves() {
        for (code, said) in [
            (OUT_OF_RANGE, "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes"),
            (RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"),
        ] {
            assert!(matches!(judge("cannot write points", code, said), Refusal::Posts(_)), "{said}");
        }
    }

    #[test]
    fn only_invalid_arguments_are_about_posts_and_everything_else_waits() {
        for code in [UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND, RESOURCE_EXHAUSTED, UNAVAILABLE, UNKNOWN, 13] {
            let Refusal::Store(error) = judge("cannot write points", code, "because") else {
                panic!("{code} is not about a post")
            };
            assert!(error.fault() == Fault::Outside && error.to_string().contains("because"), "{error}");
        }
        let refused = judge("cannot write points", INVALID_ARGUMENT, "wrong vector");
        assert!(matches!(refused, Refusal::Posts(said) if said.contains("wrong vector")));
    }
}
