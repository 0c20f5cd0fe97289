//! Feeds the live view: from the tables once, then from the scored log as it grows.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};
use undertone_gateway::Live;
use undertone_gateway::live::{TopicRow, Totals};
use undertone_proto::v1::{DeadLetter, outcome};
use undertone_sinks::Sink;
use undertone_sinks::iceberg::{Grain, IcebergStore};
use undertone_stream::dead::DeadLetterFile;
use undertone_stream::input::InputLog;
use undertone_stream::scored::ScoredLog;

/// The plot's window.
const WINDOW: Duration = Duration::from_secs(3600);

/// How often the count of events is carried over; nobody sees more.
const TICK: Duration = Duration::from_millis(250);

/// Dead letters that are looked at to fill the page.
const SHOWN_LETTERS: usize = 100;

/// Outcomes that are read at a time.
const READ: usize = 1024;

/// Where the view stands after it was filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seeded {
    /// The offset of the scored log at which to go on.
    position: i64,
    /// Events of the input log that are counted.
    counted: i64,
}

/// The live view of the embedded stream.
pub(super) struct Feed {
    pub(super) live: Live,
    pub(super) input: InputLog,
    pub(super) scored: ScoredLog,
}

impl Feed {
    /// Fills the view with what the tables hold, and answers where to go on. The plot is exact; the shares
    /// of labels are those of the last day, and may miss the seconds between two tables' last commits after a kill.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(super) async fn seed(&self, store: &IcebergStore, dead: &DeadLetterFile) -> Result<Seeded> {
        let partition = self.input.partition();
        let position = store.gold_tags(Grain::Minute).positions().await?.get(partition).copied().unwrap_or(0);
        let reader = store.reader();
        let since = jiff::Timestamp::now().as_microsecond() - WINDOW.as_micros() as i64;
        let rows = reader.tag_mood(since).await?.into_iter().map(|row| TopicRow {
            window_start_s: row.window_start_us.div_euclid(1_000_000),
            topic: row.tag,
            posts: u64::try_from(row.posts).unwrap_or(0),
            polarity_sum: row.polarity_sum,
        });
        self.live.seed_topics(rows);

        // Only a day: at a commit every 30 s the whole table would be thousands of files.
        let day_ago = jiff::Timestamp::now().as_microsecond() - 24 * WINDOW.as_micros() as i64;
        let labels = reader.label_counts_since(day_ago).await?;
        let label =
            |name: &str| labels.get(&Some(name.to_owned())).map_or(0, |count| u64::try_from(*count).unwrap_or(0));
        // Letters from `position` on come again with the log.
        let shown = dead.latest(SHOWN_LETTERS);
        let before = |letter: &&DeadLetter| letter.origin.as_ref().is_some_and(|origin| origin.offset < position);
        shown.iter().rev().filter(before).for_each(|letter| self.live.observe_dead(letter));
        let dead = dead.below(position);
        let counted = self.input.end();
        let below = u64::try_from(position).unwrap_or(0);
        self.live.seed_totals(Totals {
            events: u64::try_from(counted).unwrap_or(0),
            scored: below.saturating_sub(dead),
            dead,
            negative: label("negative"),
            neutral: label("neutral"),
            positive: label("positive"),
        });
        Ok(Seeded { position, counted })
    }

    /// Follows the logs from there until it is told to stop.
    ///
    /// # Errors
    /// Those of the logs.
    pub(super) async fn follow(self, from: Seeded, stop: CancellationToken) -> Result<()> {
        let mut reader = self.scored.reader(from.position);
        let mut counted = from.counted;
        loop {
            let outcomes = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                read = tokio::time::timeout(TICK, reader.read(READ, 8 << 20)) => match read {
                    Ok(outcomes) => outcomes?,
                    Err(_) => Vec::new(),
                },
            };
            let end = self.input.end();
            self.live.observe_events(u64::try_from(end - counted).unwrap_or(0));
            counted = end;
            for (offset, outcome) in outcomes {
                match outcome.kind {
                    Some(outcome::Kind::Scored(post)) => self.live.observe_scored(&post),
                    Some(outcome::Kind::Dead(letter)) => self.live.observe_dead(&letter),
                    None => {
                        return Err(
                            Error::new(ErrorKind::Corrupt, "scored log holds an empty outcome").with("offset", offset)
                        );
                    }
                }
            }
        }
    }
}
