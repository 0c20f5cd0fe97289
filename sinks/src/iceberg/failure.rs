//! Errors of the `iceberg` crate in our terms.

use undertone_error::{Error, ErrorKind};

/// What `error` means for a sink. A catalog or a disk that does not answer is an outside fault and is waited for; only
/// what a wait can never mend (a table that is gone, a feature that is not there) is another kind.
pub(super) fn failure(error: iceberg::Error, doing: &str) -> Error {
    let kind = match error.kind() {
        iceberg::ErrorKind::TableNotFound | iceberg::ErrorKind::NamespaceNotFound => ErrorKind::NotFound,
        iceberg::ErrorKind::FeatureUnsupported => ErrorKind::Unsupported,
        iceberg::ErrorKind::CatalogCommitConflicts => ErrorKind::Conflict,
        _ => ErrorKind::Unavailable,
    };
    // Its text holds the texts of its causes, which would be printed again if they were kept as causes.
    Error::new(kind, doing).source(error.to_string())
}

/// [`failure`] as an extension of `Result`.
pub(super) trait Doing<T> {
    /// Says what was being done.
    fn doing(self, what: &str) -> undertone_error::Result<T>;
}

impl<T> Doing<T> for iceberg::Result<T> {
    fn doing(self, what: &str) -> undertone_error::Result<T> {
        self.map_err(|error| failure(error, what))
    }
}
