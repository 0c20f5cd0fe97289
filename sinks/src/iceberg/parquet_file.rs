//! One Parquet file of a table: encoded here, and described for the manifest.
//!
//! The guarantee: what the manifest says about the columns is what the file's footer says, and the file is durable once
//! [`FileWriter::close`] has answered. The crate's own writer says the same. It keeps a whole row group in one buffer that
//! it doubles as it grows, and counts the NaNs of all of a list's values again for each slice of its rows: together a
//! tenth of what the stream computes for a post with an embedding.

use std::collections::HashMap;
use std::io::Write;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, FieldRef, SchemaRef};
use bytes::Bytes;
use iceberg::io::{FileWrite, OutputFile};
use iceberg::spec::{
    DataContentType, DataFileBuilder, DataFileFormat, Datum, PrimitiveType, Schema, SchemaRef as TableSchemaRef, Struct,
};
use iceberg::writer::CurrentFileStatus;
use iceberg::writer::file_writer::{FileWriter, FileWriterBuilder};
use iceberg::{Error, ErrorKind, Result};
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;

/// Bytes that go to the storage at once.
const PIECE: usize = 1 << 20;

/// Makes the files of one table.
#[derive(Clone)]
pub(super) struct ParquetFiles {
    table: TableSchemaRef,
    arrow: SchemaRef,
    properties: WriterProperties,
}

impl ParquetFiles {
    /// Files with the table's columns, whose Arrow form is `arrow`.
    pub(super) fn new(table: TableSchemaRef, arrow: SchemaRef, properties: WriterProperties) -> Self {
        Self { table, arrow, properties }
    }
}

impl FileWriterBuilder for ParquetFiles {
    type R = ParquetFile;

    async fn build(&self, output: OutputFile) -> Result<ParquetFile> {
        let properties = Some(self.properties.clone());
        let encoder = ArrowWriter::try_new(Pieces::default(), self.arrow.clone(), properties).map_err(failed)?;
        let file = output.writer().await?;
        Ok(ParquetFile { table: self.table.clone(), output, file, encoder, rows: 0, nans: HashMap::new() })
    }
}

/// A file that is being written.
pub(super) struct ParquetFile {
    table: TableSchemaRef,
    output: OutputFile,
    file: Box<dyn FileWrite>,
    encoder: ArrowWriter<Pieces>,
    rows: usize,
    /// NaNs by field id, of columns of floats.
    nans: HashMap<i32, u64>,
}

impl ParquetFile {
    /// Gives to the storage what is encoded.
    async fn hand_over(&mut self) -> Result<()> {
        for piece in std::mem::take(&mut self.encoder.inner_mut().0) {
            self.file.write(Bytes::from(piece)).await?;
        }
        Ok(())
    }
}

impl FileWriter for ParquetFile {
    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            count_nans(field, column, &mut self.nans)?;
        }
        self.encoder.write(batch).map_err(failed)?;
        self.hand_over().await
    }

    async fn close(mut self) -> Result<Vec<DataFileBuilder>> {
        let footer = self.encoder.finish().map_err(failed)?;
        self.hand_over().await?;
        self.file.close().await?;
        let mut described = describe(&footer, &self.table)?;
        described
            .file_path(self.output.location().to_owned())
            .file_size_in_bytes(self.encoder.bytes_written() as u64)
            .nan_value_counts(self.nans);
        Ok(vec![described])
    }
}

impl CurrentFileStatus for ParquetFile {
    fn current_file_path(&self) -> String {
        self.output.location().to_owned()
    }

    fn current_row_num(&self) -> usize {
        self.rows
    }

    fn current_written_size(&self) -> usize {
        self.encoder.bytes_written() + self.encoder.in_progress_size()
    }
}

