//! Since when each worker has been busy: one atomic a worker, so that reading it never waits for work, however stuck.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When each worker's work in progress began.
#[derive(Debug)]
pub(crate) struct Progress {
    origin: Instant,
    /// Nanoseconds since the origin, at least 1; 0 while the worker is idle.
    begun: Vec<AtomicU64>,
}

impl Progress {
    pub(super) fn new(workers: usize) -> Self {
        Self { origin: Instant::now(), begun: (0..workers).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Marks a worker as busy until the answer is dropped.
    pub(super) fn begin(&self, worker: usize) -> Busy<'_> {
        self.begin_at(worker, Instant::now())
    }

    /// What begins within something else is part of it.
    fn begin_at(&self, worker: usize, now: Instant) -> Busy<'_> {
        let idle = self.begun.get(worker).filter(|begun| begun.load(Ordering::Relaxed) == 0);
        if let Some(begun) = idle {
            begun.store(self.nanoseconds(now).max(1), Ordering::Relaxed);
        }
        Busy(idle)
    }

    /// How long the oldest work in progress has been going on; zero if there is none.
    pub(crate) fn oldest(&self, now: Instant) -> Duration {
        let begun = self.begun.iter().map(|begun| begun.load(Ordering::Relaxed)).filter(|&begun| begun > 0).min();
        begun.map_or(Duration::ZERO, |begun| Duration::from_nanos(self.nanoseconds(now).saturating_sub(begun)))
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Work in progress.
#[must_use]
pub(super) struct Busy<'a>(Option<&'a AtomicU64>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(begun) = self.0 {
            begun.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_work_counts_until_it_ends() {
        let progress = Progress::new(2);
        let at = |seconds| progress.origin + Duration::from_secs(seconds);
        let age = |seconds| progress.oldest(at(seconds)).as_secs_f64().round();
        assert_eq!(age(5), 0.0);
        let first = progress.begin_at(1, at(0));
        let second = progress.begin_at(0, at(3));
        drop(progress.begin_at(0, at(4)));
        assert_eq!(age(5), 5.0);
        drop(first);
        assert_eq!(age(5), 2.0);
        drop(second);
        assert_eq!(age(5), 0.0);
    }
}
