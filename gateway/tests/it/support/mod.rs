//! A scorer that needs no model and does what a text tells it to, and ways to talk to a gateway.

pub(crate) mod fake;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use undertone_error::{Error, ErrorKind, Result};
use undertone_gateway::queries::{
    ChartQuery, Charts, Hit, Latest, Like, Neighbour, PostsQuery, Queries, Search, SeriesPoint, Similar, StoredPost,
    TagCount,
};
use undertone_gateway::{Gateway, GatewayBuilder, Intake, Limits, NewPost, Place, Replay, ReplayOf, Replayed, Scorer};
use undertone_inference::{Lane, ModelInfo, Request as Text, Scored};

/// Texts that are instructions: `busy`, `broken`, `refused`, `panic`, `slow` (answers at its deadline), `stuck` (never
/// answers) and `held` (answers when the gate opens).
pub(crate) struct FakeScorer {
    model: Arc<ModelInfo>,
    pub(crate) lanes: Mutex<Vec<Lane>>,
    pub(crate) arrived: Semaphore,
    pub(crate) gate: Semaphore,
    /// How long the interactive lane is; the bulk lane is as long again.
    pub(crate) wait: Mutex<Option<Duration>>,
}

impl FakeScorer {
    pub(crate) fn new() -> Arc<Self> {
        want_every_log_line();
        let lanes = Mutex::new(Vec::new());
        let (arrived, gate) = (Semaphore::new(0), Semaphore::new(0));
        Arc::new(Self { model: Arc::new(fake::model()), lanes, arrived, gate, wait: Mutex::default() })
    }
}

/// Whether a log line is wanted is decided by who passes it first, and remembered: a test without a subscriber that did so while another
/// test was setting its own would silence the line for both. So there is one from the start, which drops what it gets.
fn want_every_log_line() {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| {
        let ours = tracing_subscriber::fmt().with_env_filter("undertone_gateway=trace");
        let subscriber = ours.with_writer(io::sink).finish();
        tracing::subscriber::set_global_default(subscriber).expect("the first of this process");
    });
}

#[async_trait]
impl Scorer for FakeScorer {
    fn model(&self) -> Arc<ModelInfo> {
        Arc::clone(&self.model)
    }

    async fn score(&self, request: Text) -> Result<Scored> {
        self.lanes.lock().expect("lock").push(request.lane);
        let secret = |kind| Error::new(kind, "kernel 7 failed").with("path", "/secret/model");
        match request.text.as_str() {
            "busy" => return Err(Error::new(ErrorKind::Busy, "the interactive lane is full")),
            "broken" => return Err(secret(ErrorKind::Internal)),
            "refused" => return Err(secret(ErrorKind::InvalidInput).help("send another")),
            "panic" => panic!("told to"),
            "slow" => {
                tokio::time::sleep_until(request.deadline.expect("a deadline").into()).await;
                return Err(Error::new(ErrorKind::DeadlineExceeded, "the deadline passed in the queue"));
            }
            "stuck" => std::future::pending().await,
            "held" => {
                self.arrived.add_permits(1);
                self.gate.acquire().await.expect("the gate").forget();
            }
            _ => {}
        }
        Ok(fake::scored(&request.text))
    }

    fn wait(&self, lane: Lane) -> Option<Duration> {
        let wait = *self.wait.lock().expect("lock");
        wait.map(|wait| if lane == Lane::Bulk { 2 * wait } else { wait })
    }
}

/// Takes everything in, at the offset of its place in the call; "full" is refused for good.
pub(crate) struct FakeIntake;

#[async_trait]
impl Intake for FakeIntake {
    async fn take_in(&self, posts: Vec<NewPost>) -> Vec<Result<Place>> {
        let place = |(offset, post): (i64, NewPost)| match post.payload.windows(6).any(|part| part == b"\"full\"") {
            true => Err(Error::new(ErrorKind::Busy, "scoring is far behind")),
            false => Ok(Place { partition: 0, offset }),
        };
        (0..).zip(posts).map(place).collect()
    }
}

/// Sends as many letters again as its limit says; the stage `score` has had another replay before.
pub(crate) struct FakeReplay;

#[async_trait]
impl Replay for FakeReplay {
    fn sinks(&self) -> Vec<&'static str> {
        vec!["opensearch"]
    }

    async fn replay(&self, of: ReplayOf) -> Result<Replayed> {
        match of.stage.as_deref() {
            Some("score") => {
                Err(Error::new(ErrorKind::Conflict, "another replay was faster").with("broker", "/secret"))
            }
            _ => Ok(Replayed { events: of.limit.unwrap_or(7), refused: 1 }),
        }
    }
}

/// A store whose answers say what it was asked. The source "down" takes it down, "stuck" holds it for ever, "wide" is too much.
pub(crate) struct FakeStore;

impl FakeStore {
    /// It answers everything.
    pub(crate) fn queries() -> Queries {
        let store = Arc::new(Self);
        Queries {
            charts: Some(store.clone()),
            latest: Some(store.clone()),
            search: Some(store.clone()),
            similar: Some(store),
        }
    }

