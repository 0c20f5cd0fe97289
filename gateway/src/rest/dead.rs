//! `POST /v1/dead/replay`: sends dead letters to scoring again, or to the store that refused them.
//!
//! The guarantee: it means what `undertone dead replay` means. A letter that was sent again is not sent another time, whoever asks
//! and how often, and what it becomes keeps the origin that it had, so that nothing is counted twice.

use axum::{
    Extension, Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{body, observe::Arrived};
use crate::{Gateway, ReplayOf, errors::ProblemCode, problem::Problem};

/// The stores that refuse posts.
const SINKS: [&str; 3] = ["qdrant", "opensearch", "clickhouse"];

/// Which dead letters are meant; all events that were not replayed, if it says nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayRequest {
    /// Only events that died at this stage, `parse` or `score`.
    #[serde(default)]
    #[schema(nullable = false, example = "parse")]
    stage: Option<String>,
    /// Instead of events, the posts that this store refused, which are written to it again: `qdrant`, `opensearch` or
    /// `clickhouse`.
    #[serde(default)]
    #[schema(nullable = false)]
    sink: Option<String>,
    /// At most so many, the oldest first.
    #[serde(default)]
    #[schema(nullable = false, minimum = 1)]
    limit: Option<u32>,
    /// Say how many it would be, and do nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What became of a replay.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayResult {
    /// How many events will be scored again, or posts were written again; with `dry_run`, how many would be.
    events: usize,
    /// With how many letters nothing can be done. The log names them.
    refused: usize,
    /// Whether nothing was done.
    dry_run: bool,
}

/// Sends dead letters again
///
/// For when the cause is mended: events that could not be read or scored are scored again, each once and with the origin that it
/// had; with `sink`, posts that a store refused are written to it again. One replay runs at a time. It goes on when its caller
/// has gone, and calls after it find nothing more to send.
#[utoipa::path(
    post,
    path = "/v1/dead/replay",
    tag = "stream",
    operation_id = "replay",
    request_body(content = ReplayRequest, content_type = "application/json", examples(
        ("how many events it would be" = (value = json!({"dry_run": true}))),
        ("events that could not be read" = (value = json!({"stage": "parse"}))),
        ("posts that a store refused" = (value = json!({"sink": "opensearch", "limit": 1000}))),
        ("no such store (422)" = (value = json!({"sink": "postgres"}))),
    )),
    responses(
        (status = 200, description = "what was sent, or would be", body = ReplayResult),
        super::openapi::ReplayProblems,
    )
)]
pub(super) async fn replay(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    request: Request,
) -> Result<Json<ReplayResult>, Problem> {
    let _admission = gateway.admit()?;
    let deadline = arrived + gateway.limits.granted(body::asked_timeout(request.headers())?);
    let body = body::read(request, &gateway.limits, deadline).await?;
    let of = decide(body::from_json(&body)?)?;
    let Some(replay) = &gateway.replay else {
        let detail = "dead letters are sent again by a gateway on Kafka; for the embedded stream, stop it and run \
                      `undertone dead replay`";
        return Err(Problem::new(ProblemCode::StoreNotConfigured, detail));
    };
    if let Some(sink) = of.sink.as_deref().filter(|sink| !replay.sinks().contains(sink)) {
        let detail = format!(
            "this process does not write to {sink}; ask one that plays its role, or run `undertone dead replay --sink {sink}`"
        );
        return Err(Problem::new(ProblemCode::StoreNotConfigured, detail));
    }
    let dry_run = of.dry_run;
    match replay.replay(of).await {
        Ok(done) => Ok(Json(ReplayResult { events: done.events, refused: done.refused, dry_run })),
        Err(error) => {
            tracing::warn!(%error, "dead letters were not all replayed");
            Err(Problem::from(&error))
        }
    }
}

fn decide(request: ReplayRequest) -> Result<ReplayOf, Problem> {
    let ReplayRequest { stage, sink, limit, dry_run } = request;
    let bad = |pointer: &str, reason: &str| {
        let detail = format!("{}: {reason}", &pointer[1..]);
        Err(Problem::new(ProblemCode::InvalidInput, detail).field(pointer, reason))
    };
    match (&stage, &sink) {
        (Some(_), Some(_)) => return bad("/sink", "leave it or stage out"),
        (Some(stage), None) if !["parse", "score"].contains(&stage.as_str()) => {
            return bad("/stage", "is none; write parse or score, or name a store as sink");
        }
        (None, Some(sink)) if !SINKS.contains(&sink.as_str()) => {
            return bad("/sink", "is none; write qdrant, opensearch or clickhouse");
        }
        _ => {}
    }
    if limit == Some(0) {
        return bad("/limit", "is 0; write a number above it");
    }
    Ok(ReplayOf { stage, sink, limit: limit.map(|limit| limit as usize), dry_run })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_or_the_posts_of_one_store_are_meant() {
        let asked = |body: &str| body::from_json(body.as_bytes()).and_then(decide);
        let words = |text: &str| Some(text.to_owned());
        for (body, wanted) in [
            ("{}", ReplayOf::default()),
            (
                r#"{"stage":"parse","dry_run":true}"#,
                ReplayOf { stage: words("parse"), dry_run: true, ..ReplayOf::default() },
            ),
            (
                r#"{"sink":"qdrant","limit":5}"#,
                ReplayOf { sink: words("qdrant"), limit: Some(5), ..ReplayOf::default() },
            ),
        ] {
            assert_eq!(asked(body).expect(body), wanted);
        }
        for (body, pointer) in [
            (r#"{"stage":"parse","sink":"qdrant"}"#, "/sink"),
            (r#"{"stage":"qdrant"}"#, "/stage"),
            (r#"{"sink":"silver.posts"}"#, "/sink"),
            (r#"{"limit":0}"#, "/limit"),
            (r#"{"limit":-1}"#, "/limit"),
            (r#"{"dryrun":true}"#, "/dryrun"),
        ] {
            let problem = asked(body).expect_err(body);
            assert_eq!(
                (problem.code(), problem.errors[0].pointer.as_str()),
                (ProblemCode::InvalidInput, pointer),
                "{body}"
            );
        }
    }
}
