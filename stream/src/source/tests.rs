use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn payloads(reader: RecordReader) -> Vec<Vec<u8>> {
    reader.map(|record| record.unwrap().into_payload().to_vec()).collect()
}

fn texts(reader: RecordReader) -> Vec<String> {
    reader.map(|record| String::from_utf8(record.unwrap().into_payload().to_vec()).unwrap()).collect()
}

fn stream(bytes: &[u8], options: &ReadOptions) -> Result<RecordReader> {
    from_stream("test", Box::new(Cursor::new(bytes.to_vec())), options)
}

fn as_format(format: Format) -> ReadOptions {
    ReadOptions { format: Some(format), ..ReadOptions::default() }
}

#[test]
fn a_name_says_its_format() {
    let cases = [
        ("a.jsonl", Format::Jsonl),
        ("a.b.CSV.gz", Format::Csv),
        ("a.tsv.zst", Format::Tsv),
        ("a.parquet", Format::Parquet),
        ("a.txt", Format::Text),
    ];
    for (name, format) in cases {
        assert_eq!(Format::of(Path::new(name)).unwrap(), format, "{name}");
    }
    for name in ["a", "a.gz", "a.xlsx"] {
        assert!(Format::of(Path::new(name)).is_err(), "{name}");
    }
}

#[test]
fn jsonl_comes_byte_for_byte_malformed_or_not() {
    let bytes = b"\xef\xbb\xbf{\"text\":\"a\"}\r\n\n  \nnot json\n\xff\xfe\n{ \"text\" : \"last\" }";
    let expected: [&[u8]; 4] = [b"{\"text\":\"a\"}", b"not json", b"\xff\xfe", b"{ \"text\" : \"last\" }"];
    assert_eq!(payloads(stream(bytes, &ReadOptions::default()).unwrap()), expected);
    let numbers: Vec<_> = stream(bytes, &ReadOptions::default()).unwrap().map(|r| r.unwrap().number()).collect();
    assert_eq!(numbers, [1, 4, 5, 6]);
}

#[test]
fn a_line_that_is_too_long_is_reported_and_not_the_end() {
    let options = ReadOptions { max_record_bytes: 10, ..ReadOptions::default() };
    let bytes = b"0123456789\r\n01234567890\n[1]\n";
    let records: Vec<_> = stream(bytes, &options).unwrap().map(|r| r.unwrap()).collect();
    assert_eq!(records.len(), 3);
    let mut records = records.into_iter();
    assert_eq!(records.next().unwrap().into_payload(), "0123456789");
    let shown: Value = serde_json::from_slice(&records.next().unwrap().into_payload()).unwrap();
    assert_eq!((&shown["line"], &shown["bytes"]), (&Value::from(2), &Value::from(11)));
    assert_eq!(shown["sha256"], fingerprint::hex(&Sha256::digest(b"01234567890")));
    assert_eq!(records.next().unwrap().into_payload(), "[1]");
    let error = stream(bytes, &options).unwrap().nth(1).unwrap().unwrap().into_item(&Fields::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("line: 2"), "{error}");
}

#[test]
fn items_have_a_text_and_an_id_or_an_error_of_their_own() {
    let bytes = b"{\"id\":7,\"text\":\"a\"}\n{\"uid\":\"x\",\"body\":\"b\"}\nnope\n{\"text\":5}\n";
    let items = |fields: &Fields| {
        let items = stream(bytes, &ReadOptions::default()).unwrap().map(|r| r.unwrap().into_item(fields).ok());
        items.map(|item| item.map(|item| (item.id, item.text))).collect::<Vec<_>>()
    };
    assert_eq!(items(&Fields::default()), [Some((Some(7.into()), "a".into())), None, None, None]);
    let other = Fields { text: "body".into(), id: Some("uid".into()) };
    assert_eq!(items(&other), [None, Some((Some("x".into()), "b".into())), None, None]);
    let lines = stream(b"hello \"you\"\n\n#1", &as_format(Format::Text)).unwrap();
    let lines: Vec<_> = lines.map(|r| r.unwrap().into_item(&Fields::default()).unwrap().text).collect();
    assert_eq!(lines, ["hello \"you\"", "#1"]);
}

