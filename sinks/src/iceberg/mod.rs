//! The Iceberg store: Bronze, Silver and Gold as tables that any engine can read.
//!
//! It guarantees that a table's rows and its positions never part: both move in one commit, a commit is fenced per
//! partition, and what became of it is read back from the table itself. [`IcebergStore`] makes the tables and hands out
//! their sinks; [`Reader`] answers the page.
//!
//! ```text
//! epoch ─▶ columns (rows as Arrow) ─▶ writer (Parquet files) ─▶ commit ─▶ fence ─▶ catalog
//!                                                                  ▲                  │
//!                                                                  └──── read back ◀──┘
//! ```

mod catalog;
mod columns;
mod commit;
mod failure;
mod fence;
mod intercept;
mod position;
mod read;
mod schema;
mod sink;
mod storage;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

pub use catalog::{CATALOG_NAME, open_embedded};
pub use position::{COMMIT_ID, POSITION_PREFIX, StoredPosition, StoredPositions, property, stored_positions};
pub use read::{Reader, TagMood};
pub use sink::IcebergSink;
pub use store::IcebergStore;
pub use tables::aggregate::Grain;
