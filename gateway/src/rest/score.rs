//! `POST /v1/score`.

use axum::{
    Extension, Json,
    extract::{Request, State},
};

use super::{body, observe::Arrived};
use crate::{
    Gateway,
    api::{Model, ModelRef, ScoreRequest, ScoreResponse, ScoreResult},
    problem::Problem,
    scoring::select,
    telemetry,
};

/// Scores one text or many
///
/// Send exactly one of `text`, `texts` and `items`. With `text`, what is wrong with the text is the status of the call;
/// with the others each result holds scores or an `error` of its own, in the order of the texts, and the call fails only
/// if nothing was scored because the server is full, late or shutting down. Small calls go ahead of large ones.
#[utoipa::path(
    post,
    path = "/v1/score",
    tag = "scoring",
    operation_id = "score",
    params(
        ("x-timeout-ms" = Option<u64>, Header, nullable = false, description = "deadline in milliseconds from the request's head, at most \
         5 minutes; 30 s if it is not sent"),
        ("x-request-id" = Option<String>, Header, nullable = false, description = "an id of 1 to 128 letters, digits and `-._~`, which \
         comes back and stands in the log"),
    ),
    request_body(content = ScoreRequest, examples(
        ("one text" = (value = json!({"text": "the espresso here is wonderful ☕"}))),
        ("many texts" = (value = json!({"texts": ["what a day", "never again"], "heads": ["sentiment"]}))),
        ("items with ids" = (value = json!({"items": [{"id": "a1", "text": "fine, thanks"}], "embedding": true}))),
        ("one of many is empty" = (value = json!({"texts": ["what a day", ""]}))),
        ("nothing to score (422)" = (value = json!({"texts": []}))),
        ("no such head (422)" = (value = json!({"text": "hi", "heads": ["mood"]}))),
    )),
    responses(
        (status = 200, description = "scored; single texts may still have errors in their results",
         body = ScoreResponse, example = json!({
            "model": {"name": "undertone-small", "revision": "5f1c0e9ab2d4", "precision": "fp32"},
            "results": [{
                "sentiment": {
                    "label": "positive",
                    "probabilities": {"negative": 0.01, "neutral": 0.2, "positive": 0.79}
                },
                "polarity": 0.78, "confidence": 0.79, "language": "eng", "in_domain": true,
                "tokens": 12, "truncated": false,
                "model": {"name": "undertone-small", "revision": "5f1c0e9ab2d4", "precision": "fp32"}
            }]
         })),
        (status = 400, description = "`invalid-json`, `invalid-header`", body = Problem,
         content_type = "application/problem+json"),
        (status = 408, description = "`body-timeout`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`body-too-large`, `too-many-texts`, `text-too-long`", body = Problem,
         content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = Problem,
         content_type = "application/problem+json"),
        (status = 422, description = "`invalid-input`, `empty-list`, `empty-text`, `unknown-head`", body = Problem,
         content_type = "application/problem+json"),
        (status = 429, description = "`queue-full`: try again after `Retry-After` seconds", body = Problem,
         content_type = "application/problem+json",
         headers(("retry-after" = u32, description = "seconds"))),
        (status = 500, description = "`internal`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`shutting-down`, `unavailable`", body = Problem,
         content_type = "application/problem+json",
         headers(("retry-after" = u32, description = "seconds"))),
        (status = 504, description = "`deadline-exceeded`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn score(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    request: Request,
) -> Result<Json<ScoreResponse>, Problem> {
    let admission = gateway.admit()?;
    let deadline = arrived + gateway.limits.granted(body::asked_timeout(request.headers())?);
    let body = body::read(request, &gateway.limits, deadline).await?;
    let asked = body::parse(&body)?;
    drop(body);
    let model = gateway.scorer.model();
    let selection = select(asked.heads, asked.embedding, &model, "/heads")?;

    let texts = asked.texts.len();
    let outcomes = gateway.score_texts(asked.texts, deadline).await;
    telemetry::texts("rest", texts, &outcomes);
    let outcomes = outcomes?;
    let model = crate::scoring::model_of(&outcomes).unwrap_or(model);
    let mut results = Vec::with_capacity(texts);
    for (id, outcome) in asked.ids.into_iter().zip(outcomes) {
        results.push(match outcome {
            Ok(scored) => ScoreResult::new(id, scored, &selection),
            Err(problem) if asked.single => return Err(problem),
            Err(problem) => ScoreResult::failed(id, problem),
        });
    }
    drop(admission);
    Ok(Json(ScoreResponse { model: ModelRef::from(&*model), results }))
}

/// What the models that are served can say
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "scoring",
    operation_id = "models",
    responses((status = 200, description = "the models, their heads and their limits", body = crate::api::Models))
)]
pub(super) async fn models(State(gateway): State<Gateway>) -> Json<crate::api::Models> {
    Json(crate::api::Models { models: vec![Model::from(&*gateway.scorer.model())] })
}
