//! What the pump reads from.

use std::time::Duration;

use async_trait::async_trait;
use undertone_error::Result;

use super::ingested::Ingested;
use crate::{Epoch, Positions};

/// A replayable, durable sequence of events per partition. What it has returned once it returns again, the same and in
/// the same order, until every sink has stored it.
#[async_trait]
pub trait EpochSource: Send {
    /// What it reads.
    type Record: Send + Sync + 'static;

    /// The first offset of every partition that this source serves: where a sink begins that was never written.
    ///
    /// # Errors
    /// [`undertone_error::Fault::Outside`] is tried again; any other fault ends the pump.
    async fn starts(&mut self) -> Result<Positions>;

    /// The durable end of every partition: the offset after the last that is safe from a crash.
    ///
    /// # Errors
    /// As [`EpochSource::starts`].
    async fn ends(&mut self) -> Result<Positions>;

    /// The durable ends of the partitions that other processes serve, of those that hold something. Nothing of the source is
    /// left only once those are stored too. A source that serves all of its partitions has none.
    ///
    /// # Errors
    /// As [`EpochSource::starts`].
    async fn others(&mut self) -> Result<Positions> {
        Ok(Positions::new())
    }

    /// Reads on from `from`, within `limit`. If nothing is there it waits, at most `limit.wait`, and then returns an
    /// empty batch. At least one event is returned if there is one, even if it alone is over the limit. Dropping the
    /// future loses nothing, since the position is the caller's.
    ///
    /// # Errors
    /// As [`EpochSource::starts`].
    async fn read(&mut self, from: &Positions, limit: ReadLimit) -> Result<Batch<Self::Record>>;
}

/// How much one read may bring, and how long it may wait for the first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Events, with or without a record.
    pub events: usize,
    /// Bytes, as the source counts them.
    pub bytes: usize,
    /// The longest wait.
    pub wait: Duration,
}

/// Some consecutive events.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<R> {
    /// Their records and offsets; each range begins where the read began.
    pub epoch: Epoch<R>,
    /// Their size.
    pub bytes: usize,
    /// When their records were ingested.
    pub ingested: Ingested,
}

impl<R> Default for Batch<R> {
    fn default() -> Self {
        Self { epoch: Epoch::default(), bytes: 0, ingested: Ingested::default() }
    }
}
