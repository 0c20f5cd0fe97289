//! Calls that could only be late are refused at once, through every door, and never while nobody knows.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use serde_json::json;
use tonic::{Code, transport::Channel};
use undertone_gateway::Gateway;
use undertone_proto::v1::{ScoreItem, ScoreRequest, scoring_client::ScoringClient};

use crate::support::{FakeScorer, score_request, send, serve, small};

/// A router whose interactive lane takes five seconds, and the bulk lane ten, if that is known.
fn full(known: bool) -> (Arc<FakeScorer>, Router) {
    let scorer = FakeScorer::new();
    *scorer.wait.lock().expect("lock") = known.then_some(Duration::from_secs(5));
    let router = Gateway::builder(scorer.clone()).limits(small()).build().router();
    (scorer, router)
}

fn with(mut request: Request<Body>, headers: &[(&'static str, &str)]) -> Request<Body> {
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a header value"));
    }
    request
}

#[tokio::test]
async fn a_call_that_would_be_late_is_told_when_it_would_not_be() {
    let many = json!({ "texts": vec!["good"; 33] }).to_string();
    let (one, broken) = (r#"{"text":"good"}"#, "not even json");
    for (body, headers, status, soonest) in [
        (one, vec![], 200, 0),
        (one, vec![("x-timeout-ms", "7000")], 200, 0),
        (one, vec![("x-timeout-ms", "1000")], 429, 4),
        (one, vec![("x-timeout-ms", "1000"), ("x-lane", "bulk")], 429, 9),
        (one, vec![("x-timeout-ms", "6000"), ("x-lane", "bulk")], 429, 5),
        // Its lane follows from its size.
        (&many, vec![("x-timeout-ms", "7000")], 429, 4),
        (&many, vec![("x-timeout-ms", "13000")], 200, 0),
        // The body is not looked at.
        (broken, vec![("x-timeout-ms", "1000")], 429, 4),
        (broken, vec![], 400, 0),
    ] {
        let (scorer, router) = full(true);
        let answer = send(&router, with(score_request(body.to_owned()), &headers)).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?}");
        if status != 429 {
            continue;
        }
        assert_eq!(answer.problem(), "queue-full");
        let after: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!((soonest..=soonest + 1).contains(&after), "{headers:?}: {after}");
        assert!(scorer.lanes.lock().expect("lock").is_empty(), "nothing is done for it");
    }
}

#[tokio::test]
async fn nobody_is_refused_while_the_pace_is_unknown() {
    let (_, router) = full(false);
    for headers in [vec![("x-timeout-ms", "100")], vec![("x-timeout-ms", "100"), ("x-lane", "bulk")]] {
        let answer = send(&router, with(score_request(r#"{"text":"good"}"#), &headers)).await;
        assert_eq!(answer.status.as_u16(), 200, "{headers:?}");
    }
}

#[tokio::test]
async fn other_ways_in_refuse_alike() {
    for (path, content_type) in [
        ("/v1/embed", "application/json"),
        ("/predict", "application/json"),
        ("/v1/embeddings", "application/json"),
        ("/v1/score/arrow", "application/vnd.apache.arrow.stream"),
        ("/v1/score/stream", "application/x-ndjson"),
    ] {
        let request = Request::post(path).header("content-type", content_type).body(Body::empty()).expect("a request");
        let answer = send(&full(true).1, with(request, &[("x-timeout-ms", "1000")])).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (429, "queue-full"), "{path}");
    }
}

#[tokio::test]
async fn grpc_refuses_alike() {
    let served = serve(|builder| builder).await;
    *served.scorer.wait.lock().expect("lock") = Some(Duration::from_secs(5));
    let channel = Channel::from_shared(format!("http://{}", served.grpc)).expect("a uri").connect().await;
    let mut client = ScoringClient::new(channel.expect("connects"));
    for (timeout, late) in [("1S", true), ("9S", false)] {
        let items = vec![ScoreItem { id: "a".into(), text: "good".into() }];
        let mut request = tonic::Request::new(ScoreRequest { items, ..ScoreRequest::default() });
        request.metadata_mut().insert("grpc-timeout", timeout.parse().expect("a value"));
        match client.score(request).await {
            Ok(_) => assert!(!late),
            Err(status) => {
                assert!(late, "{status:?}");
                assert_eq!(status.code(), Code::ResourceExhausted);
                assert_eq!(status.metadata().get("problem-code").expect("a code"), "queue-full");
                let after: u64 = status
                    .metadata()
                    .get("retry-after")
                    .expect("seconds")
                    .to_str()
                    .expect("ascii")
                    .parse()
                    .expect("seconds");
                assert!((4..=5).contains(&after), "{after}");
            }
        }
    }
}
