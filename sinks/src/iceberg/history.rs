//! Reading back what was written, by the origin of events: what re-scoring is made from.
//!
//! The guarantee: of one snapshot, the rows of a range of offsets come out each once, in the order of their offsets,
//! however files were rewritten since. Ranges that no file can hold are passed over without a look.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use iceberg::expr::{Predicate, Reference};
use iceberg::spec::{DataFile, Datum, PrimitiveLiteral};
use iceberg::table::Table;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::{Entities, ScoredPost};
use undertone_proto::{Envelope, Event, EventTime, Partition};

use super::commit::rolled_back;
use super::failure::Doing;
use super::position::{RunName, Track, is_rolled_back, stored_positions};
use super::read::scan;
use crate::Positions;

/// Bronze as it was when this was made.
#[derive(Clone, Debug)]
pub struct BronzeHistory {
    table: Table,
    /// Up to where each partition is whole.
    ends: Positions,
    /// Which numbers of partitions and which offsets each file may hold.
    files: Arc<[Extent]>,
    /// Only events that were ingested then.
    ingested: Range<EventTime>,
}

/// What a file may hold. Where nothing is known, anything.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Extent {
    partitions: (i64, i64),
    offsets: (i64, i64),
    ingested: (i64, i64),
}

/// The first offset at or after `at` that one of the files may hold of a partition.
fn next_offset(files: &[Extent], partition: i32, at: i64, ingested: &Range<EventTime>) -> Option<i64> {
    let number = i64::from(partition);
    let may_hold = |file: &&Extent| {
        let (first, last) = file.partitions;
        let (oldest, newest) = file.ingested;
        (first..=last).contains(&number) && file.offsets.1 >= at && newest >= ingested.start && oldest < ingested.end
    };
    files.iter().filter(may_hold).map(|file| file.offsets.0.max(at)).min()
}

impl BronzeHistory {
    /// Of events that were ingested in `ingested`, by the files of `table`.
    pub(super) async fn of(table: Table, ingested: Range<EventTime>) -> Result<Self> {
        // Its positions would promise rows that are not there.
        if is_rolled_back(&Track::Live, table.metadata())? {
            return Err(rolled_back(&table));
        }
        let positions = stored_positions(&Track::Live, table.metadata().properties())?;
        let ends = positions.into_iter().map(|(partition, stored)| (partition, stored.next)).collect();
        let files = extents(&table).await?.into();
        Ok(Self { table, ends, files, ingested })
    }

    /// Up to where each partition is whole.
    pub fn ends(&self) -> &Positions {
        &self.ends
    }

    /// The first offset at or after `at` of which there may be an event; the partition's end if there is none.
    pub fn next(&self, partition: &Partition, at: i64) -> i64 {
        let end = self.ends.get(partition).copied().unwrap_or(at);
        next_offset(&self.files, partition.partition, at, &self.ingested).map_or(end, |next| next.min(end))
    }

    /// The events of a range.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the table cannot be read, [`ErrorKind::Corrupt`] if it is not what it should be.
    pub async fn events(&self, partition: &Partition, range: Range<i64>) -> Result<Vec<Event>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let ingested = || Reference::new("ingested_at");
        let time = Datum::timestamptz_micros;
        let mut filter = of_range(partition, &range);
        if self.ingested.start > EventTime::MIN {
            filter = filter.and(ingested().greater_than_or_equal_to(time(self.ingested.start)));
        }
        if self.ingested.end < EventTime::MAX {
            filter = filter.and(ingested().less_than(time(self.ingested.end)));
        }
        let mut events = Vec::new();
        for batch in scan(&self.table, filter, &["offset", "ingested_at", "payload"]).await? {
            let [offsets, times, payloads] = columns(&batch)?;
            let (offsets, times) = (longs(offsets)?, micros(times)?);
            let payloads = payloads.as_binary_opt::<i64>().ok_or_else(|| unexpected("payload"))?;
            for row in 0..batch.num_rows() {
                events.push(Event {
                    origin: partition.origin(offsets.value(row)),
                    payload: payloads.value(row).to_vec(),
                    ingested_at_us: times.value(row),
                    envelope: Envelope::default(),
                });
            }
        }
        events.sort_by_key(|event| event.origin.offset);
        Ok(events)
    }
}