#[test]
fn rows_of_csv_become_objects_of_strings() {
    let csv = b"id,text,lang\n1,\"a, \"\"b\"\"\nc\",en\n2,plain,\n";
    let expected = [r#"{"id":"1","text":"a, \"b\"\nc","lang":"en"}"#, r#"{"id":"2","text":"plain"}"#];
    assert_eq!(texts(stream(csv, &as_format(Format::Csv)).unwrap()), expected);
}

#[test]
fn a_row_that_does_not_fit_is_malformed_and_not_the_end() {
    let csv = b"id,text\n1,hello, world\n2,\xff\n3,fine\n";
    let records: Vec<_> = stream(csv, &as_format(Format::Csv)).unwrap().map(|r| r.unwrap().into_payload()).collect();
    let shown: Value = serde_json::from_slice(&records[0]).unwrap();
    assert_eq!(shown["cells"], serde_json::json!(["1", "hello", " world"]));
    assert!(shown["problem"].as_str().unwrap().contains("columns: 2"), "{shown}");
    assert!(undertone_proto::Post::parse(&records[0], 0).is_err(), "must be dead-lettered");
    assert!(serde_json::from_slice::<Value>(&records[1]).unwrap()["problem"].as_str().unwrap().contains("UTF-8"));
    assert_eq!(records[2], r#"{"id":"3","text":"fine"}"#);
}

#[test]
fn tsv_has_no_quotes_and_may_have_no_header() {
    let options = ReadOptions { header: false, ..as_format(Format::Tsv) };
    let reader = stream(b"1\t\"Bad\", the album\n0\tsay \"hi\n", &options).unwrap();
    reader.require(&Fields { text: "2".into(), id: None }).unwrap();
    assert_eq!(texts(reader), [r#"{"1":"1","2":"\"Bad\", the album"}"#, r#"{"1":"0","2":"say \"hi"}"#]);
}

#[test]
fn a_missing_column_is_named_with_those_that_there_are() {
    let reader = stream(b"id,body,body,\n1,a,b,c\n", &as_format(Format::Csv)).unwrap();
    let error = reader.require(&Fields::default()).unwrap_err().to_string();
    assert!(error.contains("column: text") && error.contains("id, body, body_2, column_4"), "{error}");
}

#[test]
fn an_open_quote_does_not_swallow_the_file_into_memory() {
    let mut csv = b"text\nfine\n\"never closed".to_vec();
    csv.extend(vec![b'x'; 1 << 20]);
    let options = ReadOptions { max_record_bytes: 1000, ..as_format(Format::Csv) };
    let mut reader = stream(&csv, &options).unwrap();
    assert!(reader.next().unwrap().is_ok());
    let error = reader.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("line: 3"), "{error}");
    assert!(reader.next().is_none());
}

#[test]
fn compression_is_by_name_and_by_first_bytes() {
    let dir = crate::testing::dir();
    let plain = b"{\"text\":\"a\"}\n{\"text\":\"b\"}\n";
    // Two gzip members and two zstd frames, as concatenated files have.
    let gz = [gzip(&plain[..13]), gzip(&plain[13..])].concat();
    let zst = [zstd::encode_all(&plain[..13], 1).unwrap(), zstd::encode_all(&plain[13..], 1).unwrap()].concat();
    for (name, bytes) in [("a.jsonl", plain.as_slice()), ("a.jsonl.gz", &gz), ("a.jsonl.zst", &zst), ("b.jsonl", &gz)] {
        let reader = open(&write(dir.path(), name, bytes), &ReadOptions::default()).unwrap();
        assert_eq!(texts(reader), [r#"{"text":"a"}"#, r#"{"text":"b"}"#], "{name}");
    }
    for (name, bytes) in [("c.jsonl.gz", plain.as_slice()), ("d.jsonl.gz", &zst), ("e.jsonl.zst", b"")] {
        let error = open(&write(dir.path(), name, bytes), &ReadOptions::default()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
    }
}

#[test]
fn a_file_that_is_cut_short_ends_in_an_error() {
    let dir = crate::testing::dir();
    let lines = (0..5000).map(|n| format!("{{\"text\":\"{n}\"}}\n")).collect::<String>();
    let (gz, zst) = (gzip(lines.as_bytes()), zstd::encode_all(lines.as_bytes(), 1).unwrap());
    for (name, bytes) in [("a.jsonl.gz", &gz[..gz.len() - 9]), ("a.jsonl.zst", &zst[..zst.len() - 9])] {
        let last = open(&write(dir.path(), name, bytes), &ReadOptions::default()).unwrap().last().unwrap();
        let error = last.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}: {error}");
    }
}

fn parquet() -> Vec<u8> {
    let times = || TimestampMicrosecondArray::from(vec![Some(1_777_629_600_000_000), None]);
    let columns: [(&str, ArrayRef); 5] = [
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("text", Arc::new(StringArray::from(vec![Some("a\nb"), None]))),
        ("created_at", Arc::new(times())),
        ("seen_at", Arc::new(times().with_timezone_utc())),
        ("local", Arc::new(times().with_timezone("Europe/Paris"))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn rows_of_parquet_become_objects_with_times_in_rfc_3339() {
    let dir = crate::testing::dir();
    let at = "2026-05-01T10:00:00Z";
    let first = format!(r#"{{"id":1,"text":"a\nb","created_at":"{at}","seen_at":"{at}","local":"{at}"}}"#);
    for (name, bytes) in [("a.parquet", parquet()), ("a.parquet.zst", zstd::encode_all(&*parquet(), 1).unwrap())] {
        let reader = open(&write(dir.path(), name, &bytes), &ReadOptions::default()).unwrap();
        assert_eq!(reader.columns().unwrap(), ["id", "text", "created_at", "seen_at", "local"]);
        let rows = texts(reader);
        assert_eq!(rows, [first.clone(), r#"{"id":2}"#.into()], "{name}");
        let post = undertone_proto::Post::parse(rows[0].as_bytes(), 0).unwrap();
        assert_eq!(post.created_at_us, 1_777_629_600_000_000);
    }
    let error = open(&write(dir.path(), "b.parquet", b"not at all"), &ReadOptions::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_is_no_file_is_named_with_its_path_and_what_to_do() {
    let dir = crate::testing::dir();
    let (missing, folder, pipe) = (dir.path().join("no.csv"), dir.path().join("folder"), dir.path().join("pipe.csv"));
    std::fs::create_dir(&folder).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let options = ReadOptions::default();
    let cases = [
        (&missing, ErrorKind::NotFound, open(&missing, &options).err()),
        (&folder, ErrorKind::InvalidInput, open(&folder, &options).err()),
        (&missing, ErrorKind::NotFound, fingerprint(&missing).err()),
        (&folder, ErrorKind::InvalidInput, fingerprint(&folder).err()),
        (&pipe, ErrorKind::InvalidInput, fingerprint(&pipe).err()),
        (&missing, ErrorKind::NotFound, check(&missing, &options).err()),
        (&pipe, ErrorKind::InvalidInput, check(&pipe, &options).err()),
    ];
    for (path, kind, error) in cases {
        let error = error.unwrap();
        assert_eq!((error.kind(), error.mend()), (kind, Some("check the path given with --input")));
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_file_that_can_be_streamed_passes_the_check_and_others_say_why() {
    let dir = crate::testing::dir();
    let said = |name: &str, bytes: &[u8]| {
        check(&write(dir.path(), name, bytes), &ReadOptions::default()).err().map(|error| error.to_string())
    };
    for (name, bytes) in [("a.jsonl", "x".into()), ("a.csv", b"id,text\n".to_vec()), ("a.parquet", parquet())] {
        assert_eq!(said(name, &bytes), None, "{name}");
    }
    assert!(said("b.tsv", b"id\tbody\n1\thi\n").unwrap().contains("id, body"));
    assert!(said("b.xlsx", b"x").unwrap().contains("format"));
    assert!(said("b.parquet", b"not at all").unwrap().contains("Parquet"));
}

proptest! {
    /// Lines survive whatever they hold, in whatever pieces the stream comes.
    #[test]
    fn every_line_comes_out(lines in prop::collection::vec("[^\r\n]{0,40}", 0..20), end in "\r?\n") {
        let bytes = lines.iter().map(|line| format!("{line}{end}")).collect::<String>().into_bytes();
        let reader = stream(&bytes, &as_format(Format::Jsonl)).unwrap();
        let expected: Vec<_> = lines.iter().filter(|line| !line.bytes().all(|b| b.is_ascii_whitespace())).collect();
        let first_has_mark = lines.first().is_some_and(|line| line.starts_with('\u{feff}'));
        prop_assume!(!first_has_mark);
        prop_assert_eq!(texts(reader), expected.into_iter().cloned().collect::<Vec<_>>());
    }

    /// What the csv crate writes, we read.
    #[test]
    fn csv_round_trips(rows in prop::collection::vec(prop::array::uniform3(".{0,20}"), 1..10)) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["a", "b", "c"]).unwrap();
        for row in &rows {
            writer.write_record(row).unwrap();
        }
        let reader = stream(&writer.into_inner().unwrap(), &as_format(Format::Csv)).unwrap();
        let read: Vec<BTreeMap<String, String>> = texts(reader).iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        let written: Vec<BTreeMap<String, String>> = rows
            .iter()
            .map(|row| ["a", "b", "c"].into_iter().zip(row).filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v.clone())).collect())
            .collect();
        prop_assert_eq!(read, written);
    }
}

#[test]
fn a_parquet_file_that_is_damaged_anywhere_is_an_error_and_no_panic() {
    let whole = parquet();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x81;
        let options = ReadOptions { format: Some(Format::Parquet), ..ReadOptions::default() };
        if let Ok(records) = from_stream("damaged", Box::new(std::io::Cursor::new(bytes)), &options) {
            records.for_each(drop);
        }
    }
}
