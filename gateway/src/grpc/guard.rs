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
use tonic::{Code, Status, metadata::MetadataMap};

use super::{call::request_id, details::status};
use crate::{Gateway, errors::ProblemCode, problem::Problem, telemetry};

/// The method that takes one message after another.
const STREAM: &str = "/undertone.v1.Scoring/ScoreStream";

const REQUEST_ID: &str = "x-request-id";

const TOO_SLOW: &str = "the message did not arrive in time; send it faster";

/// Refuses whoever may not call, and tells the service who does.
pub(super) async fn guard(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    match gateway.caller(request.uri().path(), request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            let (within, id) = (gateway.limits.body_timeout, request.headers().get(REQUEST_ID).cloned());
            let compressed = is_compressed(request.headers());
            // A stream of messages has a clock of its own, which stands still while answers are owed.
            let request = match request.uri().path() {
                STREAM => request,
                _ => request.map(|body| Body::new(Timely::new(body, within))),
            };
            let answer = next.run(request).await;
            match of_the_transport(answer.headers(), compressed) {
                Some(problem) => refuse(&problem, id),
                None => answer,
            }
        }
        Err(problem) => refuse(&problem, request.headers().get(REQUEST_ID).cloned()),
    }
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity")
}

/// What the transport refused before it was a call, in the words of the table of errors.
fn of_the_transport(answer: &HeaderMap, compressed: bool) -> Option<Problem> {
    use ProblemCode as P;
    if answer.contains_key("problem-code") {
        return None;
    }
    let code = Code::from_bytes(answer.get("grpc-status")?.as_bytes());
    let (code, detail) = match code {
        Code::DeadlineExceeded => (P::BodyTimeout, TOO_SLOW),
        Code::OutOfRange => (P::BodyTooLarge, "the message is over the limit; send less in one call"),
        Code::Unimplemented if compressed => {
            (P::UnsupportedEncoding, "compressed messages are not read; send them as they are")
        }
        Code::Unimplemented => (P::UnknownPath, "there is no such service or method; reflection tells which there are"),
        // All methods of our own name their problem, so this is the health service.
        Code::NotFound => {
            (P::NotFound, "there is no service of this name whose health is known; reflection tells which there are")
        }
        // The transport says that it failed where it could not read the message.
        Code::Internal => (P::InvalidInput, "the message cannot be read as the request of this method"),
        _ => return None,
    };
    Some(Problem::new(code, detail))
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
        // The transport answers the call with it, and the guard that answer with the problem.
        Poll::Ready(Some(Err(Box::new(Status::new(ProblemCode::BodyTimeout.row().grpc, TOO_SLOW)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_transport_refuses_has_the_code_and_the_status_of_the_table() {
        use ProblemCode as P;
        for (status, compressed, wanted) in [
            (Code::DeadlineExceeded, false, Some(P::BodyTimeout)),
            (Code::OutOfRange, false, Some(P::BodyTooLarge)),
            (Code::Unimplemented, false, Some(P::UnknownPath)),
            (Code::Unimplemented, true, Some(P::UnsupportedEncoding)),
            (Code::Internal, false, Some(P::InvalidInput)),
            // An unknown service's health.
            (Code::NotFound, false, Some(P::NotFound)),
            (Code::Ok, false, None),
        ] {
            let mut answer = HeaderMap::new();
            answer.insert("grpc-status", HeaderValue::from(status as i32));
            let code = of_the_transport(&answer, compressed).map(|problem| problem.code());
            assert_eq!(code, wanted, "{status:?}");
            // What could not be read is the caller's fault, whatever the transport calls it.
            let same = status == Code::Internal || code.is_none_or(|code| code.row().grpc == status);
            assert!(same, "{status:?}");
            answer.insert("problem-code", HeaderValue::from_static("internal"));
            assert!(of_the_transport(&answer, compressed).is_none(), "it is a problem of ours already");
        }
        assert!(of_the_transport(&HeaderMap::new(), false).is_none(), "it goes on");
    }
}
