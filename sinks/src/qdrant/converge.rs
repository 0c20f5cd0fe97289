//! Writing points so that each ends at its greatest version, whoever else writes.
//!
//! One request has one update filter, and every post has a version of its own. So what is there is read first: points that
//! are absent are added together, with a filter that lets the request only add; points that are older are replaced each
//! with a filter of its own, and so are those of the same version that was scored at another time, since the last counts;
//! others are left. Then it is read back. A writer that slept in between
//! cannot put an older version over a newer one, since it has the same filters; and if another added an older version
//! between our look and our write, the second look finds it.

use std::collections::HashMap;

use async_trait::async_trait;
use qdrant_client::qdrant::points_update_operation::{Operation, PointStructList};
use qdrant_client::qdrant::{
    GetPointsBuilder, PayloadIncludeSelector, PointId, PointsUpdateOperation, UpdateBatchPointsBuilder, UpsertPoints,
    Value, point_id::PointIdOptions, value::Kind, with_payload_selector::SelectorOptions,
};
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::ScoredPost;

use super::Qdrant;
use super::failure::{failed, refusal};
use super::filter::{VERSION, at_most, none};
use super::point::{SCORED_AT, point, scored_at};
use crate::latest::{Refusal, WholeRequest};

/// How often is looked and written before the store is said not to keep what it is given.
const ROUNDS: usize = 4;

/// Posts of one collection as a request that is taken or refused as a whole.
pub(super) struct Converge<'a> {
    pub(super) store: &'a Qdrant,
    pub(super) collection: &'a str,
}

#[async_trait]
impl WholeRequest for Converge<'_> {
    async fn send(&self, posts: &[&ScoredPost]) -> Result<(), Refusal> {
        let mut left = posts.to_vec();
        for _ in 0..ROUNDS {
            let held = self.held(&left).await?;
            left.retain(|post| held.get(post.uid.as_str()).is_none_or(|held| held.gives_way_to(post)));
            if left.is_empty() {
                return Ok(());
            }
            let is_held = |post: &&ScoredPost| held.contains_key(post.uid.as_str());
            let (older, absent): (Vec<&ScoredPost>, Vec<_>) = left.iter().copied().partition(is_held);
            self.add(&absent).await?;
            self.replace(&older).await?;
        }
        let error = Error::new(ErrorKind::Unavailable, "collection does not show what was written to it");
        Err(error.with("collection", self.collection).with("posts", left.len()).into())
    }
}

/// What a collection holds of a post.
struct Held {
    version: i64,
    /// As its point has it.
    scored_at: Option<String>,
}

impl Held {
    fn gives_way_to(&self, post: &ScoredPost) -> bool {
        let is_other = || self.scored_at.as_ref() != Some(&scored_at(post));
        self.version < post.version || (self.version == post.version && is_other())
    }
}

impl Converge<'_> {
    /// What the collection holds of these posts.
    async fn held(&self, posts: &[&ScoredPost]) -> Result<HashMap<String, Held>> {
        let ids: Vec<PointId> = posts.iter().map(|post| post.uid.as_str().into()).collect();
        let fields = vec![VERSION.to_owned(), SCORED_AT.to_owned()];
        let only = SelectorOptions::Include(PayloadIncludeSelector { fields });
        let request = GetPointsBuilder::new(self.collection, ids).with_payload(only).with_vectors(false);
        let found = self.store.client.get_points(request).await.map_err(|e| failed("cannot read points", &e))?;
        let held = |point: qdrant_client::qdrant::RetrievedPoint| {
            let Some(PointIdOptions::Uuid(uid)) = point.id?.point_id_options else { return None };
            let Some(Kind::IntegerValue(version)) = point.payload.get(VERSION)?.kind else { return None };
            let scored_at = point.payload.get(SCORED_AT).and_then(Value::as_str).cloned();
            Some((uid, Held { version, scored_at }))
        };
        Ok(found.result.into_iter().filter_map(held).collect())
    }

    async fn add(&self, posts: &[&ScoredPost]) -> Result<(), Refusal> {
        if posts.is_empty() {
            return Ok(());
        }
        let request = UpsertPoints {
            collection_name: self.collection.to_owned(),
            wait: Some(true),
            points: posts.iter().map(|post| point(post)).collect(),
            update_filter: Some(none()),
            ..UpsertPoints::default()
        };
        let added = self.store.client.upsert_points(request).await;
        added.map(|_| ()).map_err(|error| refusal("cannot write points", &error))
    }

    async fn replace(&self, posts: &[&ScoredPost]) -> Result<(), Refusal> {
        if posts.is_empty() {
            return Ok(());
        }
        let upsert = |post: &&ScoredPost| {
            let list = PointStructList {
                points: vec![point(post)],
                update_filter: Some(at_most(post.version)),
                ..PointStructList::default()
            };
            PointsUpdateOperation { operation: Some(Operation::Upsert(list)) }
        };
        let operations: Vec<_> = posts.iter().map(upsert).collect();
        let request = UpdateBatchPointsBuilder::new(self.collection, operations).wait(true);
        let replaced = self.store.client.update_points_batch(request).await;
        replaced.map(|_| ()).map_err(|error| refusal("cannot write points", &error))
    }
}
