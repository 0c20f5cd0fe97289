//! What was measured, and what follows from it.

use serde::Serialize;
use undertone_inference::ModelInfo;
use undertone_inference::bench::StageTimes;

use super::{Arithmetic, ClosedReport, OpenReport, machine};

/// Everything that one run measured. A phase that was not asked for is `None`.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    pub(super) model: &'a ModelInfo,
    pub(super) processor: String,
    pub(super) instruction_sets: Vec<&'static str>,
    /// Worker threads.
    pub(super) workers: usize,
    /// One text at a time.
    pub(super) single: Option<ClosedReport>,
    /// Bulk texts, every worker busy.
    pub(super) saturated: Option<ClosedReport>,
    /// Where the time of `saturated` went.
    pub(super) stages: Vec<Stage>,
    /// Interactive texts at a rate, alone.
    pub(super) interactive: Option<OpenReport>,
    /// Interactive texts at a rate, and bulk texts beside them.
    pub(super) mixed: Option<Mixed>,
    /// Resident memory after everything, in MiB.
    pub(super) rss_mib: Option<f64>,
    pub(super) arithmetic: Arithmetic,
    /// The encoder's matrix products in `saturated`, in 10⁹ operations a second.
    pub(super) gflops: Option<f64>,
    /// The most that this machine reaches in matrix products of this precision.
    pub(super) peak_gflops: Option<f64>,
    /// `gflops` / `peak_gflops`.
    pub(super) peak_share: Option<f64>,
}

/// One stage of the work.
#[derive(Serialize)]
pub(super) struct Stage {
    pub(super) stage: &'static str,
    /// Summed over workers; for `queue`, over texts.
    pub(super) seconds: f64,
    /// The mean for a text. A text of a batch is charged its part of the batch's time.
    pub(super) ms_per_text: f64,
    /// Its part of all work; `None` for `queue`, which is waiting.
    pub(super) share: Option<f64>,
}

/// Both lanes at once.
#[derive(Serialize)]
pub(super) struct Mixed {
    pub(super) interactive: OpenReport,
    pub(super) bulk: Bulk,
    /// Tokens a second of bulk beside interactive texts, as a share of those in `saturated`.
    pub(super) bulk_share: Option<f64>,
}

/// The bulk lane of [`Mixed`]: as fast as it goes, or at a rate.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Bulk {
    Closed(ClosedReport),
    Open(OpenReport),
}

impl Mixed {
    pub(super) fn at_rate(interactive: OpenReport, bulk: OpenReport) -> Self {
        Self { interactive, bulk: Bulk::Open(bulk), bulk_share: None }
    }

