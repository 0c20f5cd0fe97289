//! The gateway's metrics: rate, errors and duration by route and status. Labels come from closed sets (route templates,
//! known methods, status codes), so no caller can make a new series.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `undertone_http_requests_total` | method, route, status | answered requests |
//! | `undertone_http_request_seconds` | method, route | from the request's head to the answer's head |
//! | `undertone_http_requests_in_flight` | | requests whose answer has not begun |
//! | `undertone_grpc_requests_total` | method, code | answered calls |
//! | `undertone_grpc_request_seconds` | method | duration of a call |
//! | `undertone_gateway_calls_total` | lane, result | calls that score by lane: `answered`, or the code that the call failed with |
//! | `undertone_gateway_refusals_total` | reason | what was refused: `calls`, `arrow`, `streams`, `queries` and `readers` by what was full, `tokens` of a lane; `deadline`: it would have been late |
//! | `undertone_gateway_call_seconds` | lane | from the texts' entering the lane to the last one's answer |
//! | `undertone_gateway_streams_in_flight` | | streams of texts that have not ended |
//! | `undertone_gateway_texts_total` | face, result | texts by what became of them: `scored`, or a problem's code |
//! | `undertone_gateway_posts_total` | result | posts that were sent here: `accepted`, or a problem's code |
//! | `undertone_gateway_certificates_total` | outcome | times that the files of the certificates had changed: `renewed`, or `unusable` |
//! | `undertone_gateway_certificates_stale` | | 1 while the files cannot be used, and those before them are served |
//! | `undertone_live_topics_dropped_total` | | posts missing from the plot because their minute had too many topics |

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::{errors::ProblemCode, problem::Problem, scoring::Outcomes};

/// Upper bounds, in seconds, for every histogram whose name ends in `_seconds`: from half a millisecond to the longest
/// default deadline.
pub const SECONDS_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];

/// Gives the recorder the help texts and units of the gateway's metrics. Call it once, after the recorder is installed.
pub fn describe() {
    describe_counter!("undertone_http_requests_total", "HTTP requests that were answered");
    describe_histogram!("undertone_http_request_seconds", Unit::Seconds, "time to the head of the answer");
    describe_gauge!("undertone_http_requests_in_flight", "HTTP requests whose answer has not begun");
    describe_counter!("undertone_grpc_requests_total", "gRPC calls that were answered");
    describe_histogram!("undertone_grpc_request_seconds", Unit::Seconds, "duration of a gRPC call");
    describe_counter!("undertone_gateway_calls_total", "calls that score, by lane and what became of them");
    describe_counter!("undertone_gateway_refusals_total", "calls that found no room, by what was full");
    describe_histogram!(
        "undertone_gateway_call_seconds",
        Unit::Seconds,
        "time that a call's texts spend in their lane"
    );
    describe_gauge!("undertone_gateway_streams_in_flight", "streams of texts that have not ended");
    describe_counter!("undertone_gateway_texts_total", "texts by what became of them");
    describe_counter!("undertone_gateway_posts_total", "posts that were sent here by what became of them");
    describe_counter!("undertone_gateway_certificates_total", "times that the files of the certificates had changed");
    describe_gauge!("undertone_gateway_certificates_stale", "1 while the files of the certificates cannot be used");
    describe_counter!(
        "undertone_live_topics_dropped_total",
        "posts missing from the plot: too many topics in a minute"
    );
}

/// Counts one HTTP request while it runs.
pub(crate) struct InFlight;

impl InFlight {
    pub(crate) fn new() -> Self {
        gauge!("undertone_http_requests_in_flight").increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!("undertone_http_requests_in_flight").decrement(1.0);
    }
}

/// Counts one stream of texts while it runs, and what became of it when it ends.
pub(crate) struct OpenStream {
    lane: &'static str,
    result: &'static str,
}

impl OpenStream {
    /// Until it is told how it ended, its caller has gone.
    pub(crate) fn new(lane: &'static str) -> Self {
        gauge!("undertone_gateway_streams_in_flight").increment(1.0);
        Self { lane, result: ProblemCode::Cancelled.row().code }
    }

    pub(crate) fn ended(&mut self, how: &Result<(), Problem>) {
        self.result = how.as_ref().map_or_else(|problem| problem.code().row().code, |()| "answered");
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!("undertone_gateway_streams_in_flight").decrement(1.0);
        counter!("undertone_gateway_calls_total", "lane" => self.lane, "result" => self.result).increment(1);
    }
}

pub(crate) fn http_answered(method: &'static str, route: &'static str, status: u16, took: Duration) {
    counter!("undertone_http_requests_total", "method" => method, "route" => route, "status" => status.to_string())
        .increment(1);
    histogram!("undertone_http_request_seconds", "method" => method, "route" => route).record(took);
}

pub(crate) fn grpc_answered(method: &'static str, code: tonic::Code, took: Duration) {
    counter!("undertone_grpc_requests_total", "method" => method, "code" => format!("{code:?}")).increment(1);
    histogram!("undertone_grpc_request_seconds", "method" => method).record(took);
}

/// A call, a stream or a reader found no room.
pub(crate) fn refused(reason: &'static str) {
    counter!("undertone_gateway_refusals_total", "reason" => reason).increment(1);
}

/// The files of the certificates had changed.
pub(crate) fn certificates_renewed(outcome: &'static str) {
    counter!("undertone_gateway_certificates_total", "outcome" => outcome).increment(1);
}

/// Whether what is in the files is what is served.
pub(crate) fn certificates_are_good(good: bool) {
    gauge!("undertone_gateway_certificates_stale").set(if good { 0.0 } else { 1.0 });
}

/// One call's texts, once the last of them is answered.
pub(crate) fn call(lane: &'static str, outcomes: &Result<Outcomes, Problem>, took: Duration) {
    let result = outcomes.as_ref().map_or_else(|problem| problem.code().row().code, |_| "answered");
    counter!("undertone_gateway_calls_total", "lane" => lane, "result" => result).increment(1);
    histogram!("undertone_gateway_call_seconds", "lane" => lane).record(took);
}

/// One text of a stream.
pub(crate) fn text<T>(face: &'static str, outcome: &Result<T, Problem>) {
    let result = outcome.as_ref().map_or_else(|problem| problem.code().row().code, |_| "scored");
    counter!("undertone_gateway_texts_total", "face" => face, "result" => result).increment(1);
}

pub(crate) fn texts(face: &'static str, texts: usize, outcomes: &Result<Outcomes, Problem>) {
    let count = |result: &'static str, n: u64| {
        counter!("undertone_gateway_texts_total", "face" => face, "result" => result).increment(n);
    };
    match outcomes {
        Err(problem) => count(problem.code().row().code, texts as u64),
        Ok(outcomes) => {
            let scored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            if scored > 0 {
                count("scored", scored as u64);
            }
            for problem in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
                count(problem.code().row().code, 1);
            }
        }
    }
}

pub(crate) fn posts<T>(outcomes: &[Result<T, Problem>]) {
    for outcome in outcomes {
        let result = outcome.as_ref().map_or_else(|problem| problem.code().row().code, |_| "accepted");
        counter!("undertone_gateway_posts_total", "result" => result).increment(1);
    }
}
