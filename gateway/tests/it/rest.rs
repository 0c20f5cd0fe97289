//! REST as callers see it: results, every problem with its status and body, health, metrics, and the page.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{FakeScorer, builder, get, router, score, score_request, send, small};
use axum::{
    body::{Body, Bytes},
    http::{Method, Request, StatusCode},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;
use undertone_gateway::{Gateway, Limits, Part, PartState};
use undertone_inference::Lane;

fn body(value: &Value) -> Body {
    Body::from(value.to_string())
}

#[tokio::test]
async fn one_text_has_the_result_that_the_documentation_shows() {
    let answer = score(&router(), r#"{"text":"a good long text for the language"}"#).await;
    assert_eq!(answer.status, StatusCode::OK);
    let model = json!({"name": "fake", "revision": "0123456789abcdef", "precision": "fp32"});
    let wanted = json!({
        "model": model,
        "results": [{
            "sentiment": {"label": "positive", "probabilities": {"negative": 0.0625, "neutral": 0.1875, "positive": 0.75}},
            "emotion": {"label": "joy", "probabilities": {"joy": 0.5, "anger": 0.25}},
            "polarity": 0.6875, "confidence": 0.75, "language": "eng", "in_domain": true, "tokens": 9,
            "truncated": false, "model": model,
        }],
    });
    // As text, so that the order of the fields counts too.
    assert_eq!(String::from_utf8_lossy(&answer.bytes), wanted.to_string());
}

#[tokio::test]
async fn heads_and_embedding_are_answered_as_asked() {
    let answer = score(&router(), body(&json!({"text": "hi", "heads": ["emotion"], "embedding": true}))).await;
    let result = &answer.json()["results"][0];
    assert!(result.get("sentiment").is_none() && result.get("emotion").is_some());
    assert_eq!(result["embedding"], json!([0.5, -0.5, 0.25, 2.0]));
    assert_eq!(result["language"], Value::Null);
    let foreign = score(&router(), r#"{"text":"fremd"}"#).await;
    assert_eq!(foreign.json()["results"][0]["in_domain"], json!(false));
}

#[tokio::test]
async fn many_texts_have_results_and_errors_of_their_own_in_order() {
    let items = json!({"items": [
        {"id": "a", "text": "good"}, {"id": 7, "text": ""}, {"text": "x".repeat(101)}, {"id": "d", "text": "busy"},
        {"id": "e", "text": "refused"}, {"id": "f", "text": "broken"}, {"id": "g", "text": "bad"},
    ]});
    let answer = score(&router(), body(&items)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let json = answer.json();
    let results = json["results"].as_array().expect("results");
    let seen: Vec<_> = results
        .iter()
        .map(|result| (result.get("id").cloned(), result["error"]["type"].as_str(), result["error"]["status"].as_u64()))
        .collect();
    assert_eq!(
        seen,
        [
            (Some(json!("a")), None, None),
            (Some(json!(7)), Some("/problems/empty-text"), Some(422)),
            (None, Some("/problems/text-too-long"), Some(413)),
            (Some(json!("d")), Some("/problems/queue-full"), Some(429)),
            (Some(json!("e")), Some("/problems/invalid-input"), Some(422)),
            (Some(json!("f")), Some("/problems/internal"), Some(500)),
            (Some(json!("g")), None, None),
        ]
    );
    assert_eq!(results[4]["error"]["detail"], "kernel 7 failed; send another");
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("secret"));
}

#[tokio::test]
async fn every_bad_request_is_told_what_is_wrong_with_it() {
    let router = router();
    let many = json!({"texts": vec!["a"; 41]});
    let long = json!({"text": "x".repeat(101)});
    let huge = json!({"text": "x".repeat(20_000)});
    for (sent, status, code, detail) in [
        (json!({"texts": []}), 422, "empty-list", "at least one"),
        (json!({"items": []}), 422, "empty-list", "at least one"),
        (json!({"text": " \n"}), 422, "empty-text", "white space"),
        (json!({}), 422, "invalid-input", "exactly one of text, texts and items"),
        (json!({"text": "a", "texts": ["b"]}), 422, "invalid-input", "more than one"),
        (json!({"txt": "a"}), 422, "invalid-input", "unknown field `txt`"),
        (json!({"text": "hi", "heads": ["mood"]}), 422, "unknown-head", "it has: sentiment, emotion"),
        (many, 413, "too-many-texts", "41 texts in one call, at most 40"),
        (long, 413, "text-too-long", "101 bytes, at most 100"),
        (huge, 413, "body-too-large", "over 10000 bytes"),
        (json!({"text": "busy"}), 429, "queue-full", "lane is full"),
        (json!({"texts": ["busy", "busy"]}), 429, "queue-full", "lane is full"),
        (json!({"text": "refused"}), 422, "invalid-input", "send another"),
        (json!({"text": "broken"}), 500, "internal", "its log has the reason"),
        (json!({"text": "panic"}), 500, "internal", "its log has the reason"),
    ] {
        let answer = score(&router, body(&sent)).await;
        let shown = sent.to_string().chars().take(60).collect::<String>();
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, code), "{shown}");
        let said = answer.json()["detail"].to_string();
        assert!(said.contains(detail), "{shown}: {said}");
        assert_eq!(answer.header("retry-after"), if status == 429 { "1" } else { "" }, "{shown}");
    }
    let answer = score(&router, "{\"text\":\n \"a\",}").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "invalid-json"));
    assert!(answer.json()["detail"].to_string().contains("line 2, column 6"), "{answer:?}");
    let answer = score(&router, r#"{"texts":["a",null]}"#).await;
    assert_eq!(answer.json()["errors"][0]["pointer"], "/texts/1");
}

