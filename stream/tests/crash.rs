//! Visits every fail point of the path from a file to its dead letters: a child process dies exactly there, another goes
//! on, and then every line of the file is one event, every event one outcome, every dead outcome one line.

#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used)] // the lint does not see that the helpers belong to tests

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::{env, fs};

use tokio_util::sync::CancellationToken;
use undertone_error::Result;
use undertone_proto::v1::Outcome;
use undertone_proto::v1::outcome::Kind;
use undertone_stream::data::DataFolder;
use undertone_stream::dead::{self, DeadLetterFile};
use undertone_stream::input::InputLog;
use undertone_stream::log::LogOptions;
use undertone_stream::score::{ScoreConfig, ScoreStage, Scorer, Scores};
use undertone_stream::scored::ScoredLog;
use undertone_stream::source::{Ingest, ReadOptions};

const LINES: i64 = 600;
/// Every so many lines one is malformed.
const MALFORMED: i64 = 7;

struct Upper;

impl Scorer for Upper {
    async fn score_all(&self, texts: Vec<String>) -> Vec<Result<Scores>> {
        texts.iter().map(|text| Ok(Scores { clean_text: text.to_uppercase(), ..Scores::default() })).collect()
    }
}

fn line(n: i64) -> String {
    if n % MALFORMED == 0 { format!("malformed {n}") } else { format!(r#"{{"source":"t","text":"post {n}"}}"#) }
}

fn options(name: &'static str) -> LogOptions {
    LogOptions { segment_bytes: 16 << 10, ..LogOptions::new(name) }
}

fn logs(data: &DataFolder) -> (InputLog, ScoredLog) {
    let input = InputLog::open_with(&data.input(), &data.id(), options("input")).unwrap();
    let scored = ScoredLog::open_with(&data.scored(), &input, options("scored")).unwrap();
    (input, scored)
}

/// What the program does, from the file to the dead letters; trims the logs at the end if asked to.
#[test]
#[ignore = "the child of the test below"]
fn child() {
    let root = PathBuf::from(env::var("CRASH_ROOT").unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let data = DataFolder::open(&root.join("data")).unwrap();
        let (input, scored) = logs(&data);
        let dead = DeadLetterFile::open(&data.dead_letters(), input.partition()).unwrap();
        let shutdown = CancellationToken::new();
        let config = ScoreConfig { chunk_events: 16, append_events: 16, ..ScoreConfig::default() };
        let stage =
            ScoreStage::new(input.clone(), scored.clone(), Arc::new(Upper), config).count_attempts(&data.attempts());
        let everything = async {
            let ingest = Ingest::new(input.clone(), CancellationToken::new());
            assert!(ingest.file(&root.join("input.jsonl"), &ReadOptions::default()).await?.finished);
            dead.durable().wait_for(|position| *position == LINES).await.unwrap();
            shutdown.cancel();
            Ok(())
        };
        tokio::try_join!(stage.run(shutdown.clone()), dead.run(&scored, shutdown.clone()), everything).unwrap();
        if env::var("CRASH_TRIM").is_ok() {
            input.trim_below(LINES).await.unwrap();
            scored.trim_below(LINES).await.unwrap();
        }
    });
}

fn spawn(root: &Path, point: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored"]).env("CRASH_ROOT", root).env("UNDERTONE_FAILPOINTS", point);
    if point.starts_with("trim") {
        command.env("CRASH_TRIM", "1");
    }
    command.output().unwrap()
}

fn prepare() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..LINES).map(line).collect();
    fs::write(dir.path().join("input.jsonl"), lines.join("\n")).unwrap();
    dir
}

async fn check(root: &Path, point: &str) {
    let data = DataFolder::open(&root.join("data")).unwrap();
    let (input, scored) = logs(&data);
    assert_eq!((input.end(), scored.end()), (LINES, LINES), "{point}");
    let mut events = input.reader(input.start());
    while events.next_offset() < LINES {
        for (offset, event) in events.read(100, 1 << 20).await.unwrap() {
            assert_eq!(event.payload, line(offset).into_bytes(), "{point}");
        }
    }
    let mut outcomes = scored.reader(scored.start());
    while outcomes.next_offset() < LINES {
        for (offset, outcome) in outcomes.read(100, 1 << 20).await.unwrap() {
            check_outcome(offset, outcome);
        }
    }
    let dead: Vec<_> =
        dead::read(&data.dead_letters()).unwrap().map(|letter| letter.unwrap().origin.unwrap().offset).collect();
    assert_eq!(dead, (0..LINES).filter(|n| n % MALFORMED == 0).collect::<Vec<_>>(), "{point}");
}

fn check_outcome(offset: i64, outcome: Outcome) {
    match outcome.kind.unwrap() {
        Kind::Scored(post) => assert_eq!(post.clean_text, format!("POST {offset}")),
        Kind::Dead(letter) => assert_eq!(letter.payload, line(offset).into_bytes()),
    }
}

#[tokio::test]
async fn a_crash_at_every_point_neither_loses_nor_doubles() {
    let points = [
        "input.before-sync=abort@1",
        "input.after-sync=abort@1",
        "input.torn=on@1",
        "scored.before-sync=abort@3",
        "scored.after-sync=abort@3",
        "scored.torn=on@3",
        "dead.before-write=abort@1",
        "dead.before-sync=abort@1",
        "dead.after-sync=abort@1",
        "trim=abort@2",
    ];
    for point in points {
        let dir = prepare();
        let died = spawn(dir.path(), point);
        assert!(!died.status.success(), "{point} was not reached");
        let finished = spawn(dir.path(), "");
        assert!(finished.status.success(), "{point}: {}", String::from_utf8_lossy(&finished.stdout));
        check(dir.path(), point).await;
    }
}

/// A process that dies over and over, each time a little later, still comes to the same end.
#[tokio::test]
async fn many_crashes_in_one_folder_add_up_to_nothing() {
    let dir = prepare();
    let mut crashes = 0;
    for point in ["input.torn=on@1", "scored.torn=on@2", "scored.before-sync=abort@4", "dead.before-sync=abort@1"]
        .iter()
        .cycle()
        .take(16)
    {
        crashes += i32::from(!spawn(dir.path(), point).status.success());
    }
    assert!(crashes >= 4, "{crashes} crashes");
    assert!(spawn(dir.path(), "").status.success());
    check(dir.path(), "many").await;
}
