//! The layers around a store's calls: batches, time-out, concurrency, and what is to be tried again.

use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use metrics::{counter, histogram};
use prost::Message;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::v1::ScoredPost;

use super::{Answer, Found, LatestStore, Shape};

/// How often posts are tried that the store answers "again" to; after that the whole sink waits, as long as it takes.
const TRIES: u32 = 4;
/// The wait before the second try; each further one doubles it.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a store may take to tell what it has, or to make what is missing.
const LOOK: Duration = Duration::from_secs(30);

/// [`LatestStore::prepare`] in bounded time: a store that hangs is one that is waited for, with a reason.
///
/// # Errors
/// Those of the store; [`ErrorKind::DeadlineExceeded`] if it does not answer in time.
pub async fn prepare(store: &dyn LatestStore, make: bool) -> Result<Vec<Found>> {
    tokio::time::timeout(LOOK, store.prepare(make)).await.unwrap_or_else(|_| Err(unanswered(LOOK)))
}

fn unanswered(after: Duration) -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "store did not answer in time").with("seconds", after.as_secs())
}

/// A post that was rejected for good, and why.
pub(super) type Rejected<'a> = (&'a ScoredPost, String);

/// Writes all of `posts`, and answers which were rejected once the others are stored.
///
/// # Errors
/// That of the store; [`ErrorKind::Busy`] if it wants some of them again and again; [`ErrorKind::DeadlineExceeded`] if it
/// does not answer in time. What was written by then is written again.
pub(super) async fn deliver<'a>(store: &dyn LatestStore, posts: Vec<&'a ScoredPost>) -> Result<Vec<Rejected<'a>>> {
    let shape = store.shape();
    let (mut left, mut rejected) = (posts, Vec::new());
    for attempt in 0..TRIES {
        let (mut again, mut reason) = (Vec::new(), String::new());
        for (post, answer) in send(store, shape, &left).await? {
            match answer {
                Answer::Stored => {}
                Answer::Rejected(reason) => rejected.push((post, reason)),
                Answer::Again(why) => {
                    again.push(post);
                    reason = why;
                }
            }
        }
        count(store.name(), "again", again.len());
        if again.is_empty() {
            return Ok(rejected);
        }
        if attempt + 1 == TRIES {
            let error = Error::new(ErrorKind::Busy, "store puts off posts again and again");
            return Err(error.with("posts", again.len()).with("for example", reason));
        }
        tokio::time::sleep(PAUSE * (1 << attempt)).await;
        left = again;
    }
    Ok(rejected)
}

/// One call for each batch, a few at once; the first failure once all have ended.
async fn send<'a>(
    store: &dyn LatestStore,
    shape: Shape,
    posts: &[&'a ScoredPost],
) -> Result<Vec<(&'a ScoredPost, Answer)>> {
    let batches = batches(shape, posts);
    let calls: Vec<BoxFuture<'_, _>> = batches.iter().map(|batch| call(store, shape, batch).boxed()).collect();
    let outcomes: Vec<Result<Vec<Answer>>> = stream::iter(calls).buffered(shape.concurrency.max(1)).collect().await;
    let mut answered = Vec::with_capacity(posts.len());
    for (batch, outcome) in batches.iter().zip(outcomes) {
        let answers = outcome?;
        if answers.len() != batch.len() {
            let error = Error::new(ErrorKind::Internal, "store answers for other posts than it was given");
            return Err(error.with("posts", batch.len()).with("answers", answers.len()));
        }
        answered.extend(batch.iter().copied().zip(answers));
    }
    Ok(answered)
}

async fn call(store: &dyn LatestStore, shape: Shape, batch: &[&ScoredPost]) -> Result<Vec<Answer>> {
    let began = Instant::now();
    let written = tokio::time::timeout(shape.timeout, store.write(batch)).await;
    let outcome = written.unwrap_or_else(|_| Err(unanswered(shape.timeout)));
    let label = if outcome.is_ok() { "answered" } else { "failed" };
    let sink = store.name().to_owned();
    histogram!("undertone_sink_request_seconds", "sink" => sink, "outcome" => label)
        .record(began.elapsed().as_secs_f64());
    outcome
}

/// Counts posts by what the store answered.
pub(super) fn count(sink: &str, answer: &'static str, posts: usize) {
    counter!("undertone_sink_posts_total", "sink" => sink.to_owned(), "answer" => answer).increment(posts as u64);
}

/// Cuts posts into batches of the store's liking. A post that is larger than a batch is one alone.
fn batches<'a>(shape: Shape, posts: &[&'a ScoredPost]) -> Vec<Vec<&'a ScoredPost>> {
    let mut batches: Vec<Vec<&ScoredPost>> = Vec::new();
    let mut bytes = 0;
    for &post in posts {
        let size = post.encoded_len();
        match batches.last_mut().filter(|batch| batch.len() < shape.posts && bytes + size <= shape.bytes) {
            Some(batch) => {
                bytes += size;
                batch.push(post);
            }
            None => {
                bytes = size;
                batches.push(vec![post]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_every_post_in_order_within_the_bounds() {
        let posts: Vec<_> = (0..10).map(|n| ScoredPost { text: "x".repeat(10 * n), ..ScoredPost::default() }).collect();
        let posts: Vec<_> = posts.iter().collect();
        let shape = Shape { posts: 4, bytes: 100, concurrency: 1, timeout: Duration::from_secs(1) };
        let batches = batches(shape, &posts);
        assert_eq!(batches.concat(), posts);
        for batch in &batches {
            let bytes: usize = batch.iter().map(|post| post.encoded_len()).sum();
            assert!(batch.len() <= 4 && (bytes <= 100 || batch.len() == 1), "{} posts, {bytes} bytes", batch.len());
        }
        assert!(batches.len() < posts.len());
    }
}