#[tokio::test]
async fn content_type_path_and_method_are_checked() {
    let router = router();
    let text =
        |kind: &str| Request::post("/v1/score").header("content-type", kind).body(Body::from("hi")).expect("a request");
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        assert_eq!(send(&router, text(kind)).await.problem(), "unsupported-media-type");
    }
    let bare = Request::post("/v1/score").body(Body::from("{}")).expect("a request");
    let answer = send(&router, bare).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (415, "unsupported-media-type"));

    for path in ["/v1/nothing", "/v1/score/", "/../etc/passwd", "/assets/missing.js"] {
        let answer = get(&router, path).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "unknown-path"), "{path}");
    }
    for (method, path, allow) in [
        (Method::GET, "/v1/score", "POST"),
        (Method::DELETE, "/v1/models", "GET,HEAD"),
        (Method::POST, "/index.html", "GET,HEAD"),
        (Method::POST, "/", "GET,HEAD"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let answer = send(&router, request).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (405, "method-not-allowed"), "{path}");
        assert_eq!(answer.header("allow"), allow, "{path}");
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_off_at_the_limit_too() {
    let chunks = futures::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(&[b' '; 1000])));
    let answer = score(&router(), Body::from_stream(chunks)).await;
    assert_eq!(answer.problem(), "body-too-large");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let limits = Limits { body_timeout: Duration::from_millis(50), ..small() };
    let router = builder().limits(limits).build().router();
    let silence = futures::stream::pending::<io::Result<Bytes>>();
    let answer = score(&router, Body::from_stream(silence)).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (408, "body-timeout"));
}

#[tokio::test]
async fn a_deadline_is_kept_whether_the_scorer_minds_it_or_not() {
    let router = router();
    for text in ["slow", "stuck"] {
        let mut request = score_request(body(&json!({"text": text})));
        request.headers_mut().insert("x-timeout-ms", "60".parse().expect("a value"));
        let answer = tokio::time::timeout(Duration::from_secs(5), send(&router, request)).await.expect("in time");
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (504, "deadline-exceeded"), "{text}");
    }
    let mut request = score_request(body(&json!({"texts": ["good", "stuck"]})));
    request.headers_mut().insert("x-timeout-ms", "60".parse().expect("a value"));
    let json = send(&router, request).await.json();
    assert_eq!(json["results"][0]["sentiment"]["label"], "positive", "what was scored in time is answered");
    assert_eq!(json["results"][1]["error"]["type"], "/problems/deadline-exceeded");

    let mut request = score_request(body(&json!({"text": "good"})));
    request.headers_mut().insert("x-timeout-ms", "soon".parse().expect("a value"));
    let answer = send(&router, request).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "invalid-header"));
}

