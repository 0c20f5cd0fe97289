//! Posts that callers of the gateway send: into the input log, or into Kafka.
//!
//! The guarantee: a post is answered with its place only once it is durable there. Into the input log many callers share
//! one sync: whatever has come while the last one ran goes into the next. Callers are refused, not kept waiting, while
//! scoring is far behind.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use undertone_error::{Error, ErrorKind, Result};
use undertone_gateway::{Intake, NewPost, Place};
use undertone_proto::Headers;
use undertone_stream::input::{InputLog, SourceBatch};
use undertone_stream::kafka::{Appender, Kafka, NewRecord};
use undertone_stream::scored::ScoredLog;

use super::source::MAX_BACKLOG;

/// The source that these posts have in the input log.
const SOURCE: &str = "http";

/// Calls that wait for a sync.
const WAITING: usize = 256;

/// Posts that share a sync.
const BATCH: usize = 4096;

/// Puts posts into the topic of posts.
struct IntoTopic(Appender);

/// What puts posts into the topic of posts.
///
/// # Errors
/// As [`Appender::new`].
pub(super) fn into_topic(kafka: &Kafka) -> Result<Arc<dyn Intake>> {
    Ok(Arc::new(IntoTopic(Appender::new(kafka, &kafka.config().topics.raw)?)))
}

#[async_trait]
impl Intake for IntoTopic {
    async fn take_in(&self, posts: Vec<NewPost>) -> Vec<Result<Place>> {
        // Whoever scores them goes on with the trace of the call that sent them.
        let trace = undertone_trace::headers().into_iter().map(|(name, value)| (name, Some(value.into_bytes())));
        let trace: Headers = trace.collect();
        let record = |post: NewPost| NewRecord {
            partition: None,
            key: post.key.into_bytes(),
            payload: post.payload.to_vec(),
            headers: trace.clone(),
        };
        let places = self.0.append(posts.into_iter().map(record).collect()).await;
        places.into_iter().map(|place| place.map(|(partition, offset)| Place { partition, offset })).collect()
    }
}

/// Posts of one call, and who waits for them.
struct Call {
    payloads: Vec<Bytes>,
    answer: oneshot::Sender<Result<Range<i64>>>,
}

/// Hands posts to the one task that appends them.
pub(super) struct IntoLog(mpsc::Sender<Call>);

/// The task that appends them.
pub(super) struct Clerk {
    calls: mpsc::Receiver<Call>,
    input: InputLog,
    scored: ScoredLog,
}

/// Both ends, for the logs of one data folder.
pub(super) fn into_log(input: InputLog, scored: ScoredLog) -> (Arc<dyn Intake>, Clerk) {
    let (send, calls) = mpsc::channel(WAITING);
    (Arc::new(IntoLog(send)), Clerk { calls, input, scored })
}

#[async_trait]
impl Intake for IntoLog {
    async fn take_in(&self, posts: Vec<NewPost>) -> Vec<Result<Place>> {
        let count = posts.len();
        let (answer, answered) = oneshot::channel();
        let call = Call { payloads: posts.into_iter().map(|post| post.payload).collect(), answer };
        let outcome = match self.0.try_send(call) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(ended())),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(Error::new(ErrorKind::Busy, "too many calls wait for their posts to become durable"))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ended()),
        };
        match outcome {
            Ok(offsets) => offsets.map(|offset| Ok(Place { partition: 0, offset })).collect(),
            Err(error) => (0..count).map(|_| Err(again(&error))).collect(),
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the stream of this process has ended")
}

/// The same error once more: each post has its own.
fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.message())
}

impl Clerk {
    /// Appends what comes until `stop`; what was handed over before is appended and answered.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.calls.close();
                    self.calls.recv().await
                }
                call = self.calls.recv() => call,
            };
            let Some(first) = first else { return };
            let mut calls = vec![first];
            let mut posts = calls[0].payloads.len();
            while posts < BATCH
                && let Ok(call) = self.calls.try_recv()
            {
                posts += call.payloads.len();
                calls.push(call);
            }
            self.append(calls).await;
        }
    }

    async fn append(&self, calls: Vec<Call>) {
        let mut bounds = Vec::with_capacity(calls.len());
        let (mut payloads, mut answers) = (Vec::new(), Vec::new());
        for call in calls {
            bounds.push(call.payloads.len() as i64);
            payloads.extend(call.payloads);
            answers.push(call.answer);
        }
        let outcome = self.append_all(payloads).await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, "posts of callers were not taken in");
        }
        let mut next = outcome.as_ref().map_or(0, |offsets| offsets.start);
        for (count, answer) in bounds.into_iter().zip(answers) {
            // Who has gone away learns nothing; the posts are there all the same.
            let _ = answer.send(match &outcome {
                Ok(_) => Ok(next..next + count),
                Err(error) => Err(again(error)),
            });
            next += count;
        }
    }

    async fn append_all(&self, payloads: Vec<Bytes>) -> Result<Range<i64>> {
        let behind = self.input.end() - *self.scored.durable().borrow();
        if behind >= MAX_BACKLOG {
            let message = format!("scoring is {behind} posts behind, which is all that may wait");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let first_seq = self.input.cursor(SOURCE).next_seq;
        self.input.append(SourceBatch { source_key: SOURCE.to_owned(), first_seq, payloads, last: false }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posts(texts: &[&str]) -> Vec<NewPost> {
        let post = |text: &&str| NewPost { key: String::new(), payload: Bytes::copy_from_slice(text.as_bytes()) };
        texts.iter().map(post).collect()
    }

    #[tokio::test]
    async fn callers_share_a_sync_and_each_learns_its_own_places() {
        let folder = tempfile::tempdir().expect("a folder");
        let input = InputLog::open(&folder.path().join("input"), "c").expect("a log");
        let scored = ScoredLog::open(&folder.path().join("scored"), &input).expect("a log");
        let (intake, clerk) = into_log(input.clone(), scored);
        let stop = CancellationToken::new();
        let first = intake.take_in(posts(&["a", "b"]));
        let second = intake.take_in(posts(&["c"]));
        let run = clerk.run(stop.clone());
        let both = async {
            let both = tokio::join!(first, second);
            stop.cancel();
            both
        };
        let ((), (first, second)) = tokio::join!(run, both);
        let offsets = |places: Vec<Result<Place>>| {
            places.into_iter().map(|place| place.expect("durable").offset).collect::<Vec<_>>()
        };
        assert_eq!((offsets(first), offsets(second)), (vec![0, 1], vec![2]));
        assert_eq!((input.end(), input.cursor(SOURCE).next_seq), (3, 3));
        let late = intake.take_in(posts(&["d"])).await.remove(0).expect_err("nobody appends any more");
        assert_eq!(late.kind(), ErrorKind::Unavailable);
    }
}
