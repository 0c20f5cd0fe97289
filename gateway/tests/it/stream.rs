//! Streams of texts as callers see them, over REST: answers while the body comes, bounds, and ends.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{FakeScorer, Served, builder, get, send, serve, small};
use axum::{
    Router,
    body::{Body, BodyDataStream, Bytes},
    http::Request,
};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use undertone_gateway::{Gateway, Key, Keys, Limits, Rate};
use undertone_inference::Lane;

const SOON: Duration = Duration::from_secs(10);

fn request(path: &str, body: Body) -> Request<Body> {
    Request::post(path).header("content-type", "application/x-ndjson").body(body).expect("a request")
}

fn text(text: &str) -> String {
    format!("{}\n", json!({ "text": text }))
}

/// A stream in both directions.
struct Open {
    body: Option<UnboundedSender<Bytes>>,
    answers: BodyDataStream,
    /// What came and was not yet looked at.
    rest: Vec<u8>,
}

impl Open {
    async fn new(router: &Router, timeout_ms: Option<u64>) -> Self {
        let (body, receiver) = unbounded_channel();
        let stream = UnboundedReceiverStream::new(receiver).map(Ok::<_, Infallible>);
        let mut request = request("/v1/score/stream", Body::from_stream(stream));
        if let Some(ms) = timeout_ms {
            request.headers_mut().insert("x-timeout-ms", ms.into());
        }
        let answer = router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"application/x-ndjson".parse().expect("a value"))
        );
        Self { body: Some(body), answers: answer.into_body().into_data_stream(), rest: Vec::new() }
    }

    fn send(&self, sent: &str) {
        self.body.as_ref().expect("open").send(Bytes::copy_from_slice(sent.as_bytes())).expect("is read");
    }

    /// The next line, or nothing at the end.
    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line is JSON"));
            }
            match timeout(SOON, self.answers.next()).await.expect("in time") {
                Some(piece) => self.rest.extend_from_slice(&piece.expect("a piece")),
                None => {
                    assert!(self.rest.is_empty(), "the last line is whole");
                    return None;
                }
            }
        }
    }

    /// The code of the problem that is the next line, and the last.
    async fn last(&mut self) -> String {
        let problem = self.line().await.expect("a problem");
        assert!(problem["instance"].as_str().is_some_and(|id| !id.is_empty()), "{problem}");
        assert_eq!(self.line().await, None, "a problem is the last line");
        problem["type"].as_str().and_then(|uri| uri.strip_prefix("/problems/")).expect("a type").to_owned()
    }

    async fn silent(&mut self) -> bool {
        self.rest.is_empty() && timeout(Duration::from_millis(100), self.answers.next()).await.is_err()
    }
}

fn label(line: &Option<Value>) -> &str {
    line.as_ref().and_then(|line| line["sentiment"]["label"].as_str()).unwrap_or("none")
}

#[tokio::test]
async fn answers_come_in_order_while_the_body_still_does() {
    let scorer = FakeScorer::new();
    let router = Gateway::builder(scorer.clone()).limits(small()).build().router();
    let mut open = Open::new(&router, None).await;
    open.send("{\"id\":\"a\",\"text\":\"go");
    assert!(open.silent().await, "half a line is no text");
    open.send("od\"}\n");
    let first = open.line().await;
    assert_eq!((label(&first), &first.as_ref().expect("a line")["id"]), ("positive", &json!("a")));
    open.send(&[text("held"), text("bad"), text("busy")].concat());
    assert!(open.silent().await, "nothing overtakes the text before it");
    scorer.gate.add_permits(1);
    assert_eq!((label(&open.line().await), label(&open.line().await)), ("neutral", "negative"));
    assert_eq!(open.line().await.expect("a line")["error"]["type"], "/problems/queue-full");
    open.send("no json\n\n{\"id\":7,\"text\":\"\"}");
    assert_eq!(open.line().await.expect("a line")["error"]["type"], "/problems/invalid-json");
    open.body = None;
    let last = open.line().await.expect("a line");
    assert_eq!((&last["id"], &last["error"]["type"]), (&json!(7), &json!("/problems/empty-text")));
    assert_eq!(open.line().await, None);
    assert!(scorer.lanes.lock().expect("lock").iter().all(|lane| *lane == Lane::Bulk));
}

