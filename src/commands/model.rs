//! `undertone model show`: what a model folder holds.

use std::path::Path;

use undertone_error::Result;
use undertone_inference::{Engine, EngineConfig};

use super::output::Output;
use crate::Outcome;
use crate::cli::{ModelArgs, ModelCommand};
use crate::config::model_folder;

pub(crate) async fn model(args: ModelArgs) -> Result<Outcome> {
    let ModelCommand::Show { dir, compute } = args.command;
    let config = EngineConfig { workers: 1, ..compute.engine()? };
    let dir = model_folder(dir.as_deref())?;
    let engine = start_engine(&dir, config).await?;
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
    for head in &info.heads {
        let mark = if info.sentiment_head.as_deref() == Some(&head.name) { ", gives polarity" } else { "" };
        row("head", format!("{}: {} (temperature {:.2}{mark})", head.name, head.labels.join(", "), head.temperature))?;
    }
    output.finish()?;
    engine.shutdown().await;
    Ok(Outcome::Done)
}

/// Loads the model off the async threads: it reads 90 MB and hashes them.
///
/// # Errors
/// As [`Engine::start`].
pub(crate) async fn start_engine(dir: &Path, config: EngineConfig) -> Result<Engine> {
    let dir = dir.to_owned();
    match tokio::task::spawn_blocking(move || Engine::start(&dir, config)).await {
        Ok(engine) => engine,
        Err(panic) => {
            Err(undertone_error::Error::new(undertone_error::ErrorKind::Internal, "loading the model panicked")
                .source(panic))
        }
    }
}
