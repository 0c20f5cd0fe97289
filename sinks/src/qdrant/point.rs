//! A post as a point.

use std::collections::HashMap;

use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::{DenseVector, NamedVectors, PointStruct, Value, Vector, Vectors, vector};
use undertone_proto::timestamp;
use undertone_proto::v1::ScoredPost;

use super::VECTOR;
use super::filter::{VERSION, VERSION_HASH, VERSION_MS, parts};
use crate::latest::held;

/// By which scores of the same version are told apart.
pub(super) const SCORED_AT: &str = "scored_at";

/// When a post was scored, as its point has it.
pub(super) fn scored_at(post: &ScoredPost) -> String {
    timestamp(held(post.scored_at_us)).to_string()
}

/// What is wrong with a post's embedding for a collection of vectors of `size` numbers.
pub(super) fn flaw(post: &ScoredPost, size: u64) -> Option<String> {
    if post.embedding.len() as u64 != size {
        return Some(format!("embedding has {} numbers, and its collection takes {size}", post.embedding.len()));
    }
    let wrong = post.embedding.iter().position(|number| !number.is_finite())?;
    Some(format!("number {wrong} of the embedding is not finite"))
}

/// The point of a post. A tombstone has no vector.
pub(super) fn point(post: &ScoredPost) -> PointStruct {
    let mut payload: HashMap<String, Value> = HashMap::with_capacity(16);
    let mut put = |name: &str, value: Value| {
        payload.insert(name.to_owned(), value);
    };
    let (ms, hash) = parts(post.version);
    put(VERSION, post.version.into());
    put(VERSION_MS, ms.into());
    put(VERSION_HASH, hash.into());
    put("deleted", post.deleted.into());
    put("source", post.source.as_str().into());
    put("id", post.id.as_str().into());
    put("created_at", timestamp(held(post.created_at_us)).to_string().into());
    put(SCORED_AT, scored_at(post).into());
    if !post.deleted {
        put("text", post.text.as_str().into());
        put("tags", undertone_proto::topics(post).into_iter().map(Value::from).collect::<Vec<_>>().into());
    }
    for (name, value) in
        [("author", &post.author), ("url", &post.url), ("language", &post.language), ("label", &post.sentiment)]
    {
        if let Some(value) = value {
            put(name, value.as_str().into());
        }
    }
    if let Some(polarity) = post.polarity {
        put("polarity", polarity.into());
    }

    let dense = || vector::Vector::Dense(DenseVector { data: post.embedding.clone() });
    let vectors = match post.deleted {
        true => HashMap::new(),
        false => HashMap::from([(VECTOR.to_owned(), Vector { vector: Some(dense()), ..Vector::default() })]),
    };
    PointStruct {
        id: Some(post.uid.as_str().into()),
        payload,
        vectors: Some(Vectors { vectors_options: Some(VectorsOptions::Vectors(NamedVectors { vectors })) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_vector_is_named() {
        let with = |embedding: &[f32]| ScoredPost { embedding: embedding.to_vec(), ..ScoredPost::default() };
        assert_eq!(flaw(&with(&[0.1, 0.2]), 2), None);
        assert!(flaw(&with(&[0.1]), 2).is_some_and(|reason| reason.contains("1 numbers")));
        assert!(flaw(&with(&[0.1, f32::NAN]), 2).is_some_and(|reason| reason.contains("number 1")));
        assert!(flaw(&with(&[]), 2).is_some());
    }

    #[test]
    fn a_tombstone_has_neither_vector_nor_text() {
        let post = ScoredPost { deleted: true, text: "x".to_owned(), embedding: vec![1.0], ..ScoredPost::default() };
        let point = point(&post);
        let Some(VectorsOptions::Vectors(named)) = point.vectors.and_then(|vectors| vectors.vectors_options) else {
            panic!("named vectors")
        };
        assert!(named.vectors.is_empty() && !point.payload.contains_key("text"));
    }
}
