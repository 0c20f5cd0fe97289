//! `POST /v1/posts`: the webhook collector.
//!
//! The guarantee: a post is accepted only once it is durable where the stream reads (`posts.raw`, or the input log), as
//! the bytes that came; one that cannot become a post is refused here, by the reader that the stream uses, instead of
//! ending in the dead letters. A call whose answer is lost may be sent again: the event is doubled, the post is not.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Request, State},
    http::HeaderMap,
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use undertone_error::ErrorKind;
use undertone_proto::{Post, identity};
use utoipa::ToSchema;

use super::{body, observe::Arrived};
use crate::{
    Gateway,
    access::Caller,
    errors::ProblemCode,
    gateway::Ingest,
    intake::{NewPost, Place},
    problem::Problem,
    telemetry,
};

/// What became of the posts of one call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Taken {
    /// How many are durable.
    accepted: usize,
    /// One result for each post, in order.
    results: Vec<TakenPost>,
}

/// What became of one post.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TakenPost {
    /// It is durable.
    Accepted(Accepted),
    /// It is not.
    Refused(Refused),
}

/// A post that is durable.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// Where it was posted.
    source: String,
    /// Its id within the source; derived from what it says if it had none.
    id: String,
    /// Its id across sources.
    uid: String,
    /// The partition that it stands in.
    partition: i32,
    /// Its offset there.
    offset: i64,
}

/// A post that was not taken in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Refused {
    /// Why.
    error: Problem,
}

/// Takes posts in
///
/// One post, a JSON list of posts, or one a line (`application/x-ndjson`), as `undertone schema` describes them or as
/// `[source.mapping]` maps them. What is accepted is durable. A single post that is refused is the status of the call; of
/// several, each has its own result, and the call fails only if none could be made durable. With a secret configured,
/// `x-signature-256` (or `x-hub-signature-256`) must be `sha256=` and the hexadecimal HMAC of the body, and no key is asked for.
#[utoipa::path(
    post,
    path = "/v1/posts",
    tag = "stream",
    operation_id = "posts",
    params(("x-signature-256" = Option<String>, Header, nullable = false, description = "`sha256=` and the HMAC-SHA256 of the body in hex")),
    request_body(content(
        (Object = "application/json", examples(
            ("a post" = (value = json!({"id": "p1", "source": "forum", "text": "what a day", "created_at": "2026-05-01T12:00:00Z"}))),
            ("several" = (value = json!([{"source": "forum", "text": "one"}, {"source": "forum", "text": "another"}]))),
            ("one of several is no post" = (value = json!([{"source": "forum", "text": "one"}, {"source": "forum"}]))),
            ("no text (422)" = (value = json!({"source": "forum"}))),
        )),
        (String = "application/x-ndjson"),
    )),
    responses(
        (status = 200, description = "what is accepted is durable", body = Taken),
        (status = 404, description = "`store-not-configured`: this process has no stream to put posts into", body = Problem,
         content_type = "application/problem+json"),
        super::openapi::IngestProblems,
    )
)]
pub(super) async fn posts(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Taken>, Problem> {
    let Some(ingest) = &gateway.ingest else {
        let detail = "this process plays no part of a stream; send posts to one that does, or set kafka.brokers";
        return Err(Problem::new(ProblemCode::StoreNotConfigured, detail));
    };
    let _admission = gateway.admit()?;
    let deadline = arrived + gateway.limits.granted(body::asked_timeout(request.headers())?);
    let lines = body::is_lines(request.headers());
    let signature = signature(request.headers());
    let body = match lines {
        true => body::read_any(request, &gateway.limits, deadline).await?,
        false => body::read(request, &gateway.limits, deadline).await?,
    };
    if let Some(secret) = &ingest.secret {
        secret.check(&body, signature.as_deref())?;
    }
    let Sent { posts, single } = split(&body, lines)?;
    gateway.limits.check_count(posts.len())?;
    caller.charge(posts.len());

    let outcomes = take_in(ingest, posts, gateway.limits.post_bytes, deadline).await;
    telemetry::posts(&outcomes);
    finish(outcomes, single)
}

/// What was sent: byte for byte, as the stream will see it.
struct Sent {
    posts: Vec<Bytes>,
    /// One post, whose problem is the problem of the call.
    single: bool,
}

fn signature(headers: &HeaderMap) -> Option<String> {
    let found = headers.get("x-signature-256").or_else(|| headers.get("x-hub-signature-256"))?;
    found.to_str().ok().map(str::to_owned)
}

fn split(body: &Bytes, lines: bool) -> Result<Sent, Problem> {
    if lines {
        let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        return Ok(Sent { posts: lines.map(|line| body.slice_ref(line)).collect(), single: false });
    }
    if body.trim_ascii_start().first() != Some(&b'[') {
        return Ok(Sent { posts: vec![body.slice_ref(body.trim_ascii())], single: true });
    }
    let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Problem::new(ProblemCode::InvalidJson, format!("the body is no JSON list ({place})"))
    })?;
    Ok(Sent { posts: items.iter().map(|item| body.slice_ref(item.get().as_bytes())).collect(), single: false })
}

