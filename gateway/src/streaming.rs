//! A stream of texts, the same for REST and gRPC: what is read, what is owed, and when it ends.
//!
//! The guarantee: one answer for each text, in the order of the texts, each as soon as it and those before it are scored.
//! A fixed number of texts, and of their bytes, is in flight: who does not take answers is not read from. A key's rate
//! slows the stream down instead of failing it. The stream ends with its texts, or with one problem that is its last word:
//! its deadline (what waits leaves the queue), a caller who sends nothing though nothing is owed to it, or a shutdown,
//! after which no text is read and those in flight are answered while the drain lasts.

use std::{panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use futures::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{FuturesOrdered, unfold},
};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use undertone_inference::{Lane, Scored};

use crate::{Gateway, Limits, access::Caller, errors::ProblemCode, problem::Problem, scoring::ManyTexts, telemetry};

/// The longest that a stream waits before it asks again whether its key's rate has room.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// One text as it came, or what is wrong with it, and what comes back beside its answer.
pub(crate) struct Entry<T> {
    pub(crate) tag: T,
    pub(crate) text: Result<String, Problem>,
}

/// What became of one text.
pub(crate) struct Answer<T> {
    pub(crate) tag: T,
    pub(crate) outcome: Result<Scored, Problem>,
}

/// How a stream is served.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) lane: Lane,
    pub(crate) deadline: Instant,
    /// The name of the protocol in metrics.
    pub(crate) face: &'static str,
}

/// Streams are after throughput unless they say otherwise.
pub(crate) fn lane(asked: Option<Lane>) -> Lane {
    asked.unwrap_or(Lane::Bulk)
}

/// Texts that may be in flight: an interactive stream is let have as many as an interactive call.
fn most_texts(lane: Lane, limits: &Limits) -> usize {
    match lane {
        Lane::Interactive => limits.interactive_texts,
        Lane::Bulk => limits.stream_texts,
    }
}

/// The answers to texts that come one after another. An error is the last thing that comes out.
///
/// `entries` ends with an error of its own if the texts cannot be read any further.
pub(crate) fn answers<T, S>(
    gateway: &Gateway,
    caller: Caller,
    terms: Terms,
    entries: S,
) -> impl Stream<Item = Result<Answer<T>, Problem>> + Send + use<T, S>
where
    T: Send + 'static,
    S: Stream<Item = Result<Entry<T>, Problem>> + Send + 'static,
{
    let course = Box::new(Course {
        gateway: Arc::new(gateway.clone()),
        caller,
        prepaid: true,
        entries: Box::pin(entries),
        reading: true,
        unpaid: None,
        running: FuturesOrdered::new(),
        bytes: 0,
        why: None,
        deadline: Box::pin(sleep_until(terms.deadline)),
        shutdown: Box::pin(gateway.shutdown.clone().cancelled_owned()),
        draining: false,
        over: false,
        traced: ManyTexts::begin(terms.lane),
        terms,
    });
    let answers = unfold(course, |mut course| async move { course.next().await.map(|answer| (answer, course)) });
    // A text that makes the scorer panic ends its stream, and no more than that.
    AssertUnwindSafe(answers).catch_unwind().map(|answer| {
        answer.unwrap_or_else(|_| {
            tracing::error!("scoring a stream panicked");
            Err(Problem::failed())
        })
    })
}

/// A text that is being scored: how many bytes it has, and what becomes of it.
type Running<T> = BoxFuture<'static, (usize, Answer<T>)>;

struct Course<T, S> {
    gateway: Arc<Gateway>,
    caller: Caller,
    terms: Terms,
    /// The door has taken the first text's share of the rate.
    prepaid: bool,
    entries: Pin<Box<S>>,
    /// Whether more texts are wanted.
    reading: bool,
    /// A text that came before its key's rate had room for it, and when there may be.
    unpaid: Option<(Entry<T>, Instant)>,
    running: FuturesOrdered<Running<T>>,
    /// Of all texts that are running.
    bytes: usize,
    /// Why no more texts are read, if it is not that there are none.
    why: Option<Problem>,
    deadline: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    draining: bool,
    over: bool,
    traced: ManyTexts,
}

