//! `undertone.v1.Scoring`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};
use undertone_inference::{ModelInfo, Scored};
use undertone_proto::v1::{
    self, EmbedRequest, EmbedResponse, GetModelRequest, ListModelsRequest, ListModelsResponse, ScoreItem, ScoreRequest,
    ScoreResponse, ScoreStreamRequest, scoring_server::Scoring,
};

use super::{
    call::{Call, unary},
    messages, stream,
};
use crate::{
    Gateway,
    problem::Problem,
    scoring::{check_id, model_of, no_such_model, select},
    telemetry,
};

#[tonic::async_trait]
impl Scoring for Gateway {
    type ScoreStreamStream = stream::Answers;

    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreResponse>, Status> {
        unary("undertone.v1.Scoring/Score", request, async |call, message| {
            let ScoreRequest { items, heads, embedding } = message;
            let selection = |model: &ModelInfo| select(heads, embedding, model, "/heads");
            let (selection, model, outcomes) = score(self, &call, items, selection).await?;
            let result = |(id, outcome)| messages::score_result(id, outcome, &selection);
            let results = outcomes.into_iter().map(result).collect();
            Ok(ScoreResponse { results, model: Some(messages::model(&model)) })
        })
        .await
    }

    async fn score_stream(
        &self,
        request: Request<Streaming<ScoreStreamRequest>>,
    ) -> Result<Response<Self::ScoreStreamStream>, Status> {
        stream::open(self, request)
    }

    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        unary("undertone.v1.Scoring/Embed", request, async |call, message| {
            let ((), model, outcomes) = score(self, &call, message.items, |_| Ok(())).await?;
            let results = outcomes.into_iter().map(|(id, outcome)| messages::embed_result(id, outcome)).collect();
            Ok(EmbedResponse { results, model: Some(messages::model(&model)) })
        })
        .await
    }

    async fn list_models(&self, request: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        unary("undertone.v1.Scoring/ListModels", request, async |_, _| {
            Ok(ListModelsResponse { models: vec![messages::model_info(&self.scorer.model())] })
        })
        .await
    }

    async fn get_model(&self, request: Request<GetModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        unary("undertone.v1.Scoring/GetModel", request, async |_, message| {
            let served = self.scorer.model();
            if message.name != served.name {
                return Err(no_such_model(&served));
            }
            Ok(messages::model_info(&served))
        })
        .await
    }
}

/// What became of each item, with its id.
type Outcomes = Vec<(String, Result<Scored, Problem>)>;

/// Scores the items of one message. `choose` says what is wanted of the model, if it has that.
async fn score<T>(
    gateway: &Gateway,
    call: &Call,
    items: Vec<ScoreItem>,
    choose: impl FnOnce(&ModelInfo) -> Result<T, Problem>,
) -> Result<(T, Arc<ModelInfo>, Outcomes), Problem> {
    call.caller.charge(items.len());
    let _admission = gateway.admit()?;
    let deadline = call.deadline(|asked| gateway.limits.granted(asked));
    let lane = call.lane()?;
    let model = gateway.scorer.model();
    for (index, item) in items.iter().enumerate() {
        check_id(&item.id, index)?;
    }
    let chosen = choose(&model)?;
    let (ids, texts): (Vec<_>, Vec<_>) = items.into_iter().map(|item| (item.id, item.text)).unzip();
    let count = texts.len();
    let outcomes = gateway.score_texts(texts, lane, deadline).await;
    telemetry::texts("grpc", count, &outcomes);
    let outcomes = outcomes?;
    let model = model_of(&outcomes).unwrap_or(model);
    Ok((chosen, model, ids.into_iter().zip(outcomes).collect()))
}
