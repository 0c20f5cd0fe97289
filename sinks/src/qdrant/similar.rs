//! "Find posts like this."

use std::collections::HashMap;

use qdrant_client::qdrant::{
    Condition, Filter, GetPointsBuilder, QueryPointsBuilder, Value, point_id::PointIdOptions, value::Kind,
    vector_output, vectors_output::VectorsOptions,
};
use undertone_error::Result;
use undertone_proto::EventTime;

use super::collection::name;
use super::failure::failed;
use super::{Qdrant, VECTOR};
use crate::found::FoundPost;

/// What is looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct SimilarQuery {
    /// Posts like what.
    pub like: Like,
    /// Only posts of this source.
    pub source: Option<String>,
    /// Only posts in this language.
    pub language: Option<String>,
    /// Only posts with this label.
    pub label: Option<String>,
    /// Only posts with this tag.
    pub tag: Option<String>,
    /// The most posts.
    pub limit: usize,
}

/// What posts are compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Like {
    /// A text, by its embedding. It is compared with the posts that the same revision of a model has embedded, whichever the
    /// alias shows: numbers of two models mean nothing to each other.
    Text {
        /// The embedding.
        embedding: Vec<f32>,
        /// The model's revision.
        revision: String,
    },
    /// A post that the alias shows, by its uid.
    Post(String),
}

/// A post that is near.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// Cosine similarity, -1 to 1.
    pub similarity: f32,
    /// What is known about it.
    pub post: FoundPost,
}

impl Qdrant {
    /// The posts whose embeddings are nearest, the nearest first; `None` if they are to be like a post that is not there.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn similar(&self, query: SimilarQuery) -> Result<Option<Vec<Neighbour>>> {
        let (collection, embedding, itself) = match query.like {
            Like::Text { embedding, revision } => (name(&self.config.collection, &revision), embedding, None),
            Like::Post(uid) => match self.embedding_of(&uid).await? {
                Some(embedding) => (self.config.collection.clone(), embedding, Some(uid)),
                None => return Ok(None),
            },
        };
        let fields =
            [("source", query.source), ("language", query.language), ("label", query.label), ("tags", query.tag)];
        let must = fields.into_iter().filter_map(|(field, value)| Some(Condition::matches(field, value?)));
        // A post is most like itself.
        let limit = query.limit + usize::from(itself.is_some());
        let request = QueryPointsBuilder::new(collection)
            .query(embedding)
            .using(VECTOR)
            .filter(Filter::must(must))
            .limit(limit as u64)
            .with_payload(true);
        let found = self.client.query(request).await.map_err(|e| failed("cannot search for neighbours", &e))?;
        let neighbour = |point: qdrant_client::qdrant::ScoredPoint| {
            let Some(PointIdOptions::Uuid(uid)) = point.id?.point_id_options else { return None };
            Some(Neighbour { similarity: point.score, post: found_post(uid, point.payload) })
        };
        let neighbours = found.result.into_iter().filter_map(neighbour);
        let others = neighbours.filter(|neighbour| Some(&neighbour.post.uid) != itself.as_ref());
        Ok(Some(others.take(query.limit).collect()))
    }

    /// The embedding of a post that the alias shows; `None` if there is none, also where it was deleted.
    async fn embedding_of(&self, uid: &str) -> Result<Option<Vec<f32>>> {
        let request = GetPointsBuilder::new(&self.config.collection, vec![uid.into()]);
        let request = request.with_payload(false).with_vectors(true);
        let found = self.client.get_points(request).await.map_err(|e| failed("cannot read a point", &e))?;
        let vectors = found.result.into_iter().next().and_then(|point| point.vectors?.vectors_options);
        let Some(VectorsOptions::Vectors(mut named)) = vectors else { return Ok(None) };
        Ok(match named.vectors.remove(VECTOR).map(|vector| vector.into_vector()) {
            Some(vector_output::Vector::Dense(dense)) if !dense.data.is_empty() => Some(dense.data),
            _ => None,
        })
    }
}

/// A post as its point has it.
fn found_post(uid: String, mut payload: HashMap<String, Value>) -> FoundPost {
    let mut text = |name: &str| match payload.remove(name)?.kind? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    };
    let created_at_us = text("created_at").and_then(|time| time.parse::<jiff::Timestamp>().ok());
    FoundPost {
        uid,
        source: text("source").unwrap_or_default(),
        id: text("id").unwrap_or_default(),
        author: text("author"),
        url: text("url"),
        text: text("text").unwrap_or_default(),
        language: text("language"),
        label: text("label"),
        created_at_us: created_at_us.map_or(EventTime::default(), jiff::Timestamp::as_microsecond),
        polarity: match payload.remove("polarity").and_then(|value| value.kind) {
            Some(Kind::DoubleValue(polarity)) => Some(polarity),
            _ => None,
        },
        tags: match payload.remove("tags").and_then(|value| value.kind) {
            Some(Kind::ListValue(tags)) => {
                let tags = tags.values.into_iter().filter_map(|value| value.kind);
                tags.filter_map(|tag| if let Kind::StringValue(tag) = tag { Some(tag) } else { None }).collect()
            }
            _ => Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use undertone_proto::v1::ScoredPost;

    use super::*;

    #[test]
    fn a_point_is_read_as_it_was_written() {
        let post = ScoredPost {
            uid: "0b9c".to_owned(),
            source: "forum".to_owned(),
            id: "p1".to_owned(),
            author: Some("ann".to_owned()),
            text: "what a day".to_owned(),
            sentiment: Some("positive".to_owned()),
            polarity: Some(0.5),
            created_at_us: 1_777_636_800_000_001,
            tags: vec!["Tea".to_owned(), "rain".to_owned()],
            ..ScoredPost::default()
        };
        let wanted = FoundPost {
            uid: post.uid.clone(),
            source: post.source.clone(),
            id: post.id.clone(),
            author: post.author.clone(),
            text: post.text.clone(),
            label: post.sentiment.clone(),
            polarity: post.polarity,
            created_at_us: post.created_at_us,
            tags: vec!["tea".to_owned(), "rain".to_owned()],
            ..FoundPost::default()
        };
        assert_eq!(found_post(post.uid.clone(), super::super::point::point(&post).payload), wanted);
        assert_eq!(found_post(String::new(), HashMap::new()), FoundPost::default());
    }
}
