//! The one thing that the gateway needs of the inference core, so that it can be tested without a model.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use undertone_error::Result;
use undertone_inference::{Engine, Lane, ModelInfo, Request, Scored};

/// Scores texts. Dropping the future of [`Scorer::score`] gives the text up.
#[async_trait]
pub trait Scorer: Send + Sync + 'static {
    /// The model that takes texts now; each [`Scored`] names the one that scored it.
    fn model(&self) -> Arc<ModelInfo>;

    /// Scores one text.
    ///
    /// # Errors
    /// `Busy` when the interactive lane is full, `DeadlineExceeded`, `Unavailable` when shutting down, or what is wrong
    /// with the text.
    async fn score(&self, request: Request) -> Result<Scored>;

    /// How long a text of this lane would wait that came now, at least. `None` if nobody knows.
    fn wait(&self, lane: Lane) -> Option<Duration> {
        let _ = lane;
        None
    }
}

#[async_trait]
impl Scorer for Engine {
    fn model(&self) -> Arc<ModelInfo> {
        Engine::model(self)
    }

    async fn score(&self, request: Request) -> Result<Scored> {
        Engine::score(self, request).await
    }

    fn wait(&self, lane: Lane) -> Option<Duration> {
        Engine::wait(self, lane)
    }
}

#[async_trait]
impl<T: Scorer + ?Sized> Scorer for Arc<T> {
    fn model(&self) -> Arc<ModelInfo> {
        T::model(self)
    }

    async fn score(&self, request: Request) -> Result<Scored> {
        T::score(self, request).await
    }

    fn wait(&self, lane: Lane) -> Option<Duration> {
        T::wait(self, lane)
    }
}
