//! REST over real sockets: the live stream, and the drain.

use std::time::{Duration, Instant};

use crate::support::{Served, exchange, raw_score, serve, small};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use undertone_gateway::Limits;

const SOON: Duration = Duration::from_secs(10);

async fn listen(served: &Served) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(served.http).await.expect("connects");
    socket.write_all(b"GET /v1/live HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
    BufReader::new(socket)
}

/// The next line that begins so, without the beginning.
async fn line(reader: &mut BufReader<TcpStream>, beginning: &str) -> String {
    loop {
        let mut line = String::new();
        let read = timeout(SOON, reader.read_line(&mut line)).await.expect("in time").expect("reads");
        assert!(read > 0, "the stream ended");
        if let Some(rest) = line.strip_prefix(beginning) {
            return rest.trim().to_owned();
        }
    }
}

#[tokio::test]
async fn the_live_stream_sends_an_overview_a_second_and_ends_with_the_server() {
    let served = serve(|builder| builder).await;
    let mut reader = listen(&served).await;
    assert_eq!(line(&mut reader, "content-type:").await, "text/event-stream");
    assert_eq!(line(&mut reader, "event:").await, "overview");
    let first: Value = serde_json::from_str(&line(&mut reader, "data:").await).expect("json");
    served.gateway.live().observe_events(5);
    let second: Value = serde_json::from_str(&line(&mut reader, "data:").await).expect("json");
    assert_eq!((&first["totals"]["events"], &second["totals"]["events"]), (&0.into(), &5.into()));
    assert!(second["now_ms"].as_i64() > first["now_ms"].as_i64());

    served.token.cancel();
    let mut rest = Vec::new();
    timeout(SOON, reader.read_to_end(&mut rest)).await.expect("the stream ends").expect("reads");
    for task in served.tasks {
        timeout(SOON, task).await.expect("in time").expect("joins").expect("drains");
    }
}

#[tokio::test]
async fn readers_beyond_the_limit_are_refused_until_one_leaves() {
    let served = serve(|builder| builder.limits(Limits { live_readers: 1, ..small() })).await;
    let mut first = listen(&served).await;
    assert!(line(&mut first, "HTTP/1.1 ").await.starts_with("200"));
    let mut second = listen(&served).await;
    assert!(line(&mut second, "HTTP/1.1 ").await.starts_with("429"));
    drop(first);
    let came_back = async {
        loop {
            let mut reader = listen(&served).await;
            if line(&mut reader, "HTTP/1.1 ").await.starts_with("200") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, came_back).await.expect("there is room again");
}

#[tokio::test]
async fn a_drain_lets_a_running_call_finish_and_then_ends() {
    let served = serve(|builder| builder).await;
    let call = tokio::spawn({
        let addr = served.http;
        async move { exchange(addr, &raw_score(r#"{"text":"held"}"#)).await }
    });
    served.scorer.arrived.acquire().await.expect("the call runs").forget();
    served.token.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!served.tasks[0].is_finished(), "the drain waits for the call");
    assert!(TcpStream::connect(served.http).await.is_err(), "nothing new is accepted");
    served.scorer.gate.add_permits(1);
    let answer = call.await.expect("joins");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"tokens\":3"), "{answer}");
    for task in served.tasks {
        timeout(SOON, task).await.expect("in time").expect("joins").expect("drains");
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let served = serve(|builder| builder.limits(Limits { drain: Duration::from_millis(200), ..small() })).await;
    let addr = served.http;
    let call = tokio::spawn(async move { exchange(addr, &raw_score(r#"{"text":"stuck"}"#)).await });
    // An idle connection, too, must not hold the drain up.
    let _idle = TcpStream::connect(served.http).await.expect("connects");
    while served.scorer.lanes.lock().expect("lock").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    served.token.cancel();
    for task in served.tasks {
        timeout(SOON, task).await.expect("in time").expect("joins").expect("drains");
    }
    assert!((Duration::from_millis(150)..Duration::from_secs(5)).contains(&started.elapsed()));
    call.abort();
}

#[tokio::test]
async fn what_is_not_http_is_answered_and_breaks_nothing() {
    let served = serve(|builder| builder).await;
    assert!(exchange(served.http, "\u{1}\u{2}nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let answer = exchange(served.http, &raw_score(r#"{"text":"good"}"#)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A peer that sends everything before it reads, as most clients do: what it sends is far more than sockets hold.
#[tokio::test]
async fn who_is_refused_while_it_sends_can_read_why() {
    let served = serve(|builder| builder.limits(Limits { arrow_calls: 0, calls_in_flight: 1, ..small() })).await;
    let piece = vec![b' '; 1 << 20];
    for (path, kind, wanted) in [
        ("/v1/score/arrow", "application/vnd.apache.arrow.stream", "429"),
        ("/v1/score", "application/json", "413"),
        ("/v1/nothing", "application/json", "404"),
    ] {
        let mut socket = TcpStream::connect(served.http).await.expect("connects");
        let length = 32 * piece.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        socket.write_all(head.as_bytes()).await.expect("writes");
        for _ in 0..32 {
            timeout(SOON, socket.write_all(&piece)).await.expect("in time").expect("is read");
        }
        let mut reader = BufReader::new(socket);
        assert!(line(&mut reader, "HTTP/1.1 ").await.starts_with(wanted), "{path}");
        if wanted == "429" {
            assert_eq!(line(&mut reader, "retry-after: ").await, "1");
        }
        // It is a whole call, so the connection serves the next one.
        let length: usize = line(&mut reader, "content-length: ").await.parse().expect("a number");
        while !line(&mut reader, "").await.is_empty() {}
        let mut problem = vec![0; length];
        reader.read_exact(&mut problem).await.expect("reads");
        reader.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
        assert!(line(&mut reader, "HTTP/1.1 ").await.starts_with("200"), "{path}");
    }
}
