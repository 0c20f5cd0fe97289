//! Errors of the `iceberg` crate in our terms, and ours in its.
//!
//! What stands behind the crate (a REST catalog, an object store) knows best what failed and what mends it, but its
//! error must pass through the crate's own type. It rides inside as the source, and is found again here.

use undertone_error::{Error, ErrorKind, Fault};

/// Our error, to pass through the `iceberg` crate.
pub(super) fn wrap(error: Error) -> iceberg::Error {
    iceberg::Error::new(iceberg::ErrorKind::Unexpected, "").with_source(error)
}

/// Our error inside one of the crate's, if there is one.
pub(super) fn ours<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours);
        }
        next = error.source();
    }
    None
}

/// What an error of the crate says, without its wrapping where it is ours.
pub(super) fn text(error: &iceberg::Error) -> String {
    // Its text holds the texts of its causes, which would be printed again if they were kept as causes.
    ours(error).map_or_else(|| error.to_string(), Error::to_string)
}

/// What `error` means for a sink. A catalog or a disk that does not answer is an outside fault and is waited for; only
/// what a wait can never mend (a table that is gone, keys that are refused) is another kind.
pub(super) fn failure(error: &iceberg::Error, doing: &str) -> Error {
    let kind = match (ours(error), error.kind()) {
        (Some(ours), _) => ours.kind(),
        (None, iceberg::ErrorKind::TableNotFound | iceberg::ErrorKind::NamespaceNotFound) => ErrorKind::NotFound,
        (None, iceberg::ErrorKind::FeatureUnsupported) => ErrorKind::Unsupported,
        (None, iceberg::ErrorKind::CatalogCommitConflicts) => ErrorKind::Conflict,
        (None, _) => ErrorKind::Unavailable,
    };
    Error::new(kind, doing).source(text(error))
}

/// Whether a person must mend what an attempt at something failed of.
pub(super) fn needs_a_person(error: &iceberg::Error) -> Option<ErrorKind> {
    ours(error).filter(|ours| ours.fault() == Fault::User).map(Error::kind)
}

/// [`failure`] as an extension of `Result`.
pub(super) trait Doing<T> {
    /// Says what was being done.
    fn doing(self, what: &str) -> undertone_error::Result<T>;
}

impl<T> Doing<T> for iceberg::Result<T> {
    fn doing(self, what: &str) -> undertone_error::Result<T> {
        self.map_err(|error| failure(&error, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_errors_keep_their_kind_and_words_through_the_crate() {
        let refused = || Error::new(ErrorKind::InvalidConfig, "keys are refused").with("bucket", "b").help("set them");
        let through = failure(&wrap(refused()), "cannot write data files");
        assert_eq!(through.kind(), ErrorKind::InvalidConfig);
        assert_eq!(through.to_string(), "cannot write data files: keys are refused (bucket: b); set them");
        // Others wrap it again on the way.
        let again = iceberg::Error::new(iceberg::ErrorKind::Unexpected, "a writer failed").with_source(wrap(refused()));
        assert_eq!(failure(&again, "x").kind(), ErrorKind::InvalidConfig);
        assert_eq!(needs_a_person(&again), Some(ErrorKind::InvalidConfig));
        assert_eq!(needs_a_person(&wrap(Error::new(ErrorKind::Unavailable, "x"))), None);
        let plain = iceberg::Error::new(iceberg::ErrorKind::Unexpected, "disk is full");
        assert_eq!(failure(&plain, "x").kind(), ErrorKind::Unavailable);
    }
}
