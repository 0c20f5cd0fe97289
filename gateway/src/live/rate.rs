//! Posts a second over the last two minutes, in constant memory. Time is passed in; a clock that steps back counts into
//! the newest second, so no post is lost and no second is counted twice.

/// How many whole seconds are remembered.
pub(crate) const HISTORY_S: i64 = 120;
/// How many of them the rate is the mean of.
const MEAN_S: i64 = 5;
/// The remembered seconds and the one that is running.
const SLOTS: usize = HISTORY_S as usize + 1;

/// Counts per second.
#[derive(Debug)]
pub(crate) struct RateWindow {
    started_s: i64,
    newest_s: i64,
    counts: [u64; SLOTS],
}

impl RateWindow {
    pub(crate) fn new(now_s: i64) -> Self {
        Self { started_s: now_s, newest_s: now_s, counts: [0; SLOTS] }
    }

    pub(crate) fn add(&mut self, now_s: i64, posts: u64) {
        self.advance(now_s);
        let slot = slot(self.newest_s);
        self.counts[slot] += posts;
    }

    /// Whole seconds since the start, at most [`HISTORY_S`], oldest first.
    pub(crate) fn history(&mut self, now_s: i64) -> Vec<(i64, u64)> {
        self.advance(now_s);
        let first = self.started_s.max(self.newest_s - HISTORY_S);
        (first..self.newest_s).map(|second| (second, self.counts[slot(second)])).collect()
    }

    /// The mean of the last whole seconds; 0 in the first second.
    pub(crate) fn per_second(&mut self, now_s: i64) -> f64 {
        self.advance(now_s);
        let first = self.started_s.max(self.newest_s - MEAN_S);
        let seconds = self.newest_s - first;
        if seconds == 0 {
            return 0.0;
        }
        let posts: u64 = (first..self.newest_s).map(|second| self.counts[slot(second)]).sum();
        posts as f64 / seconds as f64
    }

    fn advance(&mut self, now_s: i64) {
        // A sleeping laptop may skip hours: at most one round of the ring needs clearing.
        let first_new = (self.newest_s + 1).max(now_s - HISTORY_S);
        for second in first_new..=now_s {
            self.counts[slot(second)] = 0;
        }
        self.newest_s = self.newest_s.max(now_s);
    }
}

fn slot(second: i64) -> usize {
    second.rem_euclid(SLOTS as i64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_running_second_does_not_count_yet() {
        let mut rate = RateWindow::new(100);
        rate.add(100, 7);
        assert_eq!((rate.per_second(100), rate.history(100)), (0.0, vec![]));
        assert_eq!((rate.per_second(101), rate.history(101)), (7.0, vec![(100, 7)]));
        assert_eq!(rate.per_second(105), 1.4);
        assert_eq!(rate.per_second(106), 0.0);
    }

    #[test]
    fn after_a_long_sleep_nothing_old_is_left() {
        let mut rate = RateWindow::new(0);
        rate.add(1, 5);
        let history = rate.history(1_000_000);
        assert_eq!((history.len() as i64, history.iter().map(|(_, posts)| posts).sum::<u64>()), (HISTORY_S, 0));
    }

    proptest! {
        #[test]
        fn history_is_what_a_map_would_say(steps in prop::collection::vec((-3i64..200, 0u64..9), 1..200)) {
            let mut rate = RateWindow::new(1000);
            let (mut now, mut newest) = (1000, 1000);
            let mut wanted = std::collections::BTreeMap::new();
            for (step, posts) in steps {
                now += step;
                newest = now.max(newest);
                rate.add(now, posts);
                *wanted.entry(newest).or_insert(0) += posts;
            }
            let seen = rate.history(newest);
            prop_assert!(seen.len() as i64 <= HISTORY_S);
            for (second, posts) in seen {
                prop_assert_eq!(posts, wanted.get(&second).copied().unwrap_or(0), "second {}", second);
            }
        }
    }
}
