//! `GET /v1/query/…`: questions about what the stream has stored, as [`crate::queries`] answers them.

mod charts;
mod params;
mod posts;

use axum::http::HeaderMap;
use tokio::time::Instant;
use utoipa::IntoParams;

pub(crate) use self::{charts::*, posts::*};
use super::body;
use crate::{Gateway, problem::Problem};

/// The header that every query may have, for the document: [`deadline`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it is described, and never made")]
struct DeadlineHeader {
    /// deadline in milliseconds, at most 5 minutes; 30 s if it is not sent
    #[param(rename = "x-timeout-ms", nullable = false)]
    timeout_ms: Option<u64>,
}

fn deadline(gateway: &Gateway, arrived: Instant, headers: &HeaderMap) -> Result<Instant, Problem> {
    Ok(arrived + gateway.limits.granted(body::asked_timeout(headers)?))
}
