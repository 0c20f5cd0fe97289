//! The open loop: calls are sent when they are due, whatever became of those before, over a number of connections that is
//! fixed beforehand. A call for which no connection is free waits for one, is sent late, and counts from when it was due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use undertone_error::{Context, ErrorKind, Result};

use crate::calls::Calls;
use crate::http::{Connection, Target};
use crate::tally::{Ended, OpenReport, Sent};

/// Ends an open loop: what is not sent by then is not sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What an open loop does.
#[derive(Debug)]
pub(crate) struct Plan {
    /// When each call is due, from the start, in ascending order.
    arrivals: Vec<Duration>,
    /// The length of the load, after which the server is asked until it answers; without it, the load lasts until it is
    /// stopped, and nobody asks.
    length: Option<Duration>,
    pub(crate) stop: Stop,
}

impl Plan {
    pub(crate) fn new(arrivals: Vec<Duration>, length: Option<Duration>) -> Self {
        Self { arrivals, length, stop: Stop::default() }
    }
}

/// A call that is due, by its number.
struct Job {
    number: usize,
    due: Duration,
}

/// Where the connections take calls from.
type Jobs = Arc<Mutex<mpsc::UnboundedReceiver<Job>>>;

/// Pauses between two questions to a server that may have recovered.
const ASK: Duration = Duration::from_millis(10);

/// How long a server is asked whether it has recovered.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Sends what is planned over `connections`, and waits for every answer.
///
/// # Errors
/// `Internal` if a part of the loop panics.
pub(crate) async fn run(
    target: &Arc<Target>,
    calls: &Arc<Calls>,
    plan: Plan,
    connections: usize,
    timeout_ms: Option<u64>,
) -> Result<OpenReport> {
    let Plan { arrivals, length, stop } = plan;
    let (jobs, waiting) = mpsc::unbounded_channel();
    let waiting: Jobs = Arc::new(Mutex::new(waiting));
    let started = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..connections.max(1) {
        let (target, calls) = (Arc::clone(target), Arc::clone(calls));
        senders.spawn(send(target, calls, Arc::clone(&waiting), started, stop.clone(), timeout_ms));
    }
    let due = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || hand_out(arrivals, length, started, &jobs, &stop))
    };
    let due = due.await.context(ErrorKind::Internal, "the loop's clock failed")?;
    let ended = started.elapsed();
    let recovered = match length {
        Some(_) => recovered(target, calls).await,
        None => None,
    };
    let mut sent = Vec::new();
    while let Some(more) = senders.join_next().await {
        sent.extend(more.context(ErrorKind::Internal, "sender of the loop failed")?);
    }
    Ok(OpenReport::of(due, length.unwrap_or(ended), &sent, recovered))
}

/// Hands out each call when it is due, until the load ends, and answers how many were. A thread of its own: the runtime's
/// timer has a grain of a millisecond.
fn hand_out(
    arrivals: Vec<Duration>,
    length: Option<Duration>,
    started: Instant,
    jobs: &mpsc::UnboundedSender<Job>,
    stop: &Stop,
) -> usize {
    let wait = |until: Duration| thread::sleep((started + until).saturating_duration_since(Instant::now()));
    let mut handed = 0;
    for (number, due) in arrivals.into_iter().enumerate() {
        wait(due);
        if stop.is_set() || jobs.send(Job { number, due }).is_err() {
            break;
        }
        handed += 1;
    }
    if let Some(length) = length {
        wait(length);
    }
    stop.set();
    handed
}

/// Sends calls over one connection until there are no more, or they are stopped.
async fn send(
    target: Arc<Target>,
    calls: Arc<Calls>,
    jobs: Jobs,
    started: Instant,
    stop: Stop,
    timeout_ms: Option<u64>,
) -> Vec<Sent> {
    let (mut all, mut connection) = (Vec::new(), Connection::default());
    loop {
        let job = jobs.lock().await.recv().await;
        let Some(Job { number, due }) = job.filter(|_| !stop.is_set()) else { return all };
        let call = calls.at(number);
        let sent = started.elapsed();
        let answer = connection.call(&target, &calls, call, timeout_ms).await;
        let ended = Ended::of(&answer, call.texts, |body| calls.scored(body));
        all.push(Sent { due, sent, done: started.elapsed(), ended });
    }
}

/// How long it took, from now, until a text was scored that was sent after now.
async fn recovered(target: &Target, calls: &Calls) -> Option<Duration> {
    let (ended, mut connection) = (Instant::now(), Connection::default());
    while ended.elapsed() < GIVE_UP {
        let call = calls.at(0);
        let answer = connection.call(target, calls, call, None).await;
        if Ended::of(&answer, call.texts, |body| calls.scored(body)) == Ended::Scored {
            return Some(ended.elapsed());
        }
        tokio::time::sleep(ASK).await;
    }
    None
}
