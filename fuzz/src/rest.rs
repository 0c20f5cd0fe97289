//! What REST reads: bodies, lines, Arrow streams, queries and headers, each through the whole router.

use std::sync::Arc;

use arrow_array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, StringArray, types::Int32Type};
use arrow_ipc::writer::StreamWriter;
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, Request, Uri, header},
};

use crate::{Target, grpc, server};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// What JSON readers stumble over.
const JSON_WORDS: &[&str] = &[
    "null",
    "true",
    "1e400",
    "-0",
    "18446744073709551616",
    "\\ud800",
    "\\u0000",
    "[[[[[[[[",
    "{\"a\":",
    "\"\"",
    "\u{feff}",
    "\"text\"",
    "\"texts\"",
    "\"items\"",
    "\"id\"",
    "\"heads\"",
    "\"embedding\"",
    "\"sentiment\"",
    "\"inputs\"",
    "\"input\"",
    "\"model\"",
    "\"dimensions\"",
    "\"encoding_format\"",
    "\"base64\"",
    "\"raw_scores\"",
    "\"normalize\"",
    "\"source\"",
    "\"created_at\"",
    "\"metrics\"",
    "\"tags\"",
    "\"deleted\"",
    "{}",
    "[]",
    ",",
    "\n",
    "\r\n",
];

pub(crate) const SCORE: Target = Target {
    name: "score",
    read: |bytes| post("/v1/score?heads=sentiment", JSON, bytes),
    seeds: || {
        owned(&[
            r#"{"text": "what a good day"}"#,
            r#"{"texts": ["one", "two", "so bad ☕ \ud83d\ude42"]}"#,
            r#"{"items": [{"id": "a", "text": "one"}, {"id": 7, "text": "two"}], "heads": ["emotion"], "embedding": true}"#,
        ])
    },
    words: JSON_WORDS,
};

