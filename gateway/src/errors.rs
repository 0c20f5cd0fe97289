//! One table of everything that can go wrong for a caller, for REST and gRPC alike.
//!
//! The guarantee: an error that we raise has the same code and the same meaning whichever door it leaves by.
//! [`ProblemCode::row`] gives its HTTP status, its gRPC code and its title; [`ProblemCode::from`] an [`ErrorKind`] is
//! exhaustive, so that a new kind does not compile until it has a row here.
//!
//! What the gRPC transport refuses before a call reaches us has the status that the transport gives it, which the table has
//! too: a message over the limit is `OUT_OF_RANGE`, an unknown service or method `UNIMPLEMENTED`.

use axum::http::StatusCode;
use tonic::Code;
use undertone_error::ErrorKind;

/// What went wrong, as callers see it: the last part of a problem's `type`, and the `code` of a gRPC item error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemCode {
    /// The body is not JSON.
    InvalidJson,
    /// A field is missing, unknown, of a wrong type, or out of its range.
    InvalidInput,
    /// The list of texts is empty.
    EmptyList,
    /// The text is empty or only white space.
    EmptyText,
    /// A head was named that the model does not have.
    UnknownHead,
    /// A header cannot be understood.
    InvalidHeader,
    /// More texts than one call may hold.
    TooManyTexts,
    /// One text is over the limit.
    TextTooLong,
    /// The body is over the limit.
    BodyTooLarge,
    /// Something else is over its limit.
    TooLarge,
    /// The body is not `application/json`.
    UnsupportedMediaType,
    /// The body is compressed, or encoded in another way that is not read.
    UnsupportedEncoding,
    /// No key was sent, or one that is not of this server.
    Unauthenticated,
    /// The key's holder sends more than it may.
    RateLimited,
    /// There is nothing at this path.
    UnknownPath,
    /// The path does not take this method.
    MethodNotAllowed,
    /// What was named does not exist.
    NotFound,
    /// The process has no store, or no stream, that could do this.
    StoreNotConfigured,
    /// The body did not arrive in time.
    BodyTimeout,
    /// Queues are full.
    QueueFull,
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// The gateway is draining.
    ShuttingDown,
    /// A part that is needed does not answer.
    Unavailable,
    /// Another writer was faster.
    Conflict,
    /// Memory or disk space ran out.
    Exhausted,
    /// We do not know how to do this.
    Unsupported,
    /// The server's own configuration or model folder is wrong.
    Misconfigured,
    /// Stored bytes do not say what they must say.
    Corrupt,
    /// A bug of ours.
    Internal,
}

/// What a [`ProblemCode`] is on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The last part of the problem's `type`, stable across versions.
    pub code: &'static str,
    /// The same sentence for every occurrence.
    pub title: &'static str,
    /// The HTTP status.
    pub http: StatusCode,
    /// The gRPC status code.
    pub grpc: Code,
    /// Seconds after which a retry may succeed, for what passes by itself.
    pub retry_after: Option<u32>,
}

/// Every code, in the order of the table.
pub const ALL: [ProblemCode; 30] = {
    use ProblemCode as P;
    [
        P::InvalidJson,
        P::InvalidInput,
        P::EmptyList,
        P::EmptyText,
        P::UnknownHead,
        P::InvalidHeader,
        P::TooManyTexts,
        P::TextTooLong,
        P::BodyTooLarge,
        P::TooLarge,
        P::UnsupportedMediaType,
        P::UnsupportedEncoding,
        P::Unauthenticated,
        P::RateLimited,
        P::UnknownPath,
        P::MethodNotAllowed,
        P::NotFound,
        P::StoreNotConfigured,
        P::BodyTimeout,
        P::QueueFull,
        P::DeadlineExceeded,
        P::Cancelled,
        P::ShuttingDown,
        P::Unavailable,
        P::Conflict,
        P::Exhausted,
        P::Unsupported,
        P::Misconfigured,
        P::Corrupt,
        P::Internal,
    ]
};

/// The client closed the request: nobody reads this status, but logs and metrics count it. No standard names it.
const CLIENT_CLOSED: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

