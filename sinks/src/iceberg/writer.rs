//! Rows to Parquet files, in front of the commit that makes them part of a table.
//!
//! An epoch is split by partition first and written one partition after the other, so one file is open at a time
//! however many partitions wild clocks and re-scoring runs touch. Every file is closed, and so made durable by
//! the [storage](super::storage), before its commit begins.

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema as ArrowSchema};
use iceberg::arrow::RecordBatchPartitionSplitter;
use iceberg::spec::{DataFile, DataFileFormat, PartitionKey};
use iceberg::table::Table;
use iceberg::writer::base_writer::data_file_writer::DataFileWriterBuilder;
use iceberg::writer::file_writer::location_generator::{DefaultFileNameGenerator, DefaultLocationGenerator};
use iceberg::writer::file_writer::rolling_writer::RollingFileWriterBuilder;
use iceberg::writer::{IcebergWriter, IcebergWriterBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use undertone_error::{Context, ErrorKind, Result, failpoint};
use uuid::Uuid;

use super::failure::Doing;
use super::parquet_file::ParquetFiles;

/// Rows that are encoded before other tasks of this thread have a turn.
const SLICE: usize = 1024;

/// The quickest: most of a file's bytes are floats that are not compressed, so that a higher level has little to gain.
const ZSTD_LEVEL: i32 = 1;
/// A column whose dictionary has grown to so many bytes goes on without: ids, texts and probabilities repeat too seldom for
/// one to be worth its hashing.
const DICTIONARY_BYTES: usize = 32 << 10;

/// Writes the rows, which are sorted already, to files of the table's folder. No file without rows.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if the storage refuses; what was written by then is an orphan.
pub(super) async fn write_files(table: &Table, rows: &RecordBatch) -> Result<Vec<DataFile>> {
    let metadata = table.metadata();
    let schema = metadata.current_schema();
    let partitions = RecordBatchPartitionSplitter::try_new_with_computed_values(
        schema.clone(),
        metadata.default_partition_spec().clone(),
    )
    .and_then(|splitter| splitter.split(rows))
    .doing("cannot split rows by partition")?;

    let parquet = ParquetFiles::new(schema.clone(), rows.schema(), properties(&rows.schema())?);
    let target_size = metadata.table_properties().doing("cannot read table properties")?.write_target_file_size_bytes;
    let folder = DefaultLocationGenerator::new(metadata).doing("cannot place files")?;
    let names = DefaultFileNameGenerator::new(format!("part-{}", Uuid::now_v7()), None, DataFileFormat::Parquet);
    let rolling = RollingFileWriterBuilder::new(parquet, target_size, table.file_io().clone(), folder, names);
    let files = DataFileWriterBuilder::new(rolling);

    let mut written = Vec::new();
    for (partition, rows) in partitions {
        written.extend(write_partition(&files, partition, &rows).await.doing("cannot write data files")?);
    }
    Ok(written)
}

async fn write_partition<B>(files: &B, partition: PartitionKey, rows: &RecordBatch) -> iceberg::Result<Vec<DataFile>>
where
    B: IcebergWriterBuilder<RecordBatch, Vec<DataFile>>,
{
    let mut writer = files.build(Some(partition)).await?;
    for start in (0..rows.num_rows()).step_by(SLICE) {
        writer.write(rows.slice(start, SLICE.min(rows.num_rows() - start))).await?;
        tokio::task::yield_now().await;
    }
    failpoint::hit("sink.rows-written");
    writer.close().await
}

/// Floats of an embedding repeat nowhere and payloads have no useful bounds: a dictionary and statistics would only
/// cost. Compressing the floats would save a twelfth of their bytes, for a twentieth of all that the stream computes.
fn properties(schema: &ArrowSchema) -> Result<WriterProperties> {
    let zstd = ZstdLevel::try_new(ZSTD_LEVEL).context(ErrorKind::Internal, "cannot choose a compression level")?;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(zstd))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES);
    for field in schema.fields() {
        let (path, compressed) = match field.data_type() {
            DataType::LargeBinary => (vec![field.name().clone()], true),
            DataType::List(element) if element.data_type() == &DataType::Float32 => {
                (vec![field.name().clone(), "list".to_owned(), element.name().clone()], false)
            }
            _ => continue,
        };
        let path = ColumnPath::new(path);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
        if !compressed {
            properties = properties.set_column_compression(path, Compression::UNCOMPRESSED);
        }
    }
    Ok(properties.build())
}
