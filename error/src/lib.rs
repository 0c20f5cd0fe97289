//! The one error type of Undertone.
//!
//! Every fallible function of every crate returns [`Error`]. It guarantees three things: the message names the thing
//! that failed, [`Error::with`] carries the values a person needs to look at, and [`Error::help`] says what would mend
//! it. Whose fault it is follows from the kind alone, and that alone decides what happens next: an item at fault goes to
//! the dead letters, an outside system at fault is tried again, a fault of ours stops the part it happened in.
//!
//! ```
//! use undertone_error::{Error, ErrorKind, Fault};
//!
//! let error = Error::new(ErrorKind::Unavailable, "catalog does not answer")
//!     .with("uri", "http://127.0.0.1:8181")
//!     .help("start the catalog, or set catalog.uri");
//! assert_eq!(error.fault(), Fault::Outside);
//! assert!(error.retryable());
//! assert_eq!(
//!     error.to_string(),
//!     "catalog does not answer (uri: http://127.0.0.1:8181); start the catalog, or set catalog.uri"
//! );
//! ```

pub mod failpoint;
pub mod quiet;

use std::fmt;

/// What went wrong, in the terms that callers act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The input is malformed: it will never be accepted as it is.
    InvalidInput,
    /// The input is over a limit.
    TooLarge,
    /// What was named does not exist.
    NotFound,
    /// The configuration, a flag or a model folder is wrong.
    InvalidConfig,
    /// We do not know how to do this.
    Unsupported,
    /// Queues are full; the same call may succeed later.
    Busy,
    /// The caller's deadline passed before the work was done.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// An outside system (disk, catalog, broker) did not do its part.
    Unavailable,
    /// Another writer was faster, or holds what we need.
    Conflict,
    /// Stored bytes do not say what they must say.
    Corrupt,
    /// Memory or disk space ran out.
    Exhausted,
    /// A bug of ours.
    Internal,
}

impl ErrorKind {
    /// The kind as a word for labels and scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::InvalidConfig => "invalid_config",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
            Self::Corrupt => "corrupt",
            Self::Exhausted => "exhausted",
            Self::Internal => "internal",
        }
    }
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The user's, or the input's: repeating it is pointless.
    User,
    /// An outside system's: repeating it may help.
    Outside,
    /// Ours.
    Ours,
}

/// An error: kind, message, context pairs, a hint that mends it, and what caused it.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
    help: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything fallible here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error. The message is lowercase, has no full stop, and names the thing that failed.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let inner = Inner { kind, message: message.into(), context: Vec::new(), help: None, source: None };
        Self { inner: Box::new(inner) }
    }

    /// Adds a value that a person needs to see: a path, a key, an offset.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.inner.context.push((key, value.to_string()));
        self
    }

    /// Says what would mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.inner.help = Some(help.into());
        self
    }

    /// Keeps the underlying error.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The message alone, without context, cause or hint: what a remote caller may see.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The context pairs, in the order in which they were added.
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.inner.context
    }

    /// What would mend it, if that is known.
    pub fn mend(&self) -> Option<&str> {
        self.inner.help.as_deref()
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        use ErrorKind as K;
        match self.inner.kind {
            K::InvalidInput | K::TooLarge | K::NotFound | K::InvalidConfig | K::Unsupported | K::Cancelled => {
                Fault::User
            }
            K::Busy | K::DeadlineExceeded | K::Unavailable | K::Conflict | K::Exhausted => Fault::Outside,
            K::Corrupt | K::Internal => Fault::Ours,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything. A conflict is not retryable as it
    /// stands: the caller must first look at what the other writer did.
    pub fn retryable(&self) -> bool {
        matches!(self.inner.kind, ErrorKind::Busy | ErrorKind::Unavailable | ErrorKind::Exhausted)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        for (i, (key, value)) in self.inner.context.iter().enumerate() {
            write!(f, "{}{key}: {value}", if i == 0 { " (" } else { ", " })?;
        }
        if !self.inner.context.is_empty() {
            f.write_str(")")?;
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            // Our own errors print their causes themselves.
            cause = if error.is::<Error>() { None } else { error.source() };
        }
        match &self.inner.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.inner.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

/// Adds what was being done to errors of the standard library and of other crates.
pub trait Context<T> {
    /// Wraps the error, keeping it as the source.
    ///
    /// # Errors
    /// The wrapped error, if there was one.
    fn context(self, kind: ErrorKind, message: &str) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, kind: ErrorKind, message: &str) -> Result<T> {
        self.map_err(|error| Error::new(kind, message).source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_the_thing_the_value_the_cause_and_the_mend() {
        let cause = std::io::Error::other("disk is gone");
        let error = Error::new(ErrorKind::Unavailable, "cannot append")
            .with("path", "/x")
            .with("offset", 7)
            .source(cause)
            .help("plug it in");
        assert_eq!(error.to_string(), "cannot append (path: /x, offset: 7): disk is gone; plug it in");
    }

    #[test]
    fn causes_of_ours_are_printed_once() {
        let inner = Error::new(ErrorKind::Corrupt, "bad frame").source(std::io::Error::other("crc"));
        let outer = Error::new(ErrorKind::Corrupt, "cannot read log").source(inner);
        assert_eq!(outer.to_string(), "cannot read log: bad frame: crc");
    }

    #[test]
    fn only_transient_kinds_are_retryable() {
        for (kind, retryable) in [
            (ErrorKind::Busy, true),
            (ErrorKind::Unavailable, true),
            (ErrorKind::Conflict, false),
            (ErrorKind::InvalidInput, false),
            (ErrorKind::Internal, false),
        ] {
            assert_eq!(Error::new(kind, "x").retryable(), retryable, "{kind:?}");
        }
    }
}
