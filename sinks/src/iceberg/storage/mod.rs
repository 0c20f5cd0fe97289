//! Where the files of tables lie: on the local disk, or in an object store that speaks S3.
//!
//! Each storage guarantees the same: a file that was closed is durable, before anything can refer to it. One process has
//! one storage; a table that lies elsewhere is refused before anything is written.

mod local;
mod refusal;
mod s3;
mod upload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use iceberg::io::StorageFactory;
use undertone_error::{Error, ErrorKind, Result};

use self::local::DurableFsStorage;
pub(in crate::iceberg) use self::local::{create_dir_durably, is_within, local};
pub use self::s3::S3Config;
use self::s3::S3Storage;

/// Which storage, and what it must be told.
#[derive(Clone, Debug, PartialEq)]
pub enum StorageConfig {
    /// Files below this folder.
    Local {
        /// An absolute path. It is made if it is not there.
        root: PathBuf,
    },
    /// Objects.
    S3(S3Config),
}

/// A file of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::iceberg) struct Listed {
    /// Where it is.
    pub(in crate::iceberg) location: String,
    /// As [`TableStorage::key`] says.
    pub(in crate::iceberg) key: String,
    /// Bytes.
    pub(in crate::iceberg) size: u64,
    /// When it was last written.
    pub(in crate::iceberg) modified: SystemTime,
}

/// An open storage.
#[derive(Clone, Debug)]
pub(in crate::iceberg) enum TableStorage {
    Local(DurableFsStorage, PathBuf),
    S3(S3Storage),
}

impl TableStorage {
    /// Opens the storage. Objects are not looked at yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if TLS cannot be set up; [`ErrorKind::Unavailable`] if the folder cannot be made.
    pub(super) fn open(config: &StorageConfig) -> Result<Self> {
        match config {
            StorageConfig::Local { root } => {
                let unusable = |e| Error::new(ErrorKind::Unavailable, "cannot make the warehouse folder").source(e);
                create_dir_durably(root).map_err(|e| unusable(e).with("path", root.display()))?;
                let root = root.canonicalize().map_err(|e| unusable(e).with("path", root.display()))?;
                Ok(Self::local(&root))
            }
            StorageConfig::S3(config) => Ok(Self::S3(S3Storage::open(config)?)),
        }
    }

    /// Files below a folder that is durable itself, by its absolute path.
    pub(super) fn local(root: &Path) -> Self {
        Self::Local(DurableFsStorage::under(root), root.to_owned())
    }

    /// What a catalog makes the files of its tables with.
    pub(super) fn factory(&self) -> Arc<dyn StorageFactory> {
        match self {
            Self::Local(storage, _) => Arc::new(storage.clone()),
            Self::S3(storage) => Arc::new(storage.clone()),
        }
    }

    /// Fails if a table at this location cannot be written here.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] with the location and the mend.
    pub(super) fn admits(&self, location: &str) -> Result<()> {
        match self {
            Self::Local(_, root) => {
                if is_within(&local(location), root) {
                    return Ok(());
                }
                let error = Error::new(ErrorKind::InvalidConfig, "table lies where this configuration writes no file");
                let error = error.with("location", location).with("folder", root.display());
                Err(error.help(if location.starts_with("s3") {
                    "say how to reach the object store in [storage.s3]"
                } else {
                    "name the folder above it as catalog.warehouse, or move the table away"
                }))
            }
            Self::S3(storage) => storage.admits(location),
        }
    }

    /// Writes a small file below `location` and reads it back, so that wrong keys are found before any row is
    /// written. The local disk needs no such trial: what is wrong with it is told by the first file.
    ///
    /// # Errors
    /// Those of writing and reading.
    pub(super) async fn try_out(&self, location: &str) -> Result<()> {
        match self {
            Self::Local(..) => Ok(()),
            Self::S3(storage) => storage.try_out(location).await,
        }
    }

    /// Every file below `location`, as it is now or was in the course of this call.
    ///
    /// # Errors
    /// Those of the storage.
    pub(super) async fn list(&self, location: &str) -> iceberg::Result<Vec<Listed>> {
        match self {
            Self::Local(..) => local::list(location).await,
            Self::S3(storage) => storage.list(location).await,
        }
    }

    /// What two locations of one file have in common, however it is written: by Hadoop `s3://` is `s3a://`, and
    /// `file:///` may be `file:/`.
    pub(super) fn key(&self, location: &str) -> String {
        match self {
            Self::Local(..) => local(location).display().to_string(),
            Self::S3(_) => s3::without_scheme(location).to_owned(),
        }
    }

    /// What `undertone check` says about it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Local(_, root) => format!("files below {}", root.display()),
            Self::S3(storage) => storage.describe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_elsewhere_are_refused_with_the_mend() {
        let storage = TableStorage::local(Path::new("/srv/warehouse"));
        assert!(storage.admits("file:///srv/warehouse/bronze/posts").is_ok());
        for (location, mend) in [("s3://b/bronze/posts", "[storage.s3]"), ("file:///tmp/posts", "catalog.warehouse")] {
            let error = storage.admits(location).expect_err(location);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(location) && error.to_string().contains(mend), "{error}");
        }
    }
}
