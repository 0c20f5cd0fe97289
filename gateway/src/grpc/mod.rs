//! gRPC: `undertone.v1.Scoring` and `undertone.v1.Queries` with the same meaning, limits and codes as REST, plus health and reflection.
//!
//! A call's status is that of the table in [`crate::errors`], with all that REST's problem document has ([`details`]), also
//! where the transport refuses what never becomes a call. `grpc-timeout` is the call's deadline. Health follows readiness.

mod call;
mod details;
mod guard;
mod messages;
mod queries;
mod service;
mod stream;

use std::{convert::Infallible, time::Duration};

use axum::{Router, body::Body, http, middleware::from_fn_with_state, response::IntoResponse};
use tokio::time::interval;
use tonic::{Status, server::NamedService};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower::Service;
use undertone_error::{Context, ErrorKind, Result};
use undertone_proto::v1::{self, queries_server::QueriesServer, scoring_server::ScoringServer};

use crate::Gateway;

/// Whose health is reported: the server's as a whole, and that of each service, as its `.proto` names it.
const SERVICES: [&str; 3] = ["", "undertone.v1.Scoring", "undertone.v1.Queries"];

/// Every gRPC service of the gateway.
pub(crate) fn router(gateway: &Gateway, health: &HealthReporter) -> Result<Router> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that clients which know nothing but reflection can read the details of a status.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = "cannot serve reflection: the descriptor is damaged";
    let health = HealthService::from_health_reporter(health.clone());
    let scoring = ScoringServer::new(gateway.clone()).max_decoding_message_size(gateway.limits.body_bytes);
    let router =
        Router::new().fallback(|| async { Status::unimplemented("there is no such service").into_http::<Body>() });
    let queries = QueriesServer::new(gateway.clone()).max_decoding_message_size(gateway.limits.body_bytes);
    let router = add(router, scoring);
    let router = add(router, queries);
    let router = add(router, HealthServer::new(health));
    let router = add(router, reflection().build_v1().context(ErrorKind::Internal, broken)?);
    let router = add(router, reflection().build_v1alpha().context(ErrorKind::Internal, broken)?);
    Ok(router.layer(from_fn_with_state(gateway.clone(), guard::guard)))
}

/// Routes a service's calls to it, by its name.
fn add<S>(router: Router, service: S) -> Router
where
    S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

/// Keeps the health service's status, which starts as not serving, at what readiness says, until the shutdown; then it
/// ends every watch.
pub(crate) async fn follow_readiness(gateway: Gateway, mut health: HealthReporter) {
    let mut ticks = interval(Duration::from_secs(1));
    let mut known = false;
    loop {
        tokio::select! {
            () = gateway.shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let ready = gateway.report().ready;
        // Only changes are sent: each one reaches every watcher.
        if known != ready {
            set_status(&health, if ready { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
            known = ready;
        }
    }
    set_status(&health, ServingStatus::NotServing).await;
    for service in SERVICES {
        health.clear_service_status(service).await;
    }
}

/// Sets the status of everything whose health is reported.
pub(crate) async fn set_status(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}
