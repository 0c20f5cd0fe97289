//! Dead letters that are sent again from here: what is answered, and to whom nothing is.

use std::sync::Arc;

use crate::support::{Answer, FakeReplay, builder, send};
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::json;
use undertone_gateway::Key;

async fn replay(router: &Router, body: &str) -> Answer {
    let request = Request::post("/v1/dead/replay").header("content-type", "application/json");
    send(router, request.body(Body::from(body.to_owned())).expect("a request")).await
}

#[tokio::test]
async fn what_was_sent_again_is_counted_and_what_failed_has_its_code() {
    let router = builder().replay(Arc::new(FakeReplay)).build().router();
    for (body, wanted) in [
        (r#"{"dry_run": true}"#, json!({"events": 7, "refused": 1, "dry_run": true})),
        (r#"{"sink": "opensearch", "limit": 3}"#, json!({"events": 3, "refused": 1, "dry_run": false})),
    ] {
        let answer = replay(&router, body).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, wanted), "{body}");
    }
    for (body, status, code) in [
        (r#"{"sink": "qdrant"}"#, 404, "store-not-configured"),
        (r#"{"stage": "score"}"#, 409, "conflict"),
        (r#"{"stage": 7}"#, 422, "invalid-input"),
        ("", 400, "invalid-json"),
    ] {
        let answer = replay(&router, body).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, code), "{body}");
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("secret"));
    }
    let without = replay(&builder().build().router(), "{}").await;
    assert_eq!((without.status.as_u16(), without.problem().as_str()), (404, "store-not-configured"));
    // A page of another origin can send a form unasked, and no JSON.
    let form = Request::post("/v1/dead/replay").header("content-type", "text/plain").body(Body::from("{}"));
    assert_eq!(send(&router, form.expect("a request")).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn it_wants_a_key_where_there_are_keys() {
    let key = Key::new("reports", [0; 32], None);
    let router = builder().replay(Arc::new(FakeReplay)).keys([key].into_iter().collect()).build().router();
    assert_eq!(replay(&router, "{}").await.problem(), "unauthenticated");
}
