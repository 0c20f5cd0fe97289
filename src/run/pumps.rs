//! The running pumps of a process, and how they end together.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use undertone_error::{Error, ErrorKind, Result};
use undertone_sinks::Sink;
use undertone_sinks::pump::{EpochSource, Policy, Pump, Shutdown, SinkStatus};

/// How long sinks may take to store the rest when somebody wants the process to end.
const GRACE: Duration = Duration::from_secs(15);

/// Pumps that run beside one another; each stops alone.
#[derive(Default)]
pub(super) struct Pumps {
    pub(super) shutdown: Shutdown,
    running: JoinSet<Result<()>>,
}

impl Pumps {
    /// Starts to feed `sink` from `source`.
    pub(super) fn spawn<K, S>(&mut self, sink: K, source: S, policy: Policy) -> SinkStatus
    where
        K: Sink + 'static,
        S: EpochSource<Record = K::Record> + 'static,
    {
        let pump = Pump::new(sink, source, policy);
        let (status, reported, shutdown) = (pump.status(), pump.status(), self.shutdown.clone());
        let name = status.sink().to_owned();
        self.running.spawn(async move {
            let run = AbortOnDropHandle::new(tokio::spawn(pump.run(shutdown)));
            let outcome = tokio::select! {
                outcome = run => outcome.unwrap_or_else(|e| {
                    let error = Error::new(ErrorKind::Internal, "sink panicked").source(e);
                    reported.gave_up(&error);
                    Err(error)
                }),
                never = reported.report() => match never {},
            };
            if let Err(error) = &outcome {
                // The others go on; readiness and the page say that this one stands still.
                tracing::error!(sink = name, %error, "sink stopped");
            }
            outcome.map(|_| ())
        });
        status
    }

    /// Stores what the sources hold and ends every pump. Once `hurry` is cancelled they have [`GRACE`] left; what they
    /// then lack stays in the sources for the next start.
    ///
    /// # Errors
    /// The first failure of a pump; the others went on.
    pub(super) async fn finish(mut self, hurry: &CancellationToken) -> Result<()> {
        self.shutdown.finish.cancel();
        let Shutdown { stop, hurry: hurried, .. } = self.shutdown.clone();
        let patience = async {
            hurry.cancelled().await;
            hurried.cancel();
            tokio::time::sleep(GRACE).await;
            stop.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = self.ended() => outcome,
            () = patience => Ok(()),
        }
    }

    /// Waits until every pump has ended.
    ///
    /// # Errors
    /// The first failure of a pump.
    async fn ended(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(ended) = self.running.join_next().await {
            let ended = ended.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, "sink panicked").source(e)));
            outcome = outcome.and(ended);
        }
        outcome
    }
}
