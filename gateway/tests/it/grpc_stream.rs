//! `ScoreStream`, `Embed` and the models over gRPC: the same meaning, limits and codes as REST.

use std::time::{Duration, Instant};

use crate::support::{Served, serve, small};
use futures::{Stream, StreamExt, stream};
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use undertone_gateway::Limits;
use undertone_inference::Lane;
use undertone_proto::v1::{
    EmbedRequest, GetModelRequest, ListModelsRequest, ScoreItem, ScoreStreamRequest, ScoreStreamResponse, embed_result,
    score_result::Outcome, scoring_client::ScoringClient,
};

const SOON: Duration = Duration::from_secs(10);

async fn client(served: &Served) -> ScoringClient<Channel> {
    let uri = format!("http://{}", served.grpc);
    ScoringClient::new(Channel::from_shared(uri).expect("a uri").connect().await.expect("connects"))
}

fn item(id: &str, text: &str) -> ScoreItem {
    ScoreItem { id: id.to_owned(), text: text.to_owned() }
}

fn message(id: &str, text: &str) -> ScoreStreamRequest {
    ScoreStreamRequest { item: Some(item(id, text)), ..ScoreStreamRequest::default() }
}

async fn open(
    served: &Served,
    requests: Request<impl Stream<Item = ScoreStreamRequest> + Send + 'static>,
) -> Result<Streaming<ScoreStreamResponse>, Status> {
    let answers = client(served).await.score_stream(requests).await?;
    assert!(answers.metadata().contains_key("x-request-id"));
    Ok(answers.into_inner())
}

/// A stream that is sent to by hand.
async fn by_hand(served: &Served) -> (UnboundedSender<ScoreStreamRequest>, Streaming<ScoreStreamResponse>) {
    let (sender, receiver) = unbounded_channel();
    let answers = open(served, Request::new(UnboundedReceiverStream::new(receiver))).await.expect("a stream");
    (sender, answers)
}

async fn next(answers: &mut Streaming<ScoreStreamResponse>) -> Result<ScoreStreamResponse, Status> {
    timeout(SOON, answers.next()).await.expect("in time").expect("not the end")
}

/// The id of an answer and its label, or its error.
fn said(answer: &ScoreStreamResponse) -> (String, String) {
    let result = answer.result.as_ref().expect("a result");
    let said = match result.outcome.as_ref().expect("an outcome") {
        Outcome::Scores(scores) => {
            assert_eq!(answer.model.as_ref().expect("a model").revision, "0123456789abcdef");
            scores.heads[0].label.clone()
        }
        Outcome::Error(error) => {
            assert!(answer.model.is_none() && !error.message.is_empty());
            error.code.clone()
        }
    };
    (result.id.clone(), said)
}

fn code(status: &Status) -> (Code, String) {
    let code = status.metadata().get("problem-code").map_or("", |code| code.to_str().expect("ascii"));
    (status.code(), code.to_owned())
}

