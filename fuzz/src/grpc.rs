//! What gRPC reads: messages of every method, and the frames that they come in, through the whole router.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, Uri},
};
use bytes::{BufMut, BytesMut};
use prost::Message;
use undertone_proto::v1::{
    EmbedRequest, GetModelRequest, LatestRequest, PostFilter, ScoreItem, ScoreRequest, ScoreStreamRequest,
    SearchRequest, SeriesRequest, SimilarRequest, TagsRequest, similar_request::Like,
};

use crate::{
    Target,
    server::{self, Server},
};

const METHODS: [&str; 10] = [
    "/undertone.v1.Scoring/Score",
    "/undertone.v1.Scoring/Embed",
    "/undertone.v1.Scoring/ScoreStream",
    "/undertone.v1.Scoring/ListModels",
    "/undertone.v1.Scoring/GetModel",
    "/undertone.v1.Queries/Series",
    "/undertone.v1.Queries/Tags",
    "/undertone.v1.Queries/Latest",
    "/undertone.v1.Queries/Search",
    "/undertone.v1.Queries/Similar",
];

/// What no caller is at fault for: `UNKNOWN`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`.
const FAILED: [&str; 4] = ["2", "13", "14", "15"];

pub(crate) const CALLS: Target = Target {
    name: "grpc",
    // The first byte says which method is called, and the second whether the rest is a message or frames.
    read: |bytes| {
        let [method, framed, message @ ..] = bytes else { return false };
        let path = METHODS[usize::from(*method) % METHODS.len()];
        let body = if framed & 1 == 0 { frame(message) } else { message.to_vec() };
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        request.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
        called(|server| &server.grpc, request)
    },
    seeds: || {
        let item = |id: &str, text: &str| ScoreItem { id: id.to_owned(), text: text.to_owned() };
        let items = vec![item("a", "so good"), item("", "two ☕")];
        let streamed = |text| ScoreStreamRequest { item: Some(item("s", text)), heads: vec![], embedding: true };
        let frames = [frame(&streamed("one").encode_to_vec()), frame(&streamed("two").encode_to_vec())].concat();
        let call = |method: u8, message: Vec<u8>| [&[method, 0], message.as_slice()].concat();
        let score = ScoreRequest { items: items.clone(), heads: vec!["sentiment".into()], embedding: true };
        let filter =
            || Some(PostFilter { source: Some("forum".into()), tag: Some("#Tea".into()), ..PostFilter::default() });
        let (from_us, to_us) = (Some(1_777_636_800_000_000), Some(1_777_640_400_000_000));
        let series = SeriesRequest { window: 2, from_us, to_us, filter: filter() };
        let search = SearchRequest { q: "\"green tea\" -rain".into(), limit: Some(5), ..SearchRequest::default() };
        let like = Like::Uid("0b9c1c3e-5b1f-5f0e-8a53-0b9c1c3e5b1f".into());
        vec![
            call(0, score.encode_to_vec()),
            call(1, EmbedRequest { items }.encode_to_vec()),
            [&[2, 1], frames.as_slice()].concat(),
            call(3, Vec::new()),
            call(4, GetModelRequest { name: "fake".into() }.encode_to_vec()),
            call(5, series.encode_to_vec()),
            call(6, TagsRequest { from_us, to_us, limit: Some(1000), ..TagsRequest::default() }.encode_to_vec()),
            call(7, LatestRequest { from_us, to_us, limit: Some(7), filter: filter() }.encode_to_vec()),
            call(8, search.encode_to_vec()),
            call(9, SimilarRequest { like: Some(like), ..SimilarRequest::default() }.encode_to_vec()),
            call(
                9,
                SimilarRequest { like: Some(Like::Text("so good".into())), ..SimilarRequest::default() }
                    .encode_to_vec(),
            ),
        ]
    },
    words: &["sentiment", "fake", "\u{0}\u{0}\u{0}\u{0}\u{0}", "\u{1}\u{0}\u{0}\u{0}\u{5}"],
};

/// A message as it stands in a body.
fn frame(message: &[u8]) -> Vec<u8> {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a short message"));
    framed.put_slice(message);
    framed.to_vec()
}

/// The body of a call that scores one text.
pub(crate) fn one_text() -> Vec<u8> {
    let items = vec![ScoreItem { id: String::new(), text: "one".to_owned() }];
    frame(&ScoreRequest { items, ..ScoreRequest::default() }.encode_to_vec())
}

/// Whether a call was answered; what is wrong with it must be told as the caller's fault.
pub(crate) fn called(router: impl FnOnce(&Server) -> &Router, request: Request<Body>) -> bool {
    let answer = server::ask(router, request);
    if answer.status.is_client_error() {
        return false; // no gRPC
    }
    assert!(answer.status.is_success(), "{}", answer.status);
    let of = |headers: &HeaderMap, name: &str| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let said = |name| of(&answer.trailers, name).or_else(|| of(&answer.headers, name));
    let status = said("grpc-status").expect("a status");
    assert!(!FAILED.contains(&status.as_str()), "status {status}: {:?}", said("grpc-message"));
    status == "0"
}
