//! `undertone bench`: how fast the core is on this machine.
//!
//! Closed loops, so the figures are what the core can do, not what a given load sees: first one text at a time, then as
//! many at once as keep every worker busy.

use std::time::Duration;

use serde::Serialize;
use undertone_collectors::generator::{Generator, GeneratorConfig};
use undertone_error::{Error, ErrorKind, Result};
use undertone_inference::bench::{BenchReport, closed_loop};
use undertone_inference::{EngineConfig, ModelInfo};
use undertone_proto::Post;

use super::model::start_engine;
use super::output::Output;
use crate::Outcome;
use crate::cli::BenchArgs;
use crate::config::model_folder;

const TEXTS: usize = 4096;

#[derive(Serialize)]
struct Report<'a> {
    model: &'a ModelInfo,
    processor: String,
    instruction_sets: Vec<&'static str>,
    workers: usize,
    /// One text at a time.
    single: BenchReport,
    /// Every worker busy.
    saturated: BenchReport,
}

pub(crate) async fn bench(args: BenchArgs) -> Result<Outcome> {
    let texts = match &args.input {
        Some(path) => super::score::read_texts(path, TEXTS)?,
        None => synthetic_texts()?,
    };
    if args.seconds == 0 {
        return Err(Error::new(ErrorKind::InvalidConfig, "value of --seconds is 0").help("give at least 1"));
    }
    let config = EngineConfig { workers: args.workers, cache_bytes: 0, ..EngineConfig::default() };
    let engine = start_engine(&model_folder(args.model.as_deref())?, config).await?;
    let workers = engine.stats().workers;
    let time = Duration::from_secs(args.seconds);

    closed_loop(&engine, &texts, 64 * workers, time / 10).await?;
    let model = engine.model();
    let report = Report {
        model: &model,
        processor: processor_name(),
        instruction_sets: instruction_sets(),
        workers,
        single: closed_loop(&engine, &texts, 1, time / 2).await?,
        saturated: closed_loop(&engine, &texts, 64 * workers, time).await?,
    };
    let mut output = Output::create(None)?;
    if args.json {
        let json = serde_json::to_vec_pretty(&report)
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot write the report").source(e))?;
        output.line(&json)?;
    } else {
        print_table(&mut output, &report)?;
    }
    output.finish()?;
    engine.shutdown().await;
    Ok(Outcome::Done)
}

fn print_table(output: &mut Output, report: &Report<'_>) -> Result<()> {
    let model = report.model;
    let sets = report.instruction_sets.join(" ");
    output.line(format!("{} {} ({})", model.name, model.precision, model.short_revision()).as_bytes())?;
    output.line(format!("{}, {} workers of one thread, {sets}", report.processor, report.workers).as_bytes())?;
    output.line(b"")?;
    output.line(b"in flight   texts/s   tokens/s   tokens/text   p50 ms   p90 ms   p99 ms   max ms")?;
    for run in [&report.single, &report.saturated] {
        let tokens = run.tokens as f64 / run.texts.max(1) as f64;
        output.line(
            format!(
                "{:>9} {:>9.1} {:>10.0} {:>13.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
                run.in_flight,
                run.texts_per_s,
                run.tokens_per_s,
                tokens,
                run.p50_ms,
                run.p90_ms,
                run.p99_ms,
                run.max_ms
            )
            .as_bytes(),
        )?;
    }
    Ok(())
}

fn synthetic_texts() -> Result<Vec<String>> {
    let posts = Generator::new(GeneratorConfig::default())?;
    let texts = posts.filter_map(|post| Post::parse(&post.payload, post.at_us).ok()).map(|post| post.text);
    Ok(texts.take(TEXTS).collect())
}

fn processor_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}

fn instruction_sets() -> Vec<&'static str> {
    let sets = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
    ];
    sets.into_iter().filter_map(|(name, present)| present.then_some(name)).collect()
}
