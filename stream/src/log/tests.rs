use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn small() -> LogOptions {
    LogOptions { segment_bytes: 400, max_frame_bytes: 1 << 20, ..LogOptions::new("test") }
}

fn open(dir: &Path) -> Result<Log> {
    Log::open(dir, small(), || b"born".to_vec())
}

fn payloads(of: &[Vec<u8>]) -> Vec<Bytes> {
    of.iter().map(|payload| Bytes::copy_from_slice(payload)).collect()
}

fn append(log: &Log, of: &[Vec<u8>]) -> Result<Range<i64>> {
    log.append_blocking(&payloads(of), &Vec::new)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Everything from `from` to the end, read in small bites.
fn read_all(log: &Log, from: i64) -> Result<Vec<(i64, Vec<u8>)>> {
    run(async {
        let mut reader = log.reader(from);
        let mut all = Vec::new();
        while reader.next_offset() < log.end() {
            let frames = reader.read(3, 100).await?;
            assert!(!frames.is_empty() && frames.len() <= 3);
            all.extend(frames.into_iter().map(|(offset, payload)| (offset, payload.to_vec())));
        }
        Ok(all)
    })
}

fn numbered(first: i64, of: &[Vec<u8>]) -> Vec<(i64, Vec<u8>)> {
    (first..).zip(of.iter().cloned()).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_log_keeps_its_topic_and_its_frames_across_segments() {
    let dir = crate::testing::dir();
    let of: Vec<_> = (0..50u8).map(|n| vec![n; usize::from(n) * 20]).collect();
    let topic = {
        let log = open(dir.path()).unwrap();
        assert_eq!(log.opened_snapshot(), (0, b"born".as_slice()));
        for batch in of.chunks(4) {
            append(&log, batch).unwrap();
        }
        log.topic()
    };
    let log = open(dir.path()).unwrap();
    assert!(segments(dir.path()).len() > 5);
    assert_eq!((log.topic(), log.start(), log.end()), (topic, 0, 50));
    assert_eq!(read_all(&log, 0).unwrap(), numbered(0, &of));
    assert_eq!(read_all(&log, 37).unwrap(), numbered(37, &of[37..]));
}

#[test]
fn a_reader_waits_for_what_is_durable() {
    let dir = crate::testing::dir();
    let log = open(dir.path()).unwrap();
    run(async {
        let mut reader = log.reader(1);
        assert!(reader.read_available(1, 1).await.unwrap().is_empty());
        let waiting = tokio::spawn(async move { reader.read(10, 1000).await });
        log.append(vec![Bytes::from_static(b"a")]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished(), "offset 0 is not what was asked for");
        log.append(vec![Bytes::from_static(b"b")]).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), [(1, Bytes::from_static(b"b"))]);
    });
}

#[test]
fn trimming_removes_whole_segments_and_readers_below_are_told() {
    let dir = crate::testing::dir();
    let log = open(dir.path()).unwrap();
    for n in 0..20u8 {
        append(&log, &[vec![n; 150]]).unwrap();
    }
    let before = segments(dir.path()).len();
    run(log.trim_below(11)).unwrap();
    let start = log.start();
    assert!(start > 0 && start <= 11 && segments(dir.path()).len() < before);
    assert_eq!(read_all(&log, start).unwrap().len() as i64, 20 - start);
    assert_eq!(read_all(&log, 0).unwrap_err().kind(), ErrorKind::NotFound);
    run(log.trim_below(i64::MAX)).unwrap();
    assert_eq!(segments(dir.path()).len(), 1, "the last segment stays");
    drop(log);
    assert_eq!(open(dir.path()).unwrap().end(), 20);
}