/// Encoded bytes, in pieces none of which is ever moved.
#[derive(Default)]
struct Pieces(Vec<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.last_mut().filter(|piece| piece.capacity() - piece.len() >= bytes.len()) {
            Some(piece) => piece.extend_from_slice(bytes),
            None => {
                let mut piece = Vec::with_capacity(PIECE.max(bytes.len()));
                piece.extend_from_slice(bytes);
                self.0.push(piece);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a footer says, by field id. Sizes are in bytes, compressed; bounds are left out where the footer has cut them off.
fn describe(footer: &ParquetMetaData, table: &Schema) -> Result<DataFileBuilder> {
    let (mut sizes, mut values, mut nulls) = (HashMap::new(), HashMap::new(), HashMap::new());
    let (mut lower, mut upper) = (HashMap::<i32, Datum>::new(), HashMap::<i32, Datum>::new());
    for column in footer.row_groups().iter().flat_map(|group| group.columns()) {
        let of = column.column_descr().self_type().get_basic_info();
        let primitive = |id| table.field_by_id(id)?.field_type.as_primitive_type().cloned();
        let Some((id, kind)) = of.has_id().then(|| of.id()).and_then(|id| Some((id, primitive(id)?))) else { continue };
        *sizes.entry(id).or_insert(0) += natural(column.compressed_size())?;
        *values.entry(id).or_insert(0) += natural(column.num_values())?;
        let Some(statistics) = column.statistics() else { continue };
        if let Some(count) = statistics.null_count_opt() {
            *nulls.entry(id).or_insert(0) += count;
        }
        if let Some(least) = statistics.min_bytes_opt().filter(|_| statistics.min_is_exact()) {
            keep(&mut lower, id, bound(least, &kind)?, |new, old| new < old);
        }
        if let Some(greatest) = statistics.max_bytes_opt().filter(|_| statistics.max_is_exact()) {
            keep(&mut upper, id, bound(greatest, &kind)?, |new, old| new > old);
        }
    }
    let mut file = DataFileBuilder::default();
    file.content(DataContentType::Data)
        .file_format(DataFileFormat::Parquet)
        .partition(Struct::empty())
        .record_count(natural(footer.file_metadata().num_rows())?)
        .column_sizes(sizes)
        .value_counts(values)
        .null_value_counts(nulls)
        .lower_bounds(lower)
        .upper_bounds(upper)
        .split_offsets(Some(footer.row_groups().iter().filter_map(|group| group.file_offset()).collect()));
    Ok(file)
}

/// A bound of a footer. Parquet's plain encoding of a value is Iceberg's of a bound, for every type that our tables have.
fn bound(bytes: &[u8], kind: &PrimitiveType) -> Result<Datum> {
    if matches!(kind, PrimitiveType::Decimal { .. } | PrimitiveType::Uuid | PrimitiveType::Fixed(_)) {
        return Err(Error::new(ErrorKind::FeatureUnsupported, format!("column has no bounds here: {kind}")));
    }
    Datum::try_from_bytes(bytes, kind.clone())
}

fn keep(bounds: &mut HashMap<i32, Datum>, id: i32, new: Datum, is_further: impl Fn(&Datum, &Datum) -> bool) {
    match bounds.get_mut(&id) {
        Some(old) if is_further(&new, old) => *old = new,
        Some(_) => {}
        None => drop(bounds.insert(id, new)),
    }
}

fn natural(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|e| Error::new(ErrorKind::Unexpected, "footer has a negative count").with_source(e))
}

/// Adds the NaNs of a column and of what lies in it.
fn count_nans(field: &FieldRef, column: &ArrayRef, counts: &mut HashMap<i32, u64>) -> Result<()> {
    match field.data_type() {
        DataType::Float32 => add(field, nans::<Float32Type>(column, |value| value.is_nan()), counts),
        DataType::Float64 => add(field, nans::<Float64Type>(column, |value| value.is_nan()), counts),
        DataType::List(element) => {
            let list = column.as_list::<i32>();
            count_nans(element, &within(list.value_offsets(), list.values()), counts)
        }
        DataType::Map(entries, _) => {
            let map = column.as_map();
            let all: ArrayRef = std::sync::Arc::new(map.entries().clone());
            count_nans(entries, &within(map.value_offsets(), &all), counts)
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            fields.iter().zip(columns).try_for_each(|(field, column)| count_nans(field, column, counts))
        }
        _ => Ok(()),
    }
}

/// The values of the lists that offsets tell of; an array of lists that is a slice holds the values of them all.
fn within(offsets: &[i32], values: &ArrayRef) -> ArrayRef {
    let at = |offset: Option<&i32>| offset.map_or(0, |offset| usize::try_from(*offset).unwrap_or(0));
    let (start, end) = (at(offsets.first()), at(offsets.last()));
    values.slice(start, end - start)
}

fn nans<T: ArrowPrimitiveType>(column: &ArrayRef, is_nan: impl Fn(&T::Native) -> bool) -> usize {
    let column = column.as_primitive::<T>();
    match column.null_count() {
        0 => column.values().iter().filter(|value| is_nan(value)).count(),
        _ => column.iter().flatten().filter(is_nan).count(),
    }
}

fn add(field: &Field, count: usize, counts: &mut HashMap<i32, u64>) -> Result<()> {
    let id = field.metadata().get(PARQUET_FIELD_ID_META_KEY).and_then(|id| id.parse().ok());
    let unnamed = || Error::new(ErrorKind::Unexpected, format!("column {} has no field id", field.name()));
    *counts.entry(id.ok_or_else(unnamed)?).or_insert(0) += count as u64;
    Ok(())
}

fn failed(error: ParquetError) -> Error {
    Error::new(ErrorKind::Unexpected, "cannot encode a Parquet file").with_source(error)
}
