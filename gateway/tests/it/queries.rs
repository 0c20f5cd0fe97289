//! Queries: what is asked of a store, what it may answer, and what a caller learns of one that is not there, down or slow.

use std::time::Duration;

use crate::support::{Answer, FakeStore, builder, get, send, small};
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::json;
use undertone_gateway::Limits;

fn router() -> Router {
    builder().queries(FakeStore::queries()).build().router()
}

/// Each path as it can be asked, and what must be set for it.
const PATHS: [(&str, &str); 5] = [
    ("/v1/query/series?", "clickhouse.url"),
    ("/v1/query/tags?", "clickhouse.url"),
    ("/v1/query/latest?", "opensearch.url"),
    ("/v1/query/search?q=tea&", "opensearch.url"),
    ("/v1/query/similar?text=tea&", "qdrant.url"),
];

#[tokio::test]
async fn a_series_says_which_windows_it_covers_and_who_answered() {
    let answer = get(
        &router(),
        "/v1/query/series?window=1h&from=2026-05-01T11:30:00Z&to=2026-05-01T12:30:00Z&tag=%23Tea&label=positive",
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let series = answer.json();
    for (key, wanted) in
        [("store", "fakestore"), ("window", "1h"), ("from", "2026-05-01T11:00:00Z"), ("to", "2026-05-01T13:00:00Z")]
    {
        assert_eq!(series[key], wanted);
    }
    let point = &series["points"][0];
    assert_eq!(
        (&point["start"], &point["posts"], &point["mean_polarity"]),
        (&json!("2026-05-01T11:00:00Z"), &json!(2), &json!(0.5))
    );
    let asked = point["label"].as_str().expect("what was asked");
    assert!(
        asked.contains("tag: Some(\"tea\")")
            && asked.contains("label: Some(\"positive\")")
            && asked.contains("source: None"),
        "{asked}"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_parameter_is_said_by_its_name() {
    let router = router();
    for (path, name) in [
        ("/v1/query/series?window=1d", "window"),
        ("/v1/query/series?from=yesterday", "from"),
        ("/v1/query/series?to=2026-05-01", "to"),
        ("/v1/query/series?from=2020-01-01T00:00:00Z", "from"),
        ("/v1/query/series?source=", "source"),
        ("/v1/query/series?limit=5", "limit"),
        ("/v1/query/series?topic=tea", "topic"),
        ("/v1/query/tags?limit=0", "limit"),
        ("/v1/query/tags?limit=1001", "limit"),
        ("/v1/query/tags?limit=1&limit=2", "limit"),
        ("/v1/query/tags?from=2020-01-01T00:00:00Z", "from"),
        ("/v1/query/latest?from=2026-02-28T23:59:59Z&to=2026-05-02T00:00:00Z", "from"),
        ("/v1/query/latest?limit=1001", "limit"),
        ("/v1/query/latest?q=tea", "q"),
        ("/v1/query/search", "q"),
        ("/v1/query/search?q=+", "q"),
        ("/v1/query/search?q=tea&limit=101", "limit"),
        ("/v1/query/search?q=tea&from=2026-05-02T00:00:00Z&to=2026-05-01T00:00:00Z", "from"),
        ("/v1/query/similar", "text"),
        ("/v1/query/similar?uid=p1", "uid"),
        ("/v1/query/similar?text=a&uid=0b9c1c3e-5b1f-5f0e-8a53-0b9c1c3e5b1f", "uid"),
        ("/v1/query/similar?text=a&tag=%23", "tag"),
    ] {
        let answer = get(&router, path).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (422, "invalid-input"), "{path}: {answer:?}");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(name)), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_is_told_from_one_that_is_down_or_slow_and_each_is_named() {
    let without = builder().build().router();
    for (path, key) in PATHS {
        let answer = get(&without, path).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "store-not-configured"));
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(key)), "{answer:?}");
        let ask = async |source: &str| {
            let path = format!("{path}source={source}");
            send(&router(), Request::get(path).header("x-timeout-ms", "50").body(Body::empty()).expect("a request"))
                .await
        };
        for (source, status, code) in
            [("down", 503, "unavailable"), ("stuck", 504, "deadline-exceeded"), ("wide", 413, "too-large")]
        {
            let answer: Answer = ask(source).await;
            assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, code), "{answer:?}");
            let said = String::from_utf8_lossy(&answer.bytes).into_owned();
            assert!(!said.contains("hunter2") && (status == 413 || said.contains("fakestore")), "{said}");
        }
        assert_eq!(ask("down").await.header("retry-after"), "5");
    }
}

