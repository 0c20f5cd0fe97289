//! One scoring call, the same for REST and gRPC.
//!
//! The guarantee: a call is answered by its deadline, every text has its own result or its own error, in order, and a
//! call that scored nothing because the server is full, late or draining says so with its status. Admission, limits,
//! lanes and the verdict over a call's results are decided here, by functions that know nothing of either protocol.

use std::sync::Arc;

use futures::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    time::{Instant, timeout_at},
};
use undertone_inference::{Lane, ModelInfo, Request, Scored};
use undertone_trace as trace;

use crate::{Gateway, Limits, api::Selection, errors::ProblemCode, problem::Problem, queries::Kind, telemetry};

/// The longest id of an item, in bytes of UTF-8.
const ID_BYTES: usize = 256;

/// The room that one call takes, given back when it is dropped.
pub(crate) struct Admission {
    _permit: OwnedSemaphorePermit,
    /// A place among those of its kind, where these are fewer.
    _among: Option<OwnedSemaphorePermit>,
}

/// What became of each text, in the order of the texts.
pub(crate) type Outcomes = Vec<Result<Scored, Problem>>;

impl Gateway {
    /// Lets a call in before its body is read.
    pub(crate) fn admit(&self) -> Result<Admission, Problem> {
        if self.shutdown.is_cancelled() {
            let detail = "the server takes no new calls; send it to another, or try again";
            return Err(Problem::new(ProblemCode::ShuttingDown, detail));
        }
        match self.calls.clone().try_acquire_owned() {
            Ok(permit) => Ok(Admission { _permit: permit, _among: None }),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => Err(self.no_place()),
        }
    }

    /// What [`Gateway::admit`] would refuse a call with for want of a place, if it would now: cheaper than to try.
    pub(crate) fn full(&self) -> Option<Problem> {
        (self.calls.available_permits() == 0 && !self.shutdown.is_cancelled()).then(|| self.no_place())
    }

    fn no_place(&self) -> Problem {
        telemetry::refused("calls");
        let detail = format!("{} calls are running, which is all that fit; try again", self.limits.calls_in_flight);
        Problem::new(ProblemCode::QueueFull, detail)
    }

    /// Lets a call in that sends texts without end, and is answered when they end.
    pub(crate) fn admit_bulk(&self) -> Result<Admission, Problem> {
        self.admit_among(&self.bulk_calls, "arrow", "bulk calls", self.limits.arrow_calls)
    }

    /// Lets a call in that sends texts without end, and is answered text by text.
    pub(crate) fn admit_stream(&self) -> Result<Admission, Problem> {
        self.admit_among(&self.streams, "streams", "streams", self.limits.streams)
    }

    /// Lets a call in that asks a store.
    pub(crate) fn admit_query(&self, kind: Kind) -> Result<Admission, Problem> {
        self.admit_among(&self.query_calls[kind as usize], "queries", "such queries", self.limits.query_calls)
    }

    fn admit_among(
        &self,
        room: &Arc<Semaphore>,
        reason: &'static str,
        name: &str,
        most: usize,
    ) -> Result<Admission, Problem> {
        let admission = self.admit()?;
        match Arc::clone(room).try_acquire_owned() {
            Ok(permit) => Ok(Admission { _among: Some(permit), ..admission }),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                telemetry::refused(reason);
                let detail = format!("{most} {name} are running, which is all that fit; try again");
                Err(Problem::new(ProblemCode::QueueFull, detail))
            }
        }
    }

    /// Scores every text of a call by the deadline, in the lane that its caller asked for, or that suits its size. Only a
    /// problem of the whole call is an error.
    pub(crate) async fn score_texts(
        &self,
        texts: Vec<String>,
        asked: Option<Lane>,
        deadline: Instant,
    ) -> Result<Outcomes, Problem> {
        self.limits.check_count(texts.len())?;
        let lane = lane(texts.len(), asked, &self.limits);
        self.foresee(lane, deadline)?;
        let outcomes = self.score_in(lane, texts, deadline).await;
        if outcomes.as_ref().is_err_and(|problem| problem.code() == ProblemCode::QueueFull) {
            telemetry::refused("tokens");
        }
        outcomes
    }

    async fn score_in(&self, lane: Lane, texts: Vec<String>, deadline: Instant) -> Result<Outcomes, Problem> {
        let (part, count) = (trace::part("score"), texts.len());
        let outcomes = self.score_slice(lane, texts, deadline).await;
        if let Some(part) = part {
            tell(&part, lane, count, &outcomes);
        }
        outcomes
    }

    /// Scores every text by the deadline, of a call that tells by itself of all its slices what a trace tells.
    pub(crate) async fn score_slice(
        &self,
        lane: Lane,
        texts: Vec<String>,
        deadline: Instant,
    ) -> Result<Outcomes, Problem> {
        let began = Instant::now();
        let outcomes = verdict(join_all(texts.into_iter().map(|text| self.score_one(lane, text, deadline))).await);
        telemetry::call(lane.name(), &outcomes, began.elapsed());
        outcomes
    }

    /// Scores one text by the deadline.
    pub(crate) async fn score_one(&self, lane: Lane, text: String, deadline: Instant) -> Result<Scored, Problem> {
        self.limits.check_text(&text)?;
        let request = Request { text, lane, deadline: Some(deadline.into_std()) };
        match timeout_at(deadline, self.scorer.score(request)).await {
            Ok(Ok(scored)) => Ok(scored),
            Ok(Err(error)) => {
                let problem = Problem::from(&error);
                if problem.code().is_ours() {
                    tracing::error!(%error, "scoring failed");
                }
                Err(problem)
            }
            Err(_) => Err(Problem::new(ProblemCode::DeadlineExceeded, "the text was not scored in time")),
        }
    }
}

