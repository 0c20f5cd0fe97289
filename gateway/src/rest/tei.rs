//! The API of text-embeddings-inference: `/predict`, `/embed` and `/info`, for clients that speak it already.
//!
//! What it can ask and we cannot do is refused and never passed over: pairs of texts, raw logits, token ids, embeddings
//! that are not of length 1. Texts that are too long are cut, as `/info` says with `auto_truncate`.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use undertone_inference::{HeadScores, ModelInfo, Scored};
use utoipa::{IntoParams, ToSchema};

use super::{body::query, whole::Call};
use crate::{Gateway, errors::ProblemCode, problem::Problem, scoring::select};

/// Texts to classify.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PredictRequest {
    /// One text, or a batch: a list of lists of one text each.
    inputs: Sequences,
    /// Taken, and not needed: texts that are too long are always cut.
    #[serde(default, rename = "truncate")]
    #[schema(nullable = false)]
    _truncate: Option<bool>,
    /// Must not be true: only probabilities are answered.
    #[serde(default)]
    #[schema(nullable = false)]
    raw_scores: Option<bool>,
}

/// One text, or a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, or a list of lists of one text each")]
pub(crate) enum Sequences {
    /// One text.
    One(String),
    /// A list of texts: one, since two are a pair.
    Pair(Vec<String>),
    /// A batch.
    Batch(Vec<Vec<String>>),
}

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbedRequest {
    /// One text, or several.
    inputs: Texts,
    /// Taken, and not needed: texts that are too long are always cut.
    #[serde(default, rename = "truncate")]
    #[schema(nullable = false)]
    _truncate: Option<bool>,
    /// Must not be false: embeddings have the length 1.
    #[serde(default)]
    #[schema(nullable = false)]
    normalize: Option<bool>,
    /// Must be the model's own width, if it is given.
    #[serde(default)]
    #[schema(nullable = false)]
    dimensions: Option<usize>,
    /// Must not be given: the model has no prompts.
    #[serde(default)]
    #[schema(nullable = false)]
    prompt_name: Option<String>,
}

/// One text or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, or a list of texts; token ids are not read")]
pub(crate) enum Texts {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Texts {
    pub(super) fn into_list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// One label and its probability.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Prediction {
    /// 0 to 1.
    score: f32,
    /// The label.
    label: String,
}

/// The labels of one text, the most probable first, or one list a text of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Predictions {
    /// Of one text.
    One(Vec<Prediction>),
    /// Of a batch.
    Batch(Vec<Vec<Prediction>>),
}

/// Which head answers.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// The head whose labels are answered; left out, the sentiment's, or the model's first.
    #[param(nullable = false)]
    head: Option<String>,
}

/// Classifies texts, as text-embeddings-inference does
#[utoipa::path(
    post,
    path = "/predict",
    tag = "dialects",
    operation_id = "predict",
    params(Which),
    request_body(content = PredictRequest, examples(
        ("a text" = (value = json!({"inputs": "the espresso here is wonderful"}))),
        ("a batch" = (value = json!({"inputs": [["what a day"], ["never again"]]}))),
        ("a pair (422)" = (value = json!({"inputs": ["what a day", "never again"]}))),
    )),
    responses(
        (status = 200, description = "the labels of each text, the most probable first", body = Predictions),
        crate::rest::openapi::ScoringProblems,
    )
)]
pub(super) async fn predict(State(gateway): State<Gateway>, request: Request) -> Result<Json<Predictions>, Problem> {
    let which: Which = query(request.uri(), "it may name one head, like ?head=sentiment")?;
    let model = gateway.scorer.model();
    let head = head(&model, which.head)?;
    let mut call = Call::<PredictRequest>::read(gateway, request).await?;
    if call.asked.raw_scores == Some(true) {
        return Err(refused("/raw_scores", "raw scores are not answered; leave raw_scores out"));
    }
    let batch = matches!(call.asked.inputs, Sequences::Batch(_));
    let texts = std::mem::replace(&mut call.asked.inputs, Sequences::Pair(Vec::new())).into_texts()?;
    let scored = call.score(texts, "tei", "/inputs").await?;
    let mut lists = scored.iter().map(|scored| predictions(scored, &head));
    Ok(Json(match batch {
        true => Predictions::Batch(lists.collect()),
        false => Predictions::One(lists.next().unwrap_or_default()),
    }))
}

impl Sequences {
    fn into_texts(self) -> Result<Vec<String>, Problem> {
        let pair = "a pair of texts means nothing to this model; write a batch as a list of lists of one text each";
        match self {
            Self::One(text) => Ok(vec![text]),
            Self::Pair(texts) if texts.len() < 2 => Ok(texts),
            Self::Pair(_) => Err(refused("/inputs", pair)),
            Self::Batch(lists) => {
                let mut texts = Vec::with_capacity(lists.len());
                for (index, list) in lists.into_iter().enumerate() {
                    let [text] =
                        <[String; 1]>::try_from(list).map_err(|_| refused(&format!("/inputs/{index}"), pair))?;
                    texts.push(text);
                }
                Ok(texts)
            }
        }
    }
}

