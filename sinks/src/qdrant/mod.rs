//! Qdrant: one point per post, for "find posts like this".
//!
//! The guarantee: a collection has each post once, at its greatest version, and a deleted one without its vector, so that
//! no search for neighbours finds it. Embeddings of different models never mix: each model revision has a collection of its
//! own, and readers go through an alias. Versions are compared by the server, with an update filter on each point that is
//! there already, and what was written is read back before it counts (`converge`).

mod collection;
mod converge;
mod failure;
mod filter;
mod point;
mod similar;
mod store;

use crate::iceberg::Secret;

pub use self::similar::{Like, Neighbour, SimilarQuery};
pub use self::store::Qdrant;

/// The name of the vector. A point may lack a vector that has a name, as tombstones do.
const VECTOR: &str = "text";

/// Where the collections are, and who writes to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QdrantConfig {
    /// `http://host:6334` or `https://…`, which trusts what the system trusts.
    pub url: String,
    /// The alias that readers use; collections are called after it and the model's revision.
    pub collection: String,
    /// Whether vectors stay on disk instead of in memory.
    pub on_disk: bool,
    /// Whether a quarter of the memory is used for searching, with whole vectors for the last look.
    pub quantized: bool,
    /// Who we are.
    pub api_key: Option<Secret>,
}

/// The embeddings of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingSpace {
    /// The model's revision, as posts carry it.
    pub revision: String,
    /// Numbers in a vector.
    pub size: usize,
}
