//! The embedded log: a segment as it lies on the disk, and what the input log's frames and snapshots hold.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::runtime::Runtime;
use undertone_stream::{
    input::{InputLog, SourceBatch},
    log::{Log, LogOptions},
};

use crate::Target;

/// A folder in memory, where the system offers one: logs sync a lot.
pub(crate) fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

const SEGMENT_FILE: &str = "00000000000000000000.log";

pub(crate) const SEGMENT: Target = Target {
    name: "segment",
    read: |bytes| {
        let dir = tempfile::tempdir_in(memory()).expect("a folder");
        std::fs::write(dir.path().join(SEGMENT_FILE), bytes).expect("a file");
        let Ok(log) = Log::open(dir.path(), LogOptions::new("fuzz"), Vec::new) else { return false };
        let (mut reader, mut read) = (log.reader(log.start()), 0);
        while let Ok(frames) = reader.read_available_blocking(64, 1 << 20)
            && !frames.is_empty()
        {
            read += frames.len() as i64;
        }
        // What stands is read whole, and more goes in behind it.
        assert!(read <= log.end() - log.start());
        let one = [Bytes::from_static(b"one")];
        assert!(log.append_blocking(&one, &Vec::new).is_ok_and(|range| range.start + 1 == range.end));
        true
    },
    seeds: || {
        let made = |batches: &[&[&'static [u8]]]| {
            let dir = tempfile::tempdir_in(memory()).expect("a folder");
            let log = Log::open(dir.path(), LogOptions::new("fuzz"), || b"snapshot".to_vec()).expect("a log");
            for batch in batches {
                let frames: Vec<Bytes> = batch.iter().copied().map(Bytes::from_static).collect();
                log.append_blocking(&frames, &Vec::new).expect("room");
            }
            std::fs::read(dir.path().join(SEGMENT_FILE)).expect("a segment")
        };
        vec![made(&[]), made(&[&[b"one", b"", b"three"], &[b"four"]])]
    },
    words: &["UNDTLOG\n"],
};

pub(crate) const FRAMES: Target = Target {
    name: "frames",
    // Two bytes of length, the snapshot, and the frame.
    read: |bytes| {
        let [high, low, rest @ ..] = bytes else { return false };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (snapshot, frame) = rest.split_at(length);
        let dir = tempfile::tempdir_in(memory()).expect("a folder");
        let log = Log::open(dir.path(), LogOptions::new("input"), || snapshot.to_vec()).expect("a log");
        log.append_blocking(&[Bytes::copy_from_slice(frame)], &Vec::new).expect("room");
        drop(log);
        InputLog::open(dir.path(), "c").is_ok()
    },
    seeds: || {
        let dir = tempfile::tempdir_in(memory()).expect("a folder");
        let frame = filled(dir.path());
        // The source "s" goes on at 7.
        let snapshot = b"\x0a\x05\x0a\x01s\x10\x07";
        vec![[&[0, 0], frame.as_slice()].concat(), [&[0, 7], snapshot.as_slice(), frame.as_slice()].concat()]
    },
    words: &[],
};

/// A frame as the input log writes it.
fn filled(dir: &Path) -> Vec<u8> {
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let input = InputLog::open(dir, "c").expect("a log");
    let payloads = vec![Bytes::from_static(b"{\"text\": \"one\"}")];
    let batch = SourceBatch { source_key: "file:1".into(), first_seq: 0, payloads, last: true };
    runtime.block_on(input.append(batch)).expect("room");
    drop(input);
    let log = Log::open(dir, LogOptions::new("input"), Vec::new).expect("a log");
    let frames = log.reader(0).read_available_blocking(1, 1 << 20).expect("frames");
    frames[0].1.to_vec()
}