    pub(super) fn saturated(interactive: OpenReport, bulk: ClosedReport, alone: Option<&ClosedReport>) -> Self {
        let bulk_share = alone.map(|alone| bulk.tokens_per_s / alone.tokens_per_s);
        Self { interactive, bulk: Bulk::Closed(bulk), bulk_share }
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(model: &'a ModelInfo, workers: usize, arithmetic: Arithmetic) -> Self {
        Self {
            model,
            processor: machine::processor_name(),
            instruction_sets: machine::instruction_sets(),
            workers,
            single: None,
            saturated: None,
            stages: Vec::new(),
            interactive: None,
            mixed: None,
            rss_mib: None,
            arithmetic,
            gflops: None,
            peak_gflops: None,
            peak_share: None,
        }
    }

    /// Adds what follows from the phases.
    pub(super) fn finish(&mut self, rss_mib: Option<f64>, peak_gflops: Option<f64>) {
        self.rss_mib = rss_mib;
        let flops = |run: &ClosedReport| self.arithmetic.flops(run.tokens, run.token_pairs) / run.seconds / 1e9;
        self.gflops = self.saturated.as_ref().map(flops);
        self.peak_gflops = peak_gflops.filter(|&peak| peak > 0.0);
        self.peak_share = self.gflops.zip(self.peak_gflops).map(|(reached, peak)| reached / peak);
    }
}

/// The stages' times, over `texts` texts. A stage that took no time is left out: a CPU has nothing to copy.
pub(super) fn stages(times: &StageTimes, texts: u64) -> Vec<Stage> {
    let is_work = |stage: &str| stage != "queue";
    let work: f64 = times.stages.iter().filter(|time| is_work(time.stage)).map(|time| time.seconds).sum();
    let spent = times.stages.iter().filter(|time| time.seconds > 0.0);
    spent
        .map(|time| Stage {
            stage: time.stage,
            seconds: time.seconds,
            ms_per_text: time.seconds * 1e3 / texts.max(1) as f64,
            share: is_work(time.stage).then(|| time.seconds / work),
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use undertone_inference::bench::{Latencies, StageTime};
    use undertone_inference::model::ModelFolder;

    use super::*;

    pub(crate) fn model() -> ModelInfo {
        let fields = serde_json::json!({"name": "test & <model>", "revision": "0123456789abcdef", "precision": "fp32"});
        let text = |key: &str| fields[key].as_str().unwrap().to_owned();
        ModelInfo {
            name: text("name"),
            revision: text("revision"),
            precision: text("precision"),
            device: "cpu".to_owned(),
            kernels: "avx2".to_owned(),
            dimensions: 384,
            heads: Vec::new(),
            sentiment_head: None,
            max_tokens: 256,
            normalizer: "none".to_owned(),
            languages: None,
            parameters: 22_000_000,
            layers: 6,
        }
    }

    fn latencies(slowest_ms: u64) -> Latencies {
        (1..=slowest_ms).map(Duration::from_millis).collect()
    }

    fn closed(texts: u64, in_flight: usize) -> ClosedReport {
        ClosedReport {
            texts,
            tokens: 25 * texts,
            token_pairs: 625 * texts,
            seconds: 10.0,
            texts_per_s: texts as f64 / 10.0,
            tokens_per_s: 2.5 * texts as f64,
            in_flight,
            latencies: latencies(200),
        }
    }

    fn open(slowest_ms: u64) -> OpenReport {
        let latencies = latencies(slowest_ms);
        OpenReport { texts: 300, refused: 0, arrivals_per_s: 20.0, latencies, send_lag_p99_ms: 0.2 }
    }

    /// A report with every phase. `arithmetic` stands for MiniLM's.
    pub(crate) fn full(model: &ModelInfo) -> Report<'_> {
        let arithmetic = Arithmetic { linear_flops_per_token: 21_233_664.0, attention_flops_per_pair: 9216.0 };
        let mut report = Report::new(model, 2, arithmetic);
        report.single = Some(closed(500, 1));
        report.saturated = Some(closed(10_000, 128));
        report.interactive = Some(open(30));
        report.mixed = Some(Mixed::saturated(open(60), closed(9_000, 128), report.saturated.as_ref()));
        let stage = |stage, seconds| StageTime { stage, seconds };
        let times = [("queue", 600.0), ("tokenize", 1.0), ("copy", 0.0), ("encode", 18.0), ("heads", 1.0)];
        report.stages = stages(&StageTimes { stages: times.map(|(name, seconds)| stage(name, seconds)) }, 10_000);
        report.finish(Some(350.0), Some(120.0));
        report
    }

    #[test]
    fn shares_follow_from_what_was_measured() {
        let model = model();
        let report = full(&model);
        assert_eq!(report.mixed.as_ref().and_then(|mixed| mixed.bulk_share), Some(0.9));
        // 1,000 texts/s of 25 tokens.
        assert!((report.gflops.unwrap() - (25.0 * 21_233_664.0 + 625.0 * 9216.0) * 1000.0 / 1e9).abs() < 1e-9);
        assert!((report.peak_share.unwrap() - report.gflops.unwrap() / 120.0).abs() < 1e-12);
        let mut without = full(&model);
        without.finish(None, None);
        assert_eq!((without.peak_gflops, without.peak_share), (None, None));
    }

    #[test]
    fn waiting_is_not_work_and_what_took_no_time_is_left_out() {
        let model = model();
        let report = full(&model);
        let shares: Vec<_> = report.stages.iter().map(|stage| (stage.stage, stage.share)).collect();
        let expected = [("queue", None), ("tokenize", Some(0.05)), ("encode", Some(0.9)), ("heads", Some(0.05))];
        assert_eq!(shares, expected);
        assert!((report.stages[2].ms_per_text - 1.8).abs() < 1e-9);
    }

    #[test]
    fn a_model_folder_tells_its_arithmetic() {
        let folder = tempfile::tempdir().unwrap();
        let config = serde_json::json!({
            "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 16, "vocab_size": 9, "max_position_embeddings": 16
        });
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        // The shortest file of that kind: a header of two bytes that names no tensor.
        std::fs::write(folder.path().join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
        let arithmetic = Arithmetic::of(&ModelFolder::open(folder.path()).unwrap());
        assert_eq!(arithmetic.linear_flops_per_token, 2.0 * 2.0 * (4.0 * 64.0 + 2.0 * 128.0));
        assert_eq!(arithmetic.attention_flops_per_pair, 64.0);
    }
}
