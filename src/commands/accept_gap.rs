//! `undertone accept-gap`: what Kafka no longer holds of what is still to be scored or stored, and a person's word that
//! it is lost.
//!
//! Nothing changes without `--yes`. With it, each loss is first written to the topic of dead letters, in the stage `gap`,
//! and then the position is moved past it: the group's by a commit that the broker refuses while somebody scores, a
//! table's by an ordinary, fenced commit without rows. A table that was rolled back has its positions set back, so that nothing is lost of
//! what its topic still holds.

use jiff::Timestamp;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::Partition;
use undertone_proto::v1::{DeadLetter, Origin};
use undertone_sinks::iceberg::{Grain, IcebergSink, IcebergStore, SetBack, StoreConfig, TableState};
use undertone_sinks::pump::{Gap, gaps};
use undertone_sinks::{Epoch, Positions, Sink};
use undertone_stream::data::DataFolder;
use undertone_stream::kafka::{GAP_STAGE, Kafka, Topic, Topics, last_outcomes, was_written};

use super::output::Output;
use crate::Outcome;
use crate::cli::AcceptGapArgs;

/// The group that scores, as `--sink` names it.
const SCORE: &str = "score";
/// The tables, as `--sink` names them.
const TABLES: [&str; 6] =
    ["bronze.posts", "silver.posts", "gold.sentiment_1m", "gold.sentiment_1h", "gold.tags_1m", "gold.tags_1h"];
/// The hash of no bytes at all.
const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(crate) async fn accept_gap(args: AcceptGapArgs) -> Result<Outcome> {
    let config = args.config()?;
    let stores: Vec<&'static str> =
        config.roles.iter().filter(|role| role.is_latest()).map(|role| role.name()).collect();
    let all = [&[SCORE], TABLES.as_slice(), &stores].concat();
    if let Some(sink) = args.sink.as_deref().filter(|sink| !all.contains(sink)) {
        let error = Error::new(ErrorKind::NotFound, "there is no such sink").with("sink", sink);
        return Err(error.help(format!("it is one of {}", all.join(", "))));
    }
    let Some(settings) = &config.kafka else {
        let error = Error::new(ErrorKind::InvalidConfig, "only a stream on Kafka has gaps");
        return Err(error.help("name the cluster with --config, or set kafka.brokers"));
    };
    let kafka = Kafka::reach(settings.client.clone()).await?;
    let topics = Topics::find(&kafka).await?;
    let mut work = Work { kafka, topics, args, output: Output::create(None)?, found: 0 };

    if work.wants(SCORE) {
        work.score().await?;
    }
    for store in stores.into_iter().filter(|store| work.wants(store)).collect::<Vec<_>>() {
        work.store(store).await?;
    }
    if let Some(tables) = config.tables.as_ref().filter(|_| TABLES.iter().any(|table| work.wants(table))) {
        if tables.uses_data() && !config.data.is_dir() {
            let error = Error::new(ErrorKind::NotFound, "no such data folder").with("data", config.data.display());
            return Err(error.help("give --data DIR"));
        }
        // Not beside a process that works in the folder.
        let _folder = if config.uses_data() { Some(DataFolder::open(&config.data)?) } else { None };
        work.tables(tables).await?;
    }
    work.end()
}

/// What is looked at and, with `--yes`, moved.
struct Work {
    kafka: Kafka,
    topics: Topics,
    args: AcceptGapArgs,
    output: Output,
    found: usize,
}

impl Work {
    fn wants(&self, sink: &str) -> bool {
        self.args.sink.as_deref().is_none_or(|wanted| wanted == sink)
    }

    /// The first offsets that a topic still holds.
    async fn starts(&self, topic: &Topic) -> Result<Positions> {
        let bounds = self.kafka.all_bounds(topic).await?;
        let start = |(number, (start, _))| (self.kafka.partition(topic, number), start);
        Ok(bounds.into_iter().map(start).collect())
    }

