//! The gateway put together: what it scores with, what it shows, and what it allows.

use std::{ops::Deref, sync::Arc};

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use undertone_proto::PostReader;

use crate::{
    Cors, Intake, Keys, Limits, Live, Part, Readiness, Replay, Scorer, SigningSecret, Tls, grpc,
    live::Broadcast,
    queries::{Kind, Queries},
    readiness::Report,
    rest,
};

/// How often readers of `/v1/live` get an overview.
const LIVE_PERIOD: std::time::Duration = std::time::Duration::from_secs(1);

/// Where `/v1/posts` puts what it takes in.
pub(crate) struct Ingest {
    pub(crate) intake: Arc<dyn Intake>,
    /// The stream's own.
    pub(crate) reader: PostReader,
    /// What senders sign with, if they must.
    pub(crate) secret: Option<SigningSecret>,
}

/// Both doors of one scorer. Clones share everything, and cost next to nothing: every call makes some.
#[derive(Clone)]
pub struct Gateway {
    parts: Arc<Parts>,
}

impl Deref for Gateway {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// What a gateway consists of.
pub struct Parts {
    pub(crate) scorer: Arc<dyn Scorer>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) keys: Keys,
    pub(crate) cors: Arc<Cors>,
    pub(crate) tls: Option<Tls>,
    pub(crate) ingest: Option<Arc<Ingest>>,
    pub(crate) replay: Option<Arc<dyn Replay>>,
    pub(crate) queries: Queries,
    pub(crate) live: Live,
    pub(crate) broadcast: Arc<Broadcast>,
    pub(crate) metrics: Option<PrometheusHandle>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) bulk_calls: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
    /// One for each kind.
    pub(crate) query_calls: [Arc<Semaphore>; Kind::COUNT],
    pub(crate) readers: Arc<Semaphore>,
    readiness: Readiness,
}

impl Gateway {
    /// Starts from a scorer; everything else has a default.
    pub fn builder(scorer: impl Scorer) -> GatewayBuilder {
        GatewayBuilder {
            scorer: Arc::new(scorer),
            limits: Limits::default(),
            keys: Keys::default(),
            cors: Cors::default(),
            tls: None,
            ingest: None,
            replay: None,
            queries: Queries::default(),
            live: None,
            metrics: None,
            readiness: Arc::new(Vec::new),
            shutdown: CancellationToken::new(),
        }
    }

    /// The REST service: what [`Gateway::serve_http`] serves.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }

    /// The gRPC services: what [`Gateway::serve_grpc`] serves, but with a health service that nobody keeps.
    ///
    /// # Errors
    /// `Internal` if the descriptor that reflection serves is damaged.
    pub fn grpc_router(&self) -> undertone_error::Result<Router> {
        grpc::router(self, &HealthReporter::new())
    }

    /// The state behind the page.
    pub fn live(&self) -> &Live {
        &self.live
    }

    pub(crate) fn report(&self) -> Report {
        Report::new((self.readiness)(), self.shutdown.is_cancelled())
    }
}

/// Puts a [`Gateway`] together.
pub struct GatewayBuilder {
    scorer: Arc<dyn Scorer>,
    limits: Limits,
    keys: Keys,
    cors: Cors,
    tls: Option<Tls>,
    ingest: Option<Arc<Ingest>>,
    replay: Option<Arc<dyn Replay>>,
    queries: Queries,
    live: Option<Live>,
    metrics: Option<PrometheusHandle>,
    readiness: Readiness,
    shutdown: CancellationToken,
}

impl GatewayBuilder {
    /// What callers may ask for.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Who may call; everybody, if they are not given.
    #[must_use]
    pub fn keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// Which pages of other origins may read answers; none, if they are not given.
    #[must_use]
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = cors;
        self
    }

    /// The certificates of both doors; without them they speak in the clear.
    #[must_use]
    pub fn tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    /// Where posts are put that are sent to `/v1/posts`, the reader that decides what a post is, and the secret that
    /// senders must sign with, if they must. Without it the path answers 404.
    #[must_use]
    pub fn intake(mut self, intake: Arc<dyn Intake>, reader: PostReader, secret: Option<SigningSecret>) -> Self {
        self.ingest = Some(Arc::new(Ingest { intake, reader, secret }));
        self
    }

    /// What sends dead letters again. Without it the path answers 404.
    #[must_use]
    pub fn replay(mut self, replay: Arc<dyn Replay>) -> Self {
        self.replay = Some(replay);
        self
    }

    /// The stores that answer queries; those that none answers are 404.
    #[must_use]
    pub fn queries(mut self, queries: Queries) -> Self {
        self.queries = queries;
        self
    }

    /// The state behind the page; an empty one if it is not given.
    #[must_use]
    pub fn live(mut self, live: Live) -> Self {
        self.live = Some(live);
        self
    }

    /// What `/metrics` renders. Without it `/metrics` answers 404.
    #[must_use]
    pub fn metrics(mut self, metrics: PrometheusHandle) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Where the states of the other parts come from. It must answer without blocking.
    #[must_use]
    pub fn readiness(mut self, source: impl Fn() -> Vec<Part> + Send + Sync + 'static) -> Self {
        self.readiness = Arc::new(source);
        self
    }

    /// The token that starts the drain.
    #[must_use]
    pub fn shutdown(mut self, token: CancellationToken) -> Self {
        self.shutdown = token;
        self
    }

    /// The gateway; nothing runs until it serves.
    pub fn build(self) -> Gateway {
        let live = self.live.unwrap_or_else(|| Live::new(&self.scorer.model()));
        let parts = Parts {
            broadcast: Broadcast::new(live.clone(), LIVE_PERIOD, self.shutdown.clone()),
            calls: Arc::new(Semaphore::new(self.limits.calls_in_flight)),
            bulk_calls: Arc::new(Semaphore::new(self.limits.arrow_calls)),
            streams: Arc::new(Semaphore::new(self.limits.streams)),
            query_calls: std::array::from_fn(|_| Arc::new(Semaphore::new(self.limits.query_calls))),
            readers: Arc::new(Semaphore::new(self.limits.live_readers)),
            scorer: self.scorer,
            limits: Arc::new(self.limits),
            keys: self.keys,
            cors: Arc::new(self.cors),
            tls: self.tls,
            ingest: self.ingest,
            replay: self.replay,
            queries: self.queries,
            live,
            metrics: self.metrics,
            readiness: self.readiness,
            shutdown: self.shutdown,
        };
        Gateway { parts: Arc::new(parts) }
    }
}
