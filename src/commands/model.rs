//! `undertone model show`, `list` and `verify`: what a model folder holds, and whether it computes what it should.

use std::path::{Path, PathBuf};

use undertone_error::{Error, ErrorKind, Result};
use undertone_inference::{Engine, EngineConfig};

use super::output::Output;
use crate::Outcome;
use crate::cli::{ModelArgs, ModelCommand};
use crate::config::model_folder;
use crate::memory;

pub(crate) async fn model(args: ModelArgs) -> Result<Outcome> {
    let one = |config| EngineConfig { workers: 1, ..config };
    match args.command {
        ModelCommand::Show { dir, compute } => {
            let config = compute.model(dir)?;
            show(&config.folder()?, one(config.engine)).await
        }
        ModelCommand::List { dir, compute } => {
            // Configured labels are those of one model, not of every folder that is found.
            let config = EngineConfig { labels: None, ..one(compute.model(None)?.engine) };
            list(dir, config).await
        }
        ModelCommand::Verify { dir, compute } => super::verify::verify(&dir, one(compute.model(None)?.engine)).await,
    }
}

/// Every folder with a `config.json` is a model folder. One that cannot be loaded has its error as its line.
async fn list(dir: Option<PathBuf>, config: EngineConfig) -> Result<Outcome> {
    let dir = match dir {
        Some(dir) => dir,
        None => model_folder(None)?.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let failed = |e| {
        let error =
            Error::new(ErrorKind::NotFound, "cannot read folder of models").with("path", dir.display()).source(e);
        error.help("name a folder that holds model folders")
    };
    let found: Vec<_> = std::fs::read_dir(&dir).and_then(Iterator::collect::<Result<_, _>>).map_err(failed)?;
    let mut folders: Vec<_> = found.into_iter().map(|entry| entry.path()).collect();
    folders.retain(|folder| folder.join("config.json").is_file());
    folders.sort();
    let mut output = Output::create(None)?;
    let mut outcome = Outcome::Done;
    for folder in folders {
        let path = folder.display();
        let line = match start_engine(&folder, config.clone()).await {
            Ok(engine) => {
                let info = engine.model().clone();
                engine.shutdown().await;
                let heads: Vec<_> = info.heads.iter().map(|head| head.name.as_str()).collect();
                let heads = if heads.is_empty() { "none".to_owned() } else { heads.join(", ") };
                let (name, revision) = (&info.name, info.short_revision());
                format!("{path}: {name} ({revision}), {} on {}, heads: {heads}", info.precision, info.device)
            }
            Err(error) => {
                outcome = Outcome::SomeFailed;
                format!("{path}: {error}")
            }
        };
        output.line(line.as_bytes())?;
    }
    output.finish()?;
    Ok(outcome)
}

async fn show(dir: &Path, config: EngineConfig) -> Result<Outcome> {
    let engine = start_engine(dir, config).await?;
    let info = engine.model();

    let mut output = Output::create(None)?;
    let mut row = |name: &str, value: String| output.line(format!("{name:<12} {value}").as_bytes());
    row("folder", dir.display().to_string())?;
    row("name", info.name.clone())?;
    row("revision", info.revision.clone())?;
    row("precision", info.precision.clone())?;
    row("device", info.device.clone())?;
    row("kernels", info.kernels.clone())?;
    row("parameters", format!("{:.1} million in {} layers", info.parameters as f64 / 1e6, info.layers))?;
    row("embedding", format!("{} dimensions", info.dimensions))?;
    row("reads", format!("{} tokens at most, normalised by {}", info.max_tokens, info.normalizer))?;
    row("languages", info.languages.as_ref().map_or_else(|| "not said".to_owned(), |codes| codes.join(", ")))?;
    for head in &info.heads {
        let mark = if info.sentiment_head.as_deref() == Some(&head.name) { ", gives polarity" } else { "" };
        row("head", format!("{}: {} (temperature {:.2}{mark})", head.name, head.labels.join(", "), head.temperature))?;
    }
    output.finish()?;
    engine.shutdown().await;
    Ok(Outcome::Done)
}

/// Loads the model off the async threads: it reads 90 MB and hashes them. What that took of memory is given back.
///
/// # Errors
/// As [`Engine::start`].
pub(crate) async fn start_engine(dir: &Path, config: EngineConfig) -> Result<Engine> {
    let dir = dir.to_owned();
    let start = move || Engine::start(&dir, config).inspect(|_| memory::keep_what_is_freed());
    match tokio::task::spawn_blocking(start).await {
        Ok(engine) => engine,
        Err(panic) => Err(Error::new(ErrorKind::Internal, "loading the model panicked").source(panic)),
    }
}
