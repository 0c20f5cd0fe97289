//! Trying again, ever more slowly. The guarantee: only errors that may pass by themselves are tried again, each is
//! logged, and a shutdown is not kept waiting.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use undertone_error::Result;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Waiting times: doubling from 0.1 s to 10 s.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        FIRST.saturating_mul(factor).min(LONGEST)
    }

    /// Waits; answers false if the shutdown came first.
    pub(crate) async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(self.next()) => true,
        }
    }
}

/// Repeats `attempt` while its error is retryable. `None` if the shutdown came first.
pub(crate) async fn persist<T, F: Future<Output = Result<T>>>(
    what: &str,
    shutdown: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Result<Option<T>> {
    let mut backoff = Backoff::default();
    loop {
        match attempt().await {
            Ok(done) => return Ok(Some(done)),
            Err(error) if error.retryable() => {
                tracing::warn!(%error, "{what} failed, trying again");
                if !backoff.wait(shutdown).await {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use undertone_error::{Error, ErrorKind};

    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!((0..99).map(|_| backoff.next()).max(), Some(LONGEST));
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_what_does_not_is_not() {
        let tries = Cell::new(0);
        let attempt = |kind, until| {
            tries.set(0);
            let tries = &tries;
            move || {
                tries.set(tries.get() + 1);
                let done = tries.get() > until;
                async move { if done { Ok(7) } else { Err(Error::new(kind, "x")) } }
            }
        };
        let running = CancellationToken::new();
        assert_eq!(persist("x", &running, attempt(ErrorKind::Exhausted, 1)).await.unwrap(), Some(7));
        assert_eq!(tries.get(), 2);
        assert!(persist("x", &running, attempt(ErrorKind::Corrupt, 1)).await.is_err());
        assert_eq!(tries.get(), 1);
        running.cancel();
        assert_eq!(persist("x", &running, attempt(ErrorKind::Busy, 9)).await.unwrap(), None);
    }
}