impl ProblemCode {
    /// The table.
    pub const fn row(self) -> Row {
        use ProblemCode as P;
        use StatusCode as S;
        const fn row(code: &'static str, title: &'static str, http: S, grpc: Code, retry_after: Option<u32>) -> Row {
            Row { code, title, http, grpc, retry_after }
        }
        match self {
            P::InvalidJson => row("invalid-json", "the body is not JSON", S::BAD_REQUEST, Code::InvalidArgument, None),
            P::InvalidInput => {
                row("invalid-input", "the input is not valid", S::UNPROCESSABLE_ENTITY, Code::InvalidArgument, None)
            }
            P::EmptyList => {
                row("empty-list", "there is nothing to score", S::UNPROCESSABLE_ENTITY, Code::InvalidArgument, None)
            }
            P::EmptyText => {
                row("empty-text", "the text is empty", S::UNPROCESSABLE_ENTITY, Code::InvalidArgument, None)
            }
            P::UnknownHead => {
                row("unknown-head", "the model has no such head", S::UNPROCESSABLE_ENTITY, Code::InvalidArgument, None)
            }
            P::InvalidHeader => {
                row("invalid-header", "a header cannot be understood", S::BAD_REQUEST, Code::InvalidArgument, None)
            }
            P::TooManyTexts => {
                row("too-many-texts", "too many texts in one call", S::PAYLOAD_TOO_LARGE, Code::InvalidArgument, None)
            }
            P::TextTooLong => {
                row("text-too-long", "the text is too long", S::PAYLOAD_TOO_LARGE, Code::InvalidArgument, None)
            }
            P::BodyTooLarge => {
                row("body-too-large", "the body is too large", S::PAYLOAD_TOO_LARGE, Code::OutOfRange, None)
            }
            P::TooLarge => {
                row("too-large", "the input is over a limit", S::PAYLOAD_TOO_LARGE, Code::InvalidArgument, None)
            }
            P::UnsupportedMediaType => row(
                "unsupported-media-type",
                "the body must be application/json",
                S::UNSUPPORTED_MEDIA_TYPE,
                Code::InvalidArgument,
                None,
            ),
            P::UnsupportedEncoding => {
                row("unsupported-encoding", "the body is encoded", S::UNSUPPORTED_MEDIA_TYPE, Code::Unimplemented, None)
            }
            P::Unauthenticated => {
                row("unauthenticated", "this needs a key of this server", S::UNAUTHORIZED, Code::Unauthenticated, None)
            }
            P::RateLimited => {
                row("rate-limited", "the key may send less", S::TOO_MANY_REQUESTS, Code::ResourceExhausted, Some(1))
            }
            P::UnknownPath => {
                row("unknown-path", "there is nothing at this path", S::NOT_FOUND, Code::Unimplemented, None)
            }
            P::MethodNotAllowed => row(
                "method-not-allowed",
                "the path does not take this method",
                S::METHOD_NOT_ALLOWED,
                Code::Unimplemented,
                None,
            ),
            P::NotFound => row("not-found", "what was named does not exist", S::NOT_FOUND, Code::NotFound, None),
            P::StoreNotConfigured => {
                row("store-not-configured", "this server has no store for this", S::NOT_FOUND, Code::NotFound, None)
            }
            P::BodyTimeout => {
                row("body-timeout", "the body did not arrive in time", S::REQUEST_TIMEOUT, Code::DeadlineExceeded, None)
            }
            P::QueueFull => {
                row("queue-full", "the queue is full", S::TOO_MANY_REQUESTS, Code::ResourceExhausted, Some(1))
            }
            P::DeadlineExceeded => {
                row("deadline-exceeded", "the deadline passed", S::GATEWAY_TIMEOUT, Code::DeadlineExceeded, None)
            }
            P::Cancelled => row("cancelled", "the caller went away", CLIENT_CLOSED, Code::Cancelled, None),
            P::ShuttingDown => {
                row("shutting-down", "the server is shutting down", S::SERVICE_UNAVAILABLE, Code::Unavailable, Some(5))
            }
            P::Unavailable => row(
                "unavailable",
                "a part that is needed does not answer",
                S::SERVICE_UNAVAILABLE,
                Code::Unavailable,
                Some(5),
            ),
            P::Conflict => row("conflict", "another writer was faster", S::CONFLICT, Code::Aborted, None),
            P::Exhausted => row(
                "exhausted",
                "memory or disk space ran out",
                S::SERVICE_UNAVAILABLE,
                Code::ResourceExhausted,
                Some(5),
            ),
            P::Unsupported => {
                row("unsupported", "this is not supported", S::NOT_IMPLEMENTED, Code::Unimplemented, None)
            }
            P::Misconfigured => row(
                "misconfigured",
                "the server is not configured for this",
                S::INTERNAL_SERVER_ERROR,
                Code::FailedPrecondition,
                None,
            ),
            P::Corrupt => row("corrupt", "stored data is damaged", S::INTERNAL_SERVER_ERROR, Code::DataLoss, None),
            P::Internal => row("internal", "the server failed", S::INTERNAL_SERVER_ERROR, Code::Internal, None),
        }
    }

