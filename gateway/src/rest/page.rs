//! The page: files of `page/dist`, compiled into the binary.
//!
//! Files whose name carries a hash of their content may be kept for ever; all others are asked for again with their ETag.
//! The page may load nothing from elsewhere, which its content security policy enforces.

use axum::{
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use crate::{errors::ProblemCode, problem::Problem};

/// One file of the page.
pub(super) struct Asset {
    /// The path it is served at.
    path: &'static str,
    content_type: &'static str,
    /// A hash of its content, in quotes.
    etag: &'static str,
    /// Whether its name carries a hash.
    immutable: bool,
    bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The file at this path, if the page has one.
pub(super) fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.binary_search_by(|asset| asset.path.cmp(path)).ok().map(|index| &ASSETS[index])
}

pub(super) async fn index(headers: HeaderMap) -> Result<Response, Problem> {
    serve(&["/index.html"], &headers)
}

/// The readable page of the API: a file of its own, or a view of the page.
pub(super) async fn docs(headers: HeaderMap) -> Result<Response, Problem> {
    serve(&["/docs/index.html", "/docs.html", "/index.html"], &headers)
}

/// Everything that no route takes: a file of the page, or nothing.
pub(super) async fn file(method: Method, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    match (find(uri.path()), method) {
        (Some(asset), Method::GET | Method::HEAD) => Ok(answer(asset, &headers)),
        (Some(_), _) => {
            let methods = HeaderValue::from_static("GET,HEAD");
            Err(Problem::new(ProblemCode::MethodNotAllowed, "this path takes GET, HEAD").allow(methods))
        }
        (None, _) => {
            let detail = "there is nothing at this path; /openapi.json lists what there is";
            Err(Problem::new(ProblemCode::UnknownPath, detail))
        }
    }
}

fn serve(paths: &[&str], headers: &HeaderMap) -> Result<Response, Problem> {
    match paths.iter().find_map(|path| find(path)) {
        Some(asset) => Ok(answer(asset, headers)),
        None => Err(Problem::new(ProblemCode::UnknownPath, "the page is not part of this binary")),
    }
}

fn answer(asset: &Asset, headers: &HeaderMap) -> Response {
    let cache = if asset.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    let common = [
        (header::ETAG, asset.etag),
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    if headers.get_all(header::IF_NONE_MATCH).iter().any(|value| has_tag(value, asset.etag)) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(header::CONTENT_TYPE, asset.content_type)], asset.bytes).into_response()
}

/// Whether `If-None-Match` names this ETag: weak comparison over a list, as RFC 9110 defines it.
fn has_tag(value: &HeaderValue, etag: &str) -> bool {
    let tags = value.to_str().unwrap_or_default();
    tags.split(',').map(|tag| tag.trim()).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_a_page() {
        assert!(ASSETS.is_sorted_by(|a, b| a.path < b.path));
        let index = find("/index.html").expect("the page");
        assert_eq!((index.content_type, index.immutable), ("text/html; charset=utf-8", false));
        assert!(find("/../Cargo.toml").is_none());
    }

    #[test]
    fn etags_match_as_the_standard_says() {
        let matches = |value: &'static str| has_tag(&HeaderValue::from_static(value), "\"a1\"");
        for value in ["\"a1\"", "W/\"a1\"", "\"x\", \"a1\"", "*"] {
            assert!(matches(value), "{value}");
        }
        for value in ["\"a2\"", "a1", ""] {
            assert!(!matches(value), "{value}");
        }
    }
}
