//! Posts that are sent here: what is taken in, what is refused, and how each learns of it.

use std::sync::Arc;

use crate::support::{Answer, FakeIntake, builder, send};
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::json;
use undertone_gateway::SigningSecret;
use undertone_proto::PostReader;

fn router(secret: Option<SigningSecret>) -> Router {
    builder().intake(Arc::new(FakeIntake), PostReader::default(), secret).build().router()
}

async fn post(router: &Router, kind: &str, body: impl Into<Body>) -> Answer {
    send(router, Request::post("/v1/posts").header("content-type", kind).body(body.into()).expect("a request")).await
}

#[tokio::test]
async fn each_post_learns_its_place_or_what_is_wrong_with_it() {
    let router = router(None);
    let posts = json!([
        {"source": "forum", "id": "a", "text": "one"}, {"source": "forum"}, {"source": "forum", "text": "two"}, 7,
        {"source": "forum", "text": "full"},
    ]);
    let answer = post(&router, "application/json", posts.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let taken = answer.json();
    assert_eq!(taken["accepted"], 2);
    let results = taken["results"].as_array().expect("results");
    assert_eq!((&results[0]["id"], &results[0]["offset"]), (&json!("a"), &json!(0)));
    assert_eq!((results[2]["offset"].as_i64(), results[2]["id"].as_str().map(str::len)), (Some(1), Some(36)));
    for (index, code, status) in [(1, "invalid-input", 422), (3, "invalid-input", 422), (4, "queue-full", 429)] {
        let error = &results[index]["error"];
        assert_eq!(
            (&error["type"], &error["status"]),
            (&json!(format!("/problems/{code}")), &json!(status)),
            "{index}"
        );
    }
}

#[tokio::test]
async fn a_single_post_that_is_refused_is_the_status_of_the_call() {
    let router = router(None);
    let good = post(&router, "application/json", r#" {"text": "hi"} "#).await;
    assert_eq!((good.status, &good.json()["accepted"]), (StatusCode::OK, &json!(1)));
    let lines = post(&router, "application/x-ndjson", "{\"text\": \"hi\"}\n{\"text\": 5}\n").await;
    assert_eq!((lines.status, &lines.json()["accepted"]), (StatusCode::OK, &json!(1)));
    for (kind, body, status, code) in [
        ("application/json", r#"{"text": ""}"#, 422, "invalid-input"),
        ("application/json", "{", 422, "invalid-input"),
        ("application/json", r#"{"text": "full"}"#, 429, "queue-full"),
        ("application/json", "[{]", 400, "invalid-json"),
        ("application/json", "[]", 422, "empty-list"),
        ("application/x-ndjson", "\n\n", 422, "empty-list"),
        ("text/plain", "hi", 415, "unsupported-media-type"),
        ("application/x-ndjson", "{\"text\": \"full\"}", 429, "queue-full"),
    ] {
        let answer = post(&router, kind, body).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, code), "{body}: {answer:?}");
    }
}

#[tokio::test]
async fn without_a_stream_there_is_nothing_to_put_posts_into() {
    let answer = post(&builder().build().router(), "application/json", r#"{"text": "hi"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "store-not-configured"));
}

#[tokio::test]
async fn with_a_secret_only_what_is_signed_is_taken_in() {
    let router = router(Some(SigningSecret::new("Jefe")));
    let body = "what do ya want for nothing?";
    // RFC 4231, test case 2: the signature is right, the body is no post.
    let good = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    for (header, signature, status) in [
        ("x-signature-256", good, 422),
        ("x-hub-signature-256", good, 422),
        ("x-signature-256", "sha256=00", 401),
        ("x-other", good, 401),
    ] {
        let request = Request::post("/v1/posts").header("content-type", "application/json").header(header, signature);
        let answer = send(&router, request.body(Body::from(body)).expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{header}: {signature}");
    }
}
