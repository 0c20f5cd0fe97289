//! `undertone score`: the texts of a file, one JSON line each, in the order of the input.
//!
//! Memory stays constant however long the input: a few chunks are in flight at any time. What is wrong with one line is
//! said in that line's place and changes nothing for the others.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_gateway::Problem;
use undertone_gateway::api::{ScoreResult, Selection};
use undertone_inference::{Engine, Lane, ModelInfo};
use undertone_stream::source::{Fields, Item, ReadOptions, Record, RecordReader, open};

use super::model::start_engine;
use super::output::Output;
use super::texts;
use crate::Outcome;
use crate::cli::ScoreArgs;

/// Texts that are handed to the engine at once.
const CHUNK: usize = 256;

/// A chunk of long texts is cut here, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Chunks in flight: one is being written while the others keep every worker busy.
const IN_FLIGHT: usize = 4;

pub(crate) async fn score(args: ScoreArgs) -> Result<Outcome> {
    let config = args.compute.model(args.model)?;
    let fields = Fields { text: args.files.text_field.clone(), id: args.id_field.clone() };
    let records = texts::records(&args.files, !args.no_header, &fields)?;

    let engine = start_engine(&config.folder()?, config.engine).await?;
    let selection = Selection { heads: args.heads.clone(), embedding: args.embed };
    check_heads(&engine.model(), &selection.heads)?;
    let mut output = Output::create(args.files.output.as_deref().map(Path::new))?;

    let progress = progress_bar(args.files.output.is_some());
    let mut failed = 0;
    let mut lines = read_ahead(records, fields)?;
    let mut reading = true;
    let mut in_flight: VecDeque<JoinHandle<Vec<ScoreResult>>> = VecDeque::new();
    loop {
        let scored = tokio::select! {
            chunk = next_chunk(&mut lines), if reading && in_flight.len() < IN_FLIGHT => {
                match chunk? {
                    Some(chunk) => in_flight.push_back(tokio::spawn(score_chunk(engine.clone(), chunk, selection.clone()))),
                    None => reading = false,
                }
                continue;
            }
            Some(scored) = first(&mut in_flight) => scored,
            else => break,
        };
        in_flight.pop_front();
        let results = scored.context(ErrorKind::Internal, "scoring a chunk of texts panicked")?;
        for result in &results {
            failed += u64::from(!result.is_scored());
            output.json(result)?;
        }
        output.flush()?;
        progress.inc(results.len() as u64);
    }
    output.finish()?;
    progress.finish_and_clear();
    engine.shutdown().await;
    Ok(texts::outcome(failed, "line could not be scored", "lines could not be scored"))
}

/// The texts of up to `limit` records; records without one are passed over.
///
/// # Errors
/// Those of reading; [`ErrorKind::InvalidInput`] if there is no text at all.
pub(super) fn read_texts(path: &Path, limit: usize) -> Result<Vec<String>> {
    let fields = Fields::default();
    let mut records = open(path, &ReadOptions::default())?;
    records.require(&fields)?;
    let mut texts = Vec::new();
    while texts.len() < limit {
        let Some(record) = records.next() else { break };
        texts.extend(record?.into_item(&fields).ok().map(|item| item.text));
    }
    match texts.is_empty() {
        true => Err(Error::new(ErrorKind::InvalidInput, "file holds no text").with("path", path.display())),
        false => Ok(texts),
    }
}

/// A record's text, or the id and the error to report in its place.
type Line = std::result::Result<Item, (Option<serde_json::Value>, Error)>;

/// Reads on a thread of its own, since reading may wait for a slow producer for ever.
fn read_ahead(records: RecordReader, fields: Fields) -> Result<mpsc::Receiver<Result<Line>>> {
    let (send, lines) = mpsc::channel(CHUNK);
    let read = move || {
        for record in records {
            let read = record.map(|record| line(record, &fields));
            if send.blocking_send(read).is_err() {
                return; // nobody wants more
            }
        }
    };
    let thread = std::thread::Builder::new().name("undertone-read".to_owned());
    thread.spawn(read).context(ErrorKind::Exhausted, "cannot start the reading thread")?;
    Ok(lines)
}

/// What has been read, at most one chunk; waits for the first line of it. May be cancelled without loss.
async fn next_chunk(lines: &mut mpsc::Receiver<Result<Line>>) -> Result<Option<Vec<Line>>> {
    let Some(first) = lines.recv().await else { return Ok(None) };
    let mut chunk = vec![first?];
    let mut bytes = 0;
    while chunk.len() < CHUNK && bytes < CHUNK_BYTES {
        let Ok(line) = lines.try_recv() else { break };
        let line = line?;
        bytes += line.as_ref().map_or(0, |item| item.text.len());
        chunk.push(line);
    }
    Ok(Some(chunk))
}

/// The results of the oldest chunk; never, if there is none. May be cancelled without loss.
async fn first(in_flight: &mut VecDeque<JoinHandle<Vec<ScoreResult>>>) -> Option<Result<Vec<ScoreResult>, JoinError>> {
    Some(in_flight.front_mut()?.await)
}

fn line(record: Record, fields: &Fields) -> Line {
    let id = record.id(fields);
    record.into_item(fields).map_err(|error| (id, error))
}

async fn score_chunk(engine: Engine, chunk: Vec<Line>, selection: Selection) -> Vec<ScoreResult> {
    let texts = chunk.iter().filter_map(|line| line.as_ref().ok()).map(|item| item.text.clone()).collect();
    let mut scored = engine.score_all(texts, Lane::Bulk).await.into_iter();
    let mut result = |line: Line| match line {
        Err((id, error)) => ScoreResult::failed(id, local_problem(&error)),
        Ok(item) => match scored.next() {
            Some(Ok(scored)) => ScoreResult::new(item.id, scored, &selection),
            Some(Err(error)) => ScoreResult::failed(item.id, local_problem(&error)),
            None => {
                let error = Error::new(ErrorKind::Internal, "the engine answered too few texts");
                ScoreResult::failed(item.id, local_problem(&error))
            }
        },
    };
    chunk.into_iter().map(&mut result).collect()
}

/// Remote callers are told the message alone; whoever reads a local file may see everything, the line first of all.
pub(super) fn local_problem(error: &Error) -> Problem {
    let mut problem = Problem::from(error);
    problem.detail = error.to_string();
    problem
}

fn check_heads(model: &ModelInfo, wanted: &[String]) -> Result<()> {
    let known: Vec<&str> = model.heads.iter().map(|head| head.name.as_str()).collect();
    match wanted.iter().find(|head| !known.contains(&head.as_str())) {
        None => Ok(()),
        Some(head) => Err(Error::new(ErrorKind::InvalidConfig, "model has no such head")
            .with("head", head)
            .help(format!("its heads are {}", known.join(", ")))),
    }
}

/// A bar on a terminal, unless results are being printed there.
fn progress_bar(into_file: bool) -> ProgressBar {
    if !std::io::stderr().is_terminal() || (!into_file && std::io::stdout().is_terminal()) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} texts, {per_sec}, {elapsed}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
