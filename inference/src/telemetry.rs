//! The names of the core's metrics, in one place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use serde::Serialize;

use crate::{Lane, ModelInfo};

/// Tells the installed recorder what the metrics mean.
pub(crate) fn describe() {
    describe_counter!("undertone_infer_batches_total", "forward passes");
    describe_counter!("undertone_infer_items_total", "texts that left the queue, by outcome");
    describe_counter!("undertone_infer_tokens_total", "tokens that went through the encoder");
    describe_counter!("undertone_infer_cache_total", "texts looked up in the repeat cache, by outcome");
    describe_counter!("undertone_infer_canary_total", "runs of the known-good text, by outcome");
    describe_counter!("undertone_infer_recoveries_total", "attempts at restarting an ill device, by outcome");
    describe_gauge!("undertone_infer_token_budget", "tokens that a worker dares to run at once");
    describe_gauge!(
        "undertone_infer_model_info",
        "1 for the model that is served, 0 for those before it, with its revision and arithmetic"
    );
    describe_gauge!("undertone_infer_queue_items", "texts that wait, by lane");
    describe_histogram!("undertone_infer_batch_tokens", "tokens in a forward pass");
    describe_histogram!(
        "undertone_infer_stage_seconds",
        "time spent, by stage: queue (a text's wait), tokenize (a text), encode and heads (a batch)"
    );
}

/// The model that scores from now on, or (`active` false) no longer does.
pub(crate) fn model(model: &ModelInfo, active: bool) {
    gauge!(
        "undertone_infer_model_info",
        "name" => model.name.clone(),
        "revision" => model.revision.clone(),
        "precision" => model.precision.clone(),
        "device" => model.device.clone(),
        "kernels" => model.kernels.clone()
    )
    .set(f64::from(u8::from(active)));
}

/// Time spent in a stage.
pub(crate) fn stage(stage: &'static str, time: Duration) {
    histogram!("undertone_infer_stage_seconds", "stage" => stage).record(time);
    if let Some((_, nanoseconds)) = STAGES.iter().find(|(name, _)| *name == stage) {
        nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Nanoseconds spent in each stage by this process. Recorders of metrics cannot be asked, so these are kept beside them.
static STAGES: [(&str, AtomicU64); 5] = [
    ("queue", AtomicU64::new(0)),
    ("tokenize", AtomicU64::new(0)),
    ("copy", AtomicU64::new(0)),
    ("encode", AtomicU64::new(0)),
    ("heads", AtomicU64::new(0)),
];

/// The time that went into one stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageTime {
    /// `queue` (from sending a text to its forward pass, tokenising included; waiting, not work), `tokenize`
    /// (normalising and language, too), `copy` (to and from a device with memory of its own), `encode`, `heads`.
    pub stage: &'static str,
    /// Seconds, summed over texts (queue), or over workers (all others).
    pub seconds: f64,
}

/// The time that went into each stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct StageTimes {
    /// In the order in which a text meets them.
    pub stages: [StageTime; STAGES.len()],
}

impl StageTimes {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut times = *self;
        for (now, then) in times.stages.iter_mut().zip(&earlier.stages) {
            now.seconds -= then.seconds;
        }
        times
    }
}

/// The time that went into each stage since this process started, by all of its engines.
pub fn stage_times() -> StageTimes {
    let seconds = |nanoseconds: &AtomicU64| Duration::from_nanos(nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
    StageTimes { stages: STAGES.each_ref().map(|(stage, time)| StageTime { stage, seconds: seconds(time) }) }
}

/// A forward pass is about to run.
pub(crate) fn batch(tokens: usize) {
    counter!("undertone_infer_batches_total").increment(1);
    counter!("undertone_infer_tokens_total").increment(tokens as u64);
    histogram!("undertone_infer_batch_tokens").record(tokens as f64);
}

/// Texts left the queue.
pub(crate) fn items(outcome: &'static str, count: u64) {
    counter!("undertone_infer_items_total", "outcome" => outcome).increment(count);
}

/// How many texts wait in a lane.
pub(crate) fn depth(lane: Lane, items: usize) {
    gauge!("undertone_infer_queue_items", "lane" => lane.name()).set(items as f64);
}

/// A text was looked up in the repeat cache.
pub(crate) fn cache(hit: bool) {
    counter!("undertone_infer_cache_total", "outcome" => if hit { "hit" } else { "miss" }).increment(1);
}

/// The canary was run.
pub(crate) fn canary(passed: bool) {
    counter!("undertone_infer_canary_total", "outcome" => if passed { "passed" } else { "failed" }).increment(1);
}

/// A worker tried to get well.
pub(crate) fn recovery(outcome: &'static str) {
    counter!("undertone_infer_recoveries_total", "outcome" => outcome).increment(1);
}

/// What a worker dares to run at once.
pub(crate) fn budget(worker: usize, tokens: usize) {
    gauge!("undertone_infer_token_budget", "worker" => worker.to_string()).set(tokens as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up() {
        let before = stage_times();
        // No CPU test records this stage, so others that run beside this one change nothing.
        stage("copy", Duration::from_millis(30));
        stage("copy", Duration::from_millis(12));
        stage("unknown", Duration::from_secs(9));
        let since = stage_times().since(&before);
        let [_, _, copy, ..] = since.stages;
        assert_eq!(copy.stage, "copy");
        assert!((copy.seconds - 0.042).abs() < 1e-9, "{}", copy.seconds);
    }
}