#[tokio::test]
async fn only_so_many_queries_run_at_once_and_they_leave_room_for_scoring() {
    let limits = Limits { query_calls: 1, ..small() };
    let router = builder().limits(limits).queries(FakeStore::queries()).build().router();
    let held = tokio::spawn({
        let router = router.clone();
        let request = Request::get("/v1/query/tags?source=stuck").header("x-timeout-ms", "500").body(Body::empty());
        async move { send(&router, request.expect("a request")).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let answer = get(&router, "/v1/query/series").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (429, "queue-full"));
    assert_eq!(get(&router, "/v1/query/search?q=tea").await.status, StatusCode::OK, "another store may be well");
    assert_eq!(crate::support::score(&router, r#"{"text": "hi"}"#).await.status, StatusCode::OK);
    assert_eq!(held.await.expect("answered").status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(get(&router, "/v1/query/series").await.status, StatusCode::OK);
}

#[tokio::test]
async fn posts_are_asked_for_as_they_were_meant_and_answered_with_short_texts() {
    let router = router();
    let asked = async |path: &str, pointer: &str| {
        let answer = get(&router, path).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let json = answer.json();
        assert_eq!(json["store"], "fakestore");
        let post = json.pointer(pointer).expect(pointer);
        assert_eq!((&post["created_at"], &post["polarity"]), (&json!("2026-05-01T12:00:00Z"), &json!(0.5)));
        let text = post["text"].as_str().expect("a text");
        assert!(text.chars().count() == 2001 && text.ends_with('…'), "{text}");
        (post["author"].as_str().expect("what was asked").to_owned(), json)
    };
    let range = "from=2026-05-01T11:59:59.5Z&to=2026-05-01T12:00:00Z";
    let (latest, _) = asked(&format!("/v1/query/latest?limit=7&label=positive&{range}"), "/posts/0").await;
    for part in
        ["from_us: Some(1777636799500000)", "until_us: Some(1777636800000000)", "label: Some(\"positive\")", "limit: 7"]
    {
        assert!(latest.contains(part), "{latest}");
    }
    let (search, json) = asked("/v1/query/search?q=%22green+tea%22+-rain", "/hits/0/post").await;
    assert!(search.starts_with("(\"\\\"green tea\\\" -rain\", ") && search.contains("limit: 20"), "{search}");
    assert_eq!((&json["total"], &json["hits"][0]["highlights"]), (&json!(7), &json!(["<em>tea</em>"])));
    // The fake's embedding ends with the length of the text.
    let (similar, json) = asked("/v1/query/similar?text=caf%C3%A9&limit=3", "/neighbours/0/post").await;
    assert!(similar.contains("embedding: [0.5, -0.5, 0.25, 5.0]") && similar.contains("limit: 3"), "{similar}");
    assert_eq!(json["neighbours"][0]["similarity"], 0.75);
    let (similar, _) = asked("/v1/query/similar?uid=0B9C1C3E-5B1F-5F0E-8A53-0B9C1C3E5B1F", "/neighbours/0/post").await;
    assert!(similar.contains("Post(0b9c1c3e-5b1f-5f0e-8a53-0b9c1c3e5b1f)"), "{similar}");
}

#[tokio::test]
async fn a_text_that_cannot_be_embedded_and_a_post_that_is_not_there_are_told() {
    let router = router();
    for (path, status, code) in [
        ("/v1/query/similar?uid=00000000-0000-0000-0000-000000000000", 404, "not-found"),
        ("/v1/query/similar?text=", 422, "empty-text"),
        ("/v1/query/similar?text=busy", 429, "queue-full"),
        ("/v1/query/similar?text=broken", 500, "internal"),
        (&format!("/v1/query/similar?text={}", "x".repeat(101)), 413, "text-too-long"),
    ] {
        let answer = get(&router, path).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, code), "{path}: {answer:?}");
    }
}