impl<T, S> Course<T, S>
where
    T: Send + 'static,
    S: Stream<Item = Result<Entry<T>, Problem>> + Send,
{
    async fn next(&mut self) -> Option<Result<Answer<T>, Problem>> {
        if self.over {
            return None;
        }
        let patience = self.gateway.limits.body_timeout;
        let mut idle = Instant::now() + patience;
        loop {
            let owed = !self.running.is_empty();
            if !self.reading && self.unpaid.is_none() && !owed {
                self.over = true;
                return self.why.take().map(Err);
            }
            let may_read = self.reading && self.unpaid.is_none() && self.has_room();
            let paid_at = self.unpaid.as_ref().map_or(idle, |(_, at)| *at);
            tokio::select! {
                biased;
                () = &mut self.deadline => return Some(Err(self.cut())),
                () = &mut self.shutdown, if !self.draining => self.drain(),
                // Texts before answers: the core fills its batches with what it knows of.
                entry = self.entries.next(), if may_read => {
                    self.take(entry);
                    idle = Instant::now() + patience;
                }
                Some((bytes, answer)) = self.running.next(), if owed => {
                    self.bytes -= bytes;
                    self.traced.add(&answer.outcome);
                    return Some(Ok(answer));
                }
                () = sleep_until(paid_at), if self.unpaid.is_some() => {
                    if let Some((entry, _)) = self.unpaid.take() {
                        self.pay(entry);
                    }
                }
                // The clock of a caller to whom nothing is owed: while texts are scored, it may well be waiting for them.
                () = sleep_until(idle), if may_read && !owed => {
                    let detail = "no text came for too long; send faster, or open a stream when there is something to send";
                    self.stop(Problem::new(ProblemCode::BodyTimeout, detail));
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        let limits = &self.gateway.limits;
        self.running.len() < most_texts(self.terms.lane, limits) && self.bytes < limits.stream_text_bytes
    }

    fn take(&mut self, entry: Option<Result<Entry<T>, Problem>>) {
        match entry {
            Some(Ok(entry)) => self.pay(entry),
            Some(Err(problem)) => self.stop(problem),
            None => self.reading = false,
        }
    }

    /// Scores the text if its key's rate has room for it; otherwise the stream stands still until there is.
    fn pay(&mut self, entry: Entry<T>) {
        let paid = if std::mem::take(&mut self.prepaid) { Ok(()) } else { self.caller.take_or_wait() };
        match paid {
            Ok(()) => self.start(entry),
            Err(wait) => self.unpaid = Some((entry, Instant::now() + wait.min(LONGEST_PAUSE))),
        }
    }

    fn start(&mut self, Entry { tag, text }: Entry<T>) {
        let bytes = text.as_ref().map_or(0, String::len);
        self.bytes += bytes;
        let (gateway, Terms { lane, deadline, face }) = (Arc::clone(&self.gateway), self.terms.clone());
        let work = async move {
            let outcome = match text {
                Ok(text) => gateway.score_one(lane, text, deadline).await,
                Err(problem) => Err(problem),
            };
            telemetry::text(face, &outcome);
            (bytes, Answer { tag, outcome })
        };
        self.running.push_back(work.boxed());
    }

    /// Reads no more; what is running is answered, and then the stream ends with this.
    fn stop(&mut self, problem: Problem) {
        self.reading = false;
        self.why = Some(problem);
    }

    /// The process ends: it lasts for as long as a drain does, of which a quarter is left to the answers' way out.
    fn drain(&mut self) {
        self.draining = true;
        if self.reading || self.unpaid.is_some() {
            self.unpaid = None;
            self.stop(shutting_down());
        }
        let by = Instant::now() + self.gateway.limits.drain * 3 / 4;
        if by < self.deadline.deadline() {
            self.deadline.as_mut().reset(by);
        }
    }

    /// Gives up what is running.
    fn cut(&mut self) -> Problem {
        self.traced.failed();
        self.over = true;
        self.running.clear();
        match self.why.take() {
            Some(problem) => problem,
            None if self.draining => shutting_down(),
            None => Problem::new(
                ProblemCode::DeadlineExceeded,
                "the stream's deadline passed before its last text was scored",
            ),
        }
    }
}

fn shutting_down() -> Problem {
    let detail = "the server takes no more texts; send those that were not answered to another, or try again";
    Problem::new(ProblemCode::ShuttingDown, detail)
}
