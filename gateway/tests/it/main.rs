//! The gateway as its callers see it: through the router, and over real sockets on ports of their own.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed expectation of a helper fails its test")]

mod access;
mod admission;
mod dead;
mod grpc;
mod grpc_queries;
mod grpc_stream;
mod openapi;
mod page;
mod posts;
mod queries;
mod rest;
mod sockets;
mod stream;
mod support;
