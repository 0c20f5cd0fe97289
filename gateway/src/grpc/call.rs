//! What a gRPC call brings beside its message, and how it ends: its id, its deadline, its caller and its status.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::time::Instant;
use tonic::{
    Extensions, Request, Response, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};
use tracing::{Instrument, Span, field::Empty};
use undertone_inference::Lane;
use undertone_trace as trace;
use uuid::Uuid;

use super::details;
use crate::{access::Caller, problem::Problem, scoring::asked_lane, telemetry};

/// The transports of both sides end a call at `grpc-timeout` by themselves, with the wrong status (`CANCELLED`), so our
/// answer is sent a tenth of the time before, or this long if that is less.
const HEAD_START: Duration = Duration::from_millis(50);

/// One call.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) arrived: Instant,
    pub(super) caller: Caller,
    pub(super) span: Span,
    /// The trace that it is a part of, if that is sampled.
    traced: Option<trace::Span>,
    metadata: MetadataMap,
    id: AsciiMetadataValue,
}

impl Call {
    pub(super) fn new(method: &'static str, metadata: MetadataMap, extensions: &Extensions) -> Self {
        let id = request_id(&metadata);
        let caller = extensions.get::<Caller>().cloned().unwrap_or_default();
        let request_id = id.to_str().unwrap_or_default();
        let span = tracing::info_span!("grpc", request_id, method, caller = caller.name(), trace_id = Empty);
        let header = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        let traced = trace::call(|| method.into(), header);
        if let Some(traced) = &traced {
            traced.word("rpc.system", "grpc");
            traced.word("rpc.method", method);
            span.record("trace_id", traced.trace_id());
        }
        Self { method, arrived: Instant::now(), caller, span, traced, metadata, id }
    }

    /// When the answer must be on its way.
    pub(super) fn deadline(&self, granted: impl FnOnce(Option<Duration>) -> Duration) -> Instant {
        self.arrived + deadline(granted(asked_timeout(&self.metadata)))
    }

    /// The lane that the caller asks for, if it does.
    pub(super) fn lane(&self) -> Result<Option<Lane>, Problem> {
        asked_lane(self.metadata.get("x-lane").map(|value| value.to_str().unwrap_or_default()))
    }

    /// An answer with the call's id.
    pub(super) fn response<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        response.metadata_mut().insert("x-request-id", self.id.clone());
        response
    }

    pub(super) fn status(&self, problem: &Problem) -> Status {
        details::status(problem, self.id.clone())
    }

    /// Counts and logs the call's end.
    pub(super) fn ended(&self, problem: Option<&Problem>) {
        let code = problem.map_or(tonic::Code::Ok, |problem| problem.code().row().grpc);
        let took = self.arrived.elapsed();
        telemetry::grpc_answered(self.method, code, took);
        if let Some(traced) = &self.traced {
            traced.count("rpc.grpc.status_code", (code as i32).into());
            if problem.is_some_and(|problem| problem.code().row().http.is_server_error()) {
                traced.failed();
            }
        }
        self.span.in_scope(|| tracing::info!(?code, seconds = took.as_secs_f64(), "call answered"));
    }
}

/// Answers a call of one message with one message, or with the status of its problem; a panic is a problem of ours.
pub(super) async fn unary<M, R, F>(
    method: &'static str,
    request: Request<M>,
    work: impl FnOnce(Call, M) -> F,
) -> Result<Response<R>, Status>
where
    F: Future<Output = Result<R, Problem>>,
{
    let (metadata, extensions, message) = request.into_parts();
    let call = Call::new(method, metadata, &extensions);
    let work = AssertUnwindSafe(work(call.clone(), message)).catch_unwind();
    let work = trace::within(call.traced.as_ref(), work.instrument(call.span.clone()));
    let answer = work.await.unwrap_or_else(|_| {
        call.span.in_scope(|| tracing::error!("request handler panicked"));
        Err(Problem::failed())
    });
    call.ended(answer.as_ref().err());
    match answer {
        Ok(message) => Ok(call.response(message)),
        Err(problem) => Err(call.status(&problem)),
    }
}

/// The caller's id if it is harmless in a log, else a new one.
pub(super) fn request_id(metadata: &MetadataMap) -> AsciiMetadataValue {
    let given = metadata.get("x-request-id").and_then(|value| value.to_str().ok());
    let id = crate::rest::harmless_id(given).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    AsciiMetadataValue::try_from(id).unwrap_or_else(|_| AsciiMetadataValue::from_static("unknown"))
}

/// What is left of a timeout after the head start.
fn deadline(timeout: Duration) -> Duration {
    timeout - HEAD_START.min(timeout / 10)
}

/// The `grpc-timeout` of a call: at most 8 digits and a unit. What cannot be read counts as absent, as in the transport.
fn asked_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        for (text, wanted) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("123456789m", None),
            ("5", None),
            ("m", None),
            ("-1m", None),
        ] {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().expect("a metadata value"));
            assert_eq!(asked_timeout(&metadata), wanted, "{text}");
        }
    }

    #[test]
    fn our_deadline_comes_before_the_transports() {
        for (timeout, wanted) in [(0, 0), (10, 9), (500, 450), (30_000, 29_950)] {
            assert_eq!(deadline(Duration::from_millis(timeout)), Duration::from_millis(wanted), "{timeout} ms");
        }
    }
}
