//! Dead letters of a store: their posts are written to it again, as its sink writes.
//!
//! The guarantee: a letter counts as dealt with only once the store has said that it holds its post, in this version or a
//! later one. Whoever asks, how often, beside a running sink or broken off in the middle: what is written twice, or is older
//! than what the store holds, changes nothing. What is refused again keeps its letter.

use prost::Message;
use undertone_error::{Error, ErrorKind, Result, failpoint};
use undertone_proto::v1::{DeadLetter, ScoredPost};
use undertone_sinks::latest::write_again;
use undertone_stream::kafka::{Kafka, LetterCloser};

use super::topic::{blocking, open};
use super::{Filter, Sent};
use crate::config::{KafkaSettings, Stores};
use crate::run::stores::open_one;

/// Writes the posts of letters again.
///
/// # Errors
/// Those of the cluster and of the store. What was written by then is written, and told in `posts.dead`.
pub(crate) async fn replay(settings: &KafkaSettings, stores: Stores, filter: &Filter, dry_run: bool) -> Result<Sent> {
    let store = open_one(stores)?;
    let kafka = Kafka::reach(settings.client.clone()).await?;
    let (dead, begun, sink) = (open(&kafka).await?, kafka.clone(), store.name().to_owned());
    let closer = match dry_run {
        true => None,
        false => Some(
            blocking(move || LetterCloser::begin(&begun, &sink, &begun.topic(&begun.config().topics.dead)?)).await?,
        ),
    };
    let replayed = dead.replayed().await?;
    let (mut letters, mut sent) = (dead.letters().await?, Sent::default());
    while let Some(some) = letters.next().await? {
        let (mut chosen, mut posts) = (Vec::new(), Vec::new());
        for letter in some {
            let enough = sent.events + posts.len() >= filter.limit;
            if enough || !filter.admits_replay(&letter.letter) || replayed.covers(&letter) {
                continue;
            }
            match post(&letter.letter) {
                Ok(post) => {
                    posts.push(post);
                    chosen.push(letter);
                }
                Err(error) => sent.refuse(filter, &letter.letter, &error),
            }
        }
        let Some(closer) = closer.as_ref().filter(|_| !posts.is_empty()) else {
            sent.events += posts.len();
            continue;
        };
        let mut done = Vec::with_capacity(chosen.len());
        for (letter, refused) in chosen.into_iter().zip(write_again(&*store, &posts).await?) {
            match refused {
                None => done.push(letter),
                Some(reason) => {
                    let error = Error::new(ErrorKind::InvalidInput, "store refuses the post again").source(reason);
                    sent.refuse(filter, &letter.letter, &error);
                }
            }
        }
        failpoint::hit("dead.written-again");
        sent.events += done.len();
        closer.close(done).await?;
    }
    Ok(sent)
}

/// The post of a letter.
fn post(letter: &DeadLetter) -> Result<ScoredPost> {
    if letter.payload.is_empty() {
        let error =
            Error::new(ErrorKind::NotFound, "post was too large for its letter").with("bytes", letter.payload_bytes);
        return Err(error.help("posts.scored has it: a sink of another kafka.group reads it again from the beginning"));
    }
    let corrupt = |e| Error::new(ErrorKind::Corrupt, "letter holds no scored post").source(e);
    ScoredPost::decode(letter.payload.as_slice()).map_err(corrupt)
}
