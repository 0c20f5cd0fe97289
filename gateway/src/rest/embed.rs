//! `POST /v1/embed`.

use axum::{
    Extension, Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    body,
    observe::{Arrived, Stages},
    score::{Done, call},
};
use crate::{
    Gateway,
    access::Caller,
    api::{Failed, ModelRef, ScoreItem, ScoreRequest, id_schema, only_objects},
    problem::Problem,
};

/// What to embed: exactly one of `text`, `texts` and `items`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbedTextsRequest {
    /// One text. What is wrong with it is the status of the call.
    #[schema(nullable = false)]
    text: Option<String>,
    /// Many texts. What is wrong with one of them is in its result.
    #[schema(nullable = false)]
    texts: Option<Vec<String>>,
    /// Many texts with ids, which come back with the results.
    #[serde(default, deserialize_with = "only_objects")]
    #[schema(nullable = false)]
    items: Option<Vec<ScoreItem>>,
}

/// The embeddings of one call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbedTextsResponse {
    /// The model that embedded.
    model: ModelRef,
    /// One result for each text, in order.
    results: Vec<EmbedResult>,
}

/// The result of one text: its embedding, or what was wrong with it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum EmbedResult {
    /// It was embedded.
    Embedded(Embedded),
    /// It was not.
    Failed(Failed),
}

/// The embedding of one text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embedded {
    /// The id that came with the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema)]
    id: Option<Value>,
    /// As many numbers as the model's `dimensions`, of length 1.
    embedding: Vec<f32>,
    /// How many tokens the model read.
    tokens: u32,
    /// Whether the text was longer than the model reads.
    truncated: bool,
    /// The model that embedded.
    model: ModelRef,
}

/// Embeds one text or many
///
/// Send exactly one of `text`, `texts` and `items`, as to `/v1/score`: errors, lanes and deadlines are the same. An
/// embedding is the one that `/v1/score` answers when it is asked for it.
#[utoipa::path(
    post,
    path = "/v1/embed",
    tag = "scoring",
    operation_id = "embed_texts",
    params(
        ("x-timeout-ms" = Option<u64>, Header, nullable = false, description = "deadline in milliseconds from the request's head, at most \
         5 minutes; 30 s if it is not sent"),
        ("x-lane" = Option<String>, Header, nullable = false, description = "`bulk` lets small calls of others go ahead; calls \
         of more than 32 texts do so anyway"),
    ),
    request_body(content = EmbedTextsRequest, examples(
        ("one text" = (value = json!({"text": "the espresso here is wonderful ☕"}))),
        ("items with ids" = (value = json!({"items": [{"id": "a1", "text": "fine, thanks"}, {"id": 2, "text": "never again"}]}))),
        ("one of many is empty" = (value = json!({"texts": ["what a day", ""]}))),
        ("nothing to embed (422)" = (value = json!({"texts": []}))),
        ("there are no heads here (422)" = (value = json!({"text": "hi", "heads": ["sentiment"]}))),
    )),
    responses(
        (status = 200, description = "embedded; single texts may still have errors in their results", body = EmbedTextsResponse),
        super::openapi::ScoringProblems,
    )
)]
pub(super) async fn embed(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(Extension<Stages>, Json<EmbedTextsResponse>), Problem> {
    let Done { model, outcomes, stages, .. } = call(&gateway, arrived, &caller, request, parse).await?;
    let result = |(id, outcome)| match outcome {
        Ok(scored) => {
            let undertone_inference::Scored { embedding, tokens, truncated, model, .. } = scored;
            EmbedResult::Embedded(Embedded { id, embedding, tokens, truncated, model: ModelRef::from(&*model) })
        }
        Err(error) => EmbedResult::Failed(Failed { id, error }),
    };
    let results = outcomes.into_iter().map(result).collect();
    Ok((Extension(stages), Json(EmbedTextsResponse { model: ModelRef::from(&*model), results })))
}

fn parse(bytes: &[u8]) -> Result<body::Asked, Problem> {
    let EmbedTextsRequest { text, texts, items } = body::from_json(bytes)?;
    body::decide(ScoreRequest { text, texts, items, heads: None, embedding: true })
}
