//! Whether the process should get traffic: the states of its parts, asked of whoever runs them.
//!
//! The answer never waits for the parts: the source answers from what it already knows.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    /// It does its work.
    Ready,
    /// It does its work, but less well or less fast than it should. Counts as ready.
    Degraded,
    /// It is not ready yet.
    Starting,
    /// It stands still and needs help.
    Failed,
    /// It is ending.
    Stopping,
}

impl PartState {
    /// Whether traffic may come.
    pub fn is_ready(self) -> bool {
        matches!(self, PartState::Ready | PartState::Degraded)
    }
}

/// One part of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Part {
    /// The part's name.
    #[schema(example = "engine")]
    pub name: String,
    /// How it is.
    pub state: PartState,
    /// Why, if it is not simply ready.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// Since when it waits for something outside, in RFC 3339; left out unless it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-05-01T12:00:00Z")]
    pub since: Option<String>,
}

impl Part {
    /// A part that does its work.
    pub fn ready(name: impl Into<String>) -> Self {
        Self { name: name.into(), state: PartState::Ready, reason: None, since: None }
    }

    /// A part that does not, or not quite, and why.
    pub fn not_ready(name: impl Into<String>, state: PartState, reason: impl Into<String>) -> Self {
        Self { name: name.into(), state, reason: Some(reason.into()), since: None }
    }

    /// The same part, which has been so since then.
    #[must_use]
    pub fn since(self, since: impl Into<String>) -> Self {
        Self { since: Some(since.into()), ..self }
    }
}

/// Answers the state of every part. It is asked about once a second and by every `/readyz`, so it must not block.
pub type Readiness = Arc<dyn Fn() -> Vec<Part> + Send + Sync>;

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Report {
    /// Whether traffic may come.
    pub(crate) ready: bool,
    /// Every part.
    pub(crate) parts: Vec<Part>,
}

impl Report {
    /// Without the reasons, which may name what is not for everybody.
    pub(crate) fn without_reasons(mut self) -> Self {
        for part in &mut self.parts {
            part.reason = None;
        }
        self
    }

    /// Ready means that every part is.
    pub(crate) fn new(parts: Vec<Part>, draining: bool) -> Self {
        let gateway = if draining {
            Part::not_ready("gateway", PartState::Stopping, "the server is shutting down")
        } else {
            Part::ready("gateway")
        };
        let parts: Vec<Part> = std::iter::once(gateway).chain(parts).collect();
        Self { ready: parts.iter().all(|part| part.state.is_ready()), parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_that_is_not_ready_is_enough() {
        use PartState as S;
        for (state, ready) in
            [(S::Ready, true), (S::Degraded, true), (S::Starting, false), (S::Failed, false), (S::Stopping, false)]
        {
            let report = Report::new(vec![Part::ready("a"), Part::not_ready("b", state, "why")], false);
            assert_eq!(report.ready, ready, "{state:?}");
        }
        assert!(!Report::new(vec![], true).ready, "a draining gateway takes no traffic");
    }
}
