//! gRPC as callers see it, over real sockets: the same meaning, limits and codes as REST, health and reflection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::{Served, serve, small};
use futures::StreamExt;
use tokio::time::timeout;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt;
use undertone_gateway::{Limits, Part, PartState};
use undertone_proto::v1::{
    ScoreItem, ScoreRequest, ScoreResponse, score_result::Outcome, scoring_client::ScoringClient,
};

const SOON: Duration = Duration::from_secs(10);
const SERVICE: &str = "undertone.v1.Scoring";

async fn channel(served: &Served) -> Channel {
    Channel::from_shared(format!("http://{}", served.grpc)).expect("a uri").connect().await.expect("connects")
}

fn message(texts: &[&str]) -> ScoreRequest {
    let item = |(n, text): (usize, &&str)| ScoreItem { id: format!("i{n}"), text: (*text).to_owned() };
    ScoreRequest { items: texts.iter().enumerate().map(item).collect(), ..ScoreRequest::default() }
}

async fn score(served: &Served, request: impl tonic::IntoRequest<ScoreRequest>) -> Result<ScoreResponse, Status> {
    let mut client = ScoringClient::new(channel(served).await);
    timeout(SOON, client.score(request)).await.expect("in time").map(tonic::Response::into_inner)
}

/// The code of the status and that of the problem, which its details have as well.
fn code(status: &Status) -> (Code, &str) {
    let code = status.metadata().get("problem-code").map_or("", |code| code.to_str().expect("ascii"));
    assert_eq!(status.get_details_error_info().map_or(String::new(), |info| info.reason), code);
    (status.code(), code)
}

/// The field that a status says is wrong, and what it says of it.
fn violation(status: &Status) -> Option<(String, String)> {
    let bad = status.get_details_bad_request()?;
    assert_eq!(bad.field_violations.len(), 1);
    bad.field_violations.into_iter().next().map(|field| (field.field, field.description))
}

#[tokio::test]
async fn each_item_has_its_scores_or_its_error() {
    let served = serve(|builder| builder).await;
    let long = "x".repeat(101);
    let request =
        ScoreRequest { heads: vec!["sentiment".into()], embedding: true, ..message(&["good", "", &long, "broken"]) };
    let response = score(&served, request).await.expect("an answer");
    assert_eq!(response.model.as_ref().expect("a model").revision, "0123456789abcdef");
    let ids: Vec<_> = response.results.iter().map(|result| result.id.as_str()).collect();
    assert_eq!(ids, ["i0", "i1", "i2", "i3"]);
    let Some(Outcome::Scores(scores)) = &response.results[0].outcome else { panic!("scores: {response:?}") };
    assert_eq!((scores.heads.len(), scores.heads[0].label.as_str(), scores.polarity), (1, "positive", Some(0.6875)));
    assert_eq!(scores.heads[0].probabilities[0].label, "negative");
    assert_eq!((scores.embedding.len(), scores.in_domain), (4, Some(true)));
    let codes: Vec<_> = response.results[1..]
        .iter()
        .map(|result| match &result.outcome {
            Some(Outcome::Error(error)) => (error.code.as_str(), error.message.contains("secret")),
            other => panic!("an error: {other:?}"),
        })
        .collect();
    assert_eq!(codes, [("empty-text", false), ("text-too-long", false), ("internal", false)]);
}

#[tokio::test]
async fn a_call_that_fails_as_a_whole_has_the_status_of_the_table() {
    let served = serve(|builder| builder).await;
    let heads = ScoreRequest { heads: vec!["mood".into()], ..message(&["a"]) };
    let with_id = |bytes: usize| ScoreRequest {
        items: vec![ScoreItem { id: "x".repeat(bytes), text: "good".into() }],
        ..ScoreRequest::default()
    };
    let huge = message(&[&"x".repeat(20_000)]);
    for (request, wanted, field) in [
        (message(&[]), (Code::InvalidArgument, "empty-list"), None),
        (message(&["a"; 41]), (Code::InvalidArgument, "too-many-texts"), None),
        (heads, (Code::InvalidArgument, "unknown-head"), Some("heads[0]")),
        (with_id(257), (Code::InvalidArgument, "invalid-input"), Some("items[0].id")),
        (message(&["busy", "busy"]), (Code::ResourceExhausted, "queue-full"), None),
        (message(&["broken"]), (Code::Internal, "internal"), None),
        (message(&["panic"]), (Code::Internal, "internal"), None),
        (huge, (Code::OutOfRange, "body-too-large"), None),
    ] {
        let status = score(&served, request).await.expect_err("a status");
        assert_eq!(code(&status), wanted);
        assert!(!format!("{:?}", status.get_error_details()).contains("secret"), "{status:?}");
        assert_eq!(violation(&status).map(|(name, _)| name).as_deref(), field);
        let retry = status.get_details_retry_info().map(|info| info.retry_delay.expect("a delay").as_secs());
        let trailer = |name| status.metadata().get(name).map(|value| value.to_str().expect("ascii").to_owned());
        assert_eq!(trailer("retry-after"), retry.map(|seconds| seconds.to_string()));
        assert_eq!(retry.is_some(), wanted.0 == Code::ResourceExhausted);
        assert_eq!(trailer("x-request-id"), status.get_details_request_info().map(|info| info.request_id));
        assert!(trailer("x-request-id").is_some());
    }
    let response = score(&served, with_id(256)).await.expect("an answer");
    assert_eq!(response.results[0].id.len(), 256);
}

