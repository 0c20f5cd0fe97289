//! `undertone rescore`: scores history again, as a run of its own beside the stream's.
//!
//! The guarantee: each event of Bronze as it stands at the start has one row of the run in Silver, if it is a post, and is
//! counted once in Gold, however often the command is ended and run again. Silver's rows and the run's positions move in
//! one commit, fenced as the stream's are; Gold is then counted from the run's rows in Silver, and never from a second
//! scoring, which might say something else. Nobody sees the run before the views are told its name.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};
use undertone_inference::Engine;
use undertone_proto::v1::{ScoredPost, outcome};
use undertone_proto::{Event, EventTime, Partition};
use undertone_sinks::iceberg::{BronzeHistory, Grain, IcebergSink, IcebergStore, RunName, SilverHistory, Track};
use undertone_sinks::pump::{Batch, EpochSource, Policy, Pump, ReadLimit, Shutdown, SinkStatus};
use undertone_sinks::{Epoch, Positions};
use undertone_stream::score::{ScoreConfig, Watched, score_chunk};

use super::model::start_engine;
use super::output::Output;
use crate::Outcome;
use crate::cli::RescoreArgs;

/// Offsets that are read at once: planning a scan costs as much as reading some thousand rows.
const READ: i64 = 8192;
/// Events that are scored together, and how many such chunks are in flight.
const CHUNK: usize = 256;
const IN_FLIGHT: usize = 4;

pub(crate) async fn rescore(args: RescoreArgs) -> Result<Outcome> {
    let run = RunName::new(&args.run)?;
    let ingested = span(args.from.as_deref(), args.to.as_deref())?;
    let (config, model) = (args.config()?, args.model()?);
    config.is_there()?;
    let store = IcebergStore::open(&config.tables).await?;
    let engine = start_engine(&model.folder()?, model.engine).await?;
    let info = engine.model();
    let definition = json!({
        "model": info.revision, "precision": info.precision,
        "from": args.from.as_deref().unwrap_or("the beginning"), "to": args.to.as_deref().unwrap_or("the end"),
    });
    store.define_run(&run, &definition.to_string()).await?;

    let track = Track::Run(run.clone());
    let bronze = store.bronze_history(ingested).await?;
    let ends = bronze.ends().clone();
    let events = Rescored {
        bronze: bronze.clone(),
        run: run.clone(),
        engine: Watched::new(Arc::new(engine.clone())),
        config: ScoreConfig { posts: config.posts, ..ScoreConfig::default() },
        ahead: Ahead::default(),
    };
    pump(store.silver().on(track.clone()), events, "scoring", &ends).await?;
    engine.shutdown().await;
    let silver = store.silver_history(&run).await?;
    for sink in gold(&store) {
        let source = OfRun { bronze: bronze.clone(), silver: silver.clone(), ahead: Ahead::default() };
        pump(sink.on(track.clone()), source, "counting", &ends).await?;
    }
    let rows = silver.count().await?;

    let mut output = Output::create(None)?;
    let run = run.as_str();
    output.line(
        format!("run {run} has {rows} rows in silver.posts, counted in gold; to have the views show it:").as_bytes(),
    )?;
    output.line(format!("CREATE OR REPLACE VIEW silver.current_run AS SELECT '{run}' AS run;").as_bytes())?;
    output.finish()?;
    Ok(Outcome::Done)
}

fn gold(store: &IcebergStore) -> [IcebergSink<ScoredPost>; 4] {
    [
        store.gold_sentiment(Grain::Minute),
        store.gold_sentiment(Grain::Hour),
        store.gold_tags(Grain::Minute),
        store.gold_tags(Grain::Hour),
    ]
}

/// The time between two dates or moments, in microseconds; the second is not part of it.
fn span(from: Option<&str>, to: Option<&str>) -> Result<Range<EventTime>> {
    let moment = |flag: &'static str, text: &str| {
        let date = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
        let time = text.parse::<jiff::Timestamp>().ok().or_else(|| date().map(|date| date.timestamp()));
        let wrong = || Error::new(ErrorKind::InvalidInput, "cannot read a date").with("flag", flag).with("value", text);
        time.map(|time| time.as_microsecond()).ok_or_else(|| wrong().help("write 2026-05-01 or 2026-05-01T12:00:00Z"))
    };
    let from = from.map_or(Ok(i64::MIN), |text| moment("--from", text))?;
    let to = to.map_or(Ok(i64::MAX), |text| moment("--to", text))?;
    if from < to {
        return Ok(from..to);
    }
    Err(Error::new(ErrorKind::InvalidInput, "no time lies between --from and --to")
        .help("--to is the first moment after"))
}