    async fn score(&mut self) -> Result<()> {
        let raw = self.topics.raw.clone();
        let (offsets, starts) = (self.kafka.group_offsets(SCORE, &raw).await?, self.starts(&raw).await?);
        let found = if offsets.is_empty() {
            self.forgotten(&starts).await?
        } else {
            // What the group does not name appeared later, and is scored from its beginning.
            let stand = |partition: &Partition| offsets.get(&partition.partition).copied().unwrap_or(0);
            gaps(&starts.keys().map(|partition| (partition.clone(), stand(partition))).collect(), &starts)
        };
        let found = self.report(SCORE, &raw, found)?;
        if found.is_empty() || !self.args.yes {
            return Ok(());
        }
        // Refused before anything is written, if somebody scores.
        self.kafka.move_group(SCORE, &raw, offsets).await?;
        self.record(SCORE, &raw, &found).await?;
        let to = found.iter().map(|gap| (gap.partition.partition, gap.to)).collect();
        self.kafka.move_group(SCORE, &raw, to).await
    }

    /// Where a group goes on that has forgotten where it stood, if it stood anywhere: behind the last outcome of each
    /// partition, or where the partition begins now.
    async fn forgotten(&self, starts: &Positions) -> Result<Vec<Gap>> {
        let outcomes = last_outcomes(&self.kafka, &self.topics.raw, &self.topics.scored, &self.topics.dead).await?;
        if outcomes.is_empty() && !was_written(&self.kafka, &self.topics.scored).await? {
            return Ok(Vec::new());
        }
        let gap = |(partition, &start): (&Partition, &i64)| {
            let ours = outcomes
                .iter()
                .filter(|origin| origin.topic == partition.topic && origin.partition == partition.partition);
            let next = ours.map(|origin| origin.offset + 1).max().unwrap_or(start);
            Gap { partition: partition.clone(), from: None, to: next.max(start) }
        };
        Ok(starts.iter().map(gap).collect())
    }

    /// The sink of a store, which stands where its group does. What the group does not name begins where the topic does.
    async fn store(&mut self, role: &'static str) -> Result<()> {
        let scored = self.topics.scored.clone();
        let (offsets, starts) = (self.kafka.group_offsets(role, &scored).await?, self.starts(&scored).await?);
        let stands = offsets.iter().map(|(&number, &offset)| (self.kafka.partition(&scored, number), offset)).collect();
        let found = self.report(role, &scored, gaps(&stands, &starts))?;
        if found.is_empty() || !self.args.yes {
            return Ok(());
        }
        // Refused before anything is written, if the sink runs.
        self.kafka.move_group(role, &scored, offsets).await?;
        self.record(role, &scored, &found).await?;
        let to = found.iter().map(|gap| (gap.partition.partition, gap.to)).collect();
        self.kafka.move_group(role, &scored, to).await
    }

    async fn tables(&mut self, tables: &StoreConfig) -> Result<()> {
        let store = IcebergStore::connect(tables).await?;
        let there = store.look_at_tables().await?.into_iter().filter(|(_, state)| *state == TableState::There);
        let there: Vec<_> = there.map(|(name, _)| name).collect();
        let (raw, scored) = (self.topics.raw.clone(), self.topics.scored.clone());
        self.table(store.bronze(), &there, &raw).await?;
        self.table(store.silver(), &there, &scored).await?;
        for grain in [Grain::Minute, Grain::Hour] {
            self.table(store.gold_sentiment(grain), &there, &scored).await?;
            self.table(store.gold_tags(grain), &there, &scored).await?;
        }
        Ok(())
    }

