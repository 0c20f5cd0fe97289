//! Ctrl-C and SIGTERM: the first asks for a drain, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use undertone_error::{Context, ErrorKind, Result};

/// The status of a process that was told twice, as shells give it to one that a signal ended.
const INTERRUPTED: u8 = 130;

/// A token that the first signal cancels.
///
/// # Errors
/// [`ErrorKind::Exhausted`] if the process cannot listen for signals.
pub(super) fn drain_on_signal() -> Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context(ErrorKind::Exhausted, "cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context(ErrorKind::Exhausted, "cannot listen for SIGTERM")?;
    let token = CancellationToken::new();
    let drain = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            }
        };
        let signal = next().await;
        tracing::info!(signal, "draining; a second signal ends at once");
        drain.cancel();
        next().await;
        crate::exit::now(INTERRUPTED);
    });
    Ok(token)
}
