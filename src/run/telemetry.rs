//! The metrics recorder, and what does not fit any one crate.

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use undertone_error::{Context, ErrorKind, Result};
use undertone_gateway::telemetry::SECONDS_BUCKETS;
use undertone_sinks::pump::{EPOCH_BYTES, EPOCH_COUNT, FRESHNESS_SECONDS};
use undertone_stream::telemetry::EVENT_TO_SCORED_SECONDS;

/// How often histograms are folded, so that their memory is bounded also where nobody reads `/metrics`.
const UPKEEP: Duration = Duration::from_secs(5);
/// Upper bounds of how long events are on their way: from what one transaction takes to an hour behind.
const FRESHNESS_BUCKETS: [f64; 16] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 900.0, 3600.0];
/// Upper bounds of rows and offsets of an epoch, and of tokens of a batch.
const COUNT_BUCKETS: [f64; 12] =
    [1.0, 8.0, 32.0, 128.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0];
/// Upper bounds of bytes of an epoch: 1 KiB to 64 MiB.
const BYTES_BUCKETS: [f64; 9] =
    [1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];

/// Installs the recorder that `/metrics` renders. Call it once, before anything records.
///
/// # Errors
/// [`ErrorKind::Internal`] if there is a recorder already.
pub(super) fn install() -> Result<PrometheusHandle> {
    let seconds = (Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS.as_slice());
    let whole = |name: &str| Matcher::Full(name.to_owned());
    let buckets = [
        seconds,
        (whole(FRESHNESS_SECONDS), &FRESHNESS_BUCKETS),
        (whole(EVENT_TO_SCORED_SECONDS), &FRESHNESS_BUCKETS),
        (whole(EPOCH_COUNT[0]), &COUNT_BUCKETS),
        (whole(EPOCH_COUNT[1]), &COUNT_BUCKETS),
        (whole("undertone_infer_batch_tokens"), &COUNT_BUCKETS),
        (whole(EPOCH_BYTES), &BYTES_BUCKETS),
    ];
    let builder = buckets.into_iter().try_fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
        builder.set_buckets_for_metric(name, buckets).context(ErrorKind::Internal, "metrics have no buckets")
    })?;
    let handle = builder.install_recorder().context(ErrorKind::Internal, "cannot install the metrics recorder")?;
    undertone_gateway::telemetry::describe();
    undertone_sinks::pump::describe_metrics();
    undertone_stream::telemetry::describe();
    undertone_trace::describe();
    let folded = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            folded.run_upkeep();
        }
    });
    Ok(handle)
}
