//! Dead letters of a stream on Kafka.

use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::DeadLetter;
use undertone_stream::kafka::{DeadLetters, Kafka, Replayer};

use super::{Filter, List, Sent, event};
use crate::cli::EventPlace;
use crate::config::KafkaSettings;

/// Lists letters; those that were replayed too, if `all` are wanted.
///
/// # Errors
/// Those of the cluster.
pub(super) async fn list(settings: &KafkaSettings, filter: &Filter, all: bool, list: &mut List) -> Result<()> {
    let dead = open(&Kafka::reach(settings.client.clone()).await?).await?;
    let replayed = dead.replayed().await?;
    let mut letters = dead.letters().await?;
    while let Some(some) = letters.next().await? {
        for letter in some.iter().filter(|letter| filter.admits(&letter.letter)) {
            if all || !replayed.covers(letter) {
                list.add(&letter.letter)?;
            }
        }
    }
    Ok(())
}

/// The last letter of an event.
///
/// # Errors
/// Those of the cluster.
pub(super) async fn find(settings: &KafkaSettings, wanted: EventPlace) -> Result<Option<DeadLetter>> {
    let dead = open(&Kafka::reach(settings.client.clone()).await?).await?;
    let (mut letters, mut found) = (dead.letters().await?, None);
    while let Some(some) = letters.next().await? {
        found = some.into_iter().map(|letter| letter.letter).rfind(|letter| event(letter) == wanted).or(found);
    }
    Ok(found)
}

/// Sends the events of letters to scoring again.
///
/// # Errors
/// Those of the cluster. What was sent by then is sent, and not sent again by the next replay.
pub(crate) async fn replay(settings: &KafkaSettings, filter: &Filter, dry_run: bool) -> Result<Sent> {
    let kafka = Kafka::reach(settings.client.clone()).await?;
    let names = kafka.config().topics.clone();
    let begun = kafka.clone();
    let begin = move || {
        let (raw, dead) = (begun.topic(&names.raw)?, begun.topic(&names.dead)?);
        if dry_run { Replayer::look(&begun, &raw, &dead) } else { Replayer::begin(&begun, &raw, &dead) }
    };
    // Before anything is read: what an earlier replay has sent by then is seen, and it sends no more.
    let replayer = blocking(begin).await?;
    let dead = open(&kafka).await?;
    let mut replayed = dead.replayed().await?;
    let (mut letters, mut sent) = (dead.letters().await?, Sent::default());
    while let Some(some) = letters.next().await? {
        let mut replays = Vec::new();
        for letter in some {
            let enough = sent.events + replays.len() >= filter.limit;
            if enough || !filter.admits_replay(&letter.letter) || replayed.covers(&letter) {
                continue;
            }
            match replayer.prepare(&letter).await {
                Ok(replay) => {
                    replayed.add(&letter);
                    replays.push(replay);
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => {
                    sent.refuse(filter, &letter.letter, &error);
                }
                Err(error) => return Err(error),
            }
        }
        let count = replays.len();
        if !dry_run && count > 0 {
            replayer.send(replays).await?;
        }
        sent.events += count;
    }
    Ok(sent)
}

pub(super) async fn open(kafka: &Kafka) -> Result<DeadLetters> {
    let kafka = kafka.clone();
    blocking(move || DeadLetters::new(&kafka, &kafka.topic(&kafka.config().topics.dead)?)).await
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let panicked = |e| Err(Error::new(ErrorKind::Internal, "talking to kafka panicked").source(e));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(panicked)
}
