//! Keys, rates and origins, as callers see them through the router.

use crate::support::{Answer, builder, get, score_request, send};
use axum::{
    Router,
    body::Body,
    http::{Method, Request},
};
use undertone_gateway::{Cors, Key, Keys, Part, PartState, Rate};

/// SHA-256 of "ut_good".
const HASH: [u8; 32] = [
    0xc0, 0xf9, 0x08, 0xd4, 0xdf, 0x24, 0x03, 0xfc, 0xa2, 0xee, 0xe8, 0xaa, 0x04, 0xda, 0x7f, 0xb6, 0x5f, 0x77, 0x76,
    0x33, 0xeb, 0xc7, 0x1a, 0x2e, 0xf0, 0xe1, 0x89, 0x35, 0x37, 0x2a, 0xb6, 0xe1,
];

fn keys(rate: Option<Rate>) -> Keys {
    [Key::new("reports", HASH, rate)].into_iter().collect()
}

fn router(rate: Option<Rate>) -> Router {
    let readiness = || vec![Part::not_ready("silver.posts", PartState::Degraded, "disk is full")];
    builder().keys(keys(rate)).readiness(readiness).build().router()
}

async fn score(router: &Router, key: Option<&str>, texts: usize) -> Answer {
    let body = serde_json::json!({"texts": vec!["good"; texts]}).to_string();
    let mut request = score_request(body);
    if let Some(key) = key {
        request.headers_mut().insert("x-api-key", key.parse().expect("a value"));
    }
    send(router, request).await
}

#[tokio::test]
async fn without_the_right_key_nothing_is_answered_but_probes() {
    let router = router(None);
    for key in [None, Some("ut_bad"), Some("")] {
        let answer = score(&router, key, 1).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "unauthenticated"));
        assert!(answer.header("www-authenticate").starts_with("Bearer "), "{answer:?}");
    }
    for path in ["/", "/docs", "/openapi.json", "/metrics", "/v1/overview", "/made/up"] {
        assert_eq!(get(&router, path).await.problem(), "unauthenticated", "{path}");
    }
    assert_eq!(score(&router, Some("ut_good"), 1).await.status.as_u16(), 200);
    let ready = get(&router, "/readyz").await.json();
    assert_eq!((&ready["ready"], &ready["parts"][1]["reason"]), (&true.into(), &serde_json::Value::Null));
    let with = Request::get("/readyz").header("authorization", "Bearer ut_good").body(Body::empty());
    let ready = send(&router, with.expect("a request")).await.json();
    assert_eq!(ready["parts"][1]["reason"], "disk is full");
}

#[tokio::test]
async fn a_rate_counts_texts_and_says_when_there_is_room_again() {
    let router = router(Some(Rate { per_second: 0.5, burst: 3.0 }));
    assert_eq!(score(&router, Some("ut_good"), 5).await.status.as_u16(), 200, "let in, and owed for");
    let answer = score(&router, Some("ut_good"), 1).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (429, "rate-limited"));
    assert_eq!(answer.header("retry-after"), "6", "three texts at one in two seconds");
}

#[tokio::test]
async fn only_named_origins_are_told_that_they_may_read() {
    let mut cors = Cors::default();
    assert!(cors.add("https://page.example"));
    let router = builder().cors(cors).keys(keys(None)).build().router();
    let ask = |origin: &str| {
        let request = Request::builder().method(Method::OPTIONS).uri("/v1/score").header("origin", origin);
        request.header("access-control-request-method", "POST").body(Body::empty()).expect("a request")
    };
    let answer = send(&router, ask("https://page.example")).await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (204, "https://page.example"));
    let answer = send(&router, ask("https://other.example")).await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (401, ""));
    assert_eq!(answer.header("vary"), "origin");
}
