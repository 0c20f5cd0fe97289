//! The names of the core's metrics, in one place.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

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
    describe_gauge!("undertone_infer_model_info", "1 for the model that is served, 0 for those before it");
    describe_gauge!("undertone_infer_queue_items", "texts that wait, by lane");
    describe_histogram!("undertone_infer_batch_tokens", "tokens in a forward pass");
    describe_histogram!(
        "undertone_infer_stage_seconds",
        "time spent, by stage: queue (a text's wait), tokenize (a text), encode and heads (a batch)"
    );
}

/// Time spent in a stage.
pub(crate) fn stage(stage: &'static str, time: Duration) {
    histogram!("undertone_infer_stage_seconds", "stage" => stage).record(time);
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

/// A model is served from now on, or no longer.
pub(crate) fn serving(model: &ModelInfo, is_served: bool) {
    let labels = [
        ("name", model.name.clone()),
        ("revision", model.short_revision().to_owned()),
        ("precision", model.precision.clone()),
    ];
    gauge!("undertone_infer_model_info", &labels).set(if is_served { 1.0 } else { 0.0 });
}
