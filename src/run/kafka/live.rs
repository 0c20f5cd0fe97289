//! Feeds the live view from the topics: first with the newest that they hold, so that a gateway that was started again
//! has something to show, then with what comes.

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
/// About so many of the newest posts and letters fill the page at the start.
const SEED: [i64; 2] = [2000, 200];
/// Who starts does not wait longer than this for that.
const SEEDING: Duration = Duration::from_secs(10);

/// Follows both topics, in no group: every gateway shows everything.
pub(super) struct Follower {
    live: Live,
    scored: Follow,
    dead: Follow,
}

/// A topic, and where it is read next.
struct Follow {
    reader: TopicReader,
    at: Offsets,
}

impl Follower {
    pub(super) async fn new(kafka: &Kafka, topics: &Topics, live: Live) -> Result<Self> {
        let scored = Follow::at_end(kafka, &topics.scored).await?;
        let dead = Follow::at_end(kafka, &topics.dead).await?;
        Ok(Self { live, scored, dead })
    }

    pub(super) async fn follow(mut self) {
        if let Err(error) = self.seed().await {
            tracing::info!(%error, "live view begins with what comes next");
        }
        loop {
            if let Err(error) = self.turn().await {
                tracing::warn!(%error, "live view waits, and goes on with what comes next");
                tokio::time::sleep(PAUSE).await;
                for topic in [&mut self.scored, &mut self.dead] {
                    let _ = topic.go_to_end().await;
                }
            }
        }
    }

    /// Shows the newest that the topics hold.
    async fn seed(&mut self) -> Result<()> {
        let [posts, letters] = SEED;
        let mut posts: Vec<_> = self.scored.newest(posts).await?.iter().filter_map(post).collect();
        let mut letters: Vec<_> = self.dead.newest(letters).await?.iter().filter_map(letter).collect();
        // Partitions are read one after another; people read by time.
        posts.sort_by_key(|post| post.scored_at_us);
        letters.sort_by_key(|letter| letter.dead_at_us);
        self.live.observe_events((posts.len() + letters.len()) as u64);
        posts.iter().for_each(|post| self.live.seed_scored(post));
        letters.iter().for_each(|letter| self.live.observe_dead(letter));
        Ok(())
    }

    async fn turn(&mut self) -> Result<()> {
        for post in self.scored.read().await?.iter().filter_map(post) {
            self.live.observe_events(1);
            self.live.observe_scored(&post);
        }
        for letter in self.dead.read().await?.iter().filter_map(letter) {
            self.live.observe_events(1);
            self.live.observe_dead(&letter);
        }
        Ok(())
    }
}

fn post(record: &Record) -> Option<ScoredPost> {
    ScoredPost::decode(record.payload.as_deref()?).ok()
}

/// A letter; not the tombstone of one that was replayed.
fn letter(record: &Record) -> Option<DeadLetter> {
    DeadLetter::decode(record.payload.as_deref()?).ok()
}

impl Follow {
    async fn at_end(kafka: &Kafka, topic: &Topic) -> Result<Self> {
        let mut follow = Self { reader: TopicReader::new(kafka, "live", topic)?, at: Offsets::new() };
        follow.go_to_end().await?;
        Ok(follow)
    }

    async fn go_to_end(&mut self) -> Result<()> {
        let bounds = self.reader.bounds((0..self.reader.topic().partitions).collect()).await?;
        self.at = bounds.into_iter().map(|(number, (_, end))| (number, end)).collect();
        Ok(())
    }

    /// About the `count` newest records before the end; what follows is read next, also if this fails.
    async fn newest(&mut self, count: i64) -> Result<Vec<Record>> {
        let partitions = self.reader.topic().partitions;
        let bounds = self.reader.bounds((0..partitions).collect()).await?;
        let each = (count / i64::from(partitions.max(1))).max(1);
        let start = |(number, (start, end)): (&i32, &(i64, i64))| (*number, (*start).max(end - each));
        let mut at: Offsets = bounds.iter().map(start).collect();
        let until = tokio::time::Instant::now() + SEEDING;
        let mut newest = Vec::new();
        // An open transaction holds the end back: what it brings is read later.
        while at.iter().any(|(number, next)| bounds.get(number).is_some_and(|(_, end)| next < end))
            && tokio::time::Instant::now() < until
        {
            let Fetched { records, next, .. } = self.reader.read(at.clone(), limit()).await?;
            newest.extend(records);
            at.extend(next);
        }
        self.at = at;
        Ok(newest)
    }

    async fn read(&mut self) -> Result<Vec<Record>> {
        let Fetched { records, next, .. } = self.reader.read(self.at.clone(), limit()).await?;
        self.at.extend(next);
        Ok(records)
    }
}

fn limit() -> Limit {
    Limit { records: 1024, bytes: 8 << 20, wait: TURN }
}