    async fn obey(source: Option<&str>) -> Result<()> {
        match source {
            Some("down") => Err(Error::new(ErrorKind::Unavailable, "cannot read").source("password hunter2")),
            Some("wide") => Err(Error::new(ErrorKind::TooLarge, "there is too much").help("ask for less")),
            Some("stuck") => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Charts for FakeStore {
    fn name(&self) -> &'static str {
        "fakestore"
    }

    async fn series(&self, query: ChartQuery) -> Result<Vec<SeriesPoint>> {
        Self::obey(query.filter.source.as_deref()).await?;
        let label = Some(format!("{:?}", query.filter));
        Ok(vec![SeriesPoint { start_us: query.from_us, label, posts: 2, mean_polarity: Some(0.5) }])
    }

    async fn tags(&self, query: ChartQuery, limit: usize) -> Result<Vec<TagCount>> {
        Self::obey(query.filter.source.as_deref()).await?;
        Ok(vec![TagCount { tag: "tea".to_owned(), posts: limit as u64, mean_polarity: None }])
    }
}

/// A post whose author says what was asked for, and whose text is long.
fn stored(asked: impl std::fmt::Debug) -> StoredPost {
    StoredPost {
        uid: "0b9c1c3e-5b1f-5f0e-8a53-0b9c1c3e5b1f".to_owned(),
        source: "forum".to_owned(),
        id: "p1".to_owned(),
        author: Some(format!("{asked:?}")),
        url: None,
        text: "x".repeat(2001),
        language: None,
        label: None,
        polarity: Some(0.5),
        created_at_us: 1_777_636_800_000_000,
        tags: vec!["tea".to_owned()],
    }
}

#[async_trait]
impl Latest for FakeStore {
    fn name(&self) -> &'static str {
        "fakestore"
    }

    async fn latest(&self, query: PostsQuery) -> Result<Vec<StoredPost>> {
        Self::obey(query.filter.source.as_deref()).await?;
        Ok(vec![stored(query)])
    }
}

#[async_trait]
impl Search for FakeStore {
    fn name(&self) -> &'static str {
        "fakestore"
    }

    async fn search(&self, words: String, query: PostsQuery) -> Result<(u64, Vec<Hit>)> {
        Self::obey(query.filter.source.as_deref()).await?;
        Ok((7, vec![Hit { post: stored((words, query)), highlights: vec!["<em>tea</em>".to_owned()] }]))
    }
}

#[async_trait]
impl Similar for FakeStore {
    fn name(&self) -> &'static str {
        "fakestore"
    }

    /// There is one post.
    async fn similar(&self, like: Like, query: PostsQuery) -> Result<Option<Vec<Neighbour>>> {
        Self::obey(query.filter.source.as_deref()).await?;
        let post = stored((&like, query));
        match like {
            Like::Post(uid) if uid.to_string() != post.uid => Ok(None),
            _ => Ok(Some(vec![Neighbour { similarity: 0.75, post }])),
        }
    }
}

/// A gateway with small limits.
pub(crate) fn small() -> Limits {
    Limits { texts: 40, text_bytes: 100, body_bytes: 10_000, ..Limits::default() }
}

pub(crate) fn builder() -> GatewayBuilder {
    Gateway::builder(FakeScorer::new()).limits(small())
}

pub(crate) fn router() -> Router {
    builder().build().router()
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("json")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ascii"))
    }

    /// Checks that this is a whole problem, and answers its code.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["instance"].as_str(), Some(self.header("x-request-id")));
        assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()));
        assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        body["type"].as_str().and_then(|uri| uri.strip_prefix("/problems/")).expect("a type").to_owned()
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let (head, body) = router.clone().oneshot(request).await.expect("infallible").into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a body").to_vec();
    Answer { status: head.status, headers: head.headers, bytes }
}

pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).expect("a request")).await
}

pub(crate) fn score_request(body: impl Into<Body>) -> Request<Body> {
    Request::post("/v1/score").header(header::CONTENT_TYPE, "application/json").body(body.into()).expect("a request")
}

pub(crate) async fn score(router: &Router, body: impl Into<Body>) -> Answer {
    send(router, score_request(body)).await
}

/// A gateway that serves over real sockets, each on a port of its own.
pub(crate) struct Served {
    pub(crate) scorer: Arc<FakeScorer>,
    pub(crate) gateway: Gateway,
    pub(crate) token: CancellationToken,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) tasks: [JoinHandle<Result<()>>; 2],
}

pub(crate) async fn serve(with: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Served {
    let (scorer, token) = (FakeScorer::new(), CancellationToken::new());
    let gateway = with(Gateway::builder(scorer.clone()).limits(small()).shutdown(token.clone())).build();
    let (http, grpc) = (listen().await, listen().await);
    let (http_addr, grpc_addr) = (http.local_addr().expect("an address"), grpc.local_addr().expect("an address"));
    let (one, two) = (gateway.clone(), gateway.clone());
    let tasks = [
        tokio::spawn(async move { one.serve_http(http).await }),
        tokio::spawn(async move { two.serve_grpc(grpc).await }),
    ];
    Served { scorer, gateway, token, http: http_addr, grpc: grpc_addr, tasks }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// Writes bytes and reads until the other side closes.
pub(crate) async fn exchange(addr: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(addr).await.expect("connects");
    socket.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer))
        .await
        .expect("in time")
        .expect("reads");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The bytes of a scoring call.
pub(crate) fn raw_score(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}