/// The rows of one run in Silver, as it was when this was made.
#[derive(Clone, Debug)]
pub struct SilverHistory {
    table: Table,
    run: RunName,
    ends: Positions,
}

impl SilverHistory {
    pub(super) fn of(table: Table, run: RunName) -> Result<Self> {
        let positions = stored_positions(&Track::Run(run.clone()), table.metadata().properties())?;
        let ends = positions.into_iter().map(|(partition, stored)| (partition, stored.next)).collect();
        Ok(Self { table, run, ends })
    }

    /// Up to where the run is whole, per partition.
    pub fn ends(&self) -> &Positions {
        &self.ends
    }

    /// How many rows the run has.
    ///
    /// # Errors
    /// As [`BronzeHistory::events`].
    pub async fn count(&self) -> Result<usize> {
        let run = Reference::new("run").equal_to(Datum::string(self.run.as_str()));
        Ok(scan(&self.table, run, &["offset"]).await?.iter().map(RecordBatch::num_rows).sum())
    }

    /// The posts of a range with everything that Gold counts them by, and nothing else.
    ///
    /// # Errors
    /// As [`BronzeHistory::events`].
    pub async fn posts(&self, partition: &Partition, range: Range<i64>) -> Result<Vec<ScoredPost>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let run = Reference::new("run").equal_to(Datum::string(self.run.as_str()));
        let filter = of_range(partition, &range).and(run);
        let names = [
            "offset",
            "ingested_at",
            "created_at",
            "event_day",
            "deleted",
            "source",
            "language",
            "sentiment",
            "polarity",
            "tags",
            "hashtags",
        ];
        let mut posts = Vec::new();
        for batch in scan(&self.table, filter, &names).await? {
            let [offsets, ingested, created, days, deleted, sources, languages, labels, polarities, tags, hashtags] =
                columns(&batch)?;
            let (offsets, ingested, created) = (longs(offsets)?, micros(ingested)?, micros(created)?);
            let days = days.as_primitive_opt::<Date32Type>().ok_or_else(|| unexpected("event_day"))?;
            let deleted = deleted.as_boolean_opt().ok_or_else(|| unexpected("deleted"))?;
            let polarities = polarities.as_primitive_opt::<Float64Type>().ok_or_else(|| unexpected("polarity"))?;
            for row in 0..batch.num_rows() {
                posts.push(ScoredPost {
                    origin: Some(partition.origin(offsets.value(row))),
                    ingested_at_us: ingested.value(row),
                    run: self.run.as_str().to_owned(),
                    created_at_us: created.value(row),
                    late: days.is_null(row),
                    deleted: deleted.value(row),
                    source: text(sources, row)?.unwrap_or_default(),
                    language: text(languages, row)?,
                    sentiment: text(labels, row)?,
                    polarity: (!polarities.is_null(row)).then(|| polarities.value(row)),
                    tags: texts(tags, row)?,
                    entities: Some(Entities { hashtags: texts(hashtags, row)?, ..Entities::default() }),
                    ..ScoredPost::default()
                });
            }
        }
        posts.sort_by_key(|post| post.origin.as_ref().map(|origin| origin.offset));
        Ok(posts)
    }
}

fn of_range(partition: &Partition, range: &Range<i64>) -> Predicate {
    Reference::new("topic")
        .equal_to(Datum::string(&partition.topic))
        .and(Reference::new("cluster").equal_to(Datum::string(&partition.cluster)))
        .and(Reference::new("partition").equal_to(Datum::int(partition.partition)))
        .and(Reference::new("offset").greater_than_or_equal_to(Datum::long(range.start)))
        .and(Reference::new("offset").less_than(Datum::long(range.end)))
}

