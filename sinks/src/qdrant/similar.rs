//! "Find posts like this."

use qdrant_client::qdrant::{Condition, Filter, QueryPointsBuilder, Value, point_id::PointIdOptions};
use std::collections::HashMap;
use undertone_error::Result;

use super::failure::failed;
use super::{Qdrant, VECTOR};

/// What is looked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SimilarQuery {
    /// The embedding of a text, by the model whose collection the alias shows.
    pub embedding: Vec<f32>,
    /// Only posts of this source.
    pub source: Option<String>,
    /// Only posts in this language.
    pub language: Option<String>,
    /// Only posts with this label.
    pub label: Option<String>,
    /// Only posts with this tag.
    pub tag: Option<String>,
    /// The most posts.
    pub limit: u64,
}

/// A post that is near.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// The post's uid.
    pub uid: String,
    /// Cosine similarity, -1 to 1.
    pub score: f32,
    /// What is known about it.
    pub payload: HashMap<String, Value>,
}

impl Qdrant {
    /// The posts whose embeddings are nearest, the nearest first.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn similar(&self, query: SimilarQuery) -> Result<Vec<Neighbour>> {
        let fields =
            [("source", query.source), ("language", query.language), ("label", query.label), ("tags", query.tag)];
        let must = fields.into_iter().filter_map(|(field, value)| Some(Condition::matches(field, value?)));
        let request = QueryPointsBuilder::new(&self.config.collection)
            .query(query.embedding)
            .using(VECTOR)
            .filter(Filter::must(must))
            .limit(query.limit)
            .with_payload(true);
        let found = self.client.query(request).await.map_err(|e| failed("cannot search for neighbours", &e))?;
        let neighbour = |point: qdrant_client::qdrant::ScoredPoint| {
            let Some(PointIdOptions::Uuid(uid)) = point.id?.point_id_options else { return None };
            Some(Neighbour { uid, score: point.score, payload: point.payload })
        };
        Ok(found.result.into_iter().filter_map(neighbour).collect())
    }
}