fn refused(pointer: &str, detail: &str) -> Problem {
    Problem::new(ProblemCode::InvalidInput, detail).field(pointer, detail)
}

/// The head that is named, or that a client who knows of none would want.
fn head(model: &ModelInfo, named: Option<String>) -> Result<String, Problem> {
    match named {
        Some(name) => Ok(select(vec![name], false, model, "/head")?.heads.remove(0)),
        None => {
            let first = model.sentiment_head.clone().or_else(|| model.heads.first().map(|head| head.name.clone()));
            first.ok_or_else(|| Problem::new(ProblemCode::NotFound, "the model has no head to classify with"))
        }
    }
}

fn predictions(scored: &Scored, head: &str) -> Vec<Prediction> {
    let Some(scores) = scored.heads.iter().find(|scores| *scores.head == *head) else { return Vec::new() };
    let mut list = labelled(scores);
    list.sort_by(|a, b| b.score.total_cmp(&a.score));
    list
}

fn labelled(scores: &HeadScores) -> Vec<Prediction> {
    let pairs = scores.labels.iter().zip(&scores.probabilities);
    pairs.map(|(label, score)| Prediction { score: *score, label: label.clone() }).collect()
}

/// Embeds texts, as text-embeddings-inference does
#[utoipa::path(
    post,
    path = "/embed",
    tag = "dialects",
    operation_id = "embed",
    request_body(content = EmbedRequest, examples(
        ("a text" = (value = json!({"inputs": "the espresso here is wonderful"}))),
        ("several" = (value = json!({"inputs": ["what a day", "never again"], "normalize": true}))),
        ("not of length 1 (422)" = (value = json!({"inputs": "what a day", "normalize": false}))),
    )),
    responses(
        (status = 200, description = "one embedding a text", body = Vec<Vec<f32>>),
        crate::rest::openapi::ScoringProblems,
    )
)]
pub(super) async fn embed(State(gateway): State<Gateway>, request: Request) -> Result<Json<Vec<Vec<f32>>>, Problem> {
    let width = gateway.scorer.model().dimensions;
    let mut call = Call::<EmbedRequest>::read(gateway, request).await?;
    let asked = &mut call.asked;
    if asked.normalize == Some(false) {
        return Err(refused("/normalize", "embeddings have the length 1 here; leave normalize out"));
    }
    if asked.prompt_name.is_some() {
        return Err(refused("/prompt_name", "the model has no prompts; leave prompt_name out"));
    }
    check_width(asked.dimensions, width)?;
    let texts = std::mem::replace(&mut asked.inputs, Texts::Many(Vec::new())).into_list();
    let scored = call.score(texts, "tei", "/inputs").await?;
    Ok(Json(scored.into_iter().map(|scored| scored.embedding).collect()))
}

/// Embeddings are never cut: they would no longer mean the same.
pub(super) fn check_width(asked: Option<usize>, width: usize) -> Result<(), Problem> {
    match asked {
        Some(other) if other != width => {
            let detail = format!("embeddings of this model have {width} dimensions; leave dimensions out");
            Err(refused("/dimensions", &detail))
        }
        _ => Ok(()),
    }
}

/// What the model is, as text-embeddings-inference says it
#[utoipa::path(
    get,
    path = "/info",
    tag = "dialects",
    operation_id = "info",
    responses((status = 200, description = "the model and its limits", body = Object))
)]
pub(super) async fn info(State(gateway): State<Gateway>) -> Json<Value> {
    let model = gateway.scorer.model();
    let labels: &[String] = head(&model, None)
        .ok()
        .and_then(|name| model.heads.iter().find(|head| head.name == name))
        .map_or(&[], |head| &head.labels);
    let id2label: serde_json::Map<_, _> =
        labels.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let label2id: serde_json::Map<_, _> =
        labels.iter().enumerate().map(|(id, label)| (label.clone(), json!(id))).collect();
    let dtype = match model.precision.as_str() {
        "fp32" => "float32",
        "fp16" => "float16",
        "bf16" => "bfloat16",
        other => other,
    };
    Json(json!({
        "model_id": model.name, "model_sha": model.revision, "model_dtype": dtype,
        "model_type": {"classifier": {"id2label": id2label, "label2id": label2id}},
        "max_concurrent_requests": gateway.limits.calls_in_flight, "max_input_length": model.max_tokens,
        "max_batch_tokens": model.max_tokens, "max_batch_requests": null,
        "max_client_batch_size": gateway.limits.texts, "auto_truncate": true, "tokenization_workers": 1,
        "version": env!("CARGO_PKG_VERSION"), "sha": null, "docker_label": null,
    }))
}