    async fn table<R: Send + Sync + 'static>(
        &mut self,
        mut sink: IcebergSink<R>,
        there: &[String],
        topic: &Topic,
    ) -> Result<()> {
        let name = sink.name().to_owned();
        if !self.wants(&name) || !there.contains(&name) {
            return Ok(());
        }
        let (back, stored) = sink.rollback().await?;
        self.report_rollback(&name, topic, &back)?;
        let found = self.report(&name, topic, gaps(&stored, &self.starts(topic).await?))?;
        if !self.args.yes {
            return Ok(());
        }
        if !back.is_empty() {
            self.record_rollback(&name, topic, &back).await?;
            sink.accept_rollback(&back).await?;
        }
        if !found.is_empty() {
            // They may have moved since, which the commit finds out.
            sink.positions().await?;
            self.record(&name, topic, &found).await?;
            let range = |gap: Gap| (gap.partition, gap.from.unwrap_or(gap.to)..gap.to);
            sink.write(&Epoch { ranges: found.into_iter().map(range).collect(), records: Vec::new() }).await?;
        }
        Ok(())
    }

    /// Prints what was found, and answers the part of it that was asked for.
    fn report(&mut self, sink: &str, topic: &Topic, found: Vec<Gap>) -> Result<Vec<Gap>> {
        let wanted = |gap: &Gap| self.args.partition.is_none_or(|number| number == gap.partition.partition);
        if self.args.partition.is_some() && found.iter().any(|gap| gap.from.is_none()) {
            let error = Error::new(ErrorKind::InvalidInput, "of another topic all partitions are accepted or none");
            return Err(error.with("sink", sink).help("leave --partition out"));
        }
        let found: Vec<_> = found.into_iter().filter(wanted).collect();
        self.found += found.len();
        for gap in &found {
            let word = if self.args.yes { "accepted" } else { "gap" };
            self.output.line(format!("{word:<9} {sink:<18} {}", describe(gap, topic)).as_bytes())?;
        }
        Ok(found)
    }

    /// Prints what a rollback of a table has left behind.
    fn report_rollback(&mut self, sink: &str, topic: &Topic, found: &[SetBack]) -> Result<()> {
        if self.args.partition.is_some() && !found.is_empty() {
            let error = Error::new(ErrorKind::InvalidInput, "a table was rolled back for all partitions or none");
            return Err(error.with("sink", sink).help("leave --partition out"));
        }
        self.found += found.len();
        for back in found {
            let word = if self.args.yes { "accepted" } else { "rollback" };
            self.output.line(format!("{word:<9} {sink:<18} {}", describe_rollback(back, topic)).as_bytes())?;
        }
        Ok(())
    }

    async fn record_rollback(&self, sink: &str, topic: &Topic, found: &[SetBack]) -> Result<()> {
        let letter = |back: &SetBack| {
            let what = describe_rollback(back, topic);
            tracing::warn!(sink, what, "a person accepted a rollback");
            letter(back.partition.origin(back.to), format!("accepted by a person, for {sink}: {what}"))
        };
        self.kafka.write_letters(&self.topics.dead, found.iter().map(letter).collect()).await
    }

    async fn record(&self, sink: &str, topic: &Topic, found: &[Gap]) -> Result<()> {
        let letter = |gap: &Gap| {
            let lost = describe(gap, topic);
            tracing::warn!(sink, lost, "a person accepted a loss");
            let origin = gap.partition.origin(gap.from.unwrap_or(gap.to));
            letter(origin, format!("accepted as lost by a person, for {sink}: {lost}"))
        };
        self.kafka.write_letters(&self.topics.dead, found.iter().map(letter).collect()).await
    }

    fn end(mut self) -> Result<Outcome> {
        let last = match (self.found, self.args.yes) {
            (0, _) => "no gap: Kafka holds everything that is still to be scored or stored",
            (_, false) => "nothing was changed; with --yes this is written down, and the stream goes on from there",
            (_, true) => "written down as dead letters of the stage gap; the stream goes on from there",
        };
        self.output.line(last.as_bytes())?;
        self.output.finish()?;
        Ok(Outcome::Done)
    }
}

/// A letter that says what a person accepted.
fn letter(origin: Origin, reason: String) -> DeadLetter {
    let now = Timestamp::now().as_microsecond();
    DeadLetter {
        origin: Some(origin),
        stage: GAP_STAGE.to_owned(),
        reason,
        payload: Vec::new(),
        payload_sha256: SHA256_OF_NOTHING.to_owned(),
        payload_bytes: 0,
        attempts: 0,
        ingested_at_us: now,
        dead_at_us: now,
    }
}

fn describe_rollback(back: &SetBack, topic: &Topic) -> String {
    let SetBack { partition, run, from, to, .. } = back;
    let (name, number) = (&topic.name, partition.partition);
    let rows = if from > to {
        format!("rows of offsets {to}..{from} were rolled back")
    } else {
        format!("the rows that are there go up to offset {to}")
    };
    match run {
        _ if partition.topic != topic.id => {
            format!("partition {number} of a topic that {name} has replaced: {rows}, and are lost")
        }
        None => format!("{name} partition {number}: {rows}; goes on at offset {to}"),
        Some(run) => {
            format!("{name} partition {number}, run {run}: {rows}; `undertone rescore --run {run}` goes on there")
        }
    }
}

fn describe(gap: &Gap, topic: &Topic) -> String {
    let (name, partition, to) = (&topic.name, gap.partition.partition, gap.to);
    match gap.from {
        Some(from) => format!("{name} partition {partition}: offsets {from}..{to} are gone, {} of them", to - from),
        None => format!("{name} partition {partition}: nobody knows what is gone; goes on at offset {to}"),
    }
}
