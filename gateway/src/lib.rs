//! Scoring on demand: REST, gRPC, metrics and the live page, over one inference core.
//!
//! What callers can rely on: a text scores the same through every door; an error has one code and one meaning
//! ([`errors`]); every call is answered by its deadline; a full server says so at once ([`Limits`]); health and metrics
//! never wait behind inference; no text is ever logged; and a shutdown lets running calls finish.
//!
//! ```no_run
//! # async fn example(engine: undertone_inference::Engine) -> undertone_error::Result<()> {
//! use tokio::net::TcpListener;
//! use tokio_util::sync::CancellationToken;
//! use undertone_gateway::Gateway;
//!
//! let shutdown = CancellationToken::new();
//! let gateway = Gateway::builder(engine).shutdown(shutdown.clone()).build();
//! let http = TcpListener::bind("127.0.0.1:8080").await.expect("a free port");
//! let grpc = TcpListener::bind("127.0.0.1:50051").await.expect("a free port");
//! tokio::try_join!(gateway.serve_http(http), gateway.serve_grpc(grpc))?;
//! # Ok(()) }
//! ```

mod access;
mod admission;
pub mod api;
mod door;
pub mod errors;
#[cfg(test)]
#[path = "../tests/it/support/fake.rs"]
mod fake;
mod gateway;
mod grpc;
mod intake;
mod limits;
pub mod live;
pub mod moderation;
mod problem;
pub mod queries;
mod readiness;
mod replay;
mod rest;
mod scorer;
mod scoring;
mod serve;
mod streaming;
pub mod telemetry;

pub use access::{Cors, Key, Keys, Rate, SigningSecret};
pub use door::tls::{Tls, TlsFiles};
pub use gateway::{Gateway, GatewayBuilder};
pub use intake::{Intake, NewPost, Place};
pub use limits::Limits;
pub use live::Live;
pub use problem::{CONTENT_TYPE as PROBLEM_CONTENT_TYPE, FieldError, Problem};
pub use readiness::{Part, PartState, Readiness};
pub use replay::{Replay, ReplayOf, Replayed};
pub use rest::openapi::document as openapi;
pub use scorer::Scorer;
