//! Feeds the live view from the topics, from now on.

use std::time::Duration;

use prost::Message;
use undertone_error::Result;
use undertone_gateway::Live;
use undertone_proto::v1::{DeadLetter, ScoredPost};
use undertone_stream::kafka::{Fetched, Kafka, Limit, Offsets, Record, Topic, TopicReader, Topics};

/// How long one topic is looked at before the next.
const TURN: Duration = Duration::from_millis(100);
/// The wait after a failure: the page is the last thing that matters.
const PAUSE: Duration = Duration::from_secs(2);

/// Follows both topics, in no group: every gateway shows everything.
pub(super) struct Follower {
    live: Live,
    scored: (TopicReader, Offsets),
    dead: (TopicReader, Offsets),
}

impl Follower {
    pub(super) async fn new(kafka: &Kafka, topics: &Topics, live: Live) -> Result<Self> {
        let scored = at_end(kafka, &topics.scored).await?;
        let dead = at_end(kafka, &topics.dead).await?;
        Ok(Self { live, scored, dead })
    }

    pub(super) async fn follow(mut self) {
        loop {
            if let Err(error) = self.turn().await {
                tracing::warn!(%error, "live view waits, and goes on with what comes next");
                tokio::time::sleep(PAUSE).await;
                for (reader, at) in [&mut self.scored, &mut self.dead] {
                    if let Ok(ends) = ends(reader).await {
                        *at = ends;
                    }
                }
            }
        }
    }

    async fn turn(&mut self) -> Result<()> {
        for record in read(&mut self.scored).await? {
            if let Ok(post) = ScoredPost::decode(record.payload.unwrap_or_default().as_slice()) {
                self.live.observe_events(1);
                self.live.observe_scored(&post);
            }
        }
        for record in read(&mut self.dead).await? {
            if let Ok(letter) = DeadLetter::decode(record.payload.unwrap_or_default().as_slice()) {
                self.live.observe_events(1);
                self.live.observe_dead(&letter);
            }
        }
        Ok(())
    }
}

async fn at_end(kafka: &Kafka, topic: &Topic) -> Result<(TopicReader, Offsets)> {
    let reader = TopicReader::new(kafka, "live", topic)?;
    let ends = ends(&reader).await?;
    Ok((reader, ends))
}

async fn ends(reader: &TopicReader) -> Result<Offsets> {
    let bounds = reader.bounds((0..reader.topic().partitions).collect()).await?;
    Ok(bounds.into_iter().map(|(number, (_, end))| (number, end)).collect())
}

async fn read((reader, at): &mut (TopicReader, Offsets)) -> Result<Vec<Record>> {
    let Fetched { records, next } =
        reader.read(at.clone(), Limit { records: 1024, bytes: 8 << 20, wait: TURN }).await?;
    at.extend(next);
    Ok(records)
}