/// Stores everything that the source holds.
async fn pump<S>(sink: IcebergSink<ScoredPost>, source: S, doing: &'static str, ends: &Positions) -> Result<()>
where
    S: EpochSource<Record = ScoredPost>,
{
    // Nothing waits for these rows: large commits leave few files. Partitions are written down at the start, so that a
    // run that is gone on with knows all of them.
    let policy = Policy {
        max_events: 100_000,
        max_bytes: 128 << 20,
        max_age: Duration::from_secs(120),
        pin_starts: true,
        ..Policy::default()
    };
    let pump = Pump::new(sink, source, policy);
    let (status, shutdown) = (pump.status(), Shutdown::default());
    shutdown.finish.cancel();
    let progress = progress_bar(&format!("{doing} {}", status.sink()), ends);
    let show = async {
        loop {
            progress.set_position(done(&status, ends));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let positions = tokio::select! {
        outcome = pump.run(shutdown) => outcome?,
        () = show => Positions::new(),
    };
    progress.finish_and_clear();
    tracing::info!(sink = status.sink(), positions = ?positions.values().collect::<Vec<_>>(), "run is stored");
    Ok(())
}

fn done(status: &SinkStatus, ends: &Positions) -> u64 {
    let committed = status.committed();
    let done: i64 = ends.keys().filter_map(|partition| committed.get(partition)).sum();
    done.unsigned_abs()
}

fn progress_bar(doing: &str, ends: &Positions) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} offsets, {eta} left");
    let bar = ProgressBar::new(ends.values().sum::<i64>().unsigned_abs());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(doing.to_owned())
}

/// What was read of a partition and not handed out yet.
#[derive(Debug)]
struct Ahead<T> {
    partition: Option<Partition>,
    /// The offset that is handed out next, and the one up to which everything was read.
    range: Range<i64>,
    rows: VecDeque<(i64, T)>,
}

impl<T> Default for Ahead<T> {
    fn default() -> Self {
        Self { partition: None, range: 0..0, rows: VecDeque::new() }
    }
}

impl<T> Ahead<T> {
    /// Whether what comes next of the partition at `at` is here.
    fn holds(&self, partition: &Partition, at: i64) -> bool {
        self.partition.as_ref() == Some(partition) && self.range.start == at && at < self.range.end
    }

    fn fill(&mut self, partition: &Partition, range: Range<i64>, rows: impl IntoIterator<Item = (i64, T)>) {
        *self = Self { partition: Some(partition.clone()), range, rows: rows.into_iter().collect() };
    }

    /// At most so many rows, and the range that they are all rows of.
    fn take(&mut self, most: usize) -> (Range<i64>, Vec<T>) {
        let count = most.min(self.rows.len());
        let rows: Vec<T> = self.rows.drain(..count).map(|(_, row)| row).collect();
        let end = self.rows.front().map_or(self.range.end, |(offset, _)| *offset);
        let range = self.range.start..end;
        self.range.start = end;
        (range, rows)
    }
}

/// Every partition begins at 0: what is not there is passed over without a look.
fn beginnings(ends: &Positions) -> Positions {
    ends.keys().map(|partition| (partition.clone(), 0)).collect()
}

/// The first partition, in order, of which something is left.
fn unread<'a>(from: &'a Positions, ends: &Positions) -> Option<(&'a Partition, Range<i64>)> {
    from.iter().find_map(|(partition, &at)| {
        let end = ends.get(partition).copied().unwrap_or(at);
        (at < end).then_some((partition, at..end))
    })
}

/// The events of Bronze, scored again.
struct Rescored {
    bronze: BronzeHistory,
    run: RunName,
    engine: Watched<Engine>,
    config: ScoreConfig,
    ahead: Ahead<Event>,
}

impl Rescored {
    async fn score(&self, events: Vec<Event>) -> Result<Vec<ScoredPost>> {
        let mut chunks = Vec::new();
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            chunks.push(events.by_ref().take(CHUNK).map(|event| (event.origin.offset, event)).collect());
        }
        let never = CancellationToken::new();
        let scored = chunks.into_iter().map(|chunk| score_chunk(&self.engine, &self.config, chunk, &never));
        let scored: Vec<_> = futures::stream::iter(scored).buffered(IN_FLIGHT).try_collect().await?;
        let posts = scored.into_iter().flatten().flatten().filter_map(|outcome| match outcome.kind {
            // What is no post became a dead letter when it came.
            Some(outcome::Kind::Scored(post)) => Some(ScoredPost { run: self.run.as_str().to_owned(), ..post }),
            Some(outcome::Kind::Dead(_)) | None => None,
        });
        Ok(posts.collect())
    }
}

