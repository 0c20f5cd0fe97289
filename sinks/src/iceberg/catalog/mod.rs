//! Where the tables are listed: in a SQLite file of our own, or behind Iceberg's REST protocol.
//!
//! Both keep the same small contract. A catalog is [`Catalog`], made with the storage of its tables; what it reports is not
//! believed (the [commit](super::commit) reads back), what it refuses says why and what mends it; and it says who removes
//! the metadata files that a commit made superfluous.

mod answer;
mod rest;
mod sqlite;

use std::sync::Arc;

use iceberg::Catalog;
use undertone_error::Result;

pub use self::rest::{Login, OAuth2, RestConfig};
#[cfg(test)]
pub(super) use self::sqlite::open_embedded;
pub use self::sqlite::{CATALOG_NAME, SqliteConfig};
use super::storage::TableStorage;

/// Which catalog, and what it must be told.
#[derive(Clone, Debug, PartialEq)]
pub enum CatalogConfig {
    /// A SQLite file in the data folder.
    Sqlite(SqliteConfig),
    /// A server.
    Rest(RestConfig),
}

impl CatalogConfig {
    /// Opens the catalog, making what is ours to make.
    ///
    /// # Errors
    /// [`undertone_error::ErrorKind::InvalidConfig`] if it is refused or named wrongly;
    /// [`undertone_error::ErrorKind::Unavailable`] if it does not answer.
    pub(super) async fn open(&self, storage: &TableStorage) -> Result<Arc<dyn Catalog>> {
        match self {
            Self::Sqlite(config) => sqlite::open(config, storage).await,
            Self::Rest(config) => rest::open(config, storage).await,
        }
    }

    /// Whether its writers remove old metadata files. A server does that itself, and may not let anybody else.
    pub(super) fn leaves_old_metadata(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// What people call it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Sqlite(config) => format!("SQLite in {}", config.data.display()),
            Self::Rest(config) => format!("REST at {}", config.uri),
        }
    }
}
