//! gRPC: `undertone.v1.Scoring` with the same meaning, limits and codes as REST, plus health and reflection.
//!
//! A call's status is that of the table in [`crate::errors`], with the problem's code in the trailer `problem-code` and, for
//! what passes by itself, `retry-after` in seconds. A message over the limit never becomes a call: the transport answers
//! it with `OUT_OF_RANGE` and neither trailer. `grpc-timeout` is the call's deadline. Health follows readiness.

mod guard;

use std::{convert::Infallible, panic::AssertUnwindSafe, time::Duration};

use axum::{Router, body::Body, http, middleware::from_fn_with_state, response::IntoResponse};
use futures::FutureExt;
use tokio::time::{Instant, interval};
use tonic::{
    Request, Response, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
    server::NamedService,
};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower::Service;
use tracing::Instrument;
use undertone_error::{Context, ErrorKind, Result};
use undertone_inference::{HeadScores, ModelInfo, Scored};
use undertone_proto::v1::{
    self, ItemError, Probability, ScoreRequest, ScoreResponse, Scores,
    score_result::Outcome,
    scoring_server::{Scoring, ScoringServer},
};
use uuid::Uuid;

use crate::{
    Gateway,
    access::Caller,
    api::Selection,
    errors::ProblemCode,
    problem::Problem,
    scoring::{asked_lane, check_id, select},
    telemetry,
};

/// The service whose health is reported, as its `.proto` names it.
const SERVICE: &str = "undertone.v1.Scoring";
const METHOD: &str = "undertone.v1.Scoring/Score";

/// The transports of both sides end a call at `grpc-timeout` by themselves, with the wrong status (`CANCELLED`), so our
/// answer is sent a tenth of the time before, or this long if that is less.
const HEAD_START: Duration = Duration::from_millis(50);

/// Every gRPC service of the gateway.
pub(crate) fn router(gateway: &Gateway, health: &HealthReporter) -> Result<Router> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = "cannot serve reflection: the descriptor is damaged";
    let health = HealthService::from_health_reporter(health.clone());
    let scoring = ScoringServer::new(gateway.clone()).max_decoding_message_size(gateway.limits.body_bytes);
    let router =
        Router::new().fallback(|| async { Status::unimplemented("there is no such service").into_http::<Body>() });
    let router = add(router, scoring);
    let router = add(router, HealthServer::new(health));
    let router = add(router, reflection().build_v1().context(ErrorKind::Internal, broken)?);
    let router = add(router, reflection().build_v1alpha().context(ErrorKind::Internal, broken)?);
    Ok(router.layer(from_fn_with_state(gateway.clone(), guard::guard)))
}

/// Routes a service's calls to it, by its name.
fn add<S>(router: Router, service: S) -> Router
where
    S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

