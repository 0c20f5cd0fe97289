//! `POST /v1/score/stream`: one text a line in, one answer a line out, while both go on.
//!
//! The guarantee: one line out for each line in that is not blank, in order; what is wrong with one line stands in its own
//! answer. The status is 200 once the stream begins, so what ends it early is its last line, a problem document. A client
//! that sends everything before it reads does not stand still: answers wait for it, on disk but for the first of them, up to
//! [`Limits::stream_answer_bytes`](crate::Limits::stream_answer_bytes); beyond that, nothing more is read from it.

mod backlog;
mod lines;

use std::{io, pin::pin};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, header},
    response::Response,
};
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    sync::mpsc::{Sender, channel},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use self::backlog::Backlog;
use super::{
    body::{self, LINES},
    observe::{Arrived, RequestId},
};
use crate::{
    Gateway,
    access::Caller,
    api::{ScoreResult, Selection},
    door::Patience,
    errors::ProblemCode,
    problem::Problem,
    streaming::{self, Answer, Terms},
    telemetry,
};

/// Answers that are ready together go out together, at most so many.
const TOGETHER: usize = 64;

/// Scores texts as they come, one a line
///
/// The body has one object a line, `{"text": …}`, with an `id` if it is to come back. For each line that is not blank one
/// line is answered, in order and as soon as it is scored: a result as of `/v1/score`, or `{"error": …}` for a line that
/// could not be read or scored, which has the `id` if that could be read. Read while you send; a client that does not is
/// served too, as long as its answers have less than 256 MiB. If the stream must end before its body does, its last line is a problem
/// document, and what was sent after the last answered line was not scored. Texts go through the bulk lane unless
/// `x-lane` says otherwise, and a key's rate slows the stream down. `x-timeout-ms` may be up to an hour here, which it is if
/// it is left out.
#[utoipa::path(
    post,
    path = "/v1/score/stream",
    tag = "scoring",
    operation_id = "score_stream",
    params(
        body::Chosen,
        ("x-timeout-ms" = Option<u64>, Header, nullable = false, description = "deadline in milliseconds from the request's head"),
        ("x-lane" = Option<String>, Header, nullable = false, description = "`interactive` goes ahead of bulk calls, with 32 texts in flight"),
    ),
    request_body(content = String, content_type = "application/x-ndjson", description = "a ScoreItem a line", examples(
        ("two texts" = (value = json!("{\"id\": 1, \"text\": \"what a day\"}\n{\"id\": 2, \"text\": \"never again\"}\n"))),
        ("one of three lines is no JSON" = (value = json!("{\"text\": \"one\"}\n{\"text\":\n{\"text\": \"three\"}\n"))),
        ("nothing" = (value = json!(""))),
    )),
    responses(
        (status = 200, description = "a ScoreResult a line, in order; a last line with a `type` is a problem that ended the stream",
         body = String, content_type = "application/x-ndjson"),
        super::openapi::StreamProblems,
    )
)]
pub(super) async fn score(
    State(gateway): State<Gateway>,
    Extension(Arrived(arrived)): Extension<Arrived>,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    patience: Option<Extension<Patience>>,
    request: Request,
) -> Result<Response, Problem> {
    let admission = gateway.admit_stream()?;
    let headers = request.headers();
    if !body::is_lines(headers) {
        let detail = format!("this path takes one JSON object a line; set the header content-type: {LINES}");
        return Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
    }
    body::check_encoding(headers)?;
    let selection = body::Chosen::from_query(request.uri(), &gateway.scorer.model())?;
    let terms = Terms {
        lane: streaming::lane(body::lane(headers)?),
        deadline: arrived + gateway.limits.granted_long(body::asked_timeout(headers)?),
        face: "ndjson",
    };
    gateway.foresee(terms.lane, terms.deadline)?;

    let mut open = telemetry::OpenStream::new(terms.lane.name());
    let waits = headers.contains_key(header::EXPECT);
    let mut entries = Box::pin(lines::entries(request.into_body(), &gateway.limits).peekable());
    if waits {
        // It is asked for its body by our reading, which must come before the head of the answer.
        let _ = timeout(gateway.limits.body_timeout, entries.as_mut().peek()).await;
    }
    let answers = streaming::answers(&gateway, caller, terms, entries);
    let lines = answers.map(move |answer| answer.map(|answer| result(answer, &selection)));
    let (sender, receiver) = channel(1);
    let patience = patience.map(|Extension(patience)| patience).unwrap_or_default();
    let work = async move {
        let ended = pump(lines, sender, gateway.limits.stream_answer_bytes, id, &patience).await;
        patience.hold(false);
        open.ended(&ended);
        let code = ended.as_ref().map_or_else(|problem| problem.code().row().code, |()| "answered");
        tracing::info!(code, seconds = arrived.elapsed().as_secs_f64(), "stream ended");
        drop((open, admission));
    };
    tokio::spawn(work.instrument(tracing::Span::current()));

    let mut answer = Response::new(Body::from_stream(ReceiverStream::new(receiver)));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(LINES));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

