//! The calls that are sent, written before the measuring begins, and how many texts an answer holds scores for.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::json;
use undertone_error::{Context, Error, ErrorKind, Result};

/// What a call looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// One text as JSON, in the interactive lane
    Single,
    /// Many texts as JSON, in the bulk lane
    Json,
    /// Many texts as an Arrow stream
    Arrow,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) body: Bytes,
    pub(crate) texts: usize,
}

/// Calls of one shape, which go round.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) shape: Shape,
    calls: Vec<Call>,
}

/// What every answer holds once for each text that was scored, and nothing else does: texts do not come back.
const SCORED: &str = "\"polarity\":";

impl Calls {
    /// Parts `texts` into calls of `size`, the last of which may be smaller.
    ///
    /// # Errors
    /// `InvalidInput` if there is no text; `Internal` if Arrow cannot write them.
    pub(crate) fn new(shape: Shape, texts: &[String], size: usize) -> Result<Self> {
        let size = if shape == Shape::Single { 1 } else { size.max(1) };
        let call = |texts: &[String]| {
            let body = match shape {
                Shape::Single => json!({ "text": texts.first() }).to_string().into(),
                Shape::Json => json!({ "texts": texts }).to_string().into(),
                Shape::Arrow => arrow(texts)?,
            };
            Ok(Call { body, texts: texts.len() })
        };
        let calls = texts.chunks(size).map(call).collect::<Result<Vec<_>>>()?;
        match calls.is_empty() {
            true => Err(Error::new(ErrorKind::InvalidInput, "there is no text to send")),
            false => Ok(Self { shape, calls }),
        }
    }

    /// The call at a place, beginning again behind the last one.
    pub(crate) fn at(&self, number: usize) -> &Call {
        &self.calls[number % self.calls.len()]
    }

    /// The path that takes them.
    pub(crate) fn path(&self) -> &'static str {
        match self.shape {
            Shape::Single | Shape::Json => "/v1/score",
            Shape::Arrow => "/v1/score/arrow",
        }
    }

    /// What their bodies are.
    pub(crate) fn content_type(&self) -> &'static str {
        match self.shape {
            Shape::Single | Shape::Json => "application/json",
            Shape::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// The lane that is asked for, where it is not the one that such a call has anyway.
    pub(crate) fn lane(&self) -> Option<&'static str> {
        (self.shape == Shape::Json).then_some("bulk")
    }

    /// For how many texts an answer holds scores; none if it cannot be read.
    pub(crate) fn scored(&self, answer: &[u8]) -> usize {
        match self.shape {
            Shape::Single | Shape::Json => {
                std::str::from_utf8(answer).map_or(0, |answer| answer.matches(SCORED).count())
            }
            Shape::Arrow => arrow_scored(answer).unwrap_or(0),
        }
    }
}

fn arrow(texts: &[String]) -> Result<Bytes> {
    let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]));
    let column = StringArray::from_iter_values(texts);
    let written = || {
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)])?;
        let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
        writer.write(&batch)?;
        writer.into_inner()
    };
    written().map(Bytes::from).context(ErrorKind::Internal, "cannot write texts as Arrow")
}

/// The rows whose `error` is null.
fn arrow_scored(answer: &[u8]) -> Option<usize> {
    let mut scored = 0;
    for batch in StreamReader::try_new(answer, None).ok()? {
        let batch = batch.ok()?;
        scored += batch.column_by_name("error")?.as_string_opt::<i32>()?.null_count();
    }
    Some(scored)
}

/// The texts of a file, without those that are none.
///
/// # Errors
/// `NotFound` if it cannot be read; `InvalidInput` if it holds no text.
pub(crate) fn read(path: &Path) -> Result<Vec<String>> {
    let file = fs::read_to_string(path).context(ErrorKind::NotFound, "cannot read the texts")?;
    let texts: Vec<String> = file.lines().filter_map(text).collect();
    match texts.is_empty() {
        true => Err(Error::new(ErrorKind::InvalidInput, "file holds no text")
            .with("path", path.display())
            .help("write one JSON object a line, with a field text, as `undertone generate` does")),
        false => Ok(texts),
    }
}

fn text(line: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Post {
        text: String,
    }
    let post: Post = serde_json::from_str(line).ok()?;
    Some(post.text).filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("text \"{number}\"")).collect()
    }

    #[test]
    fn every_text_is_in_one_call_and_calls_go_round() {
        for (count, size, wanted) in [(5, 2, vec![2, 2, 1]), (4, 4, vec![4]), (3, 9, vec![3])] {
            for shape in [Shape::Json, Shape::Arrow] {
                let calls = Calls::new(shape, &texts(count), size).unwrap();
                let sizes: Vec<usize> = (0..wanted.len()).map(|number| calls.at(number).texts).collect();
                assert_eq!(sizes, wanted, "{shape:?}");
                assert_eq!(calls.at(wanted.len()).body, calls.at(0).body);
            }
        }
        let singles = Calls::new(Shape::Single, &texts(3), 9).unwrap();
        assert_eq!(singles.at(2).body, r#"{"text":"text \"2\""}"#);
        assert!(Calls::new(Shape::Json, &[], 1).is_err());
    }

    #[test]
    fn an_answer_counts_only_for_the_texts_that_were_scored() {
        let json = Calls::new(Shape::Json, &texts(2), 2).unwrap();
        for (answer, wanted) in [
            (&br#"{"results":[{"polarity":0.5},{"polarity":null}]}"#[..], 2),
            (br#"{"results":[{"polarity":0.5},{"error":{"code":"queue-full"}}]}"#, 1),
            (b"\xff", 0),
        ] {
            assert_eq!(json.scored(answer), wanted);
        }
        let arrow = Calls::new(Shape::Arrow, &texts(2), 2).unwrap();
        assert_eq!(arrow.scored(b"no arrow"), 0);
        let schema = Arc::new(Schema::new(vec![Field::new("error", DataType::Utf8, true)]));
        let column = StringArray::from(vec![None, Some("queue-full"), None]);
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
        writer.write(&batch).unwrap();
        assert_eq!(arrow.scored(&writer.into_inner().unwrap()), 2);
    }

    #[test]
    fn lines_without_a_text_are_passed_over() {
        let lines = [r#"{"id":"1","text":"a"}"#, "", r#"{"id":"2"}"#, "no json", r#"{"text":" "}"#, r#"{"text":"b"}"#];
        let texts: Vec<String> = lines.into_iter().filter_map(text).collect();
        assert_eq!(texts, ["a", "b"]);
    }
}
