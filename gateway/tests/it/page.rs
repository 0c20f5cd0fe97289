//! The page: served from the binary, cached as its names allow, confined to this server.

use crate::support::{get, router, send};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};

#[tokio::test]
async fn the_page_and_its_documentation_are_served() {
    let router = router();
    for path in ["/", "/docs", "/docs/"] {
        let answer = get(&router, path).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (StatusCode::OK, "text/html; charset=utf-8"),
            "{path}"
        );
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(answer.header("content-security-policy").contains("default-src 'self'"));
        assert!(String::from_utf8_lossy(&answer.bytes).to_lowercase().starts_with("<!doctype html>"));
    }
}

#[tokio::test]
async fn everything_the_page_names_is_there_and_hashed_files_may_be_kept() {
    let router = router();
    let page = get(&router, "/").await;
    let html = String::from_utf8_lossy(&page.bytes).into_owned();
    let named =
        html.split(['"', '\'']).filter(|word| word.starts_with('/') && word.contains('.') && !word.starts_with("//"));
    for path in named.filter(|path| *path != "/openapi.json") {
        let answer = get(&router, path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let cache = answer.header("cache-control");
        assert_eq!(cache.contains("immutable"), path.starts_with("/assets/"), "{path}: {cache}");
        assert!(!answer.header("content-type").is_empty(), "{path}");
    }
}

#[tokio::test]
async fn an_unchanged_file_is_not_sent_again() {
    let router = router();
    let etag = get(&router, "/").await.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    let ask = |tag: &str| Request::get("/").header("if-none-match", tag).body(Body::empty()).expect("a request");
    let same = send(&router, ask(&etag)).await;
    assert_eq!((same.status, same.bytes.len(), same.header("etag")), (StatusCode::NOT_MODIFIED, 0, etag.as_str()));
    assert_eq!(send(&router, ask("\"other\"")).await.status, StatusCode::OK);
}
