//! The metrics recorder, and what does not fit any one crate.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use undertone_error::{Context, ErrorKind, Result};
use undertone_gateway::telemetry::SECONDS_BUCKETS;

/// Installs the recorder that `/metrics` renders. Call it once, before anything records.
///
/// # Errors
/// [`ErrorKind::Internal`] if there is a recorder already.
pub(super) fn install() -> Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .context(ErrorKind::Internal, "metrics have no buckets")?;
    let handle = builder.install_recorder().context(ErrorKind::Internal, "cannot install the metrics recorder")?;
    undertone_gateway::telemetry::describe();
    undertone_sinks::pump::describe_metrics();
    undertone_stream::telemetry::describe();
    Ok(handle)
}
