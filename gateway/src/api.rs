//! The JSON of scoring, shared by `POST /v1/score` and the command `undertone score`.
//!
//! The guarantee: one text has one form everywhere. [`ScoreResult::new`] holds one object a head, each with all of its
//! probabilities in the model's order, and what the model does not say is null, never guessed.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
    ser::SerializeMap,
};
use serde_json::Value;
use undertone_inference::{HeadKind, HeadScores, ModelInfo, Scored};
use utoipa::{
    ToSchema,
    openapi::schema::{ObjectBuilder, Schema, SchemaType, Type},
};

use crate::problem::Problem;

/// What to score: exactly one of `text`, `texts` and `items`.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreRequest {
    /// One text. What is wrong with it is the status of the call.
    #[schema(nullable = false, example = "the espresso here is wonderful ☕")]
    pub text: Option<String>,
    /// Many texts. What is wrong with one of them is in its result.
    #[schema(nullable = false)]
    pub texts: Option<Vec<String>>,
    /// Many texts with ids, which come back with the results.
    #[serde(default, deserialize_with = "only_objects")]
    #[schema(nullable = false)]
    pub items: Option<Vec<ScoreItem>>,
    /// The heads to answer; absent or empty for every head of the model.
    #[schema(nullable = false)]
    pub heads: Option<Vec<String>>,
    /// Whether to answer the embedding too.
    #[serde(default)]
    pub embedding: bool,
}

/// One text with an id.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreItem {
    /// A string of at most 256 bytes, or an integer of 64 bits; comes back with the result, exactly as it was sent.
    #[schema(schema_with = id_schema)]
    pub id: Option<Value>,
    /// The text.
    pub text: String,
}

/// A JSON object and nothing else: derived deserialisers also take arrays, with the fields by position.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

pub(crate) fn only_objects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<ScoreItem>>, D::Error> {
    let items = Option::<Vec<Object<ScoreItem>>>::deserialize(deserializer)?;
    Ok(items.map(|items| items.into_iter().map(|Object(item)| item).collect()))
}

/// The results of one call.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ScoreResponse {
    /// The model that scored.
    pub model: ModelRef,
    /// One result for each text, in order.
    pub results: Vec<ScoreResult>,
}

/// Which model scored: enough to score the same again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ModelRef {
    /// The model's name.
    pub name: String,
    /// A hash of the files of the model's folder, in hex.
    pub revision: String,
    /// The arithmetic: `fp32`, `bf16` or `int8`.
    pub precision: String,
}

impl From<&ModelInfo> for ModelRef {
    fn from(model: &ModelInfo) -> Self {
        Self { name: model.name.clone(), revision: model.revision.clone(), precision: model.precision.clone() }
    }
}

/// The result of one text: its scores, or what was wrong with it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ScoreResult {
    /// It was scored.
    Scored(Box<Scores>),
    /// It was not.
    Failed(Failed),
}

/// Why a text was not scored.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Failed {
    /// The id that came with the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema)]
    pub id: Option<Value>,
    /// What was wrong.
    pub error: Problem,
}

/// The scores of one text: one object a head under the head's name, and what is common to all heads.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Scores {
    /// The id that came with the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = id_schema)]
    pub id: Option<Value>,
    /// One object a head, under the head's name.
    #[serde(flatten)]
    #[schema(value_type = std::collections::HashMap<String, HeadResult>)]
    pub heads: Heads,
    /// P(positive) - P(negative), -1 to 1; null if the model's labels say neither.
    #[schema(required = true)]
    pub polarity: Option<f64>,
    /// The calibrated probability of the sentiment's label, 0 to 1; null if the model has no sentiment.
    #[schema(required = true)]
    pub confidence: Option<f32>,
    /// The language that was detected, in ISO 639-3; null if the text is too short to tell.
    #[schema(required = true)]
    pub language: Option<String>,
    /// Whether the text is in a language that the model knows, or in none; scores of others are guesses. Null if the
    /// model's folder names no languages.
    #[schema(required = true)]
    pub in_domain: Option<bool>,
    /// How many tokens the model read.
    pub tokens: u32,
    /// Whether the text was longer than the model reads.
    pub truncated: bool,
    /// The embedding, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub embedding: Option<Vec<f32>>,
    /// The model that scored.
    pub model: ModelRef,
}

/// The heads of one result, in the model's order.
#[derive(Clone, Debug)]
pub struct Heads(Vec<(String, HeadResult)>);

/// What one head says.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HeadResult {
    /// The most probable label.
    pub label: String,
    /// The calibrated probability of every label, 0 to 1, in the model's order.
    #[schema(value_type = std::collections::HashMap<String, f32>)]
    pub probabilities: Probabilities,
}

/// The probabilities of one head, in the model's order.
#[derive(Clone, Debug)]
pub struct Probabilities(Vec<(String, f32)>);

impl Serialize for Heads {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (head, result) in &self.0 {
            map.serialize_entry(head, result)?;
        }
        map.end()
    }
}

impl Serialize for Probabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (label, probability) in &self.0 {
            map.serialize_entry(label, probability)?;
        }
        map.end()
    }
}

