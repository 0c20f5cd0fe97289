//! ClickHouse: one row per post, for charts that answer in milliseconds.
//!
//! The guarantee: `posts FINAL` has each post once, at its greatest version, and no deleted one, whatever was written
//! twice, late or out of order. It rests on `ReplacingMergeTree(version, is_deleted)` with partition and sort keys that are
//! functions of what the uid is made of (source, id, day of `created_at`), so that every version of a post meets the others
//! in one partition. Sums over `posts FINAL` are therefore right at any moment; tables filled by insert triggers would
//! not be, since they count a row that is written twice twice.

mod chart;
mod failure;
mod posts;
mod row;
mod schema;
mod store;

use crate::iceberg::Secret;

pub use self::store::ClickHouse;

/// Where the table is, and who writes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickHouseConfig {
    /// `http://host:8123` or `https://…`, which trusts what the system trusts.
    pub url: String,
    /// The database, which must be there.
    pub database: String,
    /// The table.
    pub table: String,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// Posts are forgotten this many days after `created_at`; `None`: never.
    pub retention_days: Option<u32>,
}
