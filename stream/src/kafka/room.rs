//! How much may be on its way between the topic of events and a transaction.
//!
//! The guarantee: never more than the room's size and one chunk. The room begins small, so that a process that dies has
//! little under way to suspect, and little is scored twice; it grows only where the encoder has nothing left to do while
//! a transaction is written, and not at all near a place at which a process died.
//!
//! A commit takes some 100 ms whatever its size: a fixed room would bound throughput by it, however fast the device.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The largest room; at 8,192 small posts a transaction is 20 MB.
const LARGEST: usize = 8192;
/// A chunk is this share of the room.
const CHUNKS: usize = 8;
/// An event takes as much room as so many bytes.
const EVENT_BYTES: usize = 1024;

/// What is known about the room.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// In events of [`EVENT_BYTES`].
    size: usize,
    used: usize,
    /// Chunks that the model has not answered for.
    scoring: usize,
    /// How much must have gone through before it may grow.
    wary: usize,
}

impl Facts {
    /// The size from now on, when somebody comes for outcomes. If the room is full and everything in it is scored, the
    /// encoder waits for the commits.
    fn next_size(self) -> usize {
        let idle = self.scoring == 0 && self.used >= self.size;
        if idle && self.wary == 0 { (self.size * 2).min(LARGEST) } else { self.size }
    }
}

/// A room.
#[derive(Debug)]
pub(super) struct Room {
    facts: Mutex<Facts>,
    changed: Notify,
}

impl Room {
    /// A room for `size` events at first. If `wary`, it stays so until as much went through as may have been under way
    /// in the process that died here.
    pub(super) fn new(size: usize, wary: bool) -> Self {
        let facts = Facts { size: size.max(1), used: 0, scoring: 0, wary: if wary { 2 * LARGEST } else { 0 } };
        Self { facts: Mutex::new(facts), changed: Notify::new() }
    }

    /// Waits until there is room, and answers how many events a chunk should have that is no smaller than `least`.
    pub(super) async fn wait(&self, least: usize) -> usize {
        loop {
            let changed = self.changed.notified();
            let Facts { size, used, .. } = *self.facts();
            if used < size {
                return least.max(size / CHUNKS);
            }
            changed.await;
        }
    }

    /// Takes room for a chunk that is to be scored.
    pub(super) fn take(self: &Arc<Self>, events: usize, bytes: usize) -> (Held, Scoring) {
        let weight = events.max(bytes / EVENT_BYTES).max(1);
        let mut facts = self.facts();
        facts.used += weight;
        facts.scoring += 1;
        drop(facts);
        (Held { room: Arc::clone(self), weight }, Scoring(Arc::clone(self)))
    }

    /// Somebody comes for outcomes: what came before is written.
    pub(super) fn looked_at(&self) {
        let mut facts = self.facts();
        let size = facts.next_size();
        if size > facts.size {
            facts.size = size;
            self.changed.notify_one();
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that a chunk takes until its outcomes are handed out.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    weight: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut facts = self.room.facts();
        facts.used -= self.weight;
        facts.wary = facts.wary.saturating_sub(self.weight);
        drop(facts);
        self.room.changed.notify_one();
    }
}

/// Held while the model works on a chunk.
#[derive(Debug)]
pub(super) struct Scoring(Arc<Room>);

impl Drop for Scoring {
    fn drop(&mut self) {
        self.0.facts().scoring -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn waits(waiting: &mut (impl Future + Unpin)) -> bool {
        timeout(Duration::from_millis(1), waiting).await.is_err()
    }

    #[test]
    fn it_grows_only_if_it_is_full_of_scored_events_and_nobody_died_here() {
        let full = Facts { size: 256, used: 256, scoring: 0, wary: 0 };
        let cases = [
            (full, 512),
            (Facts { used: 300, ..full }, 512),
            (Facts { used: 255, ..full }, 256),  // the source is the bottleneck
            (Facts { scoring: 1, ..full }, 256), // the encoder is
            (Facts { wary: 1, ..full }, 256),
            (Facts { size: 5000, used: 5000, ..full }, LARGEST),
            (Facts { size: LARGEST, used: LARGEST, ..full }, LARGEST),
        ];
        for (facts, size) in cases {
            assert_eq!(facts.next_size(), size, "{facts:?}");
        }
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_a_chunk_is_handed_out_or_the_room_grows() {
        let room = Arc::new(Room::new(8, false));
        assert_eq!(room.wait(4).await, 4);
        let (first, scoring) = room.take(4, 10);
        // Large posts take more.
        let (second, other) = room.take(1, 4 * EVENT_BYTES);
        let mut waiting = std::pin::pin!(room.wait(1));
        assert!(waits(&mut waiting).await);
        drop(second);
        assert_eq!(waiting.await, 1);

        let (_second, third) = room.take(4, 0);
        let mut waiting = std::pin::pin!(room.wait(1));
        assert!(waits(&mut waiting).await);
        drop((scoring, other));
        room.looked_at();
        assert!(waits(&mut waiting).await, "one chunk is being scored");
        drop(third);
        room.looked_at();
        assert_eq!(waiting.await, 2, "an eighth of sixteen");
        drop(first);
    }

    #[test]
    fn near_a_death_it_grows_once_enough_went_through() {
        let room = Arc::new(Room::new(8, true));
        let mut passed = 0;
        while room.facts().size == 8 {
            let (held, _) = room.take(8, 0);
            room.looked_at();
            drop(held);
            passed += 8;
            assert!(passed < 4 * LARGEST);
        }
        assert!(passed > 2 * LARGEST, "{passed}");
    }
}