/// Keeps the health service's status, which starts as not serving, at what readiness says, until the shutdown; then it
/// ends every watch.
pub(crate) async fn follow_readiness(gateway: Gateway, mut health: HealthReporter) {
    let mut ticks = interval(Duration::from_secs(1));
    let mut known = false;
    loop {
        tokio::select! {
            () = gateway.shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let ready = gateway.report().ready;
        // Only changes are sent: each one reaches every watcher.
        if known != ready {
            set_status(&health, if ready { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
            known = ready;
        }
    }
    set_status(&health, ServingStatus::NotServing).await;
    for service in ["", SERVICE] {
        health.clear_service_status(service).await;
    }
}

/// Sets the status of the server as a whole and of the scoring service.
pub(crate) async fn set_status(health: &HealthReporter, status: ServingStatus) {
    for service in ["", SERVICE] {
        health.set_service_status(service, status).await;
    }
}

#[tonic::async_trait]
impl Scoring for Gateway {
    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreResponse>, Status> {
        let arrived = Instant::now();
        let (metadata, extensions, message) = request.into_parts();
        let id = request_id(&metadata);
        let texts = message.items.len();
        let caller = extensions.get::<Caller>().cloned().unwrap_or_default();
        caller.charge(texts);
        let request_id = id.to_str().unwrap_or_default();
        let span = tracing::info_span!("grpc", request_id, method = METHOD, caller = caller.name());
        let work = AssertUnwindSafe(answer(self, &metadata, message, arrived)).catch_unwind();
        let answer = work.instrument(span.clone()).await;
        let _entered = span.enter();
        let answer = answer.unwrap_or_else(|_| {
            tracing::error!("request handler panicked");
            let detail = "the server failed; its log has the reason under this request's id";
            Err(Problem::new(ProblemCode::Internal, detail))
        });
        let (code, answer) = match answer {
            Ok(response) => {
                let mut response = Response::new(response);
                response.metadata_mut().insert("x-request-id", id);
                (tonic::Code::Ok, Ok(response))
            }
            Err(problem) => (problem.code().row().grpc, Err(status(&problem, id))),
        };
        let took = arrived.elapsed();
        telemetry::grpc_answered(METHOD, code, took);
        tracing::info!(?code, texts, seconds = took.as_secs_f64(), "call answered");
        answer
    }
}

async fn answer(
    gateway: &Gateway,
    metadata: &MetadataMap,
    message: ScoreRequest,
    arrived: Instant,
) -> Result<ScoreResponse, Problem> {
    let admission = gateway.admit()?;
    let deadline = arrived + deadline(gateway.limits.granted(asked_timeout(metadata)));
    let lane = asked_lane(metadata.get("x-lane").map(|value| value.to_str().unwrap_or_default()))?;
    let model = gateway.scorer.model();
    for (index, item) in message.items.iter().enumerate() {
        check_id(&item.id, index)?;
    }
    let selection = select(message.heads, message.embedding, &model, "/heads")?;
    let (ids, texts): (Vec<_>, Vec<_>) = message.items.into_iter().map(|item| (item.id, item.text)).unzip();
    let count = texts.len();
    let outcomes = gateway.score_texts(texts, lane, deadline).await;
    telemetry::texts("grpc", count, &outcomes);
    let outcomes = outcomes?;
    let model = crate::scoring::model_of(&outcomes).unwrap_or(model);
    let results = ids.into_iter().zip(outcomes).map(|(id, outcome)| {
        let outcome = match outcome {
            Ok(scored) => Outcome::Scores(scores(scored, &selection)),
            Err(problem) => {
                Outcome::Error(ItemError { code: problem.code().row().code.to_owned(), message: problem.detail })
            }
        };
        v1::ScoreResult { id, outcome: Some(outcome) }
    });
    let response = ScoreResponse { results: results.collect(), model: Some(model_message(&model)) };
    drop(admission);
    Ok(response)
}

fn scores(scored: Scored, selection: &Selection) -> Scores {
    let wanted = scored.heads.iter().filter(|head| selection.wants(&head.head));
    Scores {
        heads: wanted.map(head_message).collect(),
        polarity: scored.polarity,
        confidence: scored.confidence,
        language: scored.language.map(str::to_owned),
        in_domain: scored.in_domain,
        embedding: if selection.embedding { scored.embedding } else { Vec::new() },
        tokens: scored.tokens,
        truncated: scored.truncated,
    }
}

fn head_message(head: &HeadScores) -> v1::HeadScores {
    let pairs = head.labels.iter().zip(&head.probabilities);
    v1::HeadScores {
        head: head.head.to_string(),
        label: head.label_name().to_owned(),
        probabilities: pairs.map(|(label, value)| Probability { label: label.clone(), value: *value }).collect(),
    }
}

fn model_message(model: &ModelInfo) -> v1::Model {
    v1::Model { name: model.name.clone(), revision: model.revision.clone(), precision: model.precision.clone() }
}

fn status(problem: &Problem, id: AsciiMetadataValue) -> Status {
    let row = problem.code().row();
    let mut metadata = MetadataMap::new();
    metadata.insert("x-request-id", id);
    metadata.insert("problem-code", AsciiMetadataValue::from_static(row.code));
    if let Some(seconds) = problem.retries_after() {
        metadata.insert("retry-after", AsciiMetadataValue::from(seconds));
    }
    Status::with_metadata(row.grpc, problem.detail.clone(), metadata)
}

/// The caller's id if it is harmless in a log, else a new one.
fn request_id(metadata: &MetadataMap) -> AsciiMetadataValue {
    let given = metadata.get("x-request-id").and_then(|value| value.to_str().ok());
    let id = crate::rest::harmless_id(given).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    AsciiMetadataValue::try_from(id).unwrap_or_else(|_| AsciiMetadataValue::from_static("unknown"))
}

/// What is left of a timeout after the head start.
fn deadline(timeout: Duration) -> Duration {
    timeout - HEAD_START.min(timeout / 10)
}

/// The `grpc-timeout` of a call: at most 8 digits and a unit. What cannot be read counts as absent, as in the transport.
fn asked_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        for (text, wanted) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("123456789m", None),
            ("5", None),
            ("m", None),
            ("-1m", None),
        ] {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().expect("a metadata value"));
            assert_eq!(asked_timeout(&metadata), wanted, "{text}");
        }
    }

    #[test]
    fn our_deadline_comes_before_the_transports() {
        for (timeout, wanted) in [(0, 0), (10, 9), (500, 450), (30_000, 29_950)] {
            assert_eq!(deadline(Duration::from_millis(timeout)), Duration::from_millis(wanted), "{timeout} ms");
        }
    }
}
