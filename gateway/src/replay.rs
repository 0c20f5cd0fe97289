//! The one thing that the gateway needs of the stream to send dead letters again, so that it can be tested without one.

use async_trait::async_trait;
use undertone_error::Result;

/// Which dead letters are meant, and what is to become of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayOf {
    /// Those of this stage alone; left out, those of `parse` and `score`.
    pub stage: Option<String>,
    /// Those of this store, to which their posts are written again; left out, events are scored again.
    pub sink: Option<String>,
    /// At most so many, the oldest first.
    pub limit: Option<usize>,
    /// Whether they are only counted.
    pub dry_run: bool,
}

/// What became of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Letters whose events or posts were sent again, or would be.
    pub events: usize,
    /// Letters with which nothing can be done.
    pub refused: usize,
}

/// Sends dead letters again.
#[async_trait]
pub trait Replay: Send + Sync + 'static {
    /// The stores to which this process can write posts again.
    fn sinks(&self) -> Vec<&'static str>;

    /// Sends what was not sent again before. What has begun goes on when nobody waits for it any more.
    ///
    /// # Errors
    /// `Busy` while another replay of this process runs; `Conflict` where one of another process was faster; those of the
    /// cluster and the store. What was sent by then is sent, and not sent again by the next replay.
    async fn replay(&self, of: ReplayOf) -> Result<Replayed>;
}
