//! `undertone bench`: how fast the core is on this machine.
//!
//! Phases run one after the other on one engine: one text at a time, as many as keep every worker busy, and interactive
//! texts that arrive at a given rate while bulk keeps every worker busy. With `--rounds` it measures nothing by itself but
//! scores its texts each time that standard input says so, for measuring beside other programs (see `benches/peers`).

mod machine;
mod plot;
mod report;
mod rounds;
mod table;

use std::sync::Arc;
use std::time::Duration;

use undertone_collectors::generator::{Generator, GeneratorConfig};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_inference::bench::{
    Arithmetic, ClosedReport, OpenReport, closed_loop, in_flight, open_loop, peak_gflops, poisson, stage_times,
};
use undertone_inference::model::ModelFolder;
use undertone_inference::{Engine, EngineConfig, Lane, ModelInfo};
use undertone_proto::Post;

use self::report::{Mixed, Report, Stage, stages};
use super::model::start_engine;
use super::output::Output;
use crate::Outcome;
use crate::cli::{BenchArgs, BenchPhase};

const TEXTS: usize = 4096;

/// The arrivals of the open loop: the same in every run.
const SEED: u64 = 1;

pub(crate) async fn bench(args: BenchArgs) -> Result<Outcome> {
    let texts: Arc<[String]> = match &args.input {
        Some(path) => super::score::read_texts(path, if args.rounds { usize::MAX } else { TEXTS })?,
        None => synthetic_texts()?,
    }
    .into();
    check(&args)?;
    let configured = args.compute.clone().model(args.model.clone())?;
    let dir = configured.folder()?;
    // The texts go round: with the repeat cache only the first round would be measured.
    let config = EngineConfig { workers: args.workers, cache_bytes: 0, ..configured.engine };
    let engine = start_engine(&dir, config).await?;
    if args.rounds {
        rounds::serve(&engine, &texts).await?;
    } else {
        let model = engine.model();
        let report = measure(&args, &engine, &model, &texts, Arithmetic::of(&ModelFolder::open(&dir)?)).await?;
        print(&args, &report)?;
    }
    engine.shutdown().await;
    Ok(Outcome::Done)
}

fn check(args: &BenchArgs) -> Result<()> {
    let invalid = |flag: &str, value: f64| {
        Error::new(ErrorKind::InvalidConfig, "value of a flag makes no sense").with("flag", flag).with("value", value)
    };
    if args.seconds == 0 {
        return Err(invalid("--seconds", 0.0).help("give at least 1"));
    }
    for (flag, rate) in [("--rate", Some(args.rate)), ("--bulk-rate", args.bulk_rate)] {
        if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && *rate <= 1e5)) {
            return Err(invalid(flag, rate).help("give texts a second, more than 0 and at most 100000"));
        }
    }
    Ok(())
}

async fn measure<'a>(
    args: &BenchArgs,
    engine: &Engine,
    model: &'a ModelInfo,
    texts: &Arc<[String]>,
    arithmetic: Arithmetic,
) -> Result<Report<'a>> {
    let workers = engine.stats().workers;
    let time = Duration::from_secs(args.seconds);
    let wanted = |phase| args.phases.contains(&phase);
    let in_flight = in_flight(engine, texts);
    let saturate = async |time| closed_loop(engine, texts, Lane::Bulk, in_flight, time).await;

    saturate(time / 10).await?;
    let mut report = Report::new(model, workers, arithmetic);
    if wanted(BenchPhase::Single) {
        report.single = Some(closed_loop(engine, texts, Lane::Interactive, 1, time / 2).await?);
    }
    if wanted(BenchPhase::Bulk) {
        let before = stage_times();
        let saturated = saturate(time).await?;
        report.stages = stages(&stage_times().since(&before), saturated.texts);
        report.saturated = Some(saturated);
    }
    if wanted(BenchPhase::Interactive) {
        let arrivals = poisson(SEED, args.rate, time * 3 / 2);
        report.interactive = Some(open_loop(engine, texts, Lane::Interactive, arrivals).await?);
    }
    if wanted(BenchPhase::Mixed) {
        let time = time * 3 / 2;
        let interactive = open_loop(engine, texts, Lane::Interactive, poisson(SEED, args.rate, time));
        report.mixed = Some(match args.bulk_rate {
            Some(rate) => {
                let bulk = open_loop(engine, texts, Lane::Bulk, poisson(SEED + 1, rate, time));
                let (interactive, bulk) = tokio::try_join!(interactive, bulk)?;
                Mixed::at_rate(interactive, bulk)
            }
            None => {
                let (interactive, bulk) = tokio::try_join!(interactive, saturate(time))?;
                Mixed::saturated(interactive, bulk, report.saturated.as_ref())
            }
        });
    }
    report.finish(machine::resident_mib(), peak_gflops(model, workers));
    Ok(report)
}

fn print(args: &BenchArgs, report: &Report<'_>) -> Result<()> {
    if let Some(path) = &args.plot {
        let picture = plot::svg(report);
        let html = path.extension().is_some_and(|extension| extension == "html");
        let mut file = Output::create(Some(path))?;
        file.line(if html { plot::page(&picture) } else { picture }.as_bytes())?;
        file.finish()?;
    }
    let mut output = Output::create(None)?;
    if args.json {
        let json = serde_json::to_vec_pretty(report).context(ErrorKind::Internal, "cannot write the report")?;
        output.line(&json)?;
    } else {
        for line in table::lines(report) {
            output.line(line.as_bytes())?;
        }
    }
    output.finish()
}

fn synthetic_texts() -> Result<Vec<String>> {
    let posts = Generator::new(GeneratorConfig::default())?;
    let texts = posts.filter_map(|post| Post::parse(&post.payload, post.at_us).ok()).map(|post| post.text);
    Ok(texts.take(TEXTS).collect())
}