#[tokio::test]
async fn answers_come_in_order_while_messages_still_do() {
    let served = serve(|builder| builder).await;
    let (sender, mut answers) = by_hand(&served).await;
    let send = |message| sender.send(message).expect("open");
    send(message("a", "good"));
    assert_eq!(said(&next(&mut answers).await.expect("an answer")), ("a".into(), "positive".into()));
    for (id, text) in [("b", "held"), ("c", "bad"), ("d", ""), ("e", "busy"), (&"x".repeat(257), "good")] {
        send(message(id, text));
    }
    send(ScoreStreamRequest { heads: vec!["mood".into()], ..message("f", "good") });
    send(ScoreStreamRequest { heads: vec!["emotion".into()], embedding: true, ..message("g", "good") });
    send(ScoreStreamRequest::default());
    served.scorer.arrived.acquire().await.expect("it runs").forget();
    assert!(timeout(Duration::from_millis(50), answers.next()).await.is_err(), "nothing overtakes");
    served.scorer.gate.add_permits(1);
    let mut seen = Vec::new();
    for _ in 0..8 {
        let answer = next(&mut answers).await.expect("an answer");
        if let Some(Outcome::Scores(scores)) = answer.result.as_ref().and_then(|result| result.outcome.as_ref()) {
            assert_eq!(scores.embedding.len(), if scores.heads.len() == 1 { 4 } else { 0 });
        }
        seen.push(said(&answer));
    }
    let wanted = [
        ("b", "neutral"),
        ("c", "negative"),
        ("d", "empty-text"),
        ("e", "queue-full"),
        ("", "invalid-input"),
        ("f", "unknown-head"),
        ("g", "joy"),
        ("", "empty-text"),
    ];
    assert_eq!(seen, wanted.map(|(id, said)| (id.to_owned(), said.to_owned())));
    drop(sender);
    assert!(timeout(SOON, answers.next()).await.expect("in time").is_none());
    assert!(served.scorer.lanes.lock().expect("lock").iter().all(|lane| *lane == Lane::Bulk));
}

