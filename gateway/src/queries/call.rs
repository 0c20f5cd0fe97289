//! One query, the same for REST and gRPC.
//!
//! The guarantee: an answer comes by the call's deadline and is bounded, whatever is asked; which store answered stands in it.
//! A store that is not configured is told from one that is down, and each is named. Few queries of a kind run at a time, so that
//! a store that hangs leaves room for those of others, and for calls that score.

use std::future::Future;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use undertone_error::{Error, ErrorKind, Fault};
use undertone_proto::EventTime;

use super::Kind;
use crate::{Gateway, errors::ProblemCode, problem::Problem, scoring::Admission};

/// A query that was let in.
pub(super) struct Call {
    pub(super) deadline: Instant,
    _admission: Admission,
}

impl Call {
    pub(super) fn begin(kind: Kind, gateway: &Gateway, deadline: Instant) -> Result<Self, Problem> {
        Ok(Self { deadline, _admission: gateway.admit_query(kind)? })
    }

    /// What `store` answers, or what is wrong with it.
    pub(super) async fn ask<T>(
        &self,
        store: &'static str,
        answer: impl Future<Output = undertone_error::Result<T>>,
    ) -> Result<T, Problem> {
        match timeout_at(self.deadline, answer).await {
            Ok(answer) => answer.map_err(|error| refused(store, &error)),
            Err(_) => {
                let detail = format!(
                    "{store} did not answer in time; ask for less, or for more time (x-timeout-ms, grpc-timeout)"
                );
                Err(Problem::new(ProblemCode::DeadlineExceeded, detail))
            }
        }
    }
}

/// What a store's error is to a caller: whatever it is that the store lacks, it is the store that does not answer.
fn refused(store: &'static str, error: &Error) -> Problem {
    match (error.kind(), error.fault()) {
        (ErrorKind::InvalidInput | ErrorKind::TooLarge, _) => Problem::from(error),
        (_, Fault::Ours) => {
            tracing::error!(store, %error, "query failed");
            Problem::from(error)
        }
        _ => {
            tracing::warn!(store, %error, "store did not answer a query");
            Problem::new(ProblemCode::Unavailable, format!("{store} does not answer: {}", error.message()))
        }
    }
}

pub(super) fn not_configured(what: &str, keys: &str) -> Problem {
    Problem::new(ProblemCode::StoreNotConfigured, format!("no store of this process has {what}; set {keys}"))
}

pub(super) fn now() -> EventTime {
    Timestamp::now().as_microsecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_store_lacks_it_is_named_and_its_reasons_are_not_told() {
        for (kind, code) in [
            (ErrorKind::Unavailable, ProblemCode::Unavailable),
            (ErrorKind::NotFound, ProblemCode::Unavailable),
            (ErrorKind::InvalidConfig, ProblemCode::Unavailable),
            (ErrorKind::Conflict, ProblemCode::Unavailable),
            (ErrorKind::TooLarge, ProblemCode::TooLarge),
            (ErrorKind::InvalidInput, ProblemCode::InvalidInput),
            (ErrorKind::Corrupt, ProblemCode::Corrupt),
        ] {
            let problem = refused("clickhouse", &Error::new(kind, "cannot read").source("password hunter2"));
            assert_eq!(problem.code(), code, "{kind:?}");
            assert!(!problem.detail.contains("hunter2"), "{}", problem.detail);
            assert!(code != ProblemCode::Unavailable || problem.detail.contains("clickhouse"), "{}", problem.detail);
        }
    }
}
