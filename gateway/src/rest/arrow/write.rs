//! Scores as columns.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{BooleanBuilder, FixedSizeListBuilder, Float32Builder, Float64Builder, StringBuilder, UInt32Builder},
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use undertone_inference::{ModelInfo, Scored};

use super::ours;
use crate::{api::Selection, errors::ProblemCode, problem::Problem, scoring::Outcomes};

/// The stream of scores: its columns, and what was written of it.
///
/// The columns are `id` if it was sent, `HEAD` and `HEAD_LABEL` for each head and label in the model's order, `polarity`,
/// `confidence`, `language`, `in_domain`, `tokens`, `truncated`, `embedding` if it was asked for, `error` and
/// `error_detail`. The schema's metadata names the model, its revision and precision.
pub(super) struct Table {
    heads: Vec<Head>,
    revision: String,
    dimensions: Option<usize>,
    schema: SchemaRef,
    writer: StreamWriter<Vec<u8>>,
}

struct Head {
    name: String,
    labels: usize,
}

impl Table {
    pub(super) fn new(model: &ModelInfo, selection: &Selection, id: Option<FieldRef>) -> Result<Self, Problem> {
        let chosen = model.heads.iter().filter(|head| selection.wants(&head.name));
        let mut fields: Vec<FieldRef> = id.into_iter().collect();
        let mut add = |name: String, kind| fields.push(Arc::new(Field::new(name, kind, true)));
        let mut heads = Vec::new();
        for head in chosen {
            heads.push(Head { name: head.name.clone(), labels: head.labels.len() });
            add(head.name.clone(), DataType::Utf8);
            for label in &head.labels {
                add(format!("{}_{label}", head.name), DataType::Float32);
            }
        }
        for (name, kind) in [
            ("polarity", DataType::Float64),
            ("confidence", DataType::Float32),
            ("language", DataType::Utf8),
            ("in_domain", DataType::Boolean),
            ("tokens", DataType::UInt32),
            ("truncated", DataType::Boolean),
        ] {
            add(name.to_owned(), kind);
        }
        let dimensions = selection.embedding.then_some(model.dimensions);
        if let Some(width) = dimensions {
            let item = Arc::new(Field::new("item", DataType::Float32, true));
            add("embedding".to_owned(), DataType::FixedSizeList(item, i32::try_from(width).unwrap_or(i32::MAX)));
        }
        add("error".to_owned(), DataType::Utf8);
        add("error_detail".to_owned(), DataType::Utf8);
        let about = [("model", &model.name), ("revision", &model.revision), ("precision", &model.precision)];
        let about = about.map(|(key, value)| (format!("undertone.{key}"), value.clone()));
        let schema = Arc::new(Schema::new_with_metadata(fields, about.into()));
        let writer = StreamWriter::try_new(Vec::new(), &schema).map_err(|e| ours("begin an Arrow stream", e))?;
        Ok(Self { heads, revision: model.revision.clone(), dimensions, schema, writer })
    }

    /// The bytes before the first rows.
    pub(super) fn begin(&mut self) -> Result<Vec<u8>, Problem> {
        Ok(std::mem::take(self.writer.get_mut()))
    }

    /// The bytes of these rows.
    pub(super) fn rows(&mut self, ids: Option<ArrayRef>, outcomes: Outcomes) -> Result<Vec<u8>, Problem> {
        let rows: Vec<Result<Scored, Problem>> =
            outcomes.into_iter().map(|outcome| self.of_this_model(outcome)).collect();
        let mut columns: Vec<ArrayRef> = ids.into_iter().collect();
        for head in &self.heads {
            push_head(&mut columns, head, &rows);
        }
        push_common(&mut columns, &rows);
        if let Some(width) = self.dimensions {
            columns.push(embeddings(width, &rows));
        }
        push_errors(&mut columns, &rows);
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| ours("make an Arrow batch", e))?;
        self.writer.write(&batch).map_err(|e| ours("write an Arrow batch", e))?;
        self.begin()
    }

    /// The bytes after the last rows.
    pub(super) fn end(&mut self) -> Result<Vec<u8>, Problem> {
        self.writer.finish().map_err(|e| ours("end an Arrow stream", e))?;
        self.begin()
    }

    /// The columns are those of one model, and so must the rows be.
    fn of_this_model(&self, outcome: Result<Scored, Problem>) -> Result<Scored, Problem> {
        match outcome {
            Ok(scored) if scored.model.revision != self.revision => {
                let detail = "the model was replaced during the call; send this row again";
                Err(Problem::new(ProblemCode::Unavailable, detail))
            }
            outcome => outcome,
        }
    }
}

fn push_head(columns: &mut Vec<ArrayRef>, head: &Head, rows: &[Result<Scored, Problem>]) {
    let mut label = StringBuilder::new();
    let mut each: Vec<Float32Builder> = (0..head.labels).map(|_| Float32Builder::with_capacity(rows.len())).collect();
    for row in rows {
        let scores = row.as_ref().ok().and_then(|scored| scored.heads.iter().find(|scores| *scores.head == *head.name));
        label.append_option(scores.map(|scores| scores.label_name()));
        for (index, column) in each.iter_mut().enumerate() {
            column.append_option(scores.and_then(|scores| scores.probabilities.get(index).copied()));
        }
    }
    columns.push(Arc::new(label.finish()));
    columns.extend(each.into_iter().map(|mut column| Arc::new(column.finish()) as ArrayRef));
}

fn push_common(columns: &mut Vec<ArrayRef>, rows: &[Result<Scored, Problem>]) {
    let (mut polarity, mut confidence) = (Float64Builder::new(), Float32Builder::new());
    let (mut language, mut in_domain) = (StringBuilder::new(), BooleanBuilder::new());
    let (mut tokens, mut truncated) = (UInt32Builder::new(), BooleanBuilder::new());
    for row in rows {
        let scored = row.as_ref().ok();
        polarity.append_option(scored.and_then(|scored| scored.polarity));
        confidence.append_option(scored.and_then(|scored| scored.confidence));
        language.append_option(scored.and_then(|scored| scored.language));
        in_domain.append_option(scored.and_then(|scored| scored.in_domain));
        tokens.append_option(scored.map(|scored| scored.tokens));
        truncated.append_option(scored.map(|scored| scored.truncated));
    }
    columns.push(Arc::new(polarity.finish()));
    columns.push(Arc::new(confidence.finish()));
    columns.push(Arc::new(language.finish()));
    columns.push(Arc::new(in_domain.finish()));
    columns.push(Arc::new(tokens.finish()));
    columns.push(Arc::new(truncated.finish()));
}

fn embeddings(width: usize, rows: &[Result<Scored, Problem>]) -> ArrayRef {
    let mut lists = FixedSizeListBuilder::new(Float32Builder::new(), i32::try_from(width).unwrap_or(i32::MAX));
    for row in rows {
        match row.as_ref().ok().filter(|scored| scored.embedding.len() == width) {
            Some(scored) => lists.values().append_slice(&scored.embedding),
            None => lists.values().append_nulls(width),
        }
        lists.append(row.is_ok());
    }
    Arc::new(lists.finish())
}

fn push_errors(columns: &mut Vec<ArrayRef>, rows: &[Result<Scored, Problem>]) {
    let (mut code, mut detail) = (StringBuilder::new(), StringBuilder::new());
    for row in rows {
        let problem = row.as_ref().err();
        code.append_option(problem.map(|problem| problem.code().row().code));
        detail.append_option(problem.map(|problem| problem.detail.as_str()));
    }
    columns.push(Arc::new(code.finish()));
    columns.push(Arc::new(detail.finish()));
}
