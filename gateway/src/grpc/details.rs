//! A problem as gRPC has it: the status of the table of errors, with the rich status (`google.rpc.Status`) beside it in the
//! trailer `grpc-status-details-bin`.
//!
//! The guarantee: a status tells what the problem document of REST tells, and no more. The code that ends `type` is the reason
//! of `google.rpc.ErrorInfo`, whose metadata are `title` and `status`; `detail` is the message; `instance` is in
//! `google.rpc.RequestInfo`; `errors` are the violations of `google.rpc.BadRequest`, each named by its field in the request's
//! message; `Retry-After` is in `google.rpc.RetryInfo`. The trailers `problem-code`, `x-request-id` and `retry-after` say the
//! same to clients that read no details.

use std::{collections::HashMap, time::Duration};

use tonic::{
    Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};
use tonic_types::{ErrorDetails, StatusExt};

use crate::problem::Problem;

/// Whose reasons the codes are: the `domain` of every `google.rpc.ErrorInfo`.
const DOMAIN: &str = "undertone";

/// The status of a problem, in the name of one call.
pub(super) fn status(problem: &Problem, id: AsciiMetadataValue) -> Status {
    let row = problem.code().row();
    let retry_after = problem.retries_after();
    let mut details = ErrorDetails::new();
    let said = [("title", row.title.to_owned()), ("status", row.http.as_u16().to_string())];
    details.set_error_info(row.code, DOMAIN, HashMap::from(said.map(|(name, value)| (name.to_owned(), value))));
    details.set_request_info(id.to_str().unwrap_or_default(), "");
    if let Some(seconds) = retry_after {
        details.set_retry_info(Some(Duration::from_secs(seconds.into())));
    }
    for error in &problem.errors {
        details.add_bad_request_violation(field(&error.pointer), error.detail.as_str());
    }
    let mut metadata = MetadataMap::new();
    metadata.insert("x-request-id", id);
    metadata.insert("problem-code", AsciiMetadataValue::from_static(row.code));
    if let Some(seconds) = retry_after {
        metadata.insert("retry-after", AsciiMetadataValue::from(seconds));
    }
    Status::with_error_details_and_metadata(row.grpc, problem.detail.clone(), details, metadata)
}

/// The field of a message at a JSON pointer into what REST takes: `/items/3/id` is `items[3].id`.
fn field(pointer: &str) -> String {
    let mut parts = pointer.split('/').skip(1);
    let mut path = message_field(parts.next().unwrap_or_default()).to_owned();
    for part in parts {
        match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => path.extend(["[", part, "]"]),
            false => path.extend([".", part]),
        }
    }
    path
}

/// What a parameter of REST's queries is called in the messages, where that is not the same.
fn message_field(parameter: &str) -> &str {
    match parameter {
        "from" => "from_us",
        "to" => "to_us",
        "source" => "filter.source",
        "language" => "filter.language",
        "label" => "filter.label",
        "tag" => "filter.tag",
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::errors::ALL;

    /// The problem document that the details of a status amount to, and how long to wait.
    fn document(status: &Status) -> (Value, Option<Duration>) {
        let details = status.get_error_details();
        let info = details.error_info().expect("every status has its reason");
        assert_eq!(info.domain, "undertone");
        let http: u16 = info.metadata["status"].parse().expect("a number");
        let mut document = json!({
            "type": format!("/problems/{}", info.reason),
            "title": info.metadata["title"],
            "status": http,
            "detail": status.message(),
            "instance": details.request_info().expect("a request").request_id,
        });
        if let Some(bad) = details.bad_request() {
            let errors = bad.field_violations.iter();
            let errors = errors.map(|error| json!({"pointer": error.field, "detail": error.description}));
            document["errors"] = errors.collect();
        }
        (document, details.retry_info().and_then(|info| info.retry_delay))
    }

    #[test]
    fn every_code_tells_what_the_problem_document_tells() {
        let problems = ALL.into_iter().map(|code| Problem::new(code, "this is wrong; mend it"));
        let named = Problem::new(crate::errors::ProblemCode::InvalidInput, "limit: is 0").field("/limit", "is 0");
        let later = Problem::new(crate::errors::ProblemCode::QueueFull, "full").retry_after(42);
        for mut problem in problems.chain([named, later]) {
            let status = status(&problem, AsciiMetadataValue::from_static("call-1"));
            problem.instance = Some("call-1".into());
            let mut wanted = serde_json::to_value(&problem).expect("serialises");
            if let Some(errors) = wanted.get_mut("errors") {
                errors[0]["pointer"] = json!("limit");
            }
            let seconds = problem.retries_after();
            assert_eq!(document(&status), (wanted, seconds.map(|seconds| Duration::from_secs(seconds.into()))));
            assert_eq!(status.code(), problem.code().row().grpc);
            let trailer = |name| status.metadata().get(name).map(|value| value.to_str().expect("ascii").to_owned());
            assert_eq!(trailer("problem-code").as_deref(), Some(problem.code().row().code));
            assert_eq!(trailer("x-request-id").as_deref(), Some("call-1"));
            assert_eq!(trailer("retry-after"), seconds.map(|seconds| seconds.to_string()));
        }
    }

    #[test]
    fn fields_are_named_as_the_messages_name_them() {
        for (pointer, wanted) in [
            ("/limit", "limit"),
            ("/heads/0", "heads[0]"),
            ("/items/12/id", "items[12].id"),
            ("/from", "from_us"),
            ("/to", "to_us"),
            ("/source", "filter.source"),
            ("/tag", "filter.tag"),
            ("/items/3/tag", "items[3].tag"),
            ("", ""),
        ] {
            assert_eq!(field(pointer), wanted, "{pointer}");
        }
    }
}
