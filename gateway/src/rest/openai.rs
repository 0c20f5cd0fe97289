//! The API of OpenAI: `/v1/embeddings`, and models under `/v1/models`, for clients that speak it already.
//!
//! The model must be named as `/v1/models` names it: whoever asks for another must not get vectors of ours in its space.

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    tei::{Texts, check_width},
    whole::Call,
};
use crate::{Gateway, api::ServedModel, problem::Problem, scoring::no_such_model};

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsRequest {
    /// One text, or several.
    input: Texts,
    /// The model's name, as `/v1/models` tells it.
    model: String,
    /// How numbers are written: `float` (the default), or `base64`, of little-endian 32-bit floats.
    #[serde(default)]
    #[schema(nullable = false)]
    encoding_format: Option<Encoding>,
    /// Must be the model's own width, if it is given.
    #[serde(default)]
    #[schema(nullable = false)]
    dimensions: Option<usize>,
    /// Taken, and not used.
    #[serde(default, rename = "user")]
    #[schema(nullable = false)]
    _user: Option<String>,
}

/// How the numbers of an embedding are written.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// As numbers.
    Float,
    /// As the base64 of little-endian 32-bit floats.
    Base64,
}

/// One embedding a text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embeddings {
    /// Always `list`.
    object: &'static str,
    /// One a text, in order.
    data: Vec<Embedding>,
    /// The model's name.
    model: String,
    /// What was read.
    usage: Usage,
}

/// One embedding.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embedding {
    /// Always `embedding`.
    object: &'static str,
    /// Which text it is of, from 0.
    index: usize,
    /// Its numbers.
    embedding: Numbers,
}

/// The numbers of an embedding.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Numbers {
    /// Written as numbers.
    Float(Vec<f32>),
    /// Written as base64.
    Base64(String),
}

/// How many tokens were read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Of all texts.
    prompt_tokens: u64,
    /// The same.
    total_tokens: u64,
}

/// Embeds texts, as OpenAI does
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "dialects",
    operation_id = "embeddings",
    request_body(content = EmbeddingsRequest, examples(
        ("another model (404)" = (value = json!({"input": "what a day", "model": "text-embedding-3-small"}))),
        ("no model (422)" = (value = json!({"input": "what a day"}))),
    )),
    responses(
        (status = 200, description = "one embedding a text", body = Embeddings),
        (status = 404, description = "`not-found`: the model is not served here", body = Problem,
         content_type = "application/problem+json"),
        crate::rest::openapi::ScoringProblems,
    )
)]
pub(super) async fn embeddings(State(gateway): State<Gateway>, request: Request) -> Result<Json<Embeddings>, Problem> {
    let served = gateway.scorer.model();
    let mut call = Call::<EmbeddingsRequest>::read(gateway, request).await?;
    let asked = &mut call.asked;
    if asked.model != served.name {
        return Err(no_such_model(&served).field("/model", "not served here"));
    }
    check_width(asked.dimensions, served.dimensions)?;
    let encoding = asked.encoding_format.unwrap_or(Encoding::Float);
    let texts = std::mem::replace(&mut asked.input, Texts::Many(Vec::new())).into_list();
    let scored = call.score(texts, "openai", "/input").await?;
    let tokens = scored.iter().map(|scored| u64::from(scored.tokens)).sum();
    let embedding = |(index, vector): (usize, Vec<f32>)| Embedding {
        object: "embedding",
        index,
        embedding: match encoding {
            Encoding::Float => Numbers::Float(vector),
            Encoding::Base64 => {
                Numbers::Base64(STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()))
            }
        },
    };
    let vectors = scored.into_iter().map(|scored| scored.embedding).enumerate();
    Ok(Json(Embeddings {
        object: "list",
        data: vectors.map(embedding).collect(),
        model: served.name.clone(),
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
    }))
}

/// What one model can say
///
/// The same members as of `/v1/models`, and those that OpenAI's clients look for.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "dialects",
    operation_id = "model",
    params(("model" = String, Path, description = "the model's name")),
    responses(
        (status = 200, description = "it is served here", body = ServedModel),
        (status = 404, description = "`not-found`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn model(
    State(gateway): State<Gateway>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<ServedModel>, Problem> {
    let served = gateway.scorer.model();
    if name.is_ok_and(|Path(name)| name == served.name) {
        Ok(Json(ServedModel::from(&*served)))
    } else {
        Err(no_such_model(&served))
    }
}
