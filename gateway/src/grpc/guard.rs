//! What happens to every gRPC call before it is one: its caller must be known, and its message must come in time and be one.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::metadata::MetadataMap;

use super::call::{request_id, status};
use crate::{Gateway, errors::ProblemCode, problem::Problem, telemetry};

/// The method that takes one message after another.
const STREAM: &str = "/undertone.v1.Scoring/ScoreStream";

const REQUEST_ID: &str = "x-request-id";

/// Refuses whoever may not call, and tells the service who does.
pub(super) async fn guard(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    match gateway.caller(request.uri().path(), request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            // A stream of messages has a clock of its own, which stands still while answers are owed.
            if request.uri().path() == STREAM {
                return next.run(request).await;
            }
            let (within, id) = (gateway.limits.body_timeout, request.headers().get(REQUEST_ID).cloned());
            let answer = next.run(request.map(|body| Body::new(Timely::new(body, within)))).await;
            match is_unreadable(answer.headers()) {
                true => {
                    let detail = "the message cannot be read as the request of this method";
                    refuse(&Problem::new(ProblemCode::InvalidInput, detail), id)
                }
                false => answer,
            }
        }
        Err(problem) => refuse(&problem, request.headers().get(REQUEST_ID).cloned()),
    }
}

/// Whether the transport answered that it failed, which says that it could not read the message: we answer with a code.
fn is_unreadable(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status == "13") && !headers.contains_key("problem-code")
}

fn refuse(problem: &Problem, id: Option<HeaderValue>) -> Response {
    telemetry::grpc_answered("refused", problem.code().row().grpc, Duration::ZERO);
    let sent = id.into_iter().map(|id| (HeaderName::from_static(REQUEST_ID), id));
    let id = request_id(&MetadataMap::from_headers(sent.collect()));
    tracing::info!(request_id = id.to_str().unwrap_or_default(), problem = problem.code().row().code, "call refused");
    status(problem, id).into_http()
}

/// A request's message, which must have come whole within a time.
struct Timely {
    body: Body,
    by: Pin<Box<Sleep>>,
}

impl Timely {
    fn new(body: Body, within: Duration) -> Self {
        Self { body, by: Box::pin(sleep_until(Instant::now() + within)) }
    }
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.by.as_mut().poll(cx));
        let problem = Problem::new(ProblemCode::BodyTimeout, "the message did not arrive in time; send it faster");
        let row = problem.code().row();
        Poll::Ready(Some(Err(Box::new(tonic::Status::new(row.grpc, problem.detail)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
