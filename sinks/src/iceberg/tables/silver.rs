//! `silver.posts`: one row per scored event, with everything that is known about it.

use std::borrow::Cow;

use iceberg::spec::Transform;
use undertone_proto::v1::{Entities, Origin, ScoredPost};

use super::{event_day, present};
use crate::iceberg::columns::Fill;
use crate::iceberg::schema::{TableDefinition, optional, required};

fn origin<T: Default>(post: &ScoredPost, of: fn(&Origin) -> T) -> T {
    post.origin.as_ref().map(of).unwrap_or_default()
}

fn entities(post: &ScoredPost, of: fn(&Entities) -> &[String]) -> Cow<'_, [String]> {
    Cow::Borrowed(post.entities.as_ref().map(of).unwrap_or_default())
}

/// Sorted, so that the same post is the same bytes.
fn metrics(post: &ScoredPost) -> Vec<(&str, f64)> {
    let mut metrics: Vec<_> = post.metrics.iter().map(|(name, &value)| (name.as_str(), value)).collect();
    metrics.sort_by(|a, b| a.0.cmp(b.0));
    metrics
}

/// `silver.posts`
pub(in crate::iceberg) fn posts() -> TableDefinition<ScoredPost> {
    TableDefinition {
        namespace: "silver",
        name: "posts",
        comment: "One row per scored event: unique by (cluster, topic, partition, offset, run). \
                  An edited post has a row for each version; the latest has the greatest version of its uid in the run",
        columns: vec![
            required(
                "cluster",
                Fill::Text(|p| p.origin.as_ref().map(|o| o.cluster.as_str())),
                "Kafka cluster id, or the id of the embedded data folder",
            ),
            required(
                "topic",
                Fill::Text(|p| p.origin.as_ref().map(|o| o.topic.as_str())),
                "Id of the topic or input log the event came from",
            ),
            required("partition", Fill::Int(|p| origin(p, |o| o.partition)), "Partition of the topic"),
            required("offset", Fill::Long(|p| origin(p, |o| o.offset)), "Offset in the partition"),
            required(
                "uid",
                Fill::Text(|p| Some(&p.uid)),
                "UUIDv5 of source, id and UTC day of created_at: the same for every version of a post",
            ),
            required("version", Fill::Long(|p| p.version), "Orders the versions of a post; greater is later"),
            required(
                "run",
                Fill::Text(|p| Some(&p.run)),
                "'live', or the id of a re-scoring job; never sum across runs",
            ),
            required("source", Fill::Text(|p| Some(&p.source)), "Where it was posted"),
            required("id", Fill::Text(|p| Some(&p.id)), "The post's id within its source"),
            required("text", Fill::Text(|p| Some(&p.text)), "What was said, as it came; empty for a deletion"),
            required("clean_text", Fill::Text(|p| Some(&p.clean_text)), "What the model read; empty for a deletion"),
            required("created_at", Fill::Time(|p| Some(p.created_at_us)), "When it was posted, as the source claims"),
            optional("edited_at", Fill::Time(|p| p.edited_at_us), "When it was last edited"),
            required("deleted", Fill::Flag(|p| Some(p.deleted)), "Whether this event deletes the post"),
            optional("author", Fill::Text(|p| p.author.as_deref()), "Who posted it"),
            optional("url", Fill::Text(|p| p.url.as_deref()), "Where it can be read"),
            optional("reply_to", Fill::Text(|p| p.reply_to.as_deref()), "Id of the post it answers"),
            optional(
                "declared_language",
                Fill::Text(|p| p.declared_language.as_deref()),
                "Language that the source claims",
            ),
            optional(
                "language",
                Fill::Text(|p| p.language.as_deref()),
                "Detected language, ISO 639-3; null if the text is too short to tell",
            ),
            required("tags", Fill::Texts(|p| Cow::Borrowed(&p.tags)), "Tags as the source gave them"),
            required(
                "hashtags",
                Fill::Texts(|p| entities(p, |e| &e.hashtags)),
                "Hashtags of the text, lowercase, without '#'",
            ),
            required("mentions", Fill::Texts(|p| entities(p, |e| &e.mentions)), "Mentions of the text, without '@'"),
            required("urls", Fill::Texts(|p| entities(p, |e| &e.urls)), "URLs of the text"),
            required("emoji", Fill::Texts(|p| entities(p, |e| &e.emoji)), "Emoji of the text"),
            required(
                "topics",
                Fill::Texts(|p| Cow::Owned(undertone_proto::topics(p))),
                "Tags and hashtags together, lowercase, each once, at most 16: what gold.tags_* counts",
            ),
            required("metrics", Fill::Doubles(metrics), "Likes, shares and the like, by name"),
            optional(
                "extra_json",
                Fill::Text(|p| present(&p.extra_json)),
                "Fields that are not known here, as a JSON object",
            ),
            required(
                "late",
                Fill::Flag(|p| Some(p.late)),
                "Whether created_at lies outside [-30 days, +5 minutes] of ingestion",
            ),
            optional("event_day", Fill::Day(event_day), "UTC day of created_at; null if late"),
            optional(
                "sentiment",
                Fill::Text(|p| p.sentiment.as_deref()),
                "Most probable label of the sentiment head; null for a deletion",
            ),
            optional(
                "polarity",
                Fill::Double(|p| p.polarity),
                "P(positive) - P(negative), -1 to 1; null if the model's labels are not mapped to sentiment",
            ),
            optional("confidence", Fill::Float(|p| p.confidence), "Calibrated probability of the label"),
            required(
                "heads",
                Fill::Scores(|p| &p.heads),
                "Every head's probabilities by label: heads['sentiment']['positive']",
            ),
            optional(
                "embedding",
                Fill::Floats(|p| &p.embedding),
                "The text's embedding; spaces of different model revisions do not mix",
            ),
            required(
                "tokens",
                Fill::Int(|p| i32::try_from(p.tokens).unwrap_or(i32::MAX)),
                "Tokens that the model read",
            ),
            required(
                "truncated",
                Fill::Flag(|p| Some(p.truncated)),
                "Whether the text was longer than the model reads",
            ),
            optional("model_name", Fill::Text(|p| p.model.as_ref().map(|m| m.name.as_str())), "The model"),
            optional(
                "model_revision",
                Fill::Text(|p| p.model.as_ref().map(|m| m.revision.as_str())),
                "Hash of the model folder's files",
            ),
            optional(
                "model_precision",
                Fill::Text(|p| p.model.as_ref().map(|m| m.precision.as_str())),
                "fp32, bf16 or int8",
            ),
            required("ingested_at", Fill::Time(|p| Some(p.ingested_at_us)), "When the event was made durable"),
            required("scored_at", Fill::Time(|p| Some(p.scored_at_us)), "When it was scored"),
            optional(
                "in_domain",
                Fill::Flag(|p| p.in_domain),
                "Whether the text is in a language that the model knows, or in none; null if nobody said which it knows",
            ),
        ],
        partitioned_by: vec![("event_day", "event_day", Transform::Identity), ("run", "run", Transform::Identity)],
        sorted_by: &["created_at"],
        order: |a, b| a.created_at_us.cmp(&b.created_at_us),
    }
}
