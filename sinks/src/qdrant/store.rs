//! The store: which collection a post goes to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::ScoredPost;

use super::collection::name;
use super::converge::Converge;
use super::point::flaw;
use super::{EmbeddingSpace, QdrantConfig};
use crate::latest::{Answer, Found, LatestStore, Shape, isolate};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Qdrant server. Cheap to clone.
#[derive(Clone)]
pub struct Qdrant {
    pub(super) client: Arc<qdrant_client::Qdrant>,
    pub(super) config: QdrantConfig,
    /// The model of this process, if it has one.
    space: Option<EmbeddingSpace>,
    /// Collections and the size of their vectors, as last looked at.
    known: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl std::fmt::Debug for Qdrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Qdrant").field("config", &self.config).field("space", &self.space).finish_non_exhaustive()
    }
}

impl Qdrant {
    /// A client for embeddings of `space`, which connects when it is first used.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the address is none, or if the model has no embeddings.
    pub fn new(config: QdrantConfig, space: EmbeddingSpace) -> Result<Self> {
        if space.size == 0 {
            let error = Error::new(ErrorKind::InvalidConfig, "model has no embeddings, which are what qdrant holds");
            return Err(error
                .with("revision", space.revision)
                .help("take another model, or leave the role qdrant out"));
        }
        Ok(Self { space: Some(space), ..Self::without_model(config)? })
    }

    /// A client that writes to collections that are there, and can prepare none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the address is none.
    pub fn without_model(config: QdrantConfig) -> Result<Self> {
        let mut client = qdrant_client::Qdrant::from_url(&config.url)
            .timeout(PATIENCE)
            .connect_timeout(Duration::from_secs(10))
            // It would ask the server at once, and print what it thinks.
            .skip_compatibility_check();
        if let Some(key) = &config.api_key {
            client = client.api_key(key.reveal());
        }
        let wrong =
            |e| Error::new(ErrorKind::InvalidConfig, "qdrant.url is no address").with("url", &config.url).source(e);
        let client = client.build().map_err(wrong)?;
        Ok(Self { client: Arc::new(client), config, space: None, known: Arc::default() })
    }

    fn known(&self) -> BTreeMap<String, u64> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The collections that posts go to: looked at anew if one is not known. A tombstone goes wherever its post may be,
    /// so for it they always are: another process may have made one for a newer model.
    async fn places(&self, posts: &[&ScoredPost]) -> Result<BTreeMap<String, u64>> {
        let deletes = posts.iter().any(|post| post.deleted);
        let live = posts.iter().filter(|post| !post.deleted && !post.embedding.is_empty());
        let mut revisions: BTreeSet<&str> =
            live.filter_map(|post| post.model.as_ref()).map(|model| &*model.revision).collect();
        if deletes {
            revisions.extend(self.space.as_ref().map(|space| &*space.revision));
        }
        let wanted: Vec<String> =
            revisions.into_iter().map(|revision| name(&self.config.collection, revision)).collect();
        let known = self.known();
        if !deletes && !known.is_empty() && wanted.iter().all(|name| known.contains_key(name)) {
            return Ok(known);
        }
        let found = self.collections(&known).await?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&found);
        if let Some(missing) = wanted.iter().find(|name| !found.contains_key(*name)) {
            let error = Error::new(ErrorKind::Unavailable, "posts come with embeddings that no collection is for");
            let error = error.with("collection", missing);
            return Err(error.help("`undertone init` with the model that scored them makes it"));
        }
        if deletes && found.values().all(|size| *size == 0) {
            let error = Error::new(ErrorKind::Unavailable, "there is no collection that deleted posts could be in");
            return Err(error.help("`undertone init` makes it; what it held before is gone"));
        }
        Ok(found)
    }
}

#[async_trait]
impl LatestStore for Qdrant {
    fn name(&self) -> &str {
        "qdrant"
    }

    fn shape(&self) -> Shape {
        Shape { posts: 500, bytes: 8 << 20, concurrency: 2, timeout: 4 * PATIENCE }
    }

    async fn prepare(&self, make: bool) -> Result<Vec<Found>> {
        let none = || Error::new(ErrorKind::Internal, "asked for the collection of a model, and there is no model");
        self.prepare_for(self.space.as_ref().ok_or_else(none)?, make).await
    }

    async fn write(&self, posts: &[&ScoredPost]) -> Result<Vec<Answer>> {
        let places = self.places(posts).await?;
        let mut answers = vec![Answer::Stored; posts.len()];
        let mut sent: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, post) in posts.iter().enumerate() {
            if post.deleted {
                // It may have been in any of ours.
                let ours = places.iter().filter(|(_, size)| **size > 0);
                ours.for_each(|(place, _)| sent.entry(place).or_default().push(number));
                continue;
            }
            let revision = post.model.as_ref().map_or("", |model| &model.revision);
            let place = places.get_key_value(&name(&self.config.collection, revision));
            let flaw = match place {
                Some((_, size)) => flaw(post, *size),
                None => Some("post has no embedding".to_owned()),
            };
            match (flaw, place) {
                (None, Some((place, _))) => sent.entry(place).or_default().push(number),
                (flaw, _) => {
                    if let Some(answer) = answers.get_mut(number) {
                        *answer = Answer::Rejected(flaw.unwrap_or_default());
                    }
                }
            }
        }
        for (collection, numbers) in sent {
            let some: Vec<&ScoredPost> = numbers.iter().filter_map(|number| posts.get(*number).copied()).collect();
            let outcome = isolate(&Converge { store: self, collection }, &some).await;
            if outcome.is_err() {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
            for (number, answer) in numbers.into_iter().zip(outcome?) {
                if let Some(held) = answers.get_mut(number).filter(|_| answer != Answer::Stored) {
                    *held = answer;
                }
            }
        }
        Ok(answers)
    }
}
