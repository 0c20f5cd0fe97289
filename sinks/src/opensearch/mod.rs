//! OpenSearch: one document per post, for full-text search.
//!
//! The guarantee: the alias shows each post once, at its greatest version, and no deleted one. Documents lie in an index
//! for each UTC day of `created_at`, which every version of a post has in common, with the uid as `_id` and external
//! versions, of which the index takes only greater or equal ones. A tombstone is a document too, since an index forgets the
//! version of a deleted one after a minute; the alias filters it out.

mod bulk;
mod document;
mod failure;
mod retention;
mod search;
mod store;
mod template;

use crate::iceberg::Secret;

pub use self::retention::Expired;
pub use self::search::{Hit, Hits, SearchQuery};
pub use self::store::OpenSearch;

/// Where the indices are, and who writes to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSearchConfig {
    /// `http://host:9200` or `https://…`, which trusts what the system trusts.
    pub url: String,
    /// The alias that readers use; indices are called after it and the day.
    pub index: String,
    /// Primary shards of each index.
    pub shards: u32,
    /// Copies of each shard.
    pub replicas: u32,
    /// Indices may be deleted this many days after their day; `None`: never.
    pub retention_days: Option<u32>,
    /// Who logs in, and with which password.
    pub login: Option<(String, Secret)>,
}
