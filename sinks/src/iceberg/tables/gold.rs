//! `gold.sentiment_1m`, `gold.sentiment_1h`, `gold.tags_1m`, `gold.tags_1h`: counts and polarity sums over windows.
//!
//! A window has several rows, one for each epoch that saw posts of it: always sum. Deleted posts are not counted.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use iceberg::spec::Transform;
use undertone_error::Result;
use undertone_proto::v1::ScoredPost;

use super::aggregate::{Aggregate, Grain, Group, Sums, by_sentiment, by_tag};
use crate::iceberg::columns::{Fill, ToBatch};
use crate::iceberg::schema::{Column, TableDefinition, optional, required};

/// One row: a group and its sums within one epoch.
pub(in crate::iceberg) type Row = (Group, Sums);

/// A Gold table, and how posts become its rows.
#[derive(Debug)]
pub(in crate::iceberg) struct GoldTable {
    pub(in crate::iceberg) definition: TableDefinition<Row>,
    grain: Grain,
    count: fn(Grain, &[ScoredPost]) -> Aggregate,
}

impl ToBatch<ScoredPost> for GoldTable {
    fn batch(&self, schema: &SchemaRef, posts: &[ScoredPost]) -> Result<RecordBatch> {
        let rows: Vec<Row> = (self.count)(self.grain, posts).into_iter().collect();
        self.definition.batch(schema, &rows)
    }
}

/// `gold.sentiment_1m` or `gold.sentiment_1h`
pub(in crate::iceberg) fn sentiment(grain: Grain) -> GoldTable {
    let name = match grain {
        Grain::Minute => "sentiment_1m",
        Grain::Hour => "sentiment_1h",
    };
    let comment = "Posts and polarity by window, source, language and label. A key has several rows: always sum";
    GoldTable { definition: definition(name, comment, None), grain, count: by_sentiment }
}

/// `gold.tags_1m` or `gold.tags_1h`
pub(in crate::iceberg) fn tags(grain: Grain) -> GoldTable {
    let name = match grain {
        Grain::Minute => "tags_1m",
        Grain::Hour => "tags_1h",
    };
    let comment = "Posts and polarity by window, tag, source, language and label. A key has several rows: always sum. \
                   A post counts under each of its topics (silver.posts.topics)";
    let tag = required("tag", Fill::Text(|(group, _): &Row| group.tag.as_deref()), "A topic of the post, lowercase");
    GoldTable { definition: definition(name, comment, Some(tag)), grain, count: by_tag }
}

fn definition(name: &'static str, comment: &'static str, tag: Option<Column<Row>>) -> TableDefinition<Row> {
    let mut columns = vec![
        required(
            "window_start",
            Fill::Time(|(group, _): &Row| Some(group.window_start_us)),
            "Start of the window, by created_at, UTC",
        ),
        optional("event_day", Fill::Day(|(group, _)| group.event_day), "UTC day of the posts; null for late ones"),
        required(
            "run",
            Fill::Text(|(group, _)| Some(&group.run)),
            "'live', or the id of a re-scoring job; never sum across runs",
        ),
        required("source", Fill::Text(|(group, _)| Some(&group.source)), "Where they were posted"),
        optional(
            "language",
            Fill::Text(|(group, _)| group.language.as_deref()),
            "Detected language, ISO 639-3; null if it could not be told",
        ),
        optional(
            "label",
            Fill::Text(|(group, _)| group.label.as_deref()),
            "Label of the sentiment head; null if the model has none",
        ),
    ];
    columns.extend(tag);
    columns.extend([
        required("posts", Fill::Long(|(_, sums): &Row| sums.posts), "Posts"),
        required(
            "polarity_posts",
            Fill::Long(|(_, sums)| sums.polarity_posts),
            "Posts that have a polarity: the mean is polarity_sum / polarity_posts",
        ),
        required("polarity_sum", Fill::Double(|(_, sums)| Some(sums.polarity_sum)), "Sum of polarities"),
        required(
            "polarity_sum_squares",
            Fill::Double(|(_, sums)| Some(sums.polarity_sum_squares)),
            "Sum of squared polarities, for the variance",
        ),
    ]);
    TableDefinition {
        namespace: "gold",
        name,
        comment,
        columns,
        partitioned_by: vec![("event_day", "event_day", Transform::Identity), ("run", "run", Transform::Identity)],
        sorted_by: &["window_start"],
        order: |(a, _), (b, _)| a.cmp(b),
    }
}
