//! `POST /v1/score`, and what it has in common with other calls of many texts.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Request, State},
};
use serde_json::Value;
use tokio::time::Instant;
use undertone_inference::{Lane, ModelInfo, Scored};

use super::{
    body::{self, Asked},
    observe::{Arrived, Stages},
};
use crate::{
    Gateway,
    access::Caller,
    api::{ListedModel, Model, ModelRef, Models, ScoreRequest, ScoreResponse, ScoreResult, Selection},
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
        ("x-lane" = Option<String>, Header, nullable = false, description = "`bulk` lets small calls of others go ahead; calls \
         of more than 32 texts do so anyway"),
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
        super::openapi::ScoringProblems,
    )
)]
pub(super) async fn score(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(Extension<Stages>, Json<ScoreResponse>), Problem> {
    let Done { model, selection, outcomes, stages } = call(&gateway, arrived, &caller, request, body::parse).await?;
    let result = |(id, outcome)| match outcome {
        Ok(scored) => ScoreResult::new(id, scored, &selection),
        Err(problem) => ScoreResult::failed(id, problem),
    };
    let results = outcomes.into_iter().map(result).collect();
    Ok((Extension(stages), Json(ScoreResponse { model: ModelRef::from(&*model), results })))
}

/// What became of a call's texts.
pub(super) struct Done {
    pub(super) model: Arc<ModelInfo>,
    pub(super) selection: Selection,
    /// One for each text, in order, with its id.
    pub(super) outcomes: Vec<(Option<Value>, Result<Scored, Problem>)>,
    pub(super) stages: Stages,
}

/// Lets a call in, reads it and scores its texts. What is wrong with a text that was sent alone is an error of the call.
pub(super) async fn call(
    gateway: &Gateway,
    arrived: Instant,
    caller: &Caller,
    request: Request,
    parse: fn(&[u8]) -> Result<Asked, Problem>,
) -> Result<Done, Problem> {
    let _admission = gateway.admit()?;
    let deadline = arrived + gateway.limits.granted(body::asked_timeout(request.headers())?);
    let lane = body::lane(request.headers())?;
    // Before its body is read, which says what lane it would go to: the other one is longer.
    gateway.foresee(lane.unwrap_or(Lane::Interactive), deadline)?;
    let body = body::read(request, &gateway.limits, deadline).await?;
    let asked = parse(&body)?;
    drop(body);
    let model = gateway.scorer.model();
    let selection = select(asked.heads, asked.embedding, &model, "/heads")?;

    let texts = asked.texts.len();
    caller.charge(texts);
    let read = arrived.elapsed();
    let outcomes = gateway.score_texts(asked.texts, lane, deadline).await;
    telemetry::texts("rest", texts, &outcomes);
    let stages = Stages { read, score: arrived.elapsed() - read };
    let mut outcomes = outcomes?;
    if asked.single && outcomes.first().is_some_and(Result::is_err) {
        outcomes.remove(0).map(drop)?;
    }
    let model = crate::scoring::model_of(&outcomes).unwrap_or(model);
    Ok(Done { model, selection, outcomes: asked.ids.into_iter().zip(outcomes).collect(), stages })
}

/// What the models that are served can say
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "scoring",
    operation_id = "models",
    responses((status = 200, description = "the models, their heads and their limits", body = Models))
)]
pub(super) async fn models(State(gateway): State<Gateway>) -> Json<Models> {
    let model = gateway.scorer.model();
    Json(Models { models: vec![Model::from(&*model)], object: "list", data: vec![ListedModel::from(&*model)] })
}
