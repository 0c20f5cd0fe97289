//! From values to Arrow columns. A column's type and what fills it are one thing, so that they cannot contradict.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, Float32Builder, Float64Builder, LargeBinaryBuilder, ListBuilder, MapBuilder, MapFieldNames,
    StringBuilder, StructBuilder,
};
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array, LargeBinaryArray,
    RecordBatch, TimestampMicrosecondArray,
};
use arrow_schema::{DataType, FieldRef, SchemaRef};
use iceberg::spec::PrimitiveType as P;
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_proto::EventTime;
use undertone_proto::v1::HeadScores;

use super::schema::{Kind, TableDefinition};

/// A name, and a value that may be null.
type Header = (String, Option<Vec<u8>>);

/// What fills a column, which also says its type.
#[derive(Debug)]
pub(super) enum Fill<R> {
    Text(fn(&R) -> Option<&str>),
    Bytes(fn(&R) -> &[u8]),
    MaybeBytes(fn(&R) -> Option<&[u8]>),
    Flag(fn(&R) -> Option<bool>),
    Int(fn(&R) -> i32),
    Long(fn(&R) -> i64),
    Float(fn(&R) -> Option<f32>),
    Double(fn(&R) -> Option<f64>),
    /// Microseconds, UTC.
    Time(fn(&R) -> Option<EventTime>),
    /// Days since 1970-01-01.
    Day(fn(&R) -> Option<i32>),
    Texts(fn(&R) -> Cow<'_, [String]>),
    /// Null if there are none.
    Floats(fn(&R) -> &[f32]),
    /// By name.
    Doubles(fn(&R) -> Vec<(&str, f64)>),
    /// Names and values in order; null if there are none.
    Headers(fn(&R) -> &[Header]),
    /// Head to label to probability.
    Scores(fn(&R) -> &[HeadScores]),
}

/// Makes record batches of one table out of records.
pub(super) trait ToBatch<Record>: Send + Sync {
    /// The rows of these records, in the table's sort order. There may be fewer rows than records.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the table's schema is not the one that was defined.
    fn batch(&self, schema: &SchemaRef, records: &[Record]) -> Result<RecordBatch>;
}

impl<R: Send + Sync> ToBatch<R> for TableDefinition<R> {
    fn batch(&self, schema: &SchemaRef, records: &[R]) -> Result<RecordBatch> {
        let mut rows: Vec<&R> = records.iter().collect();
        rows.sort_by(|a, b| (self.order)(a, b));
        let columns =
            schema.fields().iter().zip(&self.columns).map(|(field, column)| {
                column.fill.array(&rows, field).map_err(|error| error.with("column", column.name))
            });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(Arc::clone(schema), columns).context(ErrorKind::Internal, "rows do not fit their table")
    }
}

impl<R> Fill<R> {
    pub(super) fn kind(&self) -> Kind {
        Kind::One(match self {
            Self::Text(_) => P::String,
            Self::Bytes(_) | Self::MaybeBytes(_) => P::Binary,
            Self::Flag(_) => P::Boolean,
            Self::Int(_) => P::Int,
            Self::Long(_) => P::Long,
            Self::Float(_) => P::Float,
            Self::Double(_) => P::Double,
            Self::Time(_) => P::Timestamptz,
            Self::Day(_) => P::Date,
            Self::Texts(_) => return Kind::List(P::String),
            Self::Floats(_) => return Kind::List(P::Float),
            Self::Headers(_) => return Kind::Records(vec![("name", P::String, true), ("value", P::Binary, false)]),
            Self::Doubles(_) => return Kind::Map(Box::new(Kind::One(P::Double))),
            Self::Scores(_) => return Kind::Map(Box::new(Kind::Map(Box::new(Kind::One(P::Float))))),
        })
    }

    fn array(&self, rows: &[&R], field: &FieldRef) -> Result<ArrayRef> {
        let rows = rows.iter().copied();
        Ok(match self {
            Self::Text(get) => text(rows.map(get)),
            Self::Bytes(get) => Arc::new(LargeBinaryArray::from_iter_values(rows.map(get))),
            Self::MaybeBytes(get) => Arc::new(rows.map(get).collect::<LargeBinaryArray>()),
            Self::Headers(get) => headers(rows.map(get), element(field)?)?,
            Self::Flag(get) => Arc::new(rows.map(get).collect::<BooleanArray>()),
            Self::Int(get) => Arc::new(Int32Array::from_iter_values(rows.map(get))),
            Self::Long(get) => Arc::new(Int64Array::from_iter_values(rows.map(get))),
            Self::Float(get) => Arc::new(rows.map(get).collect::<Float32Array>()),
            Self::Double(get) => Arc::new(rows.map(get).collect::<Float64Array>()),
            Self::Time(get) => Arc::new(rows.map(get).collect::<TimestampMicrosecondArray>().with_timezone("+00:00")),
            Self::Day(get) => Arc::new(rows.map(get).collect::<Date32Array>()),
            Self::Texts(get) => texts(rows.map(get), element(field)?),
            Self::Floats(get) => floats(rows.map(get), element(field)?),
            Self::Doubles(get) => doubles(rows.map(get), &entry(field.data_type())?)?,
            Self::Scores(get) => scores(rows.map(get), &entry(field.data_type())?)?,
        })
    }
}

fn texts<'a>(rows: impl Iterator<Item = Cow<'a, [String]>>, element: FieldRef) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new()).with_field(element);
    for row in rows {
        row.iter().for_each(|text| lists.values().append_value(text));
        lists.append(true);
    }
    Arc::new(lists.finish())
}