#[async_trait]
impl EpochSource for Rescored {
    type Record = ScoredPost;

    async fn starts(&mut self) -> Result<Positions> {
        Ok(beginnings(self.bronze.ends()))
    }

    async fn ends(&mut self) -> Result<Positions> {
        Ok(self.bronze.ends().clone())
    }

    async fn read(&mut self, from: &Positions, limit: ReadLimit) -> Result<Batch<ScoredPost>> {
        let Some((partition, range)) = unread(from, self.bronze.ends()) else { return Ok(Batch::default()) };
        if !self.ahead.holds(partition, range.start) {
            let first = self.bronze.next(partition, range.start);
            let until = first.saturating_add(READ).min(range.end);
            let events = self.bronze.events(partition, first..until).await?;
            let rows = events.into_iter().map(|event| (event.origin.offset, event));
            self.ahead.fill(partition, range.start..until, rows);
        }
        let (range, events) = self.ahead.take(limit.events);
        let bytes = events.iter().map(|event| event.payload.len()).sum();
        let posts = self.score(events).await?;
        Ok(Batch { epoch: Epoch::of(partition.clone(), range, posts), bytes, ..Batch::default() })
    }
}

/// The run's rows in Silver, for Gold.
struct OfRun {
    /// Says where there may be some.
    bronze: BronzeHistory,
    silver: SilverHistory,
    ahead: Ahead<ScoredPost>,
}

#[async_trait]
impl EpochSource for OfRun {
    type Record = ScoredPost;

    async fn starts(&mut self) -> Result<Positions> {
        Ok(beginnings(self.silver.ends()))
    }

    async fn ends(&mut self) -> Result<Positions> {
        Ok(self.silver.ends().clone())
    }

    async fn read(&mut self, from: &Positions, limit: ReadLimit) -> Result<Batch<ScoredPost>> {
        let Some((partition, range)) = unread(from, self.silver.ends()) else { return Ok(Batch::default()) };
        if !self.ahead.holds(partition, range.start) {
            let first = self.bronze.next(partition, range.start).min(range.end);
            let until = first.saturating_add(8 * READ).min(range.end);
            let posts = self.silver.posts(partition, first..until).await?;
            let offset = |post: &ScoredPost| post.origin.as_ref().map_or(range.start, |origin| origin.offset);
            self.ahead.fill(partition, range.start..until, posts.into_iter().map(|post| (offset(&post), post)));
        }
        let (range, posts) = self.ahead.take(limit.events);
        let bytes = posts.len() * 256;
        Ok(Batch { epoch: Epoch::of(partition.clone(), range, posts), bytes, ..Batch::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> Partition {
        Partition { cluster: "c".to_owned(), topic: "t".to_owned(), partition: number }
    }

    #[test]
    fn what_was_read_ahead_comes_out_once_in_ranges_that_join() {
        let mut ahead = Ahead::default();
        ahead.fill(&partition(0), 5..40, [(7, 'a'), (9, 'b'), (30, 'c')]);
        assert!(ahead.holds(&partition(0), 5) && !ahead.holds(&partition(0), 7) && !ahead.holds(&partition(1), 5));
        assert_eq!(ahead.take(2), (5..30, vec!['a', 'b']));
        assert!(ahead.holds(&partition(0), 30));
        assert_eq!(ahead.take(2), (30..40, vec!['c']));
        assert!(!ahead.holds(&partition(0), 40), "there is no more");
        // A range without a row is a range all the same.
        ahead.fill(&partition(0), 40..60, []);
        assert_eq!(ahead.take(9), (40..60, vec![]));
    }

    #[test]
    fn partitions_are_read_one_after_another() {
        let at = |offsets: [i64; 2]| Positions::from([(partition(0), offsets[0]), (partition(1), offsets[1])]);
        let ends = at([10, 5]);
        assert_eq!(unread(&at([3, 0]), &ends), Some((&partition(0), 3..10)));
        assert_eq!(unread(&at([10, 0]), &ends), Some((&partition(1), 0..5)));
        assert_eq!(unread(&at([10, 5]), &ends), None);
    }

    #[test]
    fn dates_are_days_in_utc_and_the_last_is_not_part_of_it() {
        let day = 86_400_000_000;
        assert_eq!(span(None, None).expect("all"), i64::MIN..i64::MAX);
        assert_eq!(span(Some("1970-01-02"), Some("1970-01-03T00:00:00Z")).expect("a day"), day..2 * day);
        for (from, to) in [("1970-01-03", "1970-01-03"), ("tomorrow", "1970-01-03")] {
            assert_eq!(span(Some(from), Some(to)).expect_err("no span").kind(), ErrorKind::InvalidInput);
        }
    }
}
