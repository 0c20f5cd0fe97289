//! Serving and draining.
//!
//! When the gateway's token is cancelled, no connection is accepted any more, new calls on open connections are refused
//! with `shutting-down`, streams end, and running calls finish, for at most [`Limits::drain`](crate::Limits::drain).

use std::{
    future::{Future, pending},
    pin::pin,
    time::Duration,
};

use axum::{Router, serve::ListenerExt};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::server::HealthReporter;
use undertone_error::{Context, ErrorKind, Result};

use crate::{Gateway, grpc, rest};

/// A client that does not answer a ping for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);

impl Gateway {
    /// Serves REST and the page until the shutdown, and then drains.
    ///
    /// # Errors
    /// `Unavailable` if the listener fails.
    pub async fn serve_http(&self, listener: TcpListener) -> Result<()> {
        self.serve_routes(listener, self.router()).await
    }

    /// Serves health and metrics alone until the shutdown, for processes that serve nothing else.
    ///
    /// # Errors
    /// `Unavailable` if the listener fails.
    pub async fn serve_operations(&self, listener: TcpListener) -> Result<()> {
        self.serve_routes(listener, rest::operations(self.clone())).await
    }

    async fn serve_routes(&self, listener: TcpListener, routes: Router) -> Result<()> {
        let listener = listener.tap_io(|connection| {
            // Answers are small and whole: waiting for more to send would only delay them.
            let _ = connection.set_nodelay(true);
        });
        let server = axum::serve(listener, routes).with_graceful_shutdown(self.shutdown.clone().cancelled_owned());
        let server = async { server.await.context(ErrorKind::Unavailable, "cannot serve http") };
        bounded("http", server, &self.shutdown, self.limits.drain).await
    }

    /// Serves gRPC until the shutdown, and then drains.
    ///
    /// # Errors
    /// `Unavailable` if the listener fails.
    pub async fn serve_grpc(&self, listener: TcpListener) -> Result<()> {
        let health = HealthReporter::new();
        // The reporter starts as serving; nobody may see that before readiness was asked.
        grpc::set_status(&health, tonic_health::ServingStatus::NotServing).await;
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(u32::try_from(self.limits.calls_in_flight).ok())
            .serve_with_incoming_shutdown(
                grpc::router(self, &health)?,
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                self.shutdown.clone().cancelled_owned(),
            );
        let server = async { server.await.context(ErrorKind::Unavailable, "cannot serve grpc") };
        let health = async {
            grpc::follow_readiness(self.clone(), health).await;
            pending().await
        };
        tokio::select! {
            result = bounded("grpc", server, &self.shutdown, self.limits.drain) => result,
            () = health => Ok(()),
        }
    }
}

/// Runs a server, and after the shutdown only for as long as a drain may take.
async fn bounded(
    door: &'static str,
    server: impl Future<Output = Result<()>>,
    shutdown: &CancellationToken,
    drain: Duration,
) -> Result<()> {
    let mut server = pin!(server);
    tokio::select! {
        result = &mut server => return result,
        () = shutdown.cancelled() => {}
    }
    timeout(drain, server).await.unwrap_or_else(|_| {
        tracing::warn!(door, seconds = drain.as_secs_f64(), "drain took too long, open connections are left");
        Ok(())
    })
}
