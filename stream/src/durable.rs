//! What the file system must be told before bytes count as durable, in one place.
//!
//! The guarantee: after [`replace`] returned, the file holds either nothing of the new bytes (error) or all of them, and
//! a crash at any moment leaves the old content or the new, never a mixture.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use undertone_error::{Error, ErrorKind, Result};

/// Makes creations, renames and removals inside `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| io_error("cannot sync folder", dir, e))
}

/// Creates `dir` and what is missing above it, durably.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|e| io_error("cannot create folder", dir, e))?;
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Writes `bytes` beside `path` and moves them into its place.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    if let Err(error) = write() {
        let _ = fs::remove_file(&new);
        return Err(io_error("cannot write file", path, error));
    }
    path.parent().map_or(Ok(()), sync_dir)
}

/// An error of the file system as one of ours: full disks and quotas are named as such.
pub(crate) fn io_error(what: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind as K;
    let (kind, help) = match error.kind() {
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => (ErrorKind::Exhausted, Some("free some disk space")),
        K::PermissionDenied | K::ReadOnlyFilesystem => {
            (ErrorKind::InvalidConfig, Some("let this user read and write there, or choose another folder"))
        }
        K::NotFound => (ErrorKind::NotFound, None),
        K::NotADirectory | K::IsADirectory => (ErrorKind::InvalidConfig, None),
        _ => (ErrorKind::Unavailable, None),
    };
    let error = Error::new(kind, what).with("path", path.display()).source(error);
    match help {
        Some(help) => error.help(help),
        None => error,
    }
}

/// Awaits a closure that blocks on the disk, on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => {
            Err(Error::new(ErrorKind::Cancelled, "disk work was cancelled by the end of the runtime"))
        }
        Err(error) => Err(Error::new(ErrorKind::Internal, "disk work panicked").source(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_leaves_the_new_content_and_nothing_else() {
        let dir = crate::testing::dir();
        let path = dir.path().join("position");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_exhausted_and_a_forbidden_folder_is_the_users() {
        let full = io_error("x", Path::new("/x"), io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!((full.kind(), full.retryable()), (ErrorKind::Exhausted, true));
        let denied = io_error("x", Path::new("/x"), io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!((denied.kind(), denied.retryable()), (ErrorKind::InvalidConfig, false));
    }
}
