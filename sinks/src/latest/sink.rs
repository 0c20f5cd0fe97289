//! A latest-wins store as a sink: epochs in, posts to the store, dead letters and positions to the ledger.

use std::sync::Arc;

use async_trait::async_trait;
use undertone_error::{Error, ErrorKind, Result, failpoint};
use undertone_proto::v1::ScoredPost;

use super::deliver::{count, prepare};
use super::descend::write_latest;
use super::judge::{Suspicion, letter};
use super::{LatestStore, Ledger, State};
use crate::{Epoch, Positions, Sink, Written};

/// Feeds a store and keeps its positions in a ledger.
pub struct LatestSink<L> {
    store: Arc<dyn LatestStore>,
    ledger: L,
    suspicion: Suspicion,
    max_letter_bytes: usize,
    /// Whether the store has been seen to have what it must have.
    prepared: bool,
    /// Where this writer last read or wrote the positions of its partitions.
    stands: Positions,
}

impl<L> std::fmt::Debug for LatestSink<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatestSink").field("store", &self.store.name()).finish_non_exhaustive()
    }
}

impl<L: Ledger> LatestSink<L> {
    /// A sink that has not begun. While more than the share `max_rejected` (0 to 1) of posts is rejected, none is
    /// dead-lettered. The dead letter of a post of more than `max_letter_bytes` is without it.
    pub fn new(store: Arc<dyn LatestStore>, ledger: L, max_rejected: f64, max_letter_bytes: usize) -> Self {
        let suspicion = Suspicion::new(max_rejected);
        Self { store, ledger, suspicion, max_letter_bytes, prepared: false, stands: Positions::new() }
    }

    /// Makes what the store lacks if nothing was ever written to it. Of a store that was, what is missing is not made
    /// anew in silence: the posts that it held would be missing for ever.
    async fn prepare(&mut self, make: bool) -> Result<()> {
        let found = prepare(&*self.store, make).await?;
        let mut missing = Vec::new();
        for each in found {
            match each.state {
                State::Unfit(how) => {
                    let error = Error::new(ErrorKind::Unavailable, "store cannot keep the latest of every post");
                    let error = error.with("in", each.what).with("differs", how);
                    return Err(error.help("it is never altered: make it as it should be, or name another"));
                }
                State::There => {}
                State::Made => tracing::info!(sink = self.store.name(), what = each.what, "made"),
                State::Missing => missing.push(each.what),
                State::Differs(how) => {
                    tracing::warn!(sink = self.store.name(), what = each.what, how, "differs from what it should be");
                }
            }
        }
        if !missing.is_empty() {
            let error = Error::new(ErrorKind::Unavailable, "store lacks what posts are written to");
            let error = error.with("missing", missing.join(", "));
            return Err(error.help("`undertone init` makes it; what it held before is gone"));
        }
        self.prepared = true;
        Ok(())
    }
}

#[async_trait]
impl<L: Ledger> Sink for LatestSink<L> {
    type Record = ScoredPost;

    fn name(&self) -> &str {
        self.store.name()
    }

    async fn positions(&mut self) -> Result<Positions> {
        let standing = self.ledger.standing().await?;
        if !self.prepared && standing.partitions > 0 {
            self.prepare(standing.positions.is_empty()).await?;
        }
        self.stands.clone_from(&standing.positions);
        Ok(standing.positions)
    }

    async fn others(&mut self, partitions: &Positions) -> Result<Positions> {
        self.ledger.others(partitions).await
    }

    async fn write(&mut self, epoch: &Epoch<ScoredPost>) -> Result<Written> {
        for (partition, range) in &epoch.ranges {
            if self.stands.get(partition).is_some_and(|stands| *stands != range.start) {
                let error = Error::new(ErrorKind::Conflict, "epoch does not begin where the sink stands");
                return Err(error
                    .with("partition", partition.partition)
                    .with("epoch", format!("{}..{}", range.start, range.end)));
            }
        }
        if failpoint::sabotaged("settle-before-store") {
            self.ledger.settle(&epoch.ranges, Vec::new()).await?;
            failpoint::hit("latest.settled-first");
        }
        let (posts, rejected) = write_latest(&*self.store, &epoch.records).await?;
        let example = rejected.first().map_or("", |(_, reason)| reason);
        self.suspicion.judge(posts as u64, rejected.len() as u64, example)?;
        failpoint::hit("latest.stored");

        let name = self.store.name();
        let now = now_us();
        let letters: Vec<_> =
            rejected.iter().map(|(post, reason)| letter(name, post, reason, self.max_letter_bytes, now)).collect();
        for letter in &letters {
            let offset = letter.origin.as_ref().map(|origin| origin.offset);
            tracing::warn!(sink = name, offset, reason = letter.reason, "post is dead-lettered");
        }
        self.ledger.settle(&epoch.ranges, letters).await?;
        failpoint::hit("latest.settled");
        self.suspicion.settled(posts as u64, rejected.len() as u64);
        self.stands.extend(epoch.ends());
        let stored = posts - rejected.len();
        count(name, "stored", stored);
        count(name, "rejected", rejected.len());
        Ok(Written { rows: stored as u64, positions: epoch.ends() })
    }
}

fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