pub(crate) const EMBED: Target = Target {
    name: "embed",
    read: |bytes| post("/v1/embed", JSON, bytes),
    seeds: || {
        owned(&[r#"{"text": "one"}"#, r#"{"texts": ["one", "two"]}"#, r#"{"items": [{"id": "a", "text": "one"}]}"#])
    },
    words: JSON_WORDS,
};

pub(crate) const STREAM: Target = Target {
    name: "stream",
    read: |bytes| post("/v1/score/stream?embedding=true", LINES, bytes),
    seeds: || {
        owned(&[
            "{\"id\": 1, \"text\": \"what a day\"}\n\n{\"id\": \"b\", \"text\": \"never again\"}\r\n{\"text\": \"three\"}",
            "{\"text\": \"☕\", \"id\": null}\n",
            "",
        ])
    },
    words: JSON_WORDS,
};

pub(crate) const POSTS: Target = Target {
    name: "posts",
    // The first byte says of what kind the body is.
    read: |bytes| match bytes.split_first() {
        Some((b'l', lines)) => post("/v1/posts", LINES, lines),
        Some((_, json)) => post("/v1/posts", JSON, json),
        None => false,
    },
    seeds: || {
        owned(&[
            r#"j{"id": "p1", "source": "forum", "text": "what a day", "created_at": "2026-05-01T12:00:00Z", "extra": [1.10]}"#,
            r#"j[{"source": "forum", "text": "one", "tags": ["a"], "metrics": {"likes": 3}}, {"text": "two", "lang": "en"}]"#,
            "l{\"text\": \"one\"}\n{\"id\": 7, \"source\": \"s\", \"deleted\": true, \"created_at\": \"2026-05-01T12:00:00Z\"}\n",
        ])
    },
    words: JSON_WORDS,
};

pub(crate) const REPLAY: Target = Target {
    name: "replay",
    read: |bytes| post("/v1/dead/replay", JSON, bytes),
    seeds: || owned(&["{}", r#"{"stage": "parse", "limit": 100, "dry_run": true}"#, r#"{"sink": "qdrant"}"#]),
    words: &["\"stage\"", "\"sink\"", "\"limit\"", "\"dry_run\"", "\"score\"", "\"opensearch\"", "null", "4294967296"],
};

pub(crate) const OPENAI: Target = Target {
    name: "openai",
    read: |bytes| post("/v1/embeddings", JSON, bytes),
    seeds: || {
        owned(&[
            r#"{"model": "fake", "input": "one"}"#,
            r#"{"model": "fake", "input": ["one", "two"], "encoding_format": "base64", "dimensions": 4, "user": "ann"}"#,
        ])
    },
    words: JSON_WORDS,
};

pub(crate) const TEI: Target = Target {
    name: "tei",
    read: |bytes| match bytes.split_first() {
        Some((b'p', body)) => post("/predict?head=sentiment", JSON, body),
        Some((_, body)) => post("/embed", JSON, body),
        None => false,
    },
    seeds: || {
        owned(&[
            r#"p{"inputs": "one", "truncate": true, "raw_scores": false}"#,
            r#"p{"inputs": [["one"], ["two"]]}"#,
            r#"e{"inputs": ["one", "two"], "normalize": true, "dimensions": 4}"#,
        ])
    },
    words: JSON_WORDS,
};

pub(crate) const ARROW: Target = Target {
    name: "arrow",
    read: |bytes| post("/v1/score/arrow?embedding=true", ARROW_STREAM, bytes),
    seeds: || {
        vec![
            arrow(vec![("text", Arc::new(StringArray::from(vec![Some("one"), None, Some("two ☕")])) as ArrayRef)]),
            arrow(vec![
                ("id", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef),
                ("text", Arc::new(["a", "b"].into_iter().collect::<DictionaryArray<Int32Type>>()) as ArrayRef),
            ]),
        ]
    },
    words: &["text", "id"],
};

pub(crate) const QUERY: Target = Target {
    name: "query",
    // The first byte says what is asked.
    read: |bytes| {
        let Some((kind, query)) = bytes.split_first() else { return false };
        let path = ["series", "tags", "latest", "search", "similar"][usize::from(*kind) % 5];
        let uri = [b"/v1/query/", path.as_bytes(), b"?", query].concat();
        // What is no address never becomes a request.
        let Ok(uri) = Uri::try_from(uri) else { return false };
        server::rest(|server| &server.open, request(Method::GET, uri, Body::empty()))
    },
    seeds: || {
        vec![
            seed(0, "window=1h&from=2026-05-01T11:30:00Z&to=2026-05-01T12:30:00Z&tag=%23Tea&label=positive"),
            seed(1, "limit=5&source=forum&to=2026-05-02T00:00:00%2B02:00"),
            seed(2, "language=eng&from=2026-05-01T11:59:59.5Z&to=2026-05-01T12:00:00Z"),
            seed(3, "q=%22green+tea%22+-rain&limit=100"),
            seed(4, "text=caf%C3%A9&limit=3"),
            seed(4, "uid=0B9C1C3E-5B1F-5F0E-8A53-0B9C1C3E5B1F"),
        ]
    },
    words: &[
        "from=",
        "to=",
        "limit=",
        "window=1m",
        "source=",
        "label=",
        "tag=",
        "q=",
        "&",
        "%00",
        "%ff",
        "+",
        "=",
        "-9999-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "1900-01-01T00:00:00Z",
        "2299-12-31T23:59:59.999999Z",
        "18446744073709551616",
        "T24:00:00Z",
        "[u-ca=hebrew]",
    ],
};

pub(crate) const HEADERS: Target = Target {
    name: "headers",
    // The first byte says what is called, and each line after it is a header.
    read: headers,
    seeds: || {
        let key = format!("authorization: Bearer {}\n", server::KEY);
        vec![
            seed(
                0,
                &format!(
                    "{key}x-timeout-ms: 2000\nx-lane: bulk\nx-request-id: call-9\ncontent-type: application/json; charset=utf-8"
                ),
            ),
            seed(1, "x-signature-256: sha256=9dabadbf8da1233dc043e669276a90c8c86f8c5496c2d203de82df3d17c245ea"),
            seed(2, "authorization: Basic YW5uOnV0XzE=\norigin: https://page.example"),
            seed(3, "x-api-key: ut_1\naccept-encoding: gzip"),
            seed(4, &format!("{key}content-type: application/x-ndjson\nx-lane: interactive\nexpect: 100-continue")),
            seed(
                5,
                &format!(
                    "{key}origin: https://page.example\naccess-control-request-method: POST\naccess-control-request-headers: x-api-key"
                ),
            ),
            seed(
                6,
                &format!("{key}grpc-timeout: 2S\nx-lane: bulk\nx-request-id: call-9\ngrpc-accept-encoding: identity"),
            ),
            seed(7, &format!("{key}if-none-match: \"x\"\nrange: bytes=0-1")),
        ]
    },
    words: &[
        "x-timeout-ms: ",
        "x-lane: ",
        "x-request-id: ",
        "authorization: ",
        "x-api-key: ",
        "content-type: ",
        "content-encoding: gzip\n",
        "content-length: 99999999999999999999\n",
        "transfer-encoding: chunked\n",
        "grpc-timeout: ",
        "grpc-encoding: gzip\n",
        "origin: null\n",
        "x-hub-signature-256: sha256=",
        "99999999H",
        "18446744073709551615",
        "Basic ",
        "Bearer ",
        "expect: 100-continue\n",
        "\n",
    ],
};

fn headers(bytes: &[u8]) -> bool {
    let Some((kind, lines)) = bytes.split_first() else { return false };
    let (method, path, usual, body) = match kind % 8 {
        0 => (Method::POST, "/v1/score", JSON, br#"{"text": "one"}"#.to_vec()),
        1 => (Method::POST, "/v1/posts", JSON, br#"{"text": "one"}"#.to_vec()),
        2 => (Method::GET, "/v1/models", "", Vec::new()),
        3 => (Method::GET, "/v1/query/latest", "", Vec::new()),
        4 => (Method::POST, "/v1/score/stream", LINES, b"{\"text\": \"one\"}\n".to_vec()),
        5 => (Method::OPTIONS, "/v1/score", "", Vec::new()),
        6 => (Method::POST, "/undertone.v1.Scoring/Score", "application/grpc", grpc::one_text()),
        _ => (Method::GET, "/", "", Vec::new()),
    };
    let mut request = request(method, Uri::from_static(path), Body::from(body));
    let into = request.headers_mut();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        // What is no header never becomes a request.
        if let (Ok(name), Ok(value)) = (name, value) {
            into.append(name, value);
        }
    }
    if !usual.is_empty() && !into.contains_key(header::CONTENT_TYPE) {
        into.insert(header::CONTENT_TYPE, HeaderValue::from_static(usual));
    }
    match kind % 8 {
        6 => grpc::called(|server| &server.guarded_grpc, request),
        _ => server::rest(|server| &server.guarded, request),
    }
}

fn request(method: Method, uri: Uri, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request
}

fn post(path: &'static str, kind: &'static str, bytes: &[u8]) -> bool {
    let mut request = request(Method::POST, Uri::from_static(path), Body::from(bytes.to_vec()));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    server::rest(|server| &server.open, request)
}

fn owned(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn seed(kind: u8, text: &str) -> Vec<u8> {
    [&[kind], text.as_bytes()].concat()
}

fn arrow(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("a stream");
    writer.write(&batch).expect("a batch");
    writer.write(&batch).expect("a batch");
    writer.into_inner().expect("a stream")
}