/// What a trace tells of the core. Of several texts, the stages of the one that took the longest.
fn tell(part: &trace::Span, lane: Lane, texts: usize, outcomes: &Result<Outcomes, Problem>) {
    part.word("undertone.lane", lane.name());
    part.count("undertone.texts", i64::try_from(texts).unwrap_or(i64::MAX));
    let Ok(outcomes) = outcomes else { return part.failed() };
    let times = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).map(|scored| scored.times);
    if let Some(longest) = times.max_by_key(|times| times.queue + times.forward) {
        part.milliseconds("undertone.queue_ms", longest.queue);
        part.milliseconds("undertone.forward_ms", longest.forward);
    }
}

/// What a trace tells of a call with texts without end, once it has ended: of the whole, not of each text.
pub(crate) struct ManyTexts {
    part: Option<trace::Span>,
    lane: Lane,
    texts: i64,
    problems: i64,
}

impl ManyTexts {
    /// Begins a part of the call that is under way here, if that is traced.
    pub(crate) fn begin(lane: Lane) -> Self {
        Self { part: trace::part("score texts"), lane, texts: 0, problems: 0 }
    }

    /// Notes that the call ended with a problem.
    pub(crate) fn failed(&self) {
        if let Some(part) = &self.part {
            part.failed();
        }
    }

    /// Counts a text.
    pub(crate) fn add(&mut self, outcome: &Result<Scored, Problem>) {
        self.texts += 1;
        self.problems += i64::from(outcome.is_err());
    }
}

impl Drop for ManyTexts {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            part.word("undertone.lane", self.lane.name());
            part.count("undertone.texts", self.texts);
            part.count("undertone.problems", self.problems);
        }
    }
}

/// Small calls have somebody waiting for them; large ones are after throughput, and wait for room instead of failing.
fn lane(texts: usize, asked: Option<Lane>, limits: &Limits) -> Lane {
    match asked {
        Some(Lane::Bulk) => Lane::Bulk,
        _ if texts <= limits.interactive_texts => Lane::Interactive,
        // Asking does not make a large call small.
        _ => Lane::Bulk,
    }
}

/// The lane that a caller asks for by its name.
///
/// # Errors
/// `invalid-header`.
pub(crate) fn asked_lane(value: Option<&str>) -> Result<Option<Lane>, Problem> {
    match value {
        None => Ok(None),
        Some("interactive") => Ok(Some(Lane::Interactive)),
        Some("bulk") => Ok(Some(Lane::Bulk)),
        Some(_) => Err(Problem::new(ProblemCode::InvalidHeader, "x-lane is neither interactive nor bulk")),
    }
}

/// A call of which nothing was scored, and not because of its texts, fails as a whole with its first problem of that
/// sort; otherwise each text speaks for itself.
fn verdict(outcomes: Outcomes) -> Result<Outcomes, Problem> {
    let all_about_the_call = outcomes.iter().all(|outcome| match outcome {
        Ok(_) => false,
        Err(problem) => problem.code().is_about_the_call(),
    });
    match outcomes.first() {
        Some(Err(problem)) if all_about_the_call => Err(problem.clone()),
        _ => Ok(outcomes),
    }
}