#[tokio::test]
async fn the_clients_deadline_is_kept_and_named() {
    let served = serve(|builder| builder).await;
    for text in ["slow", "stuck"] {
        let mut request = Request::new(message(&[text]));
        request.metadata_mut().insert("grpc-timeout", "600m".parse().expect("a value"));
        let status = score(&served, request).await.expect_err("a status");
        assert_eq!(code(&status), (Code::DeadlineExceeded, "deadline-exceeded"), "{text}: {status:?}");
    }
}

#[tokio::test]
async fn request_ids_come_back() {
    let served = serve(|builder| builder).await;
    let mut request = Request::new(message(&["good"]));
    request.metadata_mut().insert("x-request-id", "call-9".parse().expect("a value"));
    let response = ScoringClient::new(channel(&served).await).score(request).await.expect("an answer");
    assert_eq!(response.metadata().get("x-request-id").expect("an id"), "call-9");
}

#[tokio::test]
async fn health_follows_readiness_and_ends_with_the_server() {
    let ready = Arc::new(AtomicBool::new(false));
    let source = ready.clone();
    let served = serve(|builder| {
        builder.readiness(move || match source.load(Ordering::Relaxed) {
            true => vec![Part::ready("engine")],
            false => vec![Part::not_ready("engine", PartState::Starting, "loading")],
        })
    })
    .await;
    let mut client = HealthClient::new(channel(&served).await);
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let mut watch = client.watch(request.clone()).await.expect("a watch").into_inner();
    let first = watch.next().await.expect("a status").expect("a status");
    assert_eq!(first.status(), ServingStatus::NotServing);
    ready.store(true, Ordering::Relaxed);
    let second = timeout(SOON, watch.next()).await.expect("in time").expect("a status").expect("a status");
    assert_eq!(second.status(), ServingStatus::Serving);
    let overall = client.check(HealthCheckRequest::default()).await.expect("a status").into_inner();
    assert_eq!(overall.status(), ServingStatus::Serving);
    served.token.cancel();
    let last = timeout(SOON, watch.next()).await.expect("in time").expect("a status").expect("a status");
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert!(timeout(SOON, watch.next()).await.expect("the watch ends").is_none());
    for task in served.tasks {
        timeout(SOON, task).await.expect("a watch does not hold the drain up").expect("joins").expect("drains");
    }
}

#[tokio::test]
async fn reflection_describes_the_services() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let served = serve(|builder| builder).await;
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(format!("{SERVICE}.Score"))),
        ask(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned())),
    ];
    let mut client = ServerReflectionClient::new(channel(&served).await);
    let mut answers = client.server_reflection_info(tokio_stream::iter(questions)).await.expect("answers").into_inner();
    let mut next = async || answers.next().await.expect("an answer").expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = next().await else { panic!("a list") };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in [SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    assert!(matches!(next().await, Some(MessageResponse::FileDescriptorResponse(_))));
    assert!(matches!(next().await, Some(MessageResponse::FileDescriptorResponse(_))), "what statuses are made of");

    use tonic_reflection::pb::v1alpha;
    let question = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel(&served).await);
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([question])).await.expect("answers").into_inner();
    assert!(answers.next().await.expect("an answer").is_ok());
}

#[tokio::test]
async fn an_unknown_service_or_method_is_unimplemented() {
    let served = serve(|builder| builder).await;
    let mut client = tonic::client::Grpc::new(channel(&served).await);
    for path in ["/undertone.v9.Nothing/Do", "/undertone.v1.Scoring/Guess"] {
        let path = axum::http::uri::PathAndQuery::from_static(path);
        let codec = tonic_prost::ProstCodec::<ScoreRequest, ScoreResponse>::default();
        client.ready().await.expect("ready");
        let status = client.unary(Request::new(message(&["a"])), path, codec).await.expect_err("a status");
        assert_eq!(code(&status), (Code::Unimplemented, "unknown-path"));
    }
}

#[tokio::test]
async fn a_drain_lets_a_running_call_finish() {
    let served = serve(|builder| builder.limits(Limits { drain: Duration::from_secs(8), ..small() })).await;
    let channel = channel(&served).await;
    let call = tokio::spawn(async move { ScoringClient::new(channel).score(message(&["held"])).await });
    served.scorer.arrived.acquire().await.expect("the call runs").forget();
    served.token.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!served.tasks[1].is_finished(), "the drain waits for the call");
    served.scorer.gate.add_permits(1);
    let response = call.await.expect("joins").expect("an answer").into_inner();
    assert!(matches!(response.results[0].outcome, Some(Outcome::Scores(_))));
    for task in served.tasks {
        timeout(SOON, task).await.expect("in time").expect("joins").expect("drains");
    }
}
