//! What `undertone init` and `undertone check` say about Kafka's topics.

use undertone_error::{Error, ErrorKind, Result};
use undertone_stream::kafka::{Kafka, TopicsReport, ensure_topics, inspect_topics};

use crate::config::KafkaSettings;

/// Connects to the cluster.
///
/// # Errors
/// As [`Kafka::connect`].
pub(super) async fn connect(settings: &KafkaSettings) -> Result<Kafka> {
    let client = settings.client.clone();
    let panicked = |e| Err(Error::new(ErrorKind::Internal, "connecting to kafka panicked").source(e));
    tokio::task::spawn_blocking(move || Kafka::connect(client)).await.unwrap_or_else(panicked)
}

/// Makes the topics that are missing; the lines to print.
///
/// # Errors
/// Those of the cluster.
pub(super) async fn make(settings: &KafkaSettings) -> Result<Vec<String>> {
    let kafka = connect(settings).await?;
    Ok(lines(&ensure_topics(&kafka, &settings.topics).await?))
}

/// Looks at the topics and makes none; what is good about them, and what should be looked at.
///
/// # Errors
/// [`ErrorKind::NotFound`] if a topic is missing; those of the cluster.
pub(super) async fn look(settings: &KafkaSettings) -> Result<(String, Vec<String>)> {
    let kafka = connect(settings).await?;
    let report = inspect_topics(&kafka, &settings.topics).await?;
    if !report.missing.is_empty() {
        let error = Error::new(ErrorKind::NotFound, "topics are missing").with("topics", report.missing.join(", "));
        return Err(error.help("make them with `undertone init`"));
    }
    let good = format!("cluster {}, topics {}", kafka.cluster(), report.there.join(", "));
    Ok((good, report.differences.into_iter().chain(report.warnings).collect()))
}

fn lines(report: &TopicsReport) -> Vec<String> {
    let each = |word: &'static str, what: &'static str, names: &[String]| {
        names.iter().map(|name| format!("{word:<8}{what}{name}")).collect::<Vec<_>>()
    };
    let mut lines = each("made", "topic ", &report.made);
    lines.extend(each("there", "topic ", &report.there));
    lines.extend(each("differs", "", &report.differences));
    lines.extend(each("warning", "", &report.warnings));
    lines
}