/// The model that scored the first text that was scored; while a model is replaced, others may have another.
pub(crate) fn model_of(outcomes: &[Result<Scored, Problem>]) -> Option<Arc<ModelInfo>> {
    outcomes.iter().find_map(|outcome| outcome.as_ref().ok()).map(|scored| Arc::clone(&scored.model))
}

/// The answer to whoever asks for another model than the one that is served.
pub(crate) fn no_such_model(served: &ModelInfo) -> Problem {
    Problem::new(ProblemCode::NotFound, format!("this model is not served here; there is {}", served.name))
}

/// The heads that a caller named, each once.
///
/// # Errors
/// `unknown-head`, naming the heads that there are. `pointer` is the list in the body.
pub(crate) fn select(
    heads: Vec<String>,
    embedding: bool,
    model: &ModelInfo,
    pointer: &str,
) -> Result<Selection, Problem> {
    let known: Vec<&str> = model.heads.iter().map(|head| head.name.as_str()).collect();
    let mut selection = Selection { heads: Vec::new(), embedding };
    for (index, head) in heads.into_iter().enumerate() {
        if !known.contains(&head.as_str()) {
            let detail = format!("the model has no head of this name; it has: {}", known.join(", "));
            return Err(
                Problem::new(ProblemCode::UnknownHead, detail.clone()).field(format!("{pointer}/{index}"), detail)
            );
        }
        if !selection.heads.contains(&head) {
            selection.heads.push(head);
        }
    }
    Ok(selection)
}

/// Whether an id can come back with its result: it is at most [`ID_BYTES`] long.
///
/// # Errors
/// `invalid-input`, naming the item by its place in the call.
pub(crate) fn check_id(id: &str, index: usize) -> Result<(), Problem> {
    match too_long(id) {
        None => Ok(()),
        Some(detail) => Err(Problem::new(ProblemCode::InvalidInput, format!("item {index}: {detail}"))
            .field(format!("/items/{index}/id"), detail)),
    }
}

/// What is wrong with an id that is too long to come back.
pub(crate) fn too_long(id: &str) -> Option<String> {
    let bytes = id.len();
    (bytes > ID_BYTES).then(|| format!("the id has {bytes} bytes, at most {ID_BYTES} are allowed; send a shorter one"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    fn failed(code: ProblemCode) -> Result<Scored, Problem> {
        Err(Problem::new(code, "x"))
    }

    #[test]
    fn a_call_fails_as_a_whole_only_when_nothing_was_scored_and_no_text_is_to_blame() {
        use ProblemCode as P;
        let good = || Ok(fake::scored("fine"));
        let cases = [
            (vec![good()], None),
            (vec![good(), failed(P::QueueFull)], None),
            (vec![failed(P::TextTooLong), failed(P::QueueFull)], None),
            (vec![failed(P::EmptyText)], None),
            (vec![failed(P::QueueFull)], Some(P::QueueFull)),
            (vec![failed(P::DeadlineExceeded), failed(P::QueueFull)], Some(P::DeadlineExceeded)),
        ];
        for (outcomes, wanted) in cases {
            let names: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().map(Problem::code)).collect();
            assert_eq!(verdict(outcomes).err().map(|problem| problem.code()), wanted, "{names:?}");
        }
    }

    #[test]
    fn large_calls_leave_the_interactive_lane_to_small_ones() {
        let limits = Limits { interactive_texts: 2, ..Limits::default() };
        let (interactive, bulk) = (Some(Lane::Interactive), Some(Lane::Bulk));
        for (texts, asked, wanted) in [
            (1, None, Lane::Interactive),
            (2, None, Lane::Interactive),
            (3, None, Lane::Bulk),
            (1, bulk, Lane::Bulk),
            (2, interactive, Lane::Interactive),
            (3, interactive, Lane::Bulk),
        ] {
            assert_eq!(lane(texts, asked, &limits), wanted, "{texts} texts, {asked:?}");
        }
    }

    #[test]
    fn heads_are_chosen_once_and_unknown_ones_are_named_with_those_there_are() {
        let model = fake::model();
        let choose =
            |heads: &[&str]| select(heads.iter().map(|&head| head.to_owned()).collect(), false, &model, "/heads");
        assert!(choose(&[]).expect("every head").wants("emotion"));
        assert_eq!(choose(&["emotion", "emotion"]).expect("one head").heads, ["emotion"]);
        let problem = choose(&["sentiment", "mood"]).expect_err("no such head");
        assert!(problem.detail.contains("sentiment, emotion"), "{}", problem.detail);
        assert_eq!(problem.errors[0].pointer, "/heads/1");
    }
}
