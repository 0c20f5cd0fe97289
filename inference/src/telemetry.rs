//! The names of the core's metrics, in one place.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::{Lane, ModelInfo};

/// Tells the installed recorder what the metrics mean.
pub(crate) fn describe() {
    describe_counter!("undertone_infer_batches_total", "forward passes");
    describe_counter!("undertone_infer_items_total", "texts that left the queue, by outcome");
    describe_counter!("undertone_infer_tokens_total", "tokens that went through the encoder");
    describe_gauge!("undertone_infer_model_info", "1 for the model that scores, with its revision and arithmetic");
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