#[tokio::test]
async fn what_is_wrong_before_the_stream_begins_is_the_status() {
    let router = builder().build().router();
    let sent = |path: &str, name: &'static str, value: &'static str| {
        let mut request = request(path, Body::from(text("good")));
        request.headers_mut().insert(name, value.parse().expect("a value"));
        request
    };
    let path = "/v1/score/stream";
    for (request, wanted) in [
        (sent(path, "content-type", "application/json"), (415, "unsupported-media-type")),
        (sent(path, "content-encoding", "gzip"), (415, "unsupported-encoding")),
        (sent(path, "x-lane", "fast"), (400, "invalid-header")),
        (sent(path, "x-timeout-ms", "soon"), (400, "invalid-header")),
        (sent("/v1/score/stream?heads=mood", "x-lane", "bulk"), (422, "unknown-head")),
        (sent("/v1/score/stream?head=emotion", "x-lane", "bulk"), (422, "invalid-input")),
    ] {
        let answer = send(&router, request).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), wanted);
    }
    let answer = send(&router, request("/v1/score/stream?heads=emotion&embedding=true", Body::from(text("hi")))).await;
    let line = answer.json();
    assert!(line.get("sentiment").is_none() && line["emotion"]["label"] == "joy" && line["embedding"][3] == 2.0);
    let answer = send(&router, request(path, Body::empty())).await;
    assert_eq!((answer.status.as_u16(), answer.bytes.len()), (200, 0), "no texts, no answers");
}

#[tokio::test]
async fn an_interactive_stream_has_as_many_texts_in_flight_as_an_interactive_call() {
    let scorer = FakeScorer::new();
    let limits = Limits { interactive_texts: 2, stream_texts: 5, ..small() };
    let router = Gateway::builder(scorer.clone()).limits(limits).build().router();
    for (lane, name, most) in [(Lane::Interactive, "interactive", 2), (Lane::Bulk, "bulk", 5)] {
        let mut request = request("/v1/score/stream", Body::from(text("held").repeat(12)));
        request.headers_mut().insert("x-lane", name.parse().expect("a value"));
        let answer = tokio::spawn({
            let router = router.clone();
            async move { send(&router, request).await }
        });
        sleep(Duration::from_millis(100)).await;
        assert_eq!(scorer.lanes.lock().expect("lock").as_slice(), vec![lane; most]);
        scorer.gate.add_permits(12);
        let answer = timeout(SOON, answer).await.expect("in time").expect("joins");
        assert_eq!(answer.bytes.iter().filter(|byte| **byte == b'\n').count(), 12);
        scorer.lanes.lock().expect("lock").clear();
    }
}

/// A body without end, and how many of its lines were asked for.
fn endless(line: String) -> (Body, Arc<AtomicUsize>) {
    let read = Arc::new(AtomicUsize::new(0));
    let counted = read.clone();
    let lines = futures::stream::repeat_with(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(Bytes::from(line.clone()))
    });
    (Body::from_stream(lines), read)
}