/// Columns of texts and of embeddings are most of the bytes: they are counted first, so that none is moved as they grow.
fn text<'a>(rows: impl Iterator<Item = Option<&'a str>> + Clone) -> ArrayRef {
    let (count, bytes) = rows.clone().fold((0, 0), |(count, bytes), row| (count + 1, bytes + row.map_or(0, str::len)));
    let mut texts = StringBuilder::with_capacity(count, bytes);
    rows.for_each(|row| texts.append_option(row));
    Arc::new(texts.finish())
}

fn floats<'a>(rows: impl Iterator<Item = &'a [f32]> + Clone, element: FieldRef) -> ArrayRef {
    let (count, values) = rows.clone().fold((0, 0), |(count, values), row| (count + 1, values + row.len()));
    let mut lists = ListBuilder::with_capacity(Float32Builder::with_capacity(values), count).with_field(element);
    for row in rows {
        lists.values().append_slice(row);
        lists.append(!row.is_empty());
    }
    Arc::new(lists.finish())
}

fn doubles<'a>(rows: impl Iterator<Item = Vec<(&'a str, f64)>>, entry: &Entry) -> Result<ArrayRef> {
    let mut maps = entry.builder(Float64Builder::new());
    for row in rows {
        for (name, value) in row {
            maps.keys().append_value(name);
            maps.values().append_value(value);
        }
        maps.append(true).context(ErrorKind::Internal, "cannot build a map")?;
    }
    Ok(Arc::new(maps.finish()))
}

fn scores<'a>(rows: impl Iterator<Item = &'a [HeadScores]>, entry: &Entry) -> Result<ArrayRef> {
    let labels = self::entry(entry.value.data_type())?;
    let mut heads = entry.builder(labels.builder(Float32Builder::new()));
    for row in rows {
        for head in row {
            heads.keys().append_value(&head.head);
            let labels = heads.values();
            for probability in &head.probabilities {
                labels.keys().append_value(&probability.label);
                labels.values().append_value(probability.value);
            }
            labels.append(true).context(ErrorKind::Internal, "cannot build a map")?;
        }
        heads.append(true).context(ErrorKind::Internal, "cannot build a map")?;
    }
    Ok(Arc::new(heads.finish()))
}

fn headers<'a>(rows: impl Iterator<Item = &'a [Header]>, element: FieldRef) -> Result<ArrayRef> {
    let DataType::Struct(fields) = element.data_type() else { return Err(mismatch(element.data_type())) };
    let pair: Vec<Box<dyn ArrayBuilder>> = vec![Box::new(StringBuilder::new()), Box::new(LargeBinaryBuilder::new())];
    let mut lists = ListBuilder::new(StructBuilder::new(fields.clone(), pair)).with_field(Arc::clone(&element));
    for row in rows {
        for (name, value) in row {
            let pair = lists.values();
            pair.field_builder::<StringBuilder>(0).ok_or_else(|| mismatch(element.data_type()))?.append_value(name);
            let values = pair.field_builder::<LargeBinaryBuilder>(1);
            values.ok_or_else(|| mismatch(element.data_type()))?.append_option(value.as_deref());
            pair.append(true);
        }
        lists.append(!row.is_empty());
    }
    Ok(Arc::new(lists.finish()))
}

fn mismatch(found: &DataType) -> Error {
    Error::new(ErrorKind::Internal, "table's column has another type than was defined").with("type", found)
}

/// The field of a list's elements, which carries its id.
fn element(field: &FieldRef) -> Result<FieldRef> {
    match field.data_type() {
        DataType::List(element) => Ok(Arc::clone(element)),
        other => Err(mismatch(other)),
    }
}

/// The fields of a map's entries, which carry their ids.
struct Entry {
    name: String,
    key: FieldRef,
    value: FieldRef,
}

fn entry(of: &DataType) -> Result<Entry> {
    if let DataType::Map(entries, _) = of
        && let DataType::Struct(fields) = entries.data_type()
        && let [key, value] = fields.as_ref()
    {
        return Ok(Entry { name: entries.name().clone(), key: Arc::clone(key), value: Arc::clone(value) });
    }
    Err(mismatch(of))
}

impl Entry {
    fn builder<V: ArrayBuilder>(&self, values: V) -> MapBuilder<StringBuilder, V> {
        let names =
            MapFieldNames { entry: self.name.clone(), key: self.key.name().clone(), value: self.value.name().clone() };
        MapBuilder::new(Some(names), StringBuilder::new(), values)
            .with_keys_field(Arc::clone(&self.key))
            .with_values_field(Arc::clone(&self.value))
    }
}
