//! Serving and draining.
//!
//! When the gateway's token is cancelled, no connection is accepted any more, new calls on open connections are refused
//! with `shutting-down`, streams end, and running calls finish, for at most [`Limits::drain`](crate::Limits::drain).

use std::{
    future::{Future, pending},
    io,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{Router, http::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tower::util::MapRequest;
use undertone_error::{Context, ErrorKind, Result};

use crate::{
    Gateway, Limits,
    door::{Conn, Door, tls::Tls},
    grpc, rest,
};

/// A client that does not answer a ping for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);

impl Gateway {
    /// Serves REST and the page until the shutdown, and then drains.
    ///
    /// # Errors
    /// None today: what ails one connection ends that one.
    pub async fn serve_http(&self, listener: TcpListener) -> Result<()> {
        let tls = self.tls.as_ref().map(Tls::http);
        let door = Door { name: "http", listener, tls, limits: self.limits.clone() };
        self.serve_routes(door, self.router()).await
    }

    /// Serves health and metrics alone until the shutdown, without keys and TLS: for processes that serve nothing else,
    /// and for probes inside a network.
    ///
    /// # Errors
    /// As [`Gateway::serve_http`].
    pub async fn serve_operations(&self, listener: TcpListener) -> Result<()> {
        let door = Door { name: "operations", listener, tls: None, limits: self.limits.clone() };
        self.serve_routes(door, rest::operations(self.clone())).await
    }

    async fn serve_routes(&self, door: Door, routes: Router) -> Result<()> {
        let (name, shutdown, limits) = (door.name, self.shutdown.clone(), self.limits.clone());
        let server =
            door.open(shutdown.clone(), move |conn| speak_http(conn, routes.clone(), limits.clone(), shutdown.clone()));
        let server = async {
            server.await;
            Ok(())
        };
        bounded(name, server, &self.shutdown, self.limits.drain).await
    }

    /// Serves gRPC until the shutdown, and then drains.
    ///
    /// # Errors
    /// `Unavailable` if the transport fails.
    pub async fn serve_grpc(&self, listener: TcpListener) -> Result<()> {
        let health = HealthReporter::new();
        // The reporter starts as serving; nobody may see that before readiness was asked.
        grpc::set_status(&health, tonic_health::ServingStatus::NotServing).await;
        let (conns, incoming) = mpsc::channel(1);
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .http2_max_header_list_size(u32::try_from(self.limits.head_bytes).ok())
            .max_concurrent_streams(u32::try_from(self.limits.calls_in_flight).ok())
            .serve_with_incoming_shutdown(
                grpc::router(self, &health)?,
                ReceiverStream::new(incoming),
                self.shutdown.clone().cancelled_owned(),
            );
        let tls = self.tls.as_ref().map(Tls::grpc);
        let door = Door { name: "grpc", listener, tls, limits: self.limits.clone() };
        let within = self.limits.head_timeout;
        let door = door.open(self.shutdown.clone(), move |conn| {
            let conns = conns.clone();
            async move {
                // It fails only once the server has ended.
                let _ = conns.send(Ok::<_, io::Error>(conn.opens_within(within))).await;
            }
        });
        let server = async {
            let (server, ()) = tokio::join!(server, door);
            server.context(ErrorKind::Unavailable, "cannot serve grpc")
        };
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

/// Speaks HTTP with one peer until it leaves, or until its running call has ended after the shutdown.
async fn speak_http(conn: Conn, routes: Router, limits: Arc<Limits>, shutdown: CancellationToken) {
    let patience = conn.patience();
    let routes = MapRequest::new(routes, move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(patience.clone());
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.head_bytes)
        .serve_connection(TokioIo::new(conn), TowerToHyperService::new(routes));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
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
