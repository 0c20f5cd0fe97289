//! One overview a period (a second) for all readers of `/v1/live` and `/v1/overview`.
//!
//! The guarantee: an overview is rendered at most once a period in total, whoever asks and however often; who asks again
//! within the period gets the same one. Readers of `/v1/live` are served by one task that lives only while somebody
//! listens. A reader that is slow misses overviews and gets the latest: nothing is queued for it. Every stream ends when
//! the gateway shuts down.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use super::Live;

type Sender = Arc<watch::Sender<Arc<str>>>;

/// Where readers ask and subscribe.
pub(crate) struct Broadcast {
    live: Live,
    period: Duration,
    shutdown: CancellationToken,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Of the task that runs while somebody listens.
    running: Option<Sender>,
    latest: Option<Rendered>,
}

/// An overview as JSON.
#[derive(Clone)]
struct Rendered {
    at: Instant,
    json: Arc<str>,
}

impl Broadcast {
    pub(crate) fn new(live: Live, period: Duration, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self { live, period, shutdown, shared: Mutex::default() })
    }

    /// An overview as JSON, younger than a period.
    pub(crate) fn latest(&self) -> Arc<str> {
        self.fresh(&mut self.shared()).json
    }

    /// Overviews as JSON: one at once, then one a period. Must be called inside a Tokio runtime.
    pub(crate) fn subscribe(self: &Arc<Self>) -> impl Stream<Item = Arc<str>> + Send + use<> {
        let mut shared = self.shared();
        let receiver = match shared.running.as_ref() {
            Some(sender) => sender.subscribe(),
            None => {
                let first = self.fresh(&mut shared);
                let (sender, receiver) = watch::channel(first.json);
                let sender = Arc::new(sender);
                shared.running = Some(sender.clone());
                tokio::spawn(self.clone().run(sender, first.at));
                receiver
            }
        };
        drop(shared);
        WatchStream::new(receiver).take_until(self.shutdown.clone().cancelled_owned())
    }

    async fn run(self: Arc<Self>, sender: Sender, mut rendered_at: Instant) {
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                // A period after the last rendering, not after the last tick: earlier the same one would come again.
                () = sleep_until(rendered_at + self.period) => {}
            }
            let Some(next) = self.next(&sender) else { return };
            rendered_at = next.at;
            sender.send_replace(next.json);
        }
        self.shared().running = None;
    }

    /// What to send next, or none if nobody listens, which ends the task. Under the lock, so that no reader subscribes to
    /// a task that has just ended.
    fn next(&self, sender: &Sender) -> Option<Rendered> {
        let mut shared = self.shared();
        if sender.receiver_count() == 0 {
            shared.running = None;
            return None;
        }
        Some(self.fresh(&mut shared))
    }

    /// The latest overview, rendered anew if it is a period old. Under the lock, so that those who ask meanwhile wait for
    /// this one instead of rendering their own.
    fn fresh(&self, shared: &mut Shared) -> Rendered {
        match &shared.latest {
            Some(latest) if latest.at.elapsed() < self.period => latest.clone(),
            _ => {
                // Plain data with string keys always serialises; if that should change, readers see an empty object.
                let json = serde_json::to_string(&self.live.overview()).unwrap_or_else(|_| "{}".to_owned()).into();
                shared.latest.insert(Rendered { at: Instant::now(), json }).clone()
            }
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::fake;

    const PERIOD: Duration = Duration::from_millis(50);

    fn broadcast() -> (Arc<Broadcast>, CancellationToken) {
        let token = CancellationToken::new();
        (Broadcast::new(Live::new(&fake::model()), PERIOD, token.clone()), token)
    }

    #[tokio::test]
    async fn a_slow_reader_gets_the_latest_and_nothing_is_queued() {
        let (broadcast, _token) = broadcast();
        let mut stream = Box::pin(broadcast.subscribe());
        stream.next().await.expect("the first overview comes at once");
        sleep(5 * PERIOD).await;
        broadcast.live.observe_events(7);
        sleep(5 * PERIOD).await;
        assert!(stream.next().await.expect("an overview").contains("\"events\":7"));
        let started = Instant::now();
        for _ in 0..3 {
            stream.next().await.expect("an overview");
        }
        assert!(started.elapsed() >= PERIOD, "missed overviews were not kept for later");
    }

    #[tokio::test]
    async fn nothing_is_rendered_while_nobody_listens_and_a_later_reader_starts_again() {
        let (broadcast, _token) = broadcast();
        drop(broadcast.subscribe());
        let ended = async {
            while broadcast.shared().running.is_some() {
                sleep(PERIOD / 5).await;
            }
        };
        timeout(Duration::from_secs(5), ended).await.expect("the task ends");
        broadcast.live.observe_events(3);
        let mut stream = Box::pin(broadcast.subscribe());
        assert!(stream.next().await.expect("an overview").contains("\"events\":3"));
    }

    #[tokio::test]
    async fn readers_share_what_one_task_renders() {
        let (broadcast, _token) = broadcast();
        let (mut first, mut second) = (Box::pin(broadcast.subscribe()), Box::pin(broadcast.subscribe()));
        let (a, b) = (first.next().await.expect("an overview"), second.next().await.expect("an overview"));
        assert!(Arc::ptr_eq(&a, &b));
    }

    #[tokio::test]
    async fn all_readers_together_cost_one_rendering_a_period() {
        let renderings = Arc::new(AtomicUsize::new(0));
        let counter = renderings.clone();
        // The clock is read once for the start, and then once a rendering.
        let live = Live::with_clock(&fake::model(), move || counter.fetch_add(1, Ordering::Relaxed) as i64);
        renderings.store(0, Ordering::Relaxed);
        let broadcast = Broadcast::new(live, Duration::from_secs(3600), CancellationToken::new());
        let polled = broadcast.latest();
        assert!(Arc::ptr_eq(&polled, &broadcast.latest()), "also when nobody listens");
        let streamed = Box::pin(broadcast.subscribe()).next().await.expect("an overview");
        assert!(Arc::ptr_eq(&polled, &streamed));
        assert_eq!(renderings.load(Ordering::Relaxed), 1);

        let broadcast = Broadcast::new(broadcast.live.clone(), PERIOD, CancellationToken::new());
        renderings.store(0, Ordering::Relaxed);
        let _stream = broadcast.subscribe();
        let started = Instant::now();
        while started.elapsed() < 6 * PERIOD {
            broadcast.latest();
            sleep(PERIOD / 50).await;
        }
        let most = 1 + (started.elapsed().as_micros() / PERIOD.as_micros()) as usize;
        let rendered = renderings.load(Ordering::Relaxed);
        assert!((2..=most).contains(&rendered), "{rendered} renderings, at most {most}");
    }

    #[tokio::test]
    async fn a_reader_gets_a_new_overview_each_period() {
        let (broadcast, _token) = broadcast();
        let mut stream = Box::pin(broadcast.subscribe());
        let mut last = stream.next().await.expect("an overview");
        for _ in 0..5 {
            let next = stream.next().await.expect("an overview");
            assert!(!Arc::ptr_eq(&last, &next), "the same one is not sent twice");
            last = next;
        }
    }

    #[tokio::test]
    async fn streams_end_on_shutdown() {
        let (broadcast, token) = broadcast();
        let mut stream = Box::pin(broadcast.subscribe());
        stream.next().await.expect("an overview");
        token.cancel();
        assert!(stream.next().await.is_none());
    }
}
