//! What the page says about how far the stages are behind.
//!
//! Scoring is told for all processes together, from its group's offsets. A table's positions are in the table, which a
//! gateway need not be able to read, so of tables only what this process writes is told; the page says which part that is.

use std::sync::Arc;
use std::time::Duration;

use undertone_error::Result;
use undertone_gateway::Live;
use undertone_gateway::live::StageLag;
use undertone_proto::Partition;
use undertone_sinks::Positions;
use undertone_sinks::pump::SinkStatus;
use undertone_stream::kafka::{GroupOffsets, Kafka, Offsets, TopicReader};

use super::Topics;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// Looks at the lag of every stage.
pub(super) struct Lags {
    live: Live,
    kafka: Kafka,
    raw: TopicReader,
    scored: TopicReader,
    score: GroupOffsets,
    statuses: Arc<[SinkStatus]>,
}

impl Lags {
    pub(super) fn new(kafka: &Kafka, topics: &Topics, live: Live, statuses: Arc<[SinkStatus]>) -> Result<Self> {
        Ok(Self {
            live,
            kafka: kafka.clone(),
            raw: TopicReader::new(kafka, "live", &topics.raw)?,
            scored: TopicReader::new(kafka, "live", &topics.scored)?,
            score: GroupOffsets::new(kafka, "score", &topics.raw)?,
            statuses,
        })
    }

    /// Tells the live view, for ever.
    pub(super) async fn watch(self) {
        loop {
            match self.look().await {
                Ok(lags) => self.live.set_lag(lags),
                Err(error) => tracing::debug!(%error, "cannot tell the lag"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn look(&self) -> Result<Vec<StageLag>> {
        // The group first: what it commits meanwhile is then not ahead of the end.
        let committed = self.score.committed().await?;
        let (raw, scored) = (ends(&self.raw).await?, ends(&self.scored).await?);
        let own = self.statuses.iter().find(|status| status.sink() == "score");
        let mut lags = vec![group_lag(&committed, &raw, own)];
        let named = |reader: &TopicReader, offsets: &Offsets| -> Positions {
            offsets.iter().map(|(number, end)| (self.kafka.partition(reader.topic(), *number), *end)).collect()
        };
        let ends: Positions = named(&self.raw, &raw).into_iter().chain(named(&self.scored, &scored)).collect();
        let tables = self.statuses.iter().filter(|status| status.sink() != "score");
        lags.extend(tables.map(|status| sink_lag(status, &ends)));
        Ok(lags)
    }
}

async fn ends(reader: &TopicReader) -> Result<Offsets> {
    let bounds = reader.bounds((0..reader.topic().partitions).collect()).await?;
    Ok(bounds.into_iter().map(|(number, (_, end))| (number, end)).collect())
}

/// All of scoring, whoever does it. How old what it lacks is, only who does all of it knows.
fn group_lag(committed: &Offsets, ends: &Offsets, own: Option<&SinkStatus>) -> StageLag {
    let behind = |(number, end): (&i32, &i64)| end.saturating_sub(committed.get(number).copied().unwrap_or(0)).max(0);
    let snapshot = own.map(SinkStatus::snapshot);
    let all_ours = own.is_some_and(|status| status.committed().len() == ends.len());
    StageLag {
        stage: "score".to_owned(),
        posts: ends.iter().map(behind).map(|posts| u64::try_from(posts).unwrap_or(0)).sum(),
        seconds: snapshot.as_ref().filter(|_| all_ours).map(|snapshot| snapshot.lag_seconds),
        waiting: snapshot.and_then(|snapshot| snapshot.stopped.or(snapshot.waiting.map(|waiting| waiting.reason))),
        scope: (!all_ours).then(|| "all processes".to_owned()),
    }
}

/// What this process does of a table.
fn sink_lag(status: &SinkStatus, ends: &Positions) -> StageLag {
    let (committed, snapshot) = (status.committed(), status.snapshot());
    let ours: Positions = ends
        .iter()
        .filter(|(partition, _)| committed.contains_key(partition))
        .map(|(p, end)| (p.clone(), *end))
        .collect();
    let topic = committed.keys().next().map(|partition| &partition.topic);
    let of_topic = |partition: &&Partition| topic == Some(&partition.topic);
    let (own, all) = (ours.len(), ends.keys().filter(of_topic).count());
    let scope = match (own, all) {
        (0, _) => Some("no partition in this process".to_owned()),
        (own, all) if own < all => Some(format!("{own} of {all} partitions, those of this process")),
        _ => None,
    };
    StageLag {
        stage: snapshot.sink,
        posts: status.lag_to(&ours),
        seconds: if snapshot.stopped.is_some() { None } else { Some(snapshot.lag_seconds) },
        waiting: snapshot.stopped.or(snapshot.waiting.map(|waiting| waiting.reason)),
        scope,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_of_a_group_is_that_of_all_its_partitions() {
        let lag = group_lag(&Offsets::from([(0, 7), (1, 12)]), &Offsets::from([(0, 10), (1, 11), (2, 4)]), None);
        assert_eq!((lag.posts, lag.seconds, lag.scope.as_deref()), (7, None, Some("all processes")));
    }
}
