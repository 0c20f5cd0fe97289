//! What gRPC says of what was scored.

use undertone_inference::{HeadInfo, HeadKind, HeadScores, ModelInfo, Scored};
use undertone_proto::v1::{
    self, EmbedResult, Embedding, ItemError, Probability, ScoreResult, Scores, embed_result, score_result::Outcome,
};

use crate::{api::Selection, problem::Problem};

pub(super) fn score_result(id: String, outcome: Result<Scored, Problem>, selection: &Selection) -> ScoreResult {
    let outcome = match outcome {
        Ok(scored) => Outcome::Scores(scores(scored, selection)),
        Err(problem) => Outcome::Error(item_error(problem)),
    };
    ScoreResult { id, outcome: Some(outcome) }
}

pub(super) fn embed_result(id: String, outcome: Result<Scored, Problem>) -> EmbedResult {
    let outcome = match outcome {
        Ok(Scored { embedding: values, tokens, truncated, .. }) => {
            embed_result::Outcome::Embedding(Embedding { values, tokens, truncated })
        }
        Err(problem) => embed_result::Outcome::Error(item_error(problem)),
    };
    EmbedResult { id, outcome: Some(outcome) }
}

fn item_error(problem: Problem) -> ItemError {
    ItemError { code: problem.code().row().code.to_owned(), message: problem.detail }
}

fn scores(scored: Scored, selection: &Selection) -> Scores {
    let wanted = scored.heads.iter().filter(|head| selection.wants(&head.head));
    Scores {
        heads: wanted.map(head_message).collect(),
        polarity: scored.polarity,
        confidence: scored.confidence,
        language: scored.language.map(str::to_owned),
        in_domain: scored.in_domain,
        embedding: if selection.embedding { scored.embedding } else { Vec::new() },
        tokens: scored.tokens,
        truncated: scored.truncated,
    }
}

fn head_message(head: &HeadScores) -> v1::HeadScores {
    let pairs = head.labels.iter().zip(&head.probabilities);
    v1::HeadScores {
        head: head.head.to_string(),
        label: head.label_name().to_owned(),
        probabilities: pairs.map(|(label, value)| Probability { label: label.clone(), value: *value }).collect(),
    }
}

/// Which model scored.
pub(super) fn model(model: &ModelInfo) -> v1::Model {
    v1::Model { name: model.name.clone(), revision: model.revision.clone(), precision: model.precision.clone() }
}

/// What a model can say.
pub(super) fn model_info(model: &ModelInfo) -> v1::ModelInfo {
    let head = |head: &HeadInfo| v1::HeadInfo {
        name: head.name.clone(),
        labels: head.labels.clone(),
        multi_label: head.kind == HeadKind::Sigmoid,
    };
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    v1::ModelInfo {
        name: model.name.clone(),
        revision: model.revision.clone(),
        precision: model.precision.clone(),
        device: model.device.clone(),
        kernels: model.kernels.clone(),
        heads: model.heads.iter().map(head).collect(),
        sentiment_head: model.sentiment_head.clone(),
        dimensions: number(model.dimensions),
        max_tokens: number(model.max_tokens),
        normalizer: model.normalizer.clone(),
        languages: model.languages.clone().unwrap_or_default(),
        parameters: model.parameters,
    }
}
