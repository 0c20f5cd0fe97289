use bytes::Bytes;
use proptest::prelude::*;
use undertone_proto::v1::ScoredPost;

use super::*;
use crate::input::{InputLog, SourceBatch};
use crate::log::LogOptions;

/// An input log and a scored log in which the outcomes at the given places are dead.
async fn logs(dir: &Path, dead: &[bool]) -> (InputLog, ScoredLog) {
    let input = InputLog::open(&dir.join("input"), "c").unwrap();
    let payloads = dead.iter().map(|_| Bytes::from_static(b"x")).collect();
    input.append(SourceBatch { source_key: "s".into(), first_seq: 0, payloads, last: true }).await.unwrap();
    let scored = ScoredLog::open(&dir.join("scored"), &input).unwrap();
    let outcomes: Vec<_> = (0..).zip(dead).map(|(offset, dead)| outcome(&input, offset, *dead)).collect();
    scored.append(&outcomes).await.unwrap();
    (input, scored)
}

fn outcome(input: &InputLog, offset: i64, dead: bool) -> Outcome {
    let origin = Some(input.partition().origin(offset));
    let kind = if dead {
        outcome::Kind::Dead(DeadLetter { origin, stage: "parse".into(), ..Default::default() })
    } else {
        outcome::Kind::Scored(ScoredPost { origin, ..Default::default() })
    };
    Outcome { kind: Some(kind) }
}

/// Runs until everything is looked at.
async fn follow(file: &DeadLetterFile, scored: &ScoredLog) {
    let shutdown = CancellationToken::new();
    let (end, mut position) = (scored.end(), file.durable());
    let run = file.run(scored, shutdown.clone());
    let stop = async {
        position.wait_for(|position| *position >= end).await.unwrap();
        shutdown.cancel();
    };
    let (run, ()) = tokio::join!(run, stop);
    run.unwrap();
}

fn offsets(path: &Path) -> Vec<i64> {
    read(path).unwrap().map(|letter| letter.unwrap().origin.unwrap().offset).collect()
}

#[tokio::test]
async fn letters_are_written_once_and_the_position_moves_without_them() {
    let dir = crate::testing::dir();
    let path = dir.path().join("dead-letters.jsonl");
    let (input, scored) = logs(dir.path(), &[false, true, true, false, false]).await;
    let file = DeadLetterFile::open(&path, input.partition()).unwrap();
    follow(&file, &scored).await;
    assert_eq!((offsets(&path), file.total(), file.position()), (vec![1, 2], 2, 5));
    assert_eq!(file.latest(1)[0].origin.as_ref().unwrap().offset, 2);

    let again = DeadLetterFile::open(&path, input.partition()).unwrap();
    assert_eq!((again.position(), again.total()), (5, 2));
    follow(&again, &scored).await;
    assert_eq!(offsets(&path), [1, 2]);
}

#[tokio::test]
async fn a_new_input_log_starts_at_its_own_beginning() {
    let dir = crate::testing::dir();
    let path = dir.path().join("dead-letters.jsonl");
    let (input, scored) = logs(&dir.path().join("one"), &[true, false]).await;
    follow(&DeadLetterFile::open(&path, input.partition()).unwrap(), &scored).await;
    let (input, scored) = logs(&dir.path().join("two"), &[true]).await;
    let file = DeadLetterFile::open(&path, input.partition()).unwrap();
    assert_eq!(file.position(), 0);
    follow(&file, &scored).await;
    assert_eq!(offsets(&path), [0, 0]);
}

