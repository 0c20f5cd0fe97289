//! Where a latest-wins sink keeps its positions and its dead letters.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use undertone_error::Result;
use undertone_proto::Partition;
use undertone_proto::v1::DeadLetter;

use crate::Positions;

/// Durable positions and dead letters that move together.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Where the sink stands.
    ///
    /// # Errors
    /// [`undertone_error::Fault::Outside`] while it cannot be read.
    async fn standing(&mut self) -> Result<Standing>;

    /// Where `partitions` stand that other writers may have.
    ///
    /// # Errors
    /// As [`Ledger::standing`].
    async fn others(&mut self, partitions: &Positions) -> Result<Positions>;

    /// Makes the dead letters durable and moves the positions to the ends of `ranges`, both or neither, or at least the
    /// letters before the positions.
    ///
    /// # Errors
    /// [`undertone_error::ErrorKind::Conflict`] if the positions are not this writer's to move any more; otherwise as
    /// [`Ledger::standing`].
    async fn settle(&mut self, ranges: &BTreeMap<Partition, Range<i64>>, letters: Vec<DeadLetter>) -> Result<()>;
}

/// Where a sink stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many partitions are this writer's.
    pub partitions: usize,
    /// Their next offsets; a partition that never was written is absent.
    pub positions: Positions,
}
