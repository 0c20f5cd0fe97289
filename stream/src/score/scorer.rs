//! What the scoring stage needs of a model. A trait, so that the stage is tested without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use undertone_error::{ErrorKind, Result};
use undertone_inference::{Engine, Lane, Scored};
use undertone_proto::v1;

/// What a model says about one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// The model that scored.
    pub model: v1::Model,
    /// One entry a head.
    pub heads: Vec<v1::HeadScores>,
    /// `negative`, `neutral` or `positive`, if the model maps its labels to them.
    pub sentiment: Option<String>,
    /// P(positive) - P(negative), -1 to 1.
    pub polarity: Option<f64>,
    /// The probability of the sentiment.
    pub confidence: Option<f32>,
    /// The text's embedding.
    pub embedding: Vec<f32>,
    /// The text as the model read it.
    pub clean_text: String,
    /// ISO 639-3, if it can be told.
    pub language: Option<String>,
    /// Whether that is a language that the model knows, if its folder names them.
    pub in_domain: Option<bool>,
    /// Tokens that the model read.
    pub tokens: u32,
    /// Whether the text was longer than the model reads.
    pub truncated: bool,
}

/// Scores texts.
pub trait Scorer: Send + Sync + 'static {
    /// One result for each text, in order, independent of what else is asked at the same time. Waits for room in the
    /// model's queue. An error belongs to its text: retryable if trying again may help, the user's fault if this text
    /// can never be scored.
    fn score_all(&self, texts: Vec<String>) -> impl Future<Output = Vec<Result<Scores>>> + Send;
}

/// A scorer, and whether an end of the process that comes now may be a post's doing.
#[derive(Debug)]
pub struct Watched<S> {
    scorer: Arc<S>,
    down: AtomicBool,
    panicked: Arc<AtomicBool>,
}

impl<S> Watched<S> {
    /// Nothing has happened yet.
    pub fn new(scorer: Arc<S>) -> Self {
        Self { scorer, down: AtomicBool::new(false), panicked: Arc::default() }
    }

    /// Whether a post may have brought the process to its end: the last answer was that of a model that is down, or something
    /// panicked over a post.
    pub(crate) fn may_be_killed(&self) -> bool {
        self.down.load(Ordering::Relaxed) || self.panicked.load(Ordering::Relaxed)
    }

    /// Whoever holds it works on posts.
    pub(super) fn at_work(&self) -> AtWork {
        AtWork(Arc::clone(&self.panicked))
    }
}

/// Remembers a panic of whoever holds it.
pub(super) struct AtWork(Arc<AtomicBool>);

impl Drop for AtWork {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl<S: Scorer> Scorer for Watched<S> {
    async fn score_all(&self, texts: Vec<String>) -> Vec<Result<Scores>> {
        let results = self.scorer.score_all(texts).await;
        self.down.store(is_down(&results), Ordering::Relaxed);
        results
    }
}

/// Whether a model that answers so is down: no text gets anything from it.
fn is_down(results: &[Result<Scores>]) -> bool {
    let unavailable = |result: &Result<_>| matches!(result, Err(error) if error.kind() == ErrorKind::Unavailable);
    !results.is_empty() && results.iter().all(unavailable)
}

impl Scorer for Engine {
    async fn score_all(&self, texts: Vec<String>) -> Vec<Result<Scores>> {
        Engine::score_all(self, texts, Lane::Bulk).await.into_iter().map(|result| result.map(Scores::from)).collect()
    }
}

impl From<Scored> for Scores {
    fn from(scored: Scored) -> Self {
        let heads = scored.heads.iter().map(|head| v1::HeadScores {
            head: head.head.to_string(),
            label: head.label_name().to_owned(),
            probabilities: head
                .labels
                .iter()
                .zip(&head.probabilities)
                .map(|(label, &value)| v1::Probability { label: label.clone(), value })
                .collect(),
        });
        let model = &scored.model;
        Self {
            model: v1::Model {
                name: model.name.clone(),
                revision: model.revision.clone(),
                precision: model.precision.clone(),
            },
            heads: heads.collect(),
            sentiment: scored.sentiment,
            polarity: scored.polarity,
            confidence: scored.confidence,
            embedding: scored.embedding,
            clean_text: scored.clean_text,
            language: scored.language.map(str::to_owned),
            in_domain: scored.in_domain,
            tokens: scored.tokens,
            truncated: scored.truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use undertone_error::Error;

    use super::*;

    #[test]
    fn a_model_is_down_only_if_nobody_is_served() {
        let answers = |kinds: &[Option<ErrorKind>]| -> Vec<Result<Scores>> {
            kinds.iter().map(|kind| kind.map_or(Ok(Scores::default()), |kind| Err(Error::new(kind, "x")))).collect()
        };
        let unavailable = Some(ErrorKind::Unavailable);
        assert!(is_down(&answers(&[unavailable])) && is_down(&answers(&[unavailable; 3])));
        for kinds in [
            &[][..],
            &[None],
            &[unavailable, None],
            &[unavailable, Some(ErrorKind::Busy)],
            &[Some(ErrorKind::Internal)],
        ] {
            assert!(!is_down(&answers(kinds)), "{kinds:?}");
        }
    }
}