fn result(Answer { tag, outcome }: Answer<Option<Value>>, selection: &Selection) -> Vec<u8> {
    line(&match outcome {
        Ok(scored) => ScoreResult::new(tag, scored, selection),
        Err(problem) => ScoreResult::failed(tag, problem),
    })
}

fn line(said: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(said).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Carries answers to whoever reads them, and keeps those that are not yet read; takes no more while too many wait.
async fn pump(
    lines: impl Stream<Item = Result<Vec<u8>, Problem>>,
    reader: Sender<io::Result<Bytes>>,
    most: u64,
    request_id: String,
    patience: &Patience,
) -> Result<(), Problem> {
    let mut lines = pin!(lines.ready_chunks(TOGETHER));
    let mut backlog = Backlog::default();
    let mut ended = None;
    loop {
        if backlog.len() == 0
            && let Some(ended) = ended
        {
            return ended;
        }
        // Its peer may be one that first sends everything, and it is we who say how fast.
        patience.hold(ended.is_none() && backlog.len() < most);
        tokio::select! {
            biased;
            room = reader.reserve(), if backlog.len() > 0 => {
                let Ok(room) = room else { return Err(gone()) };
                match backlog.pop().await {
                    Ok(bytes) => room.send(Ok(bytes)),
                    Err(error) => {
                        // What was answered is lost, so the connection must not end as if it were whole.
                        let problem = full(&error);
                        room.send(Err(error));
                        return Err(problem);
                    }
                }
            }
            several = lines.next(), if ended.is_none() && backlog.len() < most => match several {
                Some(several) => {
                    for one in several {
                        let kept = match one {
                            Ok(line) => backlog.push(&line).await,
                            Err(mut problem) => {
                                problem.instance = Some(request_id.as_str().into());
                                let kept = backlog.push(&line(&problem)).await;
                                ended = Some(Err(problem));
                                kept
                            }
                        };
                        if let Err(error) = kept && ended.is_none() {
                            let mut problem = full(&error);
                            problem.instance = Some(request_id.as_str().into());
                            // It waits in memory with the answer before it, since there is no room on disk.
                            let _ = backlog.push(&line(&problem)).await;
                            ended = Some(Err(problem));
                            break;
                        }
                    }
                }
                None => ended = Some(Ok(())),
            },
            () = reader.closed() => return Err(gone()),
        }
    }
}

fn gone() -> Problem {
    Problem::new(ProblemCode::Cancelled, "the caller went away")
}

fn full(error: &io::Error) -> Problem {
    tracing::error!(%error, "cannot keep answers in a temporary file");
    Problem::new(ProblemCode::Exhausted, "the server has no room for answers that are not read; read while you send")
}
