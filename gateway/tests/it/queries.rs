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

const CHARTS: [&str; 2] = ["/v1/query/series", "/v1/query/tags"];

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
    ] {
        let answer = get(&router, path).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (422, "invalid-input"), "{path}: {answer:?}");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(name)), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_is_told_from_one_that_is_down_or_slow_and_each_is_named() {
    let without = builder().build().router();
    for path in CHARTS {
        let answer = get(&without, path).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "store-not-configured"));
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("clickhouse.url")), "{answer:?}");
        let ask = async |source: &str| {
            let path = format!("{path}?source={source}");
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
    assert_eq!(crate::support::score(&router, r#"{"text": "hi"}"#).await.status, StatusCode::OK);
    assert_eq!(held.await.expect("answered").status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(get(&router, "/v1/query/series").await.status, StatusCode::OK);
}
