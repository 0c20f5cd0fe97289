//! Two gateways of each thread, one open and one with keys and a secret, and what every answer of theirs must be.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{runtime::Runtime, time::timeout};
use tower::ServiceExt;
use undertone_gateway::{Cors, Gateway, GatewayBuilder, Key, Limits, SigningSecret};
use undertone_proto::PostReader;

use crate::{
    fake,
    stores::{Letters, Log, Model, Store},
};

/// The key that the guarded gateway takes.
pub(crate) const KEY: &str = "ut_1";

/// An answer that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a thread asks.
pub(crate) struct Server {
    runtime: Runtime,
    pub(crate) open: Router,
    pub(crate) guarded: Router,
    pub(crate) grpc: Router,
    pub(crate) guarded_grpc: Router,
}

thread_local! {
    static SERVER: Server = Server::new();
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Server {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let builder = || -> GatewayBuilder {
            let limits = Limits { texts: 40, text_bytes: 2000, post_bytes: 20_000, ..Limits::default() };
            Gateway::builder(Model(Arc::new(fake::model())))
                .limits(limits)
                .queries(Store::queries())
                .replay(Arc::new(Letters))
        };
        let open = builder().intake(Arc::new(Log), PostReader::default(), None).build();
        let key = Key::new("fuzz", Sha256::digest(KEY).into(), None);
        let mut cors = Cors::default();
        assert!(cors.add("https://page.example"));
        let secret = SigningSecret::new("a secret of many characters");
        let guarded = builder()
            .intake(Arc::new(Log), PostReader::default(), Some(secret))
            .keys([key].into_iter().collect())
            .cors(cors)
            .build();
        Self {
            runtime,
            open: open.router(),
            guarded: guarded.router(),
            grpc: open.grpc_router().expect("reflection"),
            guarded_grpc: guarded.grpc_router().expect("reflection"),
        }
    }
}

/// Asks one of the thread's routers, and reads the answer to its end.
pub(crate) fn ask(router: impl FnOnce(&Server) -> &Router, request: Request<Body>) -> Answer {
    SERVER.with(|server| {
        let router = router(server).clone();
        let answer = async {
            let (head, body) = router.oneshot(request).await.expect("infallible").into_parts();
            let body = body.collect().await.expect("an answer that is whole");
            let trailers = body.trailers().cloned().unwrap_or_default();
            Answer { status: head.status, headers: head.headers, trailers, bytes: body.to_bytes() }
        };
        server.runtime.block_on(async { timeout(PATIENCE, answer).await.expect("an answer in time") })
    })
}

/// Whether REST understood the request as a whole; what is wrong with it must be told as the caller's fault.
pub(crate) fn rest(router: impl FnOnce(&Server) -> &Router, request: Request<Body>) -> bool {
    let hurried = request.headers().contains_key("x-timeout-ms");
    let head = request.method() == "HEAD";
    let answer = ask(router, request);
    let of = |status: u16| status >= 500 && !(hurried && status == 504);
    let kind = answer.headers.get(header::CONTENT_TYPE).map_or(b"".as_slice(), |value| value.as_bytes());
    let text = String::from_utf8_lossy(&answer.bytes);
    assert!(!of(answer.status.as_u16()), "{}: {text}", answer.status);
    if answer.status.is_client_error() && !head {
        let problem: Value = serde_json::from_slice(&answer.bytes).expect("a problem");
        let is_problem = problem["type"].as_str().is_some_and(|kind| kind.starts_with("/problems/"));
        assert!(is_problem && problem["status"] == answer.status.as_u16(), "{text}");
    }
    let mut statuses = Vec::new();
    match kind {
        b"application/json" => problems(&serde_json::from_slice(&answer.bytes).expect("JSON"), &mut statuses),
        b"application/x-ndjson" => {
            for line in text.lines() {
                problems(&serde_json::from_str(line).expect("JSON"), &mut statuses);
            }
        }
        _ => {}
    }
    assert!(!statuses.iter().any(|status| of(*status)), "{text}");
    answer.status.is_success() && statuses.is_empty()
}

/// The statuses of the problems that are parts of an answer.
fn problems(said: &Value, found: &mut Vec<u16>) {
    match said {
        Value::Array(items) => items.iter().for_each(|item| problems(item, found)),
        Value::Object(members) => {
            let kind = members.get("type").and_then(Value::as_str);
            if kind.is_some_and(|kind| kind.starts_with("/problems/")) {
                let status = members.get("status").and_then(Value::as_u64).expect("a status");
                found.push(u16::try_from(status).expect("a status"));
            }
            members.values().for_each(|member| problems(member, found));
        }
        _ => {}
    }
}