#[tokio::test]
async fn texts_in_flight_are_bounded_by_their_bytes_too() {
    let limits = Limits { stream_text_bytes: 300, ..small() };
    let (body, read) = endless(text(&format!("{:<100}", "x").replace(' ', "x")));
    let scorer = FakeScorer::new();
    let router = Gateway::builder(scorer.clone()).limits(limits.clone()).build().router();
    let (held, held_read) = endless(text("held"));
    let answer = router.clone().oneshot(request("/v1/score/stream", held)).await.expect("infallible");
    sleep(Duration::from_millis(100)).await;
    assert_eq!(held_read.load(Ordering::Relaxed), 300 / 4, "75 texts of 4 bytes");
    drop(answer);
    // A reader that never reads: its answers wait, and then nothing more is read of it.
    let limits = Limits { stream_answer_bytes: 20_000, ..limits };
    let router = builder().limits(limits).build().router();
    let _unread = router.clone().oneshot(request("/v1/score/stream", body)).await.expect("infallible");
    sleep(Duration::from_millis(200)).await;
    let before = read.load(Ordering::Relaxed);
    assert!((20..400).contains(&before), "{before}");
    sleep(Duration::from_millis(200)).await;
    assert_eq!(read.load(Ordering::Relaxed), before, "nothing more is read");
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_and_gives_up_what_waits() {
    let scorer = FakeScorer::new();
    let router = Gateway::builder(scorer.clone()).limits(Limits { streams: 1, ..small() }).build().router();
    let mut open = Open::new(&router, Some(150)).await;
    open.send(&[text("good"), text("stuck"), text("good")].concat());
    assert_eq!(label(&open.line().await), "positive");
    assert_eq!(open.last().await, "deadline-exceeded");
    // Its place is free again.
    Open::new(&router, None).await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_until_a_caller_leaves() {
    let scorer = FakeScorer::new();
    let router = Gateway::builder(scorer.clone()).limits(Limits { streams: 1, ..small() }).build().router();
    let open = Open::new(&router, None).await;
    open.send(&text("stuck"));
    let refused = || async { send(&router, request("/v1/score/stream", Body::empty())).await };
    let answer = refused().await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (429, "queue-full"));
    assert_eq!(get(&router, "/v1/models").await.status.as_u16(), 200);
    drop(open);
    let freed = async {
        while refused().await.status.as_u16() != 200 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, freed).await.expect("a caller that went away gives its place back");
}

#[tokio::test]
async fn who_sends_nothing_loses_the_stream_unless_answers_are_owed() {
    let scorer = FakeScorer::new();
    let limits = Limits { body_timeout: Duration::from_millis(80), ..small() };
    let router = Gateway::builder(scorer.clone()).limits(limits).build().router();
    let mut open = Open::new(&router, None).await;
    open.send(&text("held"));
    sleep(Duration::from_millis(300)).await;
    scorer.gate.add_permits(1);
    assert_eq!(label(&open.line().await), "neutral", "it was we who were slow");
    open.send("{\"text\":");
    assert_eq!(open.last().await, "body-timeout", "half a line is nothing");
}

#[tokio::test]
async fn a_panic_and_a_broken_scorer_are_told_apart() {
    let mut open = Open::new(&builder().build().router(), None).await;
    open.send(&[text("broken"), text("good"), text("panic"), text("good")].concat());
    let broken = open.line().await.expect("a line");
    assert_eq!(broken["error"]["type"], "/problems/internal");
    assert!(!broken.to_string().contains("secret"));
    assert_eq!(label(&open.line().await), "positive");
    assert_eq!(open.last().await, "internal");
}

#[tokio::test]
async fn a_shutdown_answers_what_was_read_and_ends_the_stream() {
    let (scorer, token) = (FakeScorer::new(), CancellationToken::new());
    let limits = Limits { drain: Duration::from_millis(400), ..small() };
    let router = Gateway::builder(scorer.clone()).limits(limits).shutdown(token.clone()).build().router();
    let mut open = Open::new(&router, None).await;
    let mut stuck = Open::new(&router, None).await;
    open.send(&text("held"));
    stuck.send(&text("stuck"));
    scorer.arrived.acquire().await.expect("it runs").forget();
    token.cancel();
    sleep(Duration::from_millis(50)).await;
    open.send(&text("good"));
    scorer.gate.add_permits(1);
    assert_eq!(label(&open.line().await), "neutral");
    assert_eq!(open.last().await, "shutting-down", "what came after the shutdown is not scored");
    let began = Instant::now();
    assert_eq!(stuck.last().await, "shutting-down");
    assert!(began.elapsed() < Duration::from_millis(380), "before the drain ends");
    let answer = send(&router, request("/v1/score/stream", Body::empty())).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "shutting-down"));
}