/// What each file of the current snapshot may hold, by its bounds.
async fn extents(table: &Table) -> Result<Vec<Extent>> {
    let Some(snapshot) = table.metadata().current_snapshot() else { return Ok(Vec::new()) };
    let schema = table.metadata().current_schema();
    let id = |name: &str| schema.field_id_by_name(name).ok_or_else(|| unexpected("bronze.posts"));
    let (partition, offset, ingested) = (id("partition")?, id("offset")?, id("ingested_at")?);
    let list = table.manifest_list_reader(snapshot).load().await.doing("cannot read a list of manifests")?;
    let mut extents = Vec::new();
    for manifest in list.entries() {
        let manifest = manifest.load_manifest(table.file_io()).await.doing("cannot read a manifest")?;
        for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
            let bounds = |column| bounds(entry.data_file(), column);
            extents.push(Extent { partitions: bounds(partition), offsets: bounds(offset), ingested: bounds(ingested) });
        }
    }
    Ok(extents)
}

/// The least and the greatest value of a column in a file.
fn bounds(file: &DataFile, column: i32) -> (i64, i64) {
    let value = |bounds: &HashMap<i32, Datum>| match bounds.get(&column)?.literal() {
        PrimitiveLiteral::Int(value) => Some(i64::from(*value)),
        PrimitiveLiteral::Long(value) => Some(*value),
        _ => None,
    };
    (value(file.lower_bounds()).unwrap_or(i64::MIN), value(file.upper_bounds()).unwrap_or(i64::MAX))
}

fn columns<const N: usize>(batch: &RecordBatch) -> Result<&[ArrayRef; N]> {
    batch.columns().try_into().map_err(|_| unexpected("scan"))
}

fn longs(column: &ArrayRef) -> Result<&arrow_array::PrimitiveArray<Int64Type>> {
    column.as_primitive_opt().ok_or_else(|| unexpected("offset"))
}

fn micros(column: &ArrayRef) -> Result<&arrow_array::PrimitiveArray<TimestampMicrosecondType>> {
    column.as_primitive_opt().ok_or_else(|| unexpected("time"))
}

fn text(column: &ArrayRef, row: usize) -> Result<Option<String>> {
    let texts = column.as_string_opt::<i32>().ok_or_else(|| unexpected("text"))?;
    Ok((!texts.is_null(row)).then(|| texts.value(row).to_owned()))
}

fn texts(column: &ArrayRef, row: usize) -> Result<Vec<String>> {
    let lists = column.as_list_opt::<i32>().ok_or_else(|| unexpected("list"))?;
    let list = lists.value(row);
    let texts = list.as_string_opt::<i32>().ok_or_else(|| unexpected("list"))?;
    Ok(texts.iter().flatten().map(str::to_owned).collect())
}

fn unexpected(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "table's columns are not what was asked for").with("column", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_no_file_can_hold_are_passed_over() {
        let always = (i64::MIN, i64::MAX);
        let file = |partitions, offsets| Extent { partitions, offsets, ingested: (100, 200) };
        let files = [file((0, 1), (10, 19)), file((0, 0), (50, 59)), file((2, 2), (5, 5))];
        let next = |partition, at| next_offset(&files, partition, at, &(0..1000));
        assert_eq!((next(0, 0), next(0, 12), next(0, 20), next(0, 60)), (Some(10), Some(12), Some(50), None));
        assert_eq!((next(1, 0), next(1, 20), next(2, 0), next(3, 0)), (Some(10), None, Some(5), None));
        // Only files of the time that is asked for count.
        assert_eq!(next_offset(&files, 0, 0, &(0..100)), None);
        assert_eq!(next_offset(&files, 0, 0, &(200..300)), Some(10));
        // A file of which nothing is known may hold anything.
        let unknown = [Extent { partitions: always, offsets: always, ingested: always }];
        assert_eq!(next_offset(&unknown, 7, 42, &(0..1)), Some(42));
    }
}