#[tokio::test]
async fn a_stream_ends_with_the_status_of_the_table() {
    let limits = Limits { body_timeout: Duration::from_millis(200), ..small() };
    let served = serve(|builder| builder.limits(limits)).await;
    let huge = "x".repeat(20_000);
    for (text, header, answered, wanted) in [
        (huge.as_str(), None, 1, (Code::OutOfRange, "body-too-large")),
        ("panic", None, 1, (Code::Internal, "internal")),
        ("stuck", Some(("grpc-timeout", "300m")), 1, (Code::DeadlineExceeded, "deadline-exceeded")),
        ("good", None, 2, (Code::DeadlineExceeded, "body-timeout")),
        ("good", Some(("x-lane", "fast")), 0, (Code::InvalidArgument, "invalid-header")),
    ] {
        let messages = [message("a", "good"), message("b", text)];
        let mut request = Request::new(stream::iter(messages).chain(stream::pending()));
        if let Some((name, value)) = header {
            request.metadata_mut().insert(name, value.parse().expect("a value"));
        }
        let (mut count, status) = match open(&served, request).await {
            Err(status) => (0, status),
            Ok(mut answers) => {
                let mut count = 0;
                loop {
                    match next(&mut answers).await {
                        Ok(_) => count += 1,
                        Err(status) => break (count, status),
                    }
                }
            }
        };
        if wanted.1 == "internal" {
            // The panic may come before the answer is out.
            count = count.max(1);
        }
        let (grpc, problem) = code(&status);
        assert_eq!((count, grpc, problem.as_str()), (answered, wanted.0, wanted.1), "{status:?}");
        assert!(status.metadata().contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn who_does_not_read_is_not_read_from_and_then_loses_the_stream() {
    let limits = Limits { stall: Duration::from_millis(400), streams: 1, stream_texts: 8, ..small() };
    let served = serve(|builder| builder.limits(limits)).await;
    // Answers of some size, so that windows are soon full.
    let endless = stream::repeat_with(|| message(&"i".repeat(256), "good"));
    let mut answers = open(&served, Request::new(endless)).await.expect("a stream");
    sleep(Duration::from_millis(300)).await;
    let scored = || served.scorer.lanes.lock().expect("lock").len();
    let before = scored();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(scored(), before, "nothing more is read");
    let again = async {
        loop {
            match open(&served, Request::new(stream::empty())).await {
                Ok(_) => break,
                Err(status) => assert_eq!(code(&status), (Code::ResourceExhausted, "queue-full".to_owned())),
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, again).await.expect("its place is free again");
    let status = async {
        loop {
            if let Err(status) = next(&mut answers).await {
                break status;
            }
        }
    };
    assert_eq!(code(&status.await), (Code::Cancelled, "cancelled".to_owned()), "it does not look whole");
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_its_place() {
    let served = serve(|builder| builder.limits(Limits { streams: 1, ..small() })).await;
    let (sender, answers) = by_hand(&served).await;
    sender.send(message("a", "stuck")).expect("open");
    while served.scorer.lanes.lock().expect("lock").is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    drop((sender, answers));
    let freed = async {
        while open(&served, Request::new(stream::empty())).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, freed).await.expect("its place is free again");
}

#[tokio::test]
async fn a_drain_answers_what_was_read_and_says_why_it_ends() {
    let served = serve(|builder| builder.limits(Limits { drain: Duration::from_secs(8), ..small() })).await;
    let (sender, mut answers) = by_hand(&served).await;
    sender.send(message("a", "held")).expect("open");
    served.scorer.arrived.acquire().await.expect("it runs").forget();
    served.token.cancel();
    sleep(Duration::from_millis(100)).await;
    assert!(!served.tasks[1].is_finished(), "the drain waits for the stream");
    served.scorer.gate.add_permits(1);
    assert_eq!(said(&next(&mut answers).await.expect("an answer")).1, "neutral");
    let status = next(&mut answers).await.expect_err("a status");
    assert_eq!(code(&status), (Code::Unavailable, "shutting-down".to_owned()));
    assert!(status.metadata().contains_key("retry-after"));
    let began = Instant::now();
    for task in served.tasks {
        timeout(SOON, task).await.expect("in time").expect("joins").expect("drains");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "a stream does not hold the drain up");
}

#[tokio::test]
async fn texts_are_embedded_each_with_its_own_error() {
    let served = serve(|builder| builder).await;
    let mut client = client(&served).await;
    let request = EmbedRequest { items: vec![item("a", "good"), item("b", " "), item("", "fine")] };
    let response = client.embed(request).await.expect("an answer");
    assert!(response.metadata().contains_key("x-request-id"));
    let response = response.into_inner();
    assert_eq!(response.model.expect("a model").name, "fake");
    let seen: Vec<_> = response
        .results
        .iter()
        .map(|result| match result.outcome.as_ref().expect("an outcome") {
            embed_result::Outcome::Embedding(embedding) => (result.id.as_str(), embedding.values.clone(), ""),
            embed_result::Outcome::Error(error) => (result.id.as_str(), vec![], error.code.as_str()),
        })
        .collect();
    assert_eq!(seen[0], ("a", vec![0.5, -0.5, 0.25, 4.0], ""));
    assert_eq!((&seen[1], seen[2].0, seen[2].1.len()), (&("b", vec![], "empty-text"), "", 4));
    let status = client.embed(EmbedRequest::default()).await.expect_err("a status");
    assert_eq!(code(&status), (Code::InvalidArgument, "empty-list".to_owned()));
}

#[tokio::test]
async fn models_say_what_can_be_asked_of_them() {
    let served = serve(|builder| builder).await;
    let mut client = client(&served).await;
    let models = client.list_models(ListModelsRequest {}).await.expect("an answer").into_inner().models;
    let model = client.get_model(GetModelRequest { name: "fake".into() }).await.expect("an answer").into_inner();
    assert_eq!(models, std::slice::from_ref(&model));
    assert_eq!((model.dimensions, model.max_tokens, model.parameters), (4, 128, 7));
    assert_eq!(
        (model.sentiment_head.as_deref(), model.languages.as_slice()),
        (Some("sentiment"), &["eng".to_owned()][..])
    );
    let heads: Vec<_> =
        model.heads.iter().map(|head| (head.name.as_str(), head.labels.len(), head.multi_label)).collect();
    assert_eq!(heads, [("sentiment", 3, false), ("emotion", 2, true)]);
    let status = client.get_model(GetModelRequest { name: "gpt-9".into() }).await.expect_err("a status");
    assert_eq!(code(&status), (Code::NotFound, "not-found".to_owned()));
}
