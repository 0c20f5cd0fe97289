//! One record of a source, as an event of the stream or as a text to score.

use bytes::Bytes;
use serde_json::{Value, json};
use undertone_error::{Error, ErrorKind, Result};

/// Which fields of a record are its text and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The field (column) that holds the text.
    pub text: String,
    /// The field that holds the id. `None` takes `id` where there is one.
    pub id: Option<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self { text: "text".into(), id: None }
    }
}

/// A text to score.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The record's id as it stands there, a string or a number.
    pub id: Option<Value>,
    /// The text.
    pub text: String,
}

/// One record.
#[derive(Debug)]
pub struct Record {
    number: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// JSON, or what stands where JSON should.
    Json(Vec<u8>),
    /// A line that is the text.
    Line(Vec<u8>),
    /// What could not be read as a record, and why. `shown` is JSON that says so.
    Malformed { problem: Error, shown: Vec<u8> },
}

impl Record {
    pub(super) fn json(number: u64, bytes: Vec<u8>) -> Self {
        Self { number, content: Content::Json(bytes) }
    }

    pub(super) fn line(number: u64, bytes: Vec<u8>) -> Self {
        Self { number, content: Content::Line(bytes) }
    }

    /// `what` is an object with what there is to show.
    pub(super) fn malformed(number: u64, problem: Error, mut what: Value) -> Self {
        if let Value::Object(fields) = &mut what {
            fields.insert("line".into(), number.into());
            fields.insert("problem".into(), problem.to_string().into());
        }
        Self { number, content: Content::Malformed { problem, shown: what.to_string().into_bytes() } }
    }

    /// Where it begins: the line, or for Parquet the row, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The record as an event: its JSON byte for byte; a plain line as `{"text": …}` (or as it is, if it is not UTF-8);
    /// a malformed record as JSON without a text, which says what is wrong and is dead-lettered for it.
    pub fn into_payload(self) -> Bytes {
        match self.content {
            Content::Json(bytes) | Content::Malformed { shown: bytes, .. } => bytes.into(),
            Content::Line(bytes) => match String::from_utf8(bytes) {
                Ok(text) => json!({ "text": text }).to_string().into(),
                Err(error) => error.into_bytes().into(),
            },
        }
    }

    /// The record as a text to score.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], saying what is wrong with this record; the next may be sound.
    pub fn into_item(self, fields: &Fields) -> Result<Item> {
        let number = self.number;
        let bad = |what: &str| Error::new(ErrorKind::InvalidInput, what).with("line", number);
        match self.content {
            Content::Malformed { problem, .. } => Err(problem.with("line", number)),
            Content::Line(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Item { id: None, text }),
                Err(e) => Err(bad("line is not UTF-8").source(e)),
            },
            Content::Json(bytes) => {
                let text = std::str::from_utf8(&bytes).map_err(|e| bad("line is not UTF-8").source(e))?;
                let value = serde_json::from_str(text).map_err(|e| bad("line is not JSON").source(e))?;
                let Value::Object(mut object) = value else { return Err(bad("line is not a JSON object")) };
                let id = object.shift_remove(fields.id.as_deref().unwrap_or("id"));
                match object.shift_remove(&fields.text) {
                    Some(Value::String(text)) => {
                        Ok(Item { id: id.filter(|id| id.is_string() || id.is_number()), text })
                    }
                    Some(_) => Err(bad("text is not a string").with("field", &fields.text)),
                    None => Err(bad("record has no text").with("field", &fields.text)),
                }
            }
        }
    }

    /// The id that the record carries, also if it has no text to score. Useful to report an error by.
    pub fn id(&self, fields: &Fields) -> Option<Value> {
        let Content::Json(bytes) = &self.content else { return None };
        let value: Value = serde_json::from_slice(bytes).ok()?;
        value.get(fields.id.as_deref().unwrap_or("id")).filter(|id| id.is_string() || id.is_number()).cloned()
    }
}
