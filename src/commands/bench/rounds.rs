//! Rounds on demand, so that this program and others can be measured in turn, without starting or loading in the figures.
//!
//! One JSON line answers each line of standard input: `go` scores all texts once in the bulk lane and answers
//! `{"seconds": …}`; `embed PATH` writes their embeddings, as rows of little-endian f32, and answers their width. The
//! first line, `{"ready": true, …}`, comes unasked once the model is loaded. The end of the input ends the program.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_inference::{Engine, Lane, Scored};

use super::machine;
use crate::commands::output::Output;

pub(super) async fn serve(engine: &Engine, texts: &[String]) -> Result<()> {
    let mut output = Output::create(None)?;
    let mut say = |value: Value| output.line(value.to_string().as_bytes()).and_then(|()| output.flush());
    say(json!({"ready": true, "model": engine.model(), "texts": texts.len(), "workers": engine.stats().workers}))?;
    while let Some(line) = read_line().await? {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("go", "") => {
                let owned = texts.to_vec();
                let started = Instant::now();
                let results = engine.score_all(owned, Lane::Bulk).await;
                let seconds = started.elapsed().as_secs_f64();
                let tokens: u64 = all(results)?.iter().map(|scored| u64::from(scored.tokens)).sum();
                say(json!({"seconds": seconds, "tokens": tokens, "rss_mib": machine::resident_mib()}))?;
            }
            ("embed", path) if !path.is_empty() => {
                let scored = all(engine.score_all(texts.to_vec(), Lane::Bulk).await)?;
                write_rows(Path::new(path), &scored)?;
                say(json!({"rows": scored.len(), "dimensions": engine.model().dimensions}))?;
            }
            _ => {
                return Err(Error::new(ErrorKind::InvalidInput, "line of standard input is no command")
                    .with("line", line)
                    .help("send `go`, or `embed PATH`"));
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