/// Which parts of a result a caller wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The heads to answer; empty for all.
    pub heads: Vec<String>,
    /// Whether to answer the embedding.
    pub embedding: bool,
}

impl Selection {
    /// Whether this head is wanted.
    pub fn wants(&self, head: &str) -> bool {
        self.heads.is_empty() || self.heads.iter().any(|wanted| wanted == head)
    }
}

impl ScoreResult {
    /// The scores of one text.
    pub fn new(id: Option<Value>, scored: Scored, selection: &Selection) -> Self {
        let wanted = scored.heads.iter().filter(|scores| selection.wants(&scores.head));
        Self::Scored(Box::new(Scores {
            id,
            heads: Heads(wanted.map(|scores| (scores.head.to_string(), HeadResult::from(scores))).collect()),
            polarity: scored.polarity,
            confidence: scored.confidence,
            language: scored.language.map(str::to_owned),
            in_domain: scored.in_domain,
            tokens: scored.tokens,
            truncated: scored.truncated,
            embedding: selection.embedding.then_some(scored.embedding),
            model: ModelRef::from(&*scored.model),
        }))
    }

    /// A text that could not be scored.
    pub fn failed(id: Option<Value>, error: Problem) -> Self {
        Self::Failed(Failed { id, error })
    }

    /// Whether the text was scored.
    pub fn is_scored(&self) -> bool {
        matches!(self, Self::Scored(_))
    }
}

/// Ids are strings or integers that 64 bits hold, signed or not: what every parser gives back as it was sent.
pub(crate) fn id_schema() -> Schema {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Integer]))
        .description(Some("a string of at most 256 bytes, or an integer of 64 bits"))
        .into()
}

impl From<&HeadScores> for HeadResult {
    fn from(scores: &HeadScores) -> Self {
        let pairs = scores.labels.iter().cloned().zip(scores.probabilities.iter().copied());
        Self { label: scores.label_name().to_owned(), probabilities: Probabilities(pairs.collect()) }
    }
}

/// The models that the gateway serves: in full, and as clients of OpenAI read them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Models {
    /// One entry a model.
    pub models: Vec<Model>,
    /// Always `list`.
    pub object: &'static str,
    /// The same models, as OpenAI's clients read them.
    pub data: Vec<ListedModel>,
}

/// A model, as OpenAI's clients read it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ListedModel {
    /// Its name.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// Always 0: a folder does not say when its model was made.
    pub created: i64,
    /// Always `undertone`.
    pub owned_by: &'static str,
}

impl From<&ModelInfo> for ListedModel {
    fn from(model: &ModelInfo) -> Self {
        Self { id: model.name.clone(), object: "model", created: 0, owned_by: "undertone" }
    }
}

/// A model in full, with what OpenAI's clients read of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ServedModel {
    /// What OpenAI's clients read.
    #[serde(flatten)]
    pub listed: ListedModel,
    /// All of it.
    #[serde(flatten)]
    pub model: Model,
}

impl From<&ModelInfo> for ServedModel {
    fn from(model: &ModelInfo) -> Self {
        Self { listed: ListedModel::from(model), model: Model::from(model) }
    }
}

/// A model and what it can say.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Model {
    /// The model's name.
    pub name: String,
    /// A hash of the files of the model's folder, in hex.
    pub revision: String,
    /// The arithmetic: `fp32`, `bf16` or `int8`.
    pub precision: String,
    /// Where it runs: `cpu`, or the GPUs: `cuda:0`.
    pub device: String,
    /// Which implementation of the encoder runs.
    pub kernels: String,
    /// The heads, in the order of the results.
    pub heads: Vec<Head>,
    /// The head that `polarity` and `confidence` come from; null if no head has such labels.
    #[schema(required = true)]
    pub sentiment_head: Option<String>,
    /// The width of an embedding.
    pub dimensions: usize,
    /// The longest text in tokens; what is longer is cut there.
    pub max_tokens: usize,
    /// The text normaliser, by its versioned name.
    pub normalizer: String,
    /// The languages that it knows, in ISO 639-3; null if its folder does not say.
    #[schema(required = true)]
    pub languages: Option<Vec<String>>,
    /// How many weights it has.
    pub parameters: u64,
}

/// One head of a model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Head {
    /// The head's name.
    pub name: String,
    /// The labels, in the order of the probabilities.
    pub labels: Vec<String>,
    /// Whether any number of labels may apply, so that the probabilities do not sum to 1.
    pub multi_label: bool,
}

impl From<&ModelInfo> for Model {
    fn from(model: &ModelInfo) -> Self {
        let head = |head: &undertone_inference::HeadInfo| Head {
            name: head.name.clone(),
            labels: head.labels.clone(),
            multi_label: head.kind == HeadKind::Sigmoid,
        };
        Self {
            name: model.name.clone(),
            revision: model.revision.clone(),
            precision: model.precision.clone(),
            device: model.device.clone(),
            kernels: model.kernels.clone(),
            heads: model.heads.iter().map(head).collect(),
            sentiment_head: model.sentiment_head.clone(),
            dimensions: model.dimensions,
            max_tokens: model.max_tokens,
            normalizer: model.normalizer.clone(),
            languages: model.languages.clone(),
            parameters: model.parameters,
        }
    }
}
