//! What the page asks of the tables. Everything reads a table's current snapshot: rows of commits, never of open
//! epochs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_schema::Schema;
use futures::{Stream, StreamExt, TryStreamExt};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::expr::{Predicate, Reference};
use iceberg::spec::Datum;
use iceberg::table::Table;
use iceberg::{Catalog, TableIdent};
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::Origin;
use undertone_proto::{EventTime, LIVE_RUN, Partition};

use super::failure::Doing;

/// Reads the tables.
#[derive(Clone, Debug)]
pub struct Reader {
    catalog: Arc<dyn Catalog>,
}

/// The mood about a tag in one minute.
#[derive(Clone, Debug, PartialEq)]
pub struct TagMood {
    /// Start of the minute.
    pub window_start_us: EventTime,
    /// The tag.
    pub tag: String,
    /// Posts of that minute with that tag.
    pub posts: i64,
    /// Those that have a polarity.
    pub polarity_posts: i64,
    /// Sum of their polarities.
    pub polarity_sum: f64,
}

/// An event of a post, as Silver has it.
#[derive(Clone, Debug, PartialEq)]
pub struct PostEvent {
    /// Where it stood.
    pub origin: Origin,
    /// When the post was posted.
    pub created_at_us: EventTime,
    /// Of which version of the post it is.
    pub version: i64,
    /// Whether it deletes the post.
    pub deleted: bool,
}

impl Reader {
    pub(super) fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self { catalog }
    }

    /// Posts and polarity by minute and tag for windows that start at `since` or later, live posts only, late ones left
    /// out; ordered by window, then tag.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the table was never made, [`ErrorKind::Unavailable`] if it cannot be read.
    pub async fn tag_mood(&self, since: EventTime) -> Result<Vec<TagMood>> {
        let filter = starting(since).and(live());
        let columns = ["window_start", "tag", "posts", "polarity_posts", "polarity_sum"];
        let mut moods = BTreeMap::<(EventTime, String), TagMood>::new();
        for batch in self.scan("gold", "tags_1m", filter, &columns).await? {
            let [starts, tags, posts, polarity_posts, sums] = columns_of(&batch)?;
            let (Some(starts), Some(tags)) =
                (starts.as_primitive_opt::<TimestampMicrosecondType>(), tags.as_string_opt::<i32>())
            else {
                return Err(unexpected("gold.tags_1m"));
            };
            let (Some(posts), Some(polarity_posts), Some(sums)) = (
                posts.as_primitive_opt::<Int64Type>(),
                polarity_posts.as_primitive_opt::<Int64Type>(),
                sums.as_primitive_opt::<Float64Type>(),
            ) else {
                return Err(unexpected("gold.tags_1m"));
            };
            for row in 0..batch.num_rows() {
                let (window_start_us, tag) = (starts.value(row), tags.value(row).to_owned());
                let mood = moods.entry((window_start_us, tag.clone())).or_insert_with(|| TagMood {
                    window_start_us,
                    tag,
                    posts: 0,
                    polarity_posts: 0,
                    polarity_sum: 0.0,
                });
                mood.posts += posts.value(row);
                mood.polarity_posts += polarity_posts.value(row);
                mood.polarity_sum += sums.value(row);
            }
        }
        Ok(moods.into_values().collect())
    }

    /// Live posts by sentiment label, over all time and with late ones; posts without a label stand under none. Opens
    /// every file of the table: [`Reader::label_counts_since`] is the one to ask at a start.
    ///
    /// # Errors
    /// As [`Reader::tag_mood`].
    pub async fn label_counts(&self) -> Result<BTreeMap<Option<String>, i64>> {
        self.count_labels(live()).await
    }

    /// Live posts by sentiment label in hours that start at `since` or later, late posts left out; posts without a
    /// label stand under none. Opens no file of an earlier day.
    ///
    /// # Errors
    /// As [`Reader::tag_mood`].
    pub async fn label_counts_since(&self, since: EventTime) -> Result<BTreeMap<Option<String>, i64>> {
        self.count_labels(starting(since).and(live())).await
    }

    async fn count_labels(&self, filter: Predicate) -> Result<BTreeMap<Option<String>, i64>> {
        let mut counts = BTreeMap::new();
        for batch in self.scan("gold", "sentiment_1h", filter, &["label", "posts"]).await? {
            let [labels, posts] = columns_of(&batch)?;
            let (Some(labels), Some(posts)) = (labels.as_string_opt::<i32>(), posts.as_primitive_opt::<Int64Type>())
            else {
                return Err(unexpected("gold.sentiment_1h"));
            };
            for (label, posts) in labels.iter().zip(posts.iter()) {
                *counts.entry(label.map(str::to_owned)).or_default() += posts.unwrap_or(0);
            }
        }
        Ok(counts)
    }

    /// Every event of a post that the stream scored, in no order.
    ///
    /// # Errors
    /// As [`Reader::tag_mood`].
    pub async fn events_of(&self, source: &str, id: &str) -> Result<Vec<PostEvent>> {
        let column = |name: &str, value: &str| Reference::new(name).equal_to(Datum::string(value));
        let filter = column("source", source).and(column("id", id)).and(live());
        let names = ["cluster", "topic", "partition", "offset", "created_at", "version", "deleted"];
        let mut events = Vec::new();
        for batch in self.scan("silver", "posts", filter, &names).await? {
            let [clusters, topics, partitions, offsets, times, versions, deleted] = columns_of(&batch)?;
            let (
                Some(clusters),
                Some(topics),
                Some(partitions),
                Some(offsets),
                Some(times),
                Some(versions),
                Some(deleted),
            ) = (
                clusters.as_string_opt::<i32>(),
                topics.as_string_opt::<i32>(),
                partitions.as_primitive_opt::<Int32Type>(),
                offsets.as_primitive_opt::<Int64Type>(),
                times.as_primitive_opt::<TimestampMicrosecondType>(),
                versions.as_primitive_opt::<Int64Type>(),
                deleted.as_boolean_opt(),
            )
            else {
                return Err(unexpected("silver.posts"));
            };
            for row in 0..batch.num_rows() {
                let partition = Partition {
                    cluster: clusters.value(row).to_owned(),
                    topic: topics.value(row).to_owned(),
                    partition: partitions.value(row),
                };
                events.push(PostEvent {
                    origin: partition.origin(offsets.value(row)),
                    created_at_us: times.value(row),
                    version: versions.value(row),
                    deleted: deleted.value(row),
                });
            }
        }
        Ok(events)
    }

    /// The rows of a table, from its snapshot's summary: `row_count("bronze", "posts")`.
    ///
    /// # Errors
    /// As [`Reader::tag_mood`].
    pub async fn row_count(&self, namespace: &str, table: &str) -> Result<u64> {
        let table = self.load(namespace, table).await?;
        let Some(snapshot) = table.metadata().current_snapshot() else { return Ok(0) };
        let total = snapshot.summary().additional_properties.get("total-records").map_or("0", String::as_str);
        total.parse().map_err(|_| {
            Error::new(ErrorKind::Corrupt, "snapshot's row count is not a number").with("table", table.identifier())
        })
    }

    pub(super) async fn load(&self, namespace: &str, table: &str) -> Result<Table> {
        let ident = TableIdent::from_strs([namespace, table]).doing("cannot name table")?;
        self.catalog.load_table(&ident).await.doing("cannot load table").map_err(|error| error.with("table", ident))
    }

    async fn scan(
        &self,
        namespace: &str,
        table: &str,
        filter: Predicate,
        columns: &[&str],
    ) -> Result<Vec<RecordBatch>> {
        scan(&self.load(namespace, table).await?, filter, columns).await
    }
}

