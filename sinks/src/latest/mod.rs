//! Sinks that hold the latest version of every post: what such a store must do, and everything around it, written once.
//!
//! The guarantee: every post that the source holds is in the store at its latest version, or a dead letter for this store
//! says why not, and the store holds the latest version that it takes; and nothing is dead-lettered because the store was ill, locked or set up wrongly. It rests on writes that
//! are by uid and version, so that repeating an epoch changes nothing, and on one step that makes dead letters and
//! positions durable together ([`Ledger::settle`]), which comes only after the store has answered for every post.
//!
//! ```text
//! epoch ─▶ latest version of each post ─▶ batches ─▶ LatestStore::write ─▶ answers ─▶ Ledger::settle
//!          (descend: the one before it,   (deliver: time-out, concurrency,  (judge)    (dead letters + positions)
//!           if that is rejected)           what is to be tried again)
//! ```

mod deliver;
mod descend;
mod isolate;
mod judge;
mod ledger;
mod sink;
mod time;

use std::time::Duration;

use async_trait::async_trait;
use undertone_error::Result;
use undertone_proto::v1::ScoredPost;

pub use self::deliver::prepare;
pub use self::descend::write_again;
pub(crate) use self::isolate::{Refusal, WholeRequest, isolate};
pub use self::ledger::{Ledger, Standing};
pub use self::sink::LatestSink;
pub(crate) use self::time::{DAY_US, held};

/// A store that holds posts by uid and keeps of each the greatest version, whatever the order in which they are written.
///
/// This is all that one must write for another store; `sinks/README.md` walks through it.
#[async_trait]
pub trait LatestStore: Send + Sync + 'static {
    /// The name in logs, metrics, dead letters and consumer groups: "clickhouse".
    fn name(&self) -> &str;

    /// How it likes to be written to.
    fn shape(&self) -> Shape;

    /// Looks at what the store must have (tables, indices, collections), and makes what is missing if `make` says so. What
    /// is there and differs is told and never altered.
    ///
    /// # Errors
    /// As [`LatestStore::write`].
    async fn prepare(&self, make: bool) -> Result<Vec<Found>>;

    /// Writes posts of different uids and answers for each, in their order, once what it answers is durable. A tombstone
    /// (`deleted`) is a version like any other, after which readers do not see the post.
    ///
    /// # Errors
    /// Everything that is not about a single post (down, forbidden, missing, full, read-only) is
    /// [`undertone_error::Fault::Outside`]: the sink waits, says why, and writes the same posts again.
    async fn write(&self, posts: &[&ScoredPost]) -> Result<Vec<Answer>>;
}

/// What became of one post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The store holds this version, or a later one.
    Stored,
    /// The store will never take this version as it is, because of what is in it. Why, for people.
    Rejected(String),
    /// Not taken, and perhaps at the next try.
    Again(String),
}

/// How a store likes to be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The most posts in one call.
    pub posts: usize,
    /// About the most bytes in one call.
    pub bytes: usize,
    /// Calls that may run at once.
    pub concurrency: usize,
    /// How long a call may take.
    pub timeout: Duration,
}

/// Something that a store must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// "table default.posts"
    pub what: String,
    /// How it was found.
    pub state: State,
}

/// How something was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was missing and has been made.
    Made,
    /// It is as it should be.
    There,
    /// It is not there.
    Missing,
    /// It is there and differs: in what.
    Differs(String),
    /// It differs in what the promise rests on, so that nothing may be written to it: in what.
    Unfit(String),
}
