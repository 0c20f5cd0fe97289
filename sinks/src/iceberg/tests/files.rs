//! What the manifest says about a file, beside what the crate's own writer says about the same rows.

use arrow_array::RecordBatch;
use iceberg::io::FileIO;
use iceberg::spec::DataFile;
use iceberg::writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriterBuilder};
use parquet::file::properties::WriterProperties;
use undertone_proto::v1::ScoredPost;

use super::rows::post;
use super::*;
use crate::iceberg::columns::ToBatch;
use crate::iceberg::parquet_file::ParquetFiles;
use crate::iceberg::tables::silver;

/// Posts that differ, one of them without most fields, one with what is no number.
fn posts() -> Vec<ScoredPost> {
    let mut posts: Vec<_> = (0..50).map(|offset| post(offset, 1_790_000_000_000_000 - offset * 1_000_000)).collect();
    posts[3] = ScoredPost { origin: posts[3].origin.clone(), deleted: true, ..ScoredPost::default() };
    posts[4].embedding = vec![f32::NAN, 1.0, f32::NAN];
    posts[4].heads[0].probabilities[0].value = f32::NAN;
    posts[5].polarity = Some(f64::NAN);
    posts[6].author = Some("x".repeat(500));
    posts
}

async fn write<B: FileWriterBuilder>(files: B, batches: Vec<RecordBatch>) -> DataFile {
    let output = FileIO::new_with_memory().new_output("memory:///file.parquet").unwrap();
    let mut file = files.build(output).await.unwrap();
    for batch in batches {
        file.write(&batch).await.unwrap();
    }
    file.close().await.unwrap().remove(0).partition_spec_id(0).build().unwrap()
}

#[tokio::test]
async fn a_file_is_described_as_the_crate_describes_it() {
    let home = Home::new().await;
    let table = home.table("silver", "posts").await;
    let schema = table.metadata().current_schema().clone();
    let arrow = Arc::new(iceberg::arrow::schema_to_arrow_schema(&schema).unwrap());
    let rows = silver::posts().batch(&arrow, &posts()).unwrap();
    for groups in [usize::MAX, 20] {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(groups.min(1 << 20))).build();
        let theirs = write(ParquetWriterBuilder::new(properties.clone(), schema.clone()), vec![rows.clone()]).await;
        let ours = |batches| write(ParquetFiles::new(schema.clone(), arrow.clone(), properties.clone()), batches);
        assert_eq!(ours(vec![rows.clone()]).await, theirs);
        assert_eq!(theirs.nan_value_counts().values().sum::<u64>(), 4);

        // In slices the same is counted, though each slice of a list holds the values of all.
        let slices: Vec<_> = (0..50).step_by(8).map(|start| rows.slice(start, 8.min(50 - start))).collect();
        let sliced = ours(slices).await;
        assert_eq!(sliced.nan_value_counts(), theirs.nan_value_counts());
        assert_eq!(sliced.lower_bounds(), theirs.lower_bounds());
        assert_eq!(sliced.upper_bounds(), theirs.upper_bounds());
        assert_eq!(sliced.record_count(), 50);
    }
}