/// The rows that a filter lets through, in columns of the types that the table says. Other engines' files may have
/// wider ones: strings of PyIceberg are large.
pub(super) async fn scan(table: &Table, filter: Predicate, names: &[&str]) -> Result<Vec<RecordBatch>> {
    scanned(table, filter, names).await?.try_collect().await
}

/// The same, a batch at a time.
pub(super) async fn scanned(
    table: &Table,
    filter: Predicate,
    names: &[&str],
) -> Result<impl Stream<Item = Result<RecordBatch>> + use<>> {
    let schema = schema_to_arrow_schema(table.metadata().current_schema()).doing("cannot read table schema")?;
    let scan = table.scan().with_filter(filter).select(names).build().doing("cannot plan a scan")?;
    let batches = scan.to_arrow().await.doing("cannot begin a scan")?;
    Ok(batches.map(move |batch| conform(batch.doing("cannot scan a table")?, &schema)))
}

fn conform(batch: RecordBatch, schema: &Schema) -> Result<RecordBatch> {
    let wrong =
        |what: &str| Error::new(ErrorKind::Corrupt, "table's columns are not what was asked for").with("column", what);
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let wanted = schema.field_with_name(field.name()).map_err(|_| wrong(field.name()))?;
        columns.push(cast(column, wanted.data_type()).map_err(|e| wrong(field.name()).source(e))?);
        fields.push(wanted.clone());
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| wrong("a null").source(e))
}

/// Windows that start at `since` or later. The day lets a scan skip whole partitions; it is null for late posts.
fn starting(since: EventTime) -> Predicate {
    let day = i32::try_from(since.div_euclid(86_400_000_000)).unwrap_or(i32::MIN);
    Reference::new("window_start")
        .greater_than_or_equal_to(Datum::timestamptz_micros(since))
        .and(Reference::new("event_day").greater_than_or_equal_to(Datum::date(day)))
}

pub(super) fn live() -> Predicate {
    Reference::new("run").equal_to(Datum::string(LIVE_RUN))
}

pub(super) fn columns_of<const N: usize>(batch: &RecordBatch) -> Result<&[ArrayRef; N]> {
    batch.columns().try_into().map_err(|_| unexpected("scan"))
}

pub(super) fn unexpected(table: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "table's columns are not what was asked for").with("table", table)
}
