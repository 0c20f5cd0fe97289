//! The Iceberg store: Bronze, Silver and Gold as tables that any engine can read.
//!
//! It guarantees that a table's rows and its positions never part: both move in one commit, a commit is fenced per
//! partition, and what became of it is read back from the table itself. [`IcebergStore`] makes the tables and hands out
//! their sinks; [`Reader`] answers the page. Which catalog lists the tables and which storage holds their files is the
//! [`StoreConfig`]'s to say; everything between is the same for all of them.
//!
//! ```text
//! epoch ─▶ columns (rows as Arrow) ─▶ writer (Parquet files) ─▶ commit ─▶ fence ─▶ catalog (SQLite, REST)
//!                                            │                     ▲                  │
//!                                            ▼                     └──── read back ◀──┘
//!                                  storage (local files, S3)
//! ```

mod catalog;
mod chart;
mod columns;
mod commit;
mod failure;
mod fence;
mod history;
mod http;
mod intercept;
mod maintain;
mod newest;
mod parquet_file;
mod position;
mod read;
mod rollback;
mod schema;
mod secret;
mod sink;
mod storage;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

pub use crate::chart::Grain;
pub use catalog::{CATALOG_NAME, CatalogConfig, Login, OAuth2, RestConfig, SqliteConfig};
pub use history::{BronzeHistory, SilverHistory};
pub(crate) use http::causes;
pub use maintain::{MIN_ORPHAN_AGE, Maintained, Tally, Upkeep};
pub use position::{
    COMMIT_ID, POSITION_PREFIX, RunName, StoredPosition, StoredPositions, Track, property, stored_positions,
};
pub use read::{PostEvent, Reader, TagMood};
pub use rollback::SetBack;
pub use secret::Secret;
pub use sink::IcebergSink;
pub use storage::{S3Config, StorageConfig};
pub use store::{IcebergStore, StoreConfig, TableState};