#[tokio::test]
async fn a_lost_or_torn_hint_does_not_stop_a_trimmed_stream() {
    let dir = crate::testing::dir();
    let path = dir.path().join("dead-letters.jsonl");
    let (input, scored) = logs(dir.path(), &[false, true]).await;
    drop(scored);
    // A log of small segments in the place of the other, so that there is something to trim.
    std::fs::remove_dir_all(dir.path().join("scored")).unwrap();
    let options = LogOptions { segment_bytes: 200, ..LogOptions::new("scored") };
    let payloads = (2..40).map(|_| Bytes::from_static(b"x")).collect();
    input.append(SourceBatch { source_key: "t".into(), first_seq: 0, payloads, last: true }).await.unwrap();
    let scored = ScoredLog::open_with(&dir.path().join("scored"), &input, options).unwrap();
    for offset in 0..40 {
        scored.append(&[outcome(&input, offset, offset == 1)]).await.unwrap();
    }
    follow(&DeadLetterFile::open(&path, input.partition()).unwrap(), &scored).await;
    scored.trim_below(40).await.unwrap();
    assert!(scored.start() > 2, "{}", scored.start());
    for hint in [None, Some(""), Some(r#"{"topic":"#)] {
        let _ = std::fs::remove_file(hint_path(&path));
        if let Some(torn) = hint {
            std::fs::write(hint_path(&path), torn).unwrap();
        }
        let file = DeadLetterFile::open(&path, input.partition()).unwrap();
        assert_eq!(file.position(), 2);
        follow(&file, &scored).await;
        assert_eq!((file.position(), offsets(&path)), (40, vec![1]));
    }
}

#[test]
fn letters_below_an_offset_are_counted_and_only_this_partitions() {
    let partition = Partition { cluster: "c".into(), topic: "t".into(), partition: 0 };
    let other = Partition { topic: "u".into(), ..partition.clone() };
    let mut known = Known::default();
    let letter = |partition: &Partition, offset| DeadLetter {
        origin: Some(partition.origin(offset)),
        payload: vec![7; 1 << 16],
        ..Default::default()
    };
    for offset in [3, 9, 5] {
        known.add(offset, &letter(&partition, offset), &partition);
        known.add(offset, &letter(&other, offset), &partition);
    }
    assert!(known.recent.iter().all(|letter| letter.payload.capacity() == RECENT_PAYLOAD_BYTES));
    let shared = Shared { path: PathBuf::new(), partition, position: watch::Sender::new(0), known: Mutex::new(known) };
    let file = DeadLetterFile { shared: Arc::new(shared) };
    let counts = [0, 3, 4, 6, 9, 10].map(|offset| file.below(offset));
    assert_eq!((counts, file.total()), ([0, 0, 1, 2, 2, 3], 6));
}

#[test]
fn a_whole_line_that_is_no_letter_is_named() {
    let dir = crate::testing::dir();
    let path = dir.path().join("dead-letters.jsonl");
    std::fs::write(&path, "{}\n").unwrap();
    let partition = Partition { cluster: "c".into(), topic: "t".into(), partition: 0 };
    let error = DeadLetterFile::open(&path, &partition).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("line: 1"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever a crash leaves of the file, with or without the hint, the letters end up in it once each.
    #[test]
    fn a_torn_file_is_made_whole_again(dead in prop::collection::vec(any::<bool>(), 1..12), cut: prop::sample::Index) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = crate::testing::dir();
            let path = dir.path().join("dead-letters.jsonl");
            let (input, scored) = logs(dir.path(), &dead).await;
            follow(&DeadLetterFile::open(&path, input.partition()).unwrap(), &scored).await;
            let bytes = std::fs::read(&path).unwrap_or_default();
            // The hint is written after the lines are synced, so a crash that tears the lines has not written it.
            let _ = std::fs::remove_file(hint_path(&path));
            std::fs::write(&path, &bytes[..cut.index(bytes.len() + 1)]).unwrap();
            follow(&DeadLetterFile::open(&path, input.partition()).unwrap(), &scored).await;
            let expected: Vec<i64> = (0..).zip(&dead).filter(|(_, dead)| **dead).map(|(offset, _)| offset).collect();
            assert_eq!(offsets(&path), expected);
        });
    }
}
