//! Calls of other people's APIs, whose answers have no place for one text's error: all texts are scored, or the call fails
//! with the first problem, which says which text it is about.

use axum::extract::Request;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use undertone_inference::{Lane, Scored};

use super::{body, observe::Arrived};
use crate::{Gateway, access::Caller, problem::Problem, scoring::Admission, telemetry};

/// A call that was let in and read.
pub(super) struct Call<T> {
    gateway: Gateway,
    caller: Caller,
    lane: Option<Lane>,
    deadline: Instant,
    _admission: Admission,
    pub(super) asked: T,
}

impl<T: DeserializeOwned> Call<T> {
    /// Lets the call in, and reads its body.
    pub(super) async fn read(gateway: Gateway, request: Request) -> Result<Self, Problem> {
        let arrived = request.extensions().get().map_or_else(Instant::now, |Arrived(at)| *at);
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        let admission = gateway.admit()?;
        let deadline = arrived + gateway.limits.granted(body::asked_timeout(request.headers())?);
        let lane = body::lane(request.headers())?;
        gateway.foresee(lane.unwrap_or(Lane::Interactive), deadline)?;
        let bytes = body::read(request, &gateway.limits, deadline).await?;
        let asked = body::from_json(&bytes)?;
        Ok(Self { gateway, caller, lane, deadline, _admission: admission, asked })
    }
}

impl<T> Call<T> {
    /// Scores every text, or fails with the first problem. `pointer` is where the texts are in the body.
    pub(super) async fn score(
        &self,
        texts: Vec<String>,
        face: &'static str,
        pointer: &str,
    ) -> Result<Vec<Scored>, Problem> {
        let count = texts.len();
        self.caller.charge(count);
        let outcomes = self.gateway.score_texts(texts, self.lane, self.deadline).await;
        telemetry::texts(face, count, &outcomes);
        let each = outcomes?.into_iter().enumerate();
        each.map(|(index, outcome)| {
            outcome.map_err(|mut problem| {
                let place = if count == 1 { pointer.to_owned() } else { format!("{pointer}/{index}") };
                let detail = problem.detail.clone();
                if count > 1 {
                    problem.detail = format!("text {index}: {detail}");
                }
                problem.field(place, detail)
            })
        })
        .collect()
    }
}
