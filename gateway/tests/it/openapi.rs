//! The OpenAPI document holds: every route is in it, every reference leads somewhere, every example does what it says.

use std::{collections::HashSet, sync::Arc};

use crate::support::{FakeIntake, FakeReplay, FakeStore, builder, get, score, send};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;
use undertone_gateway::live::StageLag;
use undertone_proto::PostReader;

async fn document() -> Value {
    let answer = get(&crate::support::router(), "/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    answer.json()
}

fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("a path item");
        methods.iter().map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
    });
    operations.collect()
}

#[tokio::test]
async fn every_route_is_documented_and_nothing_else() {
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    let documented: HashSet<_> =
        operations(&document).into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let wanted = [
        "POST /v1/score",
        "POST /v1/score/arrow",
        "POST /v1/score/stream",
        "POST /v1/embed",
        "POST /v1/posts",
        "POST /v1/dead/replay",
        "GET /v1/query/series",
        "GET /v1/query/tags",
        "GET /v1/query/latest",
        "GET /v1/query/search",
        "GET /v1/query/similar",
        "POST /v1/embeddings",
        "POST /predict",
        "POST /embed",
        "GET /info",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /v1/overview",
        "GET /v1/live",
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
        "GET /openapi.json",
    ];
    assert_eq!(documented, wanted.map(str::to_owned).into());
}

#[tokio::test]
async fn every_operation_has_a_name_a_summary_and_only_problems_for_errors() {
    let document = document().await;
    let mut names = HashSet::new();
    for (_, path, operation) in operations(&document) {
        assert!(names.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{path}");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{path}");
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let problem = response["content"].get("application/problem+json").is_some();
            let readiness = path == "/readyz";
            assert_eq!(problem, status.starts_with(['4', '5']) && !readiness, "{path} {status}");
        }
    }
}

#[tokio::test]
async fn every_reference_leads_to_a_schema() {
    let document = document().await;
    let mut open = vec![&document];
    let mut references = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    let pointer = reference.strip_prefix('#').expect("a local reference");
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    references += 1;
                }
                open.extend(fields.values());
            }
            Value::Array(values) => open.extend(values),
            _ => {}
        }
    }
    assert!(references > 10);
}

#[tokio::test]
async fn every_example_gives_its_documented_status() {
    let document = document().await;
    let builder = builder().intake(Arc::new(FakeIntake), PostReader::default(), None).replay(Arc::new(FakeReplay));
    let router = builder.build().router();
    let mut count = 0;
    for (method, path, operation) in operations(&document) {
        let content = &operation["requestBody"]["content"];
        let kinds = ["application/json", "application/x-ndjson"];
        let examples = kinds.iter().filter_map(|kind| Some((*kind, content[kind]["examples"].as_object()?)));
        let examples: Vec<_> = examples.flat_map(|(kind, named)| named.iter().map(move |each| (kind, each))).collect();
        assert!(!examples.is_empty() || method == "GET" || path == "/v1/score/arrow", "{path} has no examples");
        for (kind, (name, example)) in examples {
            let status = name.rsplit_once(" (").and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or("200");
            let request = Request::post(&path).header("content-type", kind);
            let value = &example["value"];
            // What is not JSON is shown as a string, and sent as its contents.
            let body = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let answer = send(&router, request.body(Body::from(body)).expect("a request")).await;
            assert_eq!(answer.status.as_str(), status, "{path}, {name}: {answer:?}");
            assert!(operation["responses"].get(status).is_some(), "{path}, {name}: {status} is not documented");
            let answered = &operation["responses"][status]["content"];
            assert!(answered.get(answer.header("content-type")).is_some(), "{path}, {name}: {answer:?}");
            count += 1;
        }
    }
    assert!(count >= 26);
}

