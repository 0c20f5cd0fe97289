//! Ctrl-C and SIGTERM: the first asks for a drain, the second ends the process at once. SIGHUP loads the model folder
//! again, and looks at the certificates.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_gateway::{Live, Tls};
use undertone_inference::Engine;

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

/// What SIGHUP loads again.
pub(super) struct Reload {
    /// The model's folder.
    pub(super) dir: PathBuf,
    /// Certificates, for a process that serves.
    pub(super) tls: Option<Tls>,
}

/// Replaces the model by what its folder holds then, whenever SIGHUP comes, until `drain`. No request is refused or lost for
/// it; a folder that cannot be loaded leaves the model that runs. Certificates are not waited for: they have a task of their own.
///
/// # Errors
/// [`ErrorKind::Exhausted`] if the process cannot listen for signals.
pub(super) fn reload_on_hangup(engine: Engine, live: Live, reload: Reload, drain: CancellationToken) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context(ErrorKind::Exhausted, "cannot listen for SIGHUP")?;
    let Reload { dir, tls } = reload;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                received = hangup.recv() => if received.is_none() { return },
            }
            if let Some(tls) = &tls {
                tls.look_again();
            }
            tracing::info!(path = %dir.display(), "loading the model again");
            let before = engine.model();
            let (loading, path) = (engine.clone(), dir.clone());
            let replaced = tokio::task::spawn_blocking(move || loading.replace(&path)).await;
            let replaced = replaced.unwrap_or_else(|panic| {
                Err(Error::new(ErrorKind::Internal, "loading the model panicked").source(panic))
            });
            match replaced {
                Ok(model) if model.revision == before.revision => {
                    tracing::info!(revision = model.short_revision(), "model folder holds what is served already");
                }
                Ok(model) => {
                    live.set_model(&model);
                    let (from, to) = (before.short_revision(), model.short_revision());
                    tracing::info!(model = model.name, from, to, precision = model.precision, "model replaced");
                }
                Err(error) => {
                    tracing::error!(%error, revision = before.short_revision(), "model not replaced, the old one serves on");
                }
            }
        }
    });
    Ok(())
}
