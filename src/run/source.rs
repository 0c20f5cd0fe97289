//! Takes posts from a source into the input log.
//!
//! A source goes on where its last durable event stands, whatever ended the process before. It waits while scoring is
//! far behind, so that a fast source fills neither memory nor disk.

use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use undertone_collectors::generator::{GeneratedPost, Generator, GeneratorConfig};
use undertone_error::Result;
use undertone_stream::input::{InputLog, SourceBatch};
use undertone_stream::scored::ScoredLog;
use undertone_stream::source::{Ahead, Ingest, Ingested, ReadOptions};
use uuid::Uuid;

use crate::config::{GeneratorSource, Source};

/// Events in one append, and so in one fsync.
const BATCH: usize = 512;

/// How far a source may be ahead of the scoring stage, in events.
pub(super) const MAX_BACKLOG: i64 = 100_000;

/// Where events go.
#[derive(Clone)]
pub(super) struct Intake {
    pub(super) input: InputLog,
    pub(super) scored: ScoredLog,
    pub(super) stop: CancellationToken,
}

impl Intake {
    /// Takes in the whole source, or what it gives until it is time to stop.
    ///
    /// # Errors
    /// A source that cannot be read; a log that cannot be written.
    pub(super) async fn take_in(&self, source: &Source) -> Result<()> {
        let ingest = Ingest::new(self.input.clone(), self.stop.clone()).ahead(self.ahead());
        let options = ReadOptions::default();
        match source {
            Source::Generator(generator) => self.generate(generator).await,
            // Callers of the gateway send posts, and none of them is the last.
            Source::Http => {
                self.stop.cancelled().await;
                Ok(())
            }
            Source::File(path) => report(&path.display().to_string(), ingest.file(path, &options).await?),
            Source::Stdin => {
                let key = format!("stdin:{}", Uuid::new_v4());
                report("standard input", ingest.stream(&key, Box::new(std::io::stdin()), &options).await?)
            }
        }
    }

    fn ahead(&self) -> Ahead {
        Ahead { consumed: self.scored.durable(), max_events: MAX_BACKLOG }
    }

    /// Appends a batch as soon as scoring is near enough. Answers false when it is time to stop; the batch is then not
    /// taken in.
    ///
    /// # Errors
    /// As [`InputLog::append`].
    async fn append(&self, batch: SourceBatch) -> Result<bool> {
        let mut ahead = self.ahead();
        tokio::select! {
            () = self.stop.cancelled() => return Ok(false),
            near = ahead.wait(self.input.end()) => near?,
        }
        // A full disk is waited out.
        Ok(self.input.append_patiently(batch, &self.stop).await?.is_some())
    }

    /// Plays the generator: first an hour or so of history, if this folder has none yet, then the present.
    ///
    /// # Errors
    /// As [`Intake::append`]; [`undertone_error::ErrorKind::InvalidConfig`] for a rate that is no rate.
    async fn generate(&self, source: &GeneratorSource) -> Result<()> {
        if source.count.is_none() && !self.generate_history(source).await? {
            return Ok(());
        }
        self.generate_present(source).await
    }

    async fn generate_history(&self, source: &GeneratorSource) -> Result<bool> {
        let key = format!("generator:{}:history", source.seed);
        let cursor = self.input.cursor(&key);
        let count = (source.backfill.as_secs_f64() * source.backfill_rate) as u64;
        if cursor.finished || count <= cursor.next_seq {
            return Ok(true);
        }
        let start_us = now_us() - i64::try_from(source.backfill.as_micros()).unwrap_or(i64::MAX / 2);
        // A world of its own: with the live seed, history and present would share ids.
        let config = GeneratorConfig { seed: !source.seed, start_us, rate: source.backfill_rate, ..Default::default() };
        let mut posts = Generator::new(config)?;
        posts.seek(cursor.next_seq);

        let mut next_seq = cursor.next_seq;
        while next_seq < count {
            let size = BATCH.min(usize::try_from(count - next_seq).unwrap_or(BATCH));
            let payloads: Vec<Bytes> = (&mut posts).take(size).map(|post| post.payload.into()).collect();
            let first_seq = next_seq;
            next_seq += size as u64;
            let batch = SourceBatch { source_key: key.clone(), first_seq, payloads, last: next_seq == count };
            if !self.append(batch).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn generate_present(&self, source: &GeneratorSource) -> Result<()> {
        let key = format!("generator:{}", source.seed);
        let cursor = self.input.cursor(&key);
        let count = source.count.unwrap_or(u64::MAX);
        if cursor.next_seq >= count {
            tracing::info!(count, "generator has played all of its posts");
            return Ok(());
        }
        let config = GeneratorConfig { seed: source.seed, rate: source.rate, ..Default::default() };
        let mut posts = Generator::new(config.with_arrival(cursor.next_seq, now_us()))?;
        posts.seek(cursor.next_seq);

        let mut next = posts.next_post();
        loop {
            let wait = Duration::from_micros(next.at_us.saturating_sub(now_us()).max(0).unsigned_abs());
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            let due: Vec<GeneratedPost> = take_due(&mut posts, &mut next, now_us(), count);
            let Some((first, last)) = due.first().zip(due.last()) else { continue };
            let (first_seq, done) = (first.index, last.index + 1 == count);
            let payloads = due.into_iter().map(|post| post.payload.into()).collect();
            // Never the last for ever: another run may ask for more.
            let batch = SourceBatch { source_key: key.clone(), first_seq, payloads, last: false };
            if !self.append(batch).await? || done {
                return Ok(());
            }
        }
    }
}

fn report(source: &str, taken: Ingested) -> Result<()> {
    let Ingested { events, already, finished } = taken;
    tracing::info!(source, events, already, finished, "source taken in");
    Ok(())
}

/// Every post that is due by `now_us`, at most one batch, and none from `count` on.
fn take_due(posts: &mut Generator, next: &mut GeneratedPost, now_us: i64, count: u64) -> Vec<GeneratedPost> {
    let mut due = Vec::new();
    while next.at_us <= now_us && next.index < count && due.len() < BATCH {
        due.push(std::mem::replace(next, posts.next_post()));
    }
    due
}

fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_taken_once_in_order_and_never_past_the_count() {
        let mut posts = Generator::new(GeneratorConfig::default()).expect("a good configuration");
        let mut next = posts.next_post();
        let mut taken = Vec::new();
        for second in 1..20 {
            let now = GeneratorConfig::default().start_us + second * 1_000_000;
            let due = take_due(&mut posts, &mut next, now, 100);
            assert!(due.iter().all(|post| post.at_us <= now));
            taken.extend(due.into_iter().map(|post| post.index));
        }
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
    }
}
