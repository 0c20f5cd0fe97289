//! Replays that callers of the gateway ask for: what `undertone dead replay` does, one at a time.
//!
//! The guarantee: a replay that has begun goes to its end, or to the end of the process, whether its caller waits for it or not. Nothing
//! is sent twice where it ends in the middle, since the letters that were sent are known to the next one.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use undertone_error::{Error, ErrorKind, Result};
use undertone_gateway::{Replay, ReplayOf, Replayed};

use crate::commands::dead::{Filter, Sent, store, topic};
use crate::config::{KafkaSettings, Stores};

/// What a replay needs, and the turn that the one which runs has.
struct Replays {
    kafka: KafkaSettings,
    stores: Stores,
    turn: Arc<Mutex<()>>,
}

/// What replays the letters of a cluster, and those of the stores that this process writes to.
pub(super) fn replays(kafka: KafkaSettings, stores: Stores) -> Arc<dyn Replay> {
    Arc::new(Replays { kafka, stores, turn: Arc::default() })
}

#[async_trait]
impl Replay for Replays {
    fn sinks(&self) -> Vec<&'static str> {
        self.stores.names()
    }

    async fn replay(&self, of: ReplayOf) -> Result<Replayed> {
        let turn = Arc::clone(&self.turn).try_lock_owned();
        let turn =
            turn.map_err(|_| Error::new(ErrorKind::Busy, "another replay is running; try again when it has ended"))?;
        let kafka = self.kafka.clone();
        let store = of.sink.as_deref().map(|sink| self.stores.only_this(sink));
        let work = async move {
            let _turn = turn;
            let ReplayOf { stage, sink, limit, dry_run } = of;
            let filter = Filter::asked(sink.or(stage), limit);
            let Sent { events, refused } = match store {
                Some(store) => store::replay(&kafka, store, &filter, dry_run).await?,
                None => topic::replay(&kafka, &filter, dry_run).await?,
            };
            tracing::info!(events, refused, dry_run, "dead letters replayed");
            Ok(Replayed { events, refused })
        };
        let panicked = |e| Err(Error::new(ErrorKind::Internal, "replay panicked").source(e));
        tokio::spawn(work).await.unwrap_or_else(panicked)
    }
}
