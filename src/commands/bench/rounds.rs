//! Rounds on demand, so that this program and others can be measured in turn, without starting or loading in the figures.
//!
//! One JSON line answers each line of standard input: `go N` scores the first N texts once in the bulk lane and answers
//! `{"seconds": …}`; `save PATH` writes the embeddings of the last round, as rows of little-endian f32, and answers their
//! width. The first line, `{"ready": true, …}`, comes unasked once the model is loaded and warm. The end of the input
//! ends the program.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_inference::{Engine, Lane, Scored};

use super::machine;
use crate::commands::output::Output;

/// Texts that are scored before the first round, as other programs do with a batch.
const WARM_UP: usize = 32;

pub(super) async fn serve(engine: &Engine, texts: &[String]) -> Result<()> {
    let mut output = Output::create(None)?;
    let mut say = |value: Value| output.line(value.to_string().as_bytes()).and_then(|()| output.flush());
    all(engine.score_all(texts.iter().take(WARM_UP).cloned().collect(), Lane::Bulk).await)?;
    say(json!({"ready": true, "model": engine.model(), "texts": texts.len(), "workers": engine.stats().workers}))?;
    let mut last = Vec::new();
    while let Some(line) = read_line().await? {
        let (command, value) = line.split_once(' ').unwrap_or((&line, ""));
        match (command, value.parse::<usize>()) {
            ("go", Ok(count)) => {
                let owned: Vec<_> = texts.iter().take(count).cloned().collect();
                let started = Instant::now();
                let results = engine.score_all(owned, Lane::Bulk).await;
                let seconds = started.elapsed().as_secs_f64();
                last = all(results)?;
                let tokens: u64 = last.iter().map(|scored| u64::from(scored.tokens)).sum();
                say(json!({"seconds": seconds, "tokens": tokens, "rss_mib": machine::resident_mib()}))?;
            }
            ("save", _) if !value.is_empty() => {
                write_rows(Path::new(value), &last)?;
                say(json!({"rows": last.len(), "dimensions": engine.model().dimensions}))?;
            }
            _ => {
                return Err(Error::new(ErrorKind::InvalidInput, "line of standard input is no command")
                    .with("line", line)
                    .help("send `go N`, or `save PATH`"));
            }
        }
    }
    Ok(())
}

async fn read_line() -> Result<Option<String>> {
    let read = || std::io::stdin().lines().next().transpose();
    let line = tokio::task::spawn_blocking(read).await.context(ErrorKind::Internal, "reading failed")?;
    line.context(ErrorKind::Unavailable, "cannot read standard input")
}

fn all(results: Vec<Result<Scored>>) -> Result<Vec<Scored>> {
    results.into_iter().collect()
}

fn write_rows(path: &Path, scored: &[Scored]) -> Result<()> {
    let values = scored.iter().flat_map(|scored| &scored.embedding);
    let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
    let written = std::fs::File::create(path).and_then(|mut file| file.write_all(&bytes));
    written.map_err(|error| {
        Error::new(ErrorKind::Unavailable, "cannot write the embeddings").with("path", path.display()).source(error)
    })
}
