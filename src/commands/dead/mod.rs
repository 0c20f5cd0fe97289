//! `undertone dead`: looks at dead letters, and sends their events to scoring again, or their posts to the store that
//! refused them.
//!
//! Where they are is what the configuration says: in a topic of its cluster, or in the file of its data folder. Both are
//! read from their beginning to the end that they have at first.

mod file;
pub(crate) mod store;
pub(crate) mod topic;

use std::collections::{BTreeMap, BTreeSet};

use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::timestamp;
use undertone_proto::v1::DeadLetter;
use undertone_stream::dead;

use super::output::Output;
use crate::Outcome;
use crate::cli::{DeadArgs, DeadCommand, DeadFilter, EventPlace};

pub(crate) async fn dead(args: DeadArgs) -> Result<Outcome> {
    match args.command {
        DeadCommand::List { place, filter, all, json } => {
            let (config, filter) = (place.config(None)?, Filter::new(filter, &[]));
            let mut list = List {
                output: Output::create(None)?,
                json,
                partitions: config.kafka.is_some(),
                limit: filter.limit,
                newest: BTreeMap::new(),
                seen: 0,
            };
            match &config.kafka {
                Some(kafka) => topic::list(kafka, &filter, all, &mut list).await?,
                None => file::list(&config.data, &filter, all, &mut list)?,
            }
            list.finish()?;
            Ok(Outcome::Done)
        }
        DeadCommand::Show { event, place } => {
            let config = place.config(None)?;
            let found = match &config.kafka {
                Some(kafka) => topic::find(kafka, event).await?,
                None => file::find(&config.data, event)?,
            };
            let letter = found.ok_or_else(|| {
                let error = Error::new(ErrorKind::NotFound, "no dead letter of this event");
                let error = error.with("partition", event.partition).with("offset", event.offset);
                error.help("`undertone dead list --all` names the events")
            })?;
            let mut output = Output::create(None)?;
            output.line(dead::to_json(&letter)?.trim_end().as_bytes())?;
            output.finish()?;
            Ok(Outcome::Done)
        }
        DeadCommand::Replay { events, place, filter, sink, dry_run } => {
            let config = place.config(sink)?;
            let stage = sink.map(|sink| sink.name().to_owned()).or(filter.stage.clone());
            let filter = Filter::new(DeadFilter { stage, ..filter }, &events);
            let (replayed, words) = match (config.store, &config.kafka) {
                (Some(of), Some(kafka)) => {
                    let words = if dry_run { "posts would be written again" } else { "posts were written again" };
                    (store::replay(kafka, of, &filter, dry_run).await?, words)
                }
                (Some(_), None) => {
                    let error = Error::new(ErrorKind::InvalidConfig, "only a stream on Kafka feeds stores");
                    return Err(error.help("name the cluster with --config, or set kafka.brokers"));
                }
                (None, kafka) => {
                    let words = if dry_run { "events would be scored again" } else { "events will be scored again" };
                    let sent = match kafka {
                        Some(kafka) => topic::replay(kafka, &filter, dry_run).await?,
                        None => file::replay(&config.data, &filter, dry_run).await?,
                    };
                    (sent, words)
                }
            };
            let mut output = Output::create(None)?;
            let Sent { events, refused } = replayed;
            output.line(format!("{events} {words}, {refused} cannot be").as_bytes())?;
            output.finish()?;
            Ok(if refused == 0 { Outcome::Done } else { Outcome::SomeFailed })
        }
    }
}

/// Which letters are meant.
pub(crate) struct Filter {
    stage: Option<String>,
    since_us: Option<i64>,
    limit: usize,
    /// All, if it names none.
    events: BTreeSet<EventPlace>,
    /// Tells of a letter with which nothing can be done.
    tell: fn(EventPlace, &Error),
}

impl Filter {
    fn new(filter: DeadFilter, events: &[EventPlace]) -> Self {
        Self {
            stage: filter.stage,
            since_us: filter.since.map(jiff::Timestamp::as_microsecond),
            limit: filter.limit.unwrap_or(usize::MAX),
            events: events.iter().copied().collect(),
            tell: print,
        }
    }

    /// For a replay that a caller of the gateway asks for.
    pub(crate) fn asked(stage: Option<String>, limit: Option<usize>) -> Self {
        let (limit, events) = (limit.unwrap_or(usize::MAX), BTreeSet::new());
        Self { stage, since_us: None, limit, events, tell: log }
    }

    fn admits(&self, letter: &DeadLetter) -> bool {
        self.stage.as_ref().is_none_or(|stage| *stage == letter.stage)
            && self.since_us.is_none_or(|since| letter.dead_at_us >= since)
            && (self.events.is_empty() || self.events.contains(&event(letter)))
    }

    /// Letters of stores are not meant by who names neither a stage nor an event.
    fn admits_replay(&self, letter: &DeadLetter) -> bool {
        let named = self.stage.is_some() || !self.events.is_empty();
        (named || dead::is_scorings(letter)) && self.admits(letter)
    }
}

/// What became of a replay.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) events: usize,
    /// Letters with which nothing can be done; it was told why.
    pub(crate) refused: usize,
}

impl Sent {
    fn refuse(&mut self, filter: &Filter, letter: &DeadLetter, error: &Error) {
        (filter.tell)(event(letter), error);
        self.refused += 1;
    }
}

#[allow(clippy::print_stderr, reason = "what cannot be done is no result")]
fn print(EventPlace { partition, offset }: EventPlace, error: &Error) {
    eprintln!("undertone: {partition}:{offset}: {error}");
}

fn log(EventPlace { partition, offset }: EventPlace, error: &Error) {
    tracing::warn!(partition, offset, %error, "dead letter cannot be replayed");
}

fn event(letter: &DeadLetter) -> EventPlace {
    let place = |origin: &undertone_proto::v1::Origin| (origin.partition, origin.offset);
    let (partition, offset) = letter.origin.as_ref().map_or((-1, -1), place);
    EventPlace { partition, offset }
}

/// Letters as they are printed: at once, unless only the newest are wanted.
struct List {
    output: Output,
    json: bool,
    /// Whether there are several, so that an offset alone names no event.
    partitions: bool,
    limit: usize,
    /// By when they died, and as they came.
    newest: BTreeMap<(i64, usize), String>,
    seen: usize,
}

impl List {
    fn add(&mut self, letter: &DeadLetter) -> Result<()> {
        let line = if self.json {
            dead::to_json(letter)?.trim_end().to_owned()
        } else {
            let EventPlace { partition, offset } = event(letter);
            let place = if self.partitions { format!("{partition}:{offset}") } else { offset.to_string() };
            let at = timestamp(letter.dead_at_us);
            // A reason may hold what a post holds.
            let reason: String = letter.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            format!("{place:>12}  {at:.0}  {:<6}  {reason}", letter.stage)
        };
        if self.limit == usize::MAX {
            return self.output.line(line.as_bytes());
        }
        self.seen += 1;
        self.newest.insert((letter.dead_at_us, self.seen), line);
        if self.newest.len() > self.limit {
            self.newest.pop_first();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        for line in self.newest.into_values() {
            self.output.line(line.as_bytes())?;
        }
        self.output.finish()
    }
}
