//! Files that are streamed or scored: rows and lines, also compressed, Parquet, and the file of dead letters.

use std::{
    io::{Cursor, Write},
    sync::Arc,
};

use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use flate2::{Compression, write::GzEncoder};
use parquet::arrow::ArrowWriter;
use undertone_proto::v1::{DeadLetter, Origin};
use undertone_stream::{
    dead,
    source::{Fields, Format, ReadOptions, from_stream},
};

use crate::Target;

/// What of a source is read: a small file may unpack to a large one.
const RECORDS: usize = 2000;

const FORMATS: [Format; 4] = [Format::Jsonl, Format::Csv, Format::Tsv, Format::Text];

pub(crate) const ROWS: Target = Target {
    name: "rows",
    read: rows,
    seeds: || {
        let seed = |how: u8, text: &str| [&[how], text.as_bytes()].concat();
        vec![
            seed(0, "{\"text\": \"one\", \"id\": 1}\n\n{\"text\": \"two\"}\r\n"),
            seed(1, "id,text,\n1,\"one, \"\"two\"\"\n\",x\n2,three,\n"),
            seed(1 | 4, "a,b\nc,d"),
            seed(2, "id\ttext\n1\tsay \"hi\n"),
            seed(3, "one\ntwo\r\n☕"),
        ]
    },
    words: &["\"", "\"\"", ",", "\t", "\r\n", "\n", "\u{feff}", "text", "id", "\u{0}"],
};

pub(crate) const COMPRESSED: Target = Target {
    name: "compressed",
    read: rows,
    seeds: || {
        let text = b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n".repeat(20);
        let gzip = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&text).expect("a vector");
            encoder.finish().expect("a vector")
        };
        let zstd = || zstd::encode_all(text.as_slice(), 3).expect("a vector");
        [gzip(), zstd(), [gzip(), gzip()].concat(), [zstd(), zstd()].concat()]
            .map(|packed| [&[0], packed.as_slice()].concat())
            .into()
    },
    words: &[],
};

pub(crate) const PARQUET: Target = Target {
    name: "parquet",
    read: |bytes| read(bytes, Format::Parquet, true, None),
    seeds: || {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("text", Arc::new(StringArray::from(vec![Some("one"), None, Some("two ☕")]))),
            (
                "created_at",
                Arc::new(TimestampMicrosecondArray::from(vec![Some(1_777_636_800_000_000), None, Some(-1)])),
            ),
            ("likes", Arc::new(Float64Array::from(vec![1.5, f64::NAN, -0.0]))),
            ("deleted", Arc::new(BooleanArray::from(vec![false, true, false]))),
        ];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
        let batch = batch.expect("a batch");
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a file");
        writer.write(&batch).expect("a batch");
        vec![writer.into_inner().expect("a file")]
    },
    words: &["PAR1", "text"],
};

/// The first byte says how the rest is read.
fn rows(bytes: &[u8]) -> bool {
    let Some((how, rest)) = bytes.split_first() else { return false };
    let quoting = [None, Some(true), Some(false), None][usize::from(how >> 3) % 4];
    read(rest, FORMATS[usize::from(how % 4)], how & 4 == 0, quoting)
}

/// Whether a source was read to its end, every record of it a text to score. Each is an event all the same.
fn read(bytes: &[u8], format: Format, header: bool, quoting: Option<bool>) -> bool {
    let options = ReadOptions { format: Some(format), header, quoting, max_record_bytes: 4096 };
    let open = || from_stream("fuzz", Box::new(Cursor::new(bytes.to_vec())), &options);
    let (Ok(events), Ok(items)) = (open(), open()) else { return false };
    let _ = items.require(&Fields::default());
    let mut whole = true;
    for event in events.take(RECORDS) {
        match event {
            Ok(event) => assert!(!format!("{event:?}").is_empty() && event.into_payload().len() <= 1 << 20),
            Err(_) => whole = false,
        }
    }
    for item in items.take(RECORDS).flatten() {
        let _ = item.into_item(&Fields::default());
    }
    whole
}

pub(crate) const DEAD_LETTERS: Target = Target {
    name: "dead_letters",
    read: |bytes| {
        let file = tempfile::NamedTempFile::new_in(super::logs::memory()).expect("a file");
        std::fs::write(file.path(), bytes).expect("a file");
        let letters: Vec<_> = dead::read(file.path()).expect("a file").collect();
        for letter in letters.iter().flatten() {
            dead::to_json(letter).expect("a letter as JSON");
        }
        letters.iter().all(Result::is_ok)
    },
    seeds: || {
        let letter = |payload: &[u8]| DeadLetter {
            origin: Some(Origin { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 7 }),
            stage: "parse".into(),
            reason: "post is not JSON".into(),
            payload: payload.to_vec(),
            payload_bytes: payload.len() as u64,
            ..DeadLetter::default()
        };
        let line = |payload| dead::to_json(&letter(payload)).expect("a letter as JSON").into_bytes();
        vec![line(b"{"), [line(b"\xff\x00"), line(b"one")].concat()]
    },
    words: &[
        "\"payload_base64\":",
        "\"offset\":",
        "9223372036854775808",
        "-009999-01-01T00:00:00Z",
        "null",
        "\n",
        "====",
    ],
};