    /// Whether the whole call suffers from it, not one text: the server is full, late, draining or broken.
    pub fn is_about_the_call(self) -> bool {
        use ProblemCode as P;
        matches!(
            self,
            P::QueueFull
                | P::DeadlineExceeded
                | P::Cancelled
                | P::ShuttingDown
                | P::Unavailable
                | P::Exhausted
                | P::Misconfigured
                | P::Corrupt
                | P::Internal
        )
    }

    /// Whether the detail stays in the log: callers cannot do anything about what is our fault, and it may name what is
    /// not theirs to know.
    pub fn is_ours(self) -> bool {
        matches!(self, ProblemCode::Misconfigured | ProblemCode::Corrupt | ProblemCode::Internal)
    }
}

impl From<ErrorKind> for ProblemCode {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidInput => Self::InvalidInput,
            ErrorKind::TooLarge => Self::TooLarge,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::InvalidConfig => Self::Misconfigured,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::Busy => Self::QueueFull,
            ErrorKind::DeadlineExceeded => Self::DeadlineExceeded,
            ErrorKind::Cancelled => Self::Cancelled,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Corrupt => Self::Corrupt,
            ErrorKind::Exhausted => Self::Exhausted,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use undertone_error::{Error, Fault};

    use super::*;

    const KINDS: [ErrorKind; 13] = [
        ErrorKind::InvalidInput,
        ErrorKind::TooLarge,
        ErrorKind::NotFound,
        ErrorKind::InvalidConfig,
        ErrorKind::Unsupported,
        ErrorKind::Busy,
        ErrorKind::DeadlineExceeded,
        ErrorKind::Cancelled,
        ErrorKind::Unavailable,
        ErrorKind::Conflict,
        ErrorKind::Corrupt,
        ErrorKind::Exhausted,
        ErrorKind::Internal,
    ];

    #[test]
    fn every_kind_has_its_row() {
        use Code as G;
        let wanted = [
            (422, G::InvalidArgument, "invalid-input"),
            (413, G::InvalidArgument, "too-large"),
            (404, G::NotFound, "not-found"),
            (500, G::FailedPrecondition, "misconfigured"),
            (501, G::Unimplemented, "unsupported"),
            (429, G::ResourceExhausted, "queue-full"),
            (504, G::DeadlineExceeded, "deadline-exceeded"),
            (499, G::Cancelled, "cancelled"),
            (503, G::Unavailable, "unavailable"),
            (409, G::Aborted, "conflict"),
            (500, G::DataLoss, "corrupt"),
            (503, G::ResourceExhausted, "exhausted"),
            (500, G::Internal, "internal"),
        ];
        for (kind, (http, grpc, code)) in KINDS.into_iter().zip(wanted) {
            let row = ProblemCode::from(kind).row();
            assert_eq!((row.http.as_u16(), row.grpc, row.code), (http, grpc, code), "{kind:?}");
        }
    }

    #[test]
    fn our_faults_are_server_errors_and_hide_their_detail() {
        for kind in KINDS {
            let code = ProblemCode::from(kind);
            let server_error = code.row().http.is_server_error();
            match Error::new(kind, "x").fault() {
                Fault::Ours => assert!(server_error && code.is_ours(), "{kind:?}"),
                // A wrong configuration is the operator's fault, so for a caller it is the server's.
                _ if kind == ErrorKind::InvalidConfig => assert!(server_error && code.is_ours()),
                _ => assert!(!code.is_ours(), "{kind:?}"),
            }
        }
    }

    #[test]
    fn codes_are_distinct_and_only_what_passes_by_itself_says_when_to_retry() {
        let names: HashSet<_> = ALL.iter().map(|code| code.row().code).collect();
        assert_eq!(names.len(), ALL.len());
        for code in ALL {
            let row = code.row();
            assert!(row.http.as_u16() >= 400, "{}", row.code);
            assert_eq!(row.retry_after.is_some(), matches!(row.http.as_u16(), 429 | 503), "{}", row.code);
        }
    }
}