#[test]
fn a_full_disk_leaves_no_half_frame_behind() {
    let dir = crate::testing::dir();
    let log = open(dir.path()).unwrap();
    append(&log, &[b"kept".to_vec()]).unwrap();
    let length = fs::metadata(&segments(dir.path())[0]).unwrap().len();
    log.shared.writer().room.set(Some(30));
    let error = append(&log, &[b"lost".to_vec(), b"lost too".to_vec()]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(fs::metadata(&segments(dir.path())[0]).unwrap().len(), length);
    assert_eq!(append(&log, &[b"next".to_vec()]).unwrap(), 1..2);
    drop(log);
    let log = open(dir.path()).unwrap();
    assert_eq!(read_all(&log, 0).unwrap(), numbered(0, &[b"kept".to_vec(), b"next".to_vec()]));
}

#[test]
fn a_frame_over_the_limit_is_refused_and_harms_nothing() {
    let dir = crate::testing::dir();
    let log = open(dir.path()).unwrap();
    let error = append(&log, &[b"small".to_vec(), vec![0; (1 << 20) + 1]]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(log.end(), 0);
}

#[test]
fn a_segment_that_was_never_finished_is_removed() {
    let dir = crate::testing::dir();
    append(&open(dir.path()).unwrap(), &[b"a".to_vec()]).unwrap();
    fs::write(dir.path().join("00000000000000000001.new"), b"UNDT").unwrap();
    assert_eq!(open(dir.path()).unwrap().end(), 1);
    assert_eq!(segments(dir.path()).len(), 1);
}

#[test]
fn a_missing_segment_in_the_middle_is_corrupt_not_skipped() {
    let dir = crate::testing::dir();
    let log = open(dir.path()).unwrap();
    for n in 0..20u8 {
        append(&log, &[vec![n; 150]]).unwrap();
    }
    drop(log);
    fs::remove_file(&segments(dir.path())[2]).unwrap();
    let log = open(dir.path()).unwrap();
    assert_eq!(read_all(&log, 0).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_format_of_another_version_is_named() {
    let dir = crate::testing::dir();
    drop(open(dir.path()).unwrap());
    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[8] = 9;
    fs::write(path, bytes).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("format: 9"), "{error}");
}

fn batches() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let payload =
        prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..60), 1 => prop::collection::vec(any::<u8>(), 400..900)];
    prop::collection::vec(prop::collection::vec(payload, 1..5), 1..8)
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    FullDisk(Vec<Vec<u8>>, usize),
    Trim(prop::sample::Index),
    Reopen,
    Read(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let batch = || prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4);
    prop_oneof![
        5 => batch().prop_map(Step::Append),
        1 => (batch(), 0usize..80).prop_map(|(batch, room)| Step::FullDisk(batch, room)),
        1 => any::<prop::sample::Index>().prop_map(Step::Trim),
        1 => Just(Step::Reopen),
        2 => any::<prop::sample::Index>().prop_map(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A crash leaves any prefix of the last segment. What reopens is a prefix of the frames, and takes more.
    #[test]
    fn any_torn_tail_reopens_to_a_prefix(batches in batches(), cut: prop::sample::Index) {
        let dir = crate::testing::dir();
        let all: Vec<_> = batches.concat();
        let log = open(dir.path()).unwrap();
        for batch in &batches {
            append(&log, batch).unwrap();
        }
        let (first, frames_at) = {
            let segments = log.shared.segments();
            let last = segments.last().unwrap();
            (last.first, last.nearest(last.first).unwrap().position as usize)
        };
        drop(log);
        let path = segments(dir.path()).pop().unwrap();
        let bytes = fs::read(&path).unwrap();
        let keep = frames_at + cut.index(bytes.len() - frames_at + 1);
        fs::write(&path, &bytes[..keep]).unwrap();

        let log = open(dir.path()).unwrap();
        let end = log.end() as usize;
        prop_assert!(end >= first as usize && end <= all.len());
        prop_assert_eq!(read_all(&log, 0).unwrap(), numbered(0, &all[..end]));
        append(&log, &[b"more".to_vec()]).unwrap();
        prop_assert_eq!(read_all(&log, end as i64).unwrap(), numbered(end as i64, &[b"more".to_vec()]));
    }

    /// A flipped bit is reported, or has hit the last batch and looks like a tear; it never changes or hides a frame
    /// that a later batch proves durable.
    #[test]
    fn flipped_bits_are_never_believed(batches in batches(), file: prop::sample::Index, bit: prop::sample::Index) {
        let dir = crate::testing::dir();
        let all: Vec<_> = batches.concat();
        let log = open(dir.path()).unwrap();
        for batch in &batches {
            append(&log, batch).unwrap();
        }
        drop(log);
        let paths = segments(dir.path());
        let path = &paths[file.index(paths.len())];
        let mut bytes = fs::read(path).unwrap();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, bytes).unwrap();

        match open(dir.path()).and_then(|log| Ok((log.end() as usize, read_all(&log, 0)?))) {
            Ok((end, frames)) => {
                prop_assert!(end >= all.len() - batches.last().unwrap().len(), "cut more than the last batch");
                prop_assert_eq!(frames, numbered(0, &all[..end]));
            }
            Err(error) => prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{error}"),
        }
    }

    /// Any history of appends, failures, trims and reopenings equals a vector with a start.
    #[test]
    fn a_log_is_a_vector_with_a_start(steps in prop::collection::vec(step(), 1..30)) {
        let dir = crate::testing::dir();
        let mut log = open(dir.path()).unwrap();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for step in steps {
            match step {
                Step::Append(batch) => {
                    let range = append(&log, &batch).unwrap();
                    prop_assert_eq!(range, model.len() as i64..(model.len() + batch.len()) as i64);
                    model.extend(batch);
                }
                Step::FullDisk(batch, room) => {
                    let bytes: usize = batch.iter().map(|payload| frame::HEADER + payload.len()).sum();
                    log.shared.writer().room.set(Some(room.min(bytes - 1)));
                    prop_assert!(append(&log, &batch).is_err());
                }
                Step::Trim(below) => {
                    let below = below.index(model.len() + 1) as i64;
                    let before = log.start();
                    run(log.trim_below(below)).unwrap();
                    prop_assert!(log.start() <= below.max(before));
                }
                Step::Reopen => {
                    let (topic, start) = (log.topic(), log.start());
                    drop(log);
                    log = open(dir.path()).unwrap();
                    prop_assert_eq!((log.topic(), log.start()), (topic, start));
                }
                Step::Read(from) => {
                    let start = log.start() as usize;
                    let from = start + from.index(model.len() - start + 1);
                    prop_assert_eq!(read_all(&log, from as i64).unwrap(), numbered(from as i64, &model[from..]));
                }
            }
            prop_assert_eq!(log.end(), model.len() as i64);
        }
    }
}