type Outcome = Result<(Post, Place), Problem>;

async fn take_in(ingest: &Ingest, posts: Vec<Bytes>, most: usize, deadline: Instant) -> Vec<Outcome> {
    let now = jiff::Timestamp::now().as_microsecond();
    let read = |payload: &Bytes| {
        if payload.len() > most {
            let detail = format!("the post has {} bytes, at most {most} are allowed", payload.len());
            return Err(Problem::new(ProblemCode::TooLarge, detail));
        }
        ingest.reader.read(payload, now).map_err(|error| Problem::from(&error))
    };
    let read: Vec<_> = posts.iter().map(read).collect();
    let good = posts.into_iter().zip(&read).filter_map(|(payload, read)| {
        let post = read.as_ref().ok()?;
        Some(NewPost { key: serde_json::json!([post.source, post.id]).to_string(), payload })
    });
    let good: Vec<NewPost> = good.collect();
    let count = good.len();
    let mut places = match count {
        0 => Vec::new(),
        _ => match timeout_at(deadline, ingest.intake.take_in(good)).await {
            Ok(places) => places.into_iter().map(|place| place.map_err(|error| not_taken(&error))).collect(),
            Err(_) => (0..count).map(|_| Err(late())).collect(),
        },
    }
    .into_iter();
    let join = |read: Result<Post, Problem>| {
        let post = read?;
        let place = places.next().unwrap_or_else(|| Err(late()))?;
        Ok((post, place))
    };
    read.into_iter().map(join).collect()
}

fn late() -> Problem {
    let detail = "the post was not durable in time, and may become so; send it again: twice does no harm";
    Problem::new(ProblemCode::DeadlineExceeded, detail)
}

/// What the stream's side cannot do is nothing that the caller did wrong, unless the post is too large for it.
fn not_taken(error: &undertone_error::Error) -> Problem {
    match error.kind() {
        ErrorKind::TooLarge | ErrorKind::Busy => Problem::from(error),
        _ => {
            tracing::warn!(%error, "post was not taken in");
            let detail = "the post could not be made durable; send it again: twice does no harm";
            Problem::new(ProblemCode::Unavailable, detail)
        }
    }
}

fn finish(outcomes: Vec<Outcome>, single: bool) -> Result<Json<Taken>, Problem> {
    let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let of_the_call = |outcome: &Outcome| outcome.as_ref().is_err_and(|problem| problem.code().is_about_the_call());
    if let Some(Err(problem)) = outcomes.first()
        && (single || outcomes.iter().all(of_the_call))
    {
        return Err(problem.clone());
    }
    let result = |outcome: Outcome| match outcome {
        Ok((post, place)) => TakenPost::Accepted(Accepted {
            uid: identity::uid(&post).to_string(),
            source: post.source,
            id: post.id,
            partition: place.partition,
            offset: place.offset,
        }),
        Err(error) => TakenPost::Refused(Refused { error }),
    };
    Ok(Json(Taken { accepted, results: outcomes.into_iter().map(result).collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posts_are_cut_out_of_a_body_byte_for_byte() {
        for (body, lines, wanted, single) in [
            (" {\"text\":\"a\"}\n", false, vec!["{\"text\":\"a\"}"], true),
            ("[ {\"a\": 1.10} ,{ }]", false, vec!["{\"a\": 1.10}", "{ }"], false),
            ("[]", false, vec![], false),
            ("{\"a\":1}\n\n {\"b\":2}\r\n", true, vec!["{\"a\":1}", "{\"b\":2}"], false),
            ("", true, vec![], false),
        ] {
            let sent = split(&Bytes::copy_from_slice(body.as_bytes()), lines).expect(body);
            assert_eq!((sent.posts, sent.single), (wanted.into_iter().map(Bytes::from).collect(), single), "{body}");
        }
        assert!(split(&Bytes::from_static(b"[{]"), false).is_err());
        assert!(split(&Bytes::from_static(b"[\"\xff\"]"), false).is_err());
    }
}