#[tokio::test]
async fn every_get_answers_as_documented() {
    let document = document().await;
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let router = builder().metrics(metrics).queries(FakeStore::queries()).build().router();
    for (method, path, operation) in operations(&document) {
        if method != "GET" || path == "/v1/live" {
            continue;
        }
        let path = format!("{}?{}", path.replace("{model}", "fake"), example_query(operation));
        let answer = send(&router, Request::get(&path).body(Body::empty()).expect("a request")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let documented = operation["responses"]["200"]["content"].as_object().expect("content");
        let kind = answer.header("content-type").split(';').next().unwrap_or_default().to_owned();
        assert!(documented.contains_key(&kind), "{path} answers {kind}");
    }
}

/// The examples of an operation's parameters together.
fn example_query(operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let queried = parameters.filter(|parameter| parameter["in"] == "query" && !parameter["example"].is_null());
    let pair = |parameter: &Value| {
        let example = &parameter["example"];
        let value = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
        format!("{}={}", parameter["name"].as_str().unwrap_or_default(), value.replace(' ', "+"))
    };
    queried.map(pair).collect::<Vec<_>>().join("&")
}

/// Whether a schema allows a value, as far as our document uses JSON Schema. Stricter than the standard in one point:
/// every field must be documented.
fn allows(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).ok_or(reference)?;
        return allows(document, target, value);
    }
    if let Some(schemas) = schema["oneOf"].as_array() {
        let fits = schemas.iter().map(|schema| allows(document, schema, value)).collect::<Vec<_>>();
        let one = fits.iter().filter(|fits| fits.is_ok()).count() == 1;
        return if one { Ok(()) } else { Err(format!("{value} must fit exactly one: {fits:?}")) };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let given = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = types.contains(&given) || (given == "integer" && types.contains(&"number"));
    if !fits {
        return Err(format!("{value} is {given}, wanted {types:?}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() && value.is_object() {
            return Err(format!("{name} is missing in {value}"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let further = schema.get("additionalProperties");
        match schema["properties"].get(name).or(further) {
            Some(Value::Bool(false)) => return Err(format!("{name} is not documented")),
            Some(schema) => allows(document, schema, field).map_err(|error| format!("{name}: {error}"))?,
            None => return Err(format!("{name} is not documented")),
        }
    }
    for item in value.as_array().into_iter().flatten() {
        allows(document, &schema["items"], item)?;
    }
    Ok(())
}

#[tokio::test]
async fn answers_fit_their_schemas() {
    let document = document().await;
    let gateway = builder().build();
    gateway.live().set_lag(vec![
        StageLag { stage: "score".into(), posts: 3, seconds: None, waiting: None, scope: None },
        StageLag {
            stage: "silver.posts".into(),
            posts: 1,
            seconds: Some(0.5),
            waiting: Some("locked".into()),
            scope: Some("all processes".into()),
        },
    ]);
    let router = gateway.router();
    let schema = |path: &str, method: &str, status: &str| {
        let response = &document["paths"][path][method]["responses"][status]["content"];
        response.as_object().and_then(|content| content.values().next()).expect("content")["schema"].clone()
    };
    let many = score(&router, r#"{"items":[{"id":"a","text":"good"},{"text":""}],"embedding":true}"#).await;
    allows(&document, &schema("/v1/score", "post", "200"), &many.json()).expect("a result");
    let request = Request::post("/v1/embed").header("content-type", "application/json");
    let body = Body::from(r#"{"items":[{"id":"a","text":"good"},{"text":""}]}"#);
    let embedded = send(&router, request.body(body).expect("a request")).await;
    allows(&document, &schema("/v1/embed", "post", "200"), &embedded.json()).expect("embeddings");
    // A line is what its description says that it is.
    let request = Request::post("/v1/score/stream?embedding=true").header("content-type", "application/x-ndjson");
    let body = Body::from("{\"id\":\"a\",\"text\":\"good\"}\n{\n{\"text\":\"panic\"}\n");
    let lines = send(&router, request.body(body).expect("a request")).await;
    let lines: Vec<Value> =
        lines.bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    for (line, schema) in lines.iter().zip(["ScoreResult", "ScoreResult", "Problem"]) {
        allows(&document, &document["components"]["schemas"][schema], line).expect("a line");
    }
    assert_eq!(lines.len(), 3);
    let problem = score(&router, r#"{"texts":[1]}"#).await;
    allows(&document, &schema("/v1/score", "post", "422"), &problem.json()).expect("a problem");
    for path in ["/v1/models", "/v1/overview", "/readyz", "/livez"] {
        allows(&document, &schema(path, "get", "200"), &get(&router, path).await.json()).expect(path);
    }
}
