//! One overview a period (a second) for all readers of `/v1/live`.
//!
//! The overview is rendered by one task that lives only while somebody listens. A reader that is slow misses overviews
//! and gets the latest: nothing is queued for it. Every stream ends when the gateway shuts down.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use super::Live;

type Sender = Arc<watch::Sender<Arc<str>>>;

/// Where readers subscribe.
pub(crate) struct Broadcast {
    live: Live,
    period: Duration,
    shutdown: CancellationToken,
    running: Mutex<Option<Sender>>,
}

impl Broadcast {
    pub(crate) fn new(live: Live, period: Duration, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self { live, period, shutdown, running: Mutex::new(None) })
    }

    /// Overviews as JSON: one at once, then one a period. Must be called inside a Tokio runtime.
    pub(crate) fn subscribe(self: &Arc<Self>) -> impl Stream<Item = Arc<str>> + Send + use<> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = match running.as_ref() {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = watch::channel(self.render());
                let sender = Arc::new(sender);
                *running = Some(sender.clone());
                tokio::spawn(self.clone().run(sender));
                receiver
            }
        };
        drop(running);
        WatchStream::new(receiver).take_until(self.shutdown.clone().cancelled_owned())
    }

    async fn run(self: Arc<Self>, sender: Sender) {
        let mut ticks = interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                _ = ticks.tick() => {}
            }
            if self.retire(&sender) {
                return;
            }
            sender.send_replace(self.render());
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Ends the task if nobody listens. Under the lock, so that no reader subscribes to a task that has just ended.
    fn retire(&self, sender: &Sender) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = sender.receiver_count() == 0;
        if idle {
            *running = None;
        }
        idle
    }

    fn render(&self) -> Arc<str> {
        // Plain data with string keys always serialises; if that should change, readers see an empty object.
        serde_json::to_string(&self.live.overview()).unwrap_or_else(|_| "{}".to_owned()).into()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep, timeout};

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
            while broadcast.running.lock().expect("lock").is_some() {
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
    async fn streams_end_on_shutdown() {
        let (broadcast, token) = broadcast();
        let mut stream = Box::pin(broadcast.subscribe());
        stream.next().await.expect("an overview");
        token.cancel();
        assert!(stream.next().await.is_none());
    }
}