#[tokio::test]
async fn a_keys_rate_slows_a_stream_down() {
    // SHA-256 of "ut_good".
    let hash = [
        0xc0, 0xf9, 0x08, 0xd4, 0xdf, 0x24, 0x03, 0xfc, 0xa2, 0xee, 0xe8, 0xaa, 0x04, 0xda, 0x7f, 0xb6, 0x5f, 0x77,
        0x76, 0x33, 0xeb, 0xc7, 0x1a, 0x2e, 0xf0, 0xe1, 0x89, 0x35, 0x37, 0x2a, 0xb6, 0xe1,
    ];
    let rate = Rate { per_second: 20.0, burst: 3.0 };
    let keys: Keys = [Key::new("reports", hash, Some(rate))].into_iter().collect();
    // Slower than it may stand still: the time that a rate takes is not the caller's.
    let limits = Limits { body_timeout: Duration::from_millis(30), ..small() };
    let router = builder().limits(limits).keys(keys).build().router();
    let mut sent = request("/v1/score/stream", Body::from(text("good").repeat(9)));
    sent.headers_mut().insert("x-api-key", "ut_good".parse().expect("a value"));
    let began = Instant::now();
    let answer = send(&router, sent).await;
    let lines = String::from_utf8(answer.bytes).expect("utf-8");
    assert_eq!(lines.matches("\"positive\":0.75").count(), 9, "{lines}");
    let took = began.elapsed();
    assert!((Duration::from_millis(280)..Duration::from_secs(5)).contains(&took), "six texts at 20 a second: {took:?}");
}

/// What an answer says that came in chunks, to its end.
fn whole(answer: &[u8]) -> String {
    let find = |bytes: &[u8], wanted: &[u8]| bytes.windows(wanted.len()).position(|part| part == wanted);
    let mut rest = &answer[find(answer, b"\r\n\r\n").expect("a head") + 4..];
    let mut body = Vec::new();
    loop {
        let end = find(rest, b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).expect("ascii"), 16).expect("a size");
        if size == 0 {
            return String::from_utf8(body).expect("utf-8");
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
}

/// A client of the usual kind: it sends everything, for longer than an answer may be left unread, and only then reads.
#[tokio::test]
async fn a_client_that_sends_everything_first_does_not_stand_still() {
    let limits = Limits { stall: Duration::from_millis(300), ..small() };
    let Served { http, scorer, tasks: _tasks, .. } = serve(|builder| builder.limits(limits)).await;
    let mut socket = TcpStream::connect(http).await.expect("connects");
    let lines = 40_000;
    let text = |number: usize| if number == 35_000 { "held" } else { "good" };
    let line = |number: usize| format!("{{\"id\":{number},\"text\":\"{}\"}}{}\n", text(number), " ".repeat(200));
    // For some time nothing is read, since the core is slow.
    tokio::spawn(async move {
        scorer.arrived.acquire().await.expect("it runs").forget();
        sleep(Duration::from_secs(1)).await;
        scorer.gate.add_permits(1);
    });
    let body: Vec<String> =
        (0..40).map(|part| (0..lines / 40).map(|n| line(part * lines / 40 + n)).collect()).collect();
    let length: usize = body.iter().map(String::len).sum();
    let head = format!(
        "POST /v1/score/stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("writes");
    for part in body {
        timeout(SOON, socket.write_all(part.as_bytes())).await.expect("it is read").expect("writes");
        sleep(Duration::from_millis(40)).await;
    }
    let mut answer = Vec::new();
    timeout(SOON * 3, socket.read_to_end(&mut answer)).await.expect("in time").expect("reads");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    let answer = whole(&answer);
    let ids = answer.lines().filter_map(|line| line.strip_prefix("{\"id\":")?.split(',').next()?.parse::<usize>().ok());
    assert!(ids.eq(0..lines), "every line, in order");
    assert!(answer.len() > 12_000_000, "more than the sockets hold: {}", answer.len());
}

#[tokio::test]
async fn who_sends_and_never_reads_loses_the_connection() {
    let limits = Limits { stall: Duration::from_millis(300), streams: 1, ..small() };
    let Served { http, gateway, tasks: _tasks, .. } = serve(|builder| builder.limits(limits)).await;
    let mut socket = TcpStream::connect(http).await.expect("connects");
    let body = text("good").repeat(40_000);
    let head = format!(
        "POST /v1/score/stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.expect("writes");
    timeout(SOON, socket.write_all(body.as_bytes())).await.expect("it is read").expect("writes");
    let router = gateway.router();
    let again = async {
        while send(&router, request("/v1/score/stream", Body::empty())).await.status.as_u16() != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, again).await.expect("its place is free again");
    drop(socket);
}