#[tokio::test]
async fn small_calls_are_interactive_and_large_ones_bulk() {
    let scorer = FakeScorer::new();
    let router = Gateway::builder(scorer.clone()).limits(small()).build().router();
    for (texts, lane) in [(32, Lane::Interactive), (33, Lane::Bulk)] {
        score(&router, body(&json!({"texts": vec!["a"; texts]}))).await;
        let lanes = std::mem::take(&mut *scorer.lanes.lock().expect("lock"));
        assert_eq!(lanes, vec![lane; texts]);
    }
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_and_room_comes_back() {
    let scorer = FakeScorer::new();
    let limits = Limits { calls_in_flight: 1, ..small() };
    let router = Gateway::builder(scorer.clone()).limits(limits).build().router();
    let held = tokio::spawn({
        let router = router.clone();
        async move { score(&router, r#"{"text":"held"}"#).await }
    });
    scorer.arrived.acquire().await.expect("the call runs").forget();
    let answer = score(&router, r#"{"text":"good"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (429, "queue-full"));
    for path in ["/livez", "/readyz", "/v1/overview"] {
        assert_eq!(get(&router, path).await.status, StatusCode::OK, "{path} does not queue behind inference");
    }
    scorer.gate.add_permits(1);
    assert_eq!(held.await.expect("joins").status, StatusCode::OK);
    assert_eq!(score(&router, r#"{"text":"good"}"#).await.status, StatusCode::OK);
    // A caller that goes away gives its room back.
    let gone = tokio::time::timeout(Duration::from_millis(20), score(&router, r#"{"text":"stuck"}"#)).await;
    assert!(gone.is_err());
    assert_eq!(score(&router, r#"{"text":"good"}"#).await.status, StatusCode::OK);
}

#[tokio::test]
async fn after_the_shutdown_new_calls_are_sent_elsewhere() {
    let token = CancellationToken::new();
    let router = builder().shutdown(token.clone()).build().router();
    token.cancel();
    let answer = score(&router, r#"{"text":"good"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "shutting-down"));
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(get(&router, "/v1/live").await.problem(), "shutting-down");
    let ready = get(&router, "/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["parts"][0]["state"]), (503, &json!("stopping")));
    assert_eq!(get(&router, "/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn readiness_names_the_part_and_the_reason() {
    let parts = Arc::new(Mutex::new(vec![Part::ready("engine")]));
    let source = parts.clone();
    let router = builder().readiness(move || source.lock().expect("lock").clone()).build().router();
    let ready = get(&router, "/readyz").await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(ready.json()["parts"][1], json!({"name": "engine", "state": "ready", "reason": null}));
    parts.lock().expect("lock").push(Part::not_ready("silver.posts", PartState::Failed, "disk is full"));
    let ready = get(&router, "/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["ready"], false);
    assert_eq!(ready.json()["parts"][2], json!({"name": "silver.posts", "state": "failed", "reason": "disk is full"}));
}

#[tokio::test]
async fn models_say_what_can_be_asked_of_them() {
    let models = get(&router(), "/v1/models").await.json();
    let model = &models["models"][0];
    assert_eq!((&model["name"], &model["dimensions"], &model["max_tokens"]), (&json!("fake"), &json!(4), &json!(128)));
    assert_eq!(model["heads"][1], json!({"name": "emotion", "labels": ["joy", "anger"], "multi_label": true}));
}

#[tokio::test]
async fn request_ids_come_back_or_are_made() {
    let router = router();
    let with = |id: &str| Request::get("/livez").header("x-request-id", id).body(Body::empty()).expect("a request");
    assert_eq!(send(&router, with("call-7")).await.header("x-request-id"), "call-7");
    assert_ne!(send(&router, with("a b")).await.header("x-request-id"), "a b");
    assert_eq!(get(&router, "/livez").await.header("x-request-id").len(), 36);
}

#[tokio::test]
async fn metrics_count_by_route_and_status_and_never_by_path() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let router = builder().metrics(recorder.handle()).build().router();
    metrics::set_global_recorder(recorder).expect("the only recorder of this process");
    undertone_gateway::telemetry::describe();
    score(&router, r#"{"texts":["good","busy"]}"#).await;
    get(&router, "/made/up").await;
    let answer = get(&router, "/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(answer.bytes).expect("utf-8");
    for line in [
        r#"undertone_http_requests_total{method="POST",route="/v1/score",status="200"}"#,
        r#"undertone_http_requests_total{method="GET",route="unknown",status="404"}"#,
        r#"undertone_gateway_texts_total{face="rest",result="scored"}"#,
        r#"undertone_gateway_texts_total{face="rest",result="queue-full"}"#,
        r#"undertone_http_request_seconds_count{method="POST",route="/v1/score"}"#,
        "# HELP undertone_http_requests_total",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("/made/up"));
    assert_eq!(get(&crate::support::router(), "/metrics").await.problem(), "not-found");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn requests_are_logged_with_their_id_and_never_with_a_text() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let router = router();
    for sent in [
        r#"{"text":"private words"}"#,
        r#"{"texts":"private words"}"#,
        r#"{"private words"#,
        r#"{"heads":["private words"],"text":"private words"}"#,
    ] {
        let mut request = score_request(sent);
        request.headers_mut().insert("x-request-id", "call-8".parse().expect("a value"));
        send(&router, request).await;
    }
    get(&router, "/private-words").await;
    drop(guard);
    let text = String::from_utf8(log.0.lock().expect("lock").clone()).expect("utf-8");
    assert!(text.contains("call-8") && text.contains("status=200") && text.contains("/v1/score"), "{text}");
    assert!(!text.contains("private"), "{text}");
}
