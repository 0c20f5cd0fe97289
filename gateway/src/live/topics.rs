//! Mood by topic over the last hour of event time, in bounded memory.
//!
//! The window ends with the newest minute that any post in time has shown, so a file of old posts draws as well as a
//! live stream. A post before the window is not drawn. A minute holds at most [`TOPICS_PER_BUCKET`] topics: the posts of
//! further ones are missing from the plot, and counted in `undertone_live_topics_dropped_total`. Topics longer than
//! [`TOPIC_BYTES`] are not drawn either: they are no tags that people share.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::overview::{TopicSeries, Topics};

/// The width of a bucket of event time.
pub(crate) const BUCKET_S: i64 = 60;
/// How many buckets the window has.
pub(crate) const BUCKETS: usize = 60;
/// How many topics one bucket remembers.
pub const TOPICS_PER_BUCKET: usize = 5000;
/// How long a topic may be.
pub const TOPIC_BYTES: usize = 100;
/// How many topics are drawn.
const SERIES: usize = 12;

/// One row of the table of tags per minute, with which a restarted process fills its plot.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicRow {
    /// The start of the minute, in seconds.
    pub window_start_s: i64,
    /// The tag, without `#`.
    pub topic: String,
    /// How many posts have it.
    pub posts: u64,
    /// The sum of their polarities.
    pub polarity_sum: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    posts: u64,
    /// Posts that have a polarity.
    rated: u64,
    polarity_sum: f64,
}

/// Counts per topic and minute.
#[derive(Debug, Default)]
pub(crate) struct TopicWindow {
    /// The bucket number of the newest minute; `None` before the first post.
    newest: Option<i64>,
    /// The newest bucket is the last; never more than [`BUCKETS`].
    buckets: VecDeque<HashMap<Arc<str>, Cell>>,
    /// Posts of each topic in the whole window.
    totals: HashMap<Arc<str>, u64>,
}

impl TopicWindow {
    /// Counts posts of one topic and one moment. False if the window had no room for the topic.
    pub(crate) fn add(&mut self, at_s: i64, topic: &str, posts: u64, polarity_sum: Option<f64>) -> bool {
        let number = at_s.div_euclid(BUCKET_S);
        if topic.is_empty() || topic.len() > TOPIC_BYTES || posts == 0 {
            return true;
        }
        self.advance(number);
        let Some(bucket) = self.bucket_mut(number) else { return true };
        if bucket.len() >= TOPICS_PER_BUCKET && !bucket.contains_key(topic) {
            return false;
        }
        let key = match self.totals.get_key_value(topic) {
            Some((key, _)) => key.clone(),
            None => Arc::from(topic),
        };
        *self.totals.entry(key.clone()).or_default() += posts;
        if let Some(bucket) = self.bucket_mut(number) {
            let cell = bucket.entry(key).or_default();
            cell.posts += posts;
            if let Some(sum) = polarity_sum {
                cell.rated += posts;
                cell.polarity_sum += sum;
            }
        }
        true
    }

    /// The window as it is drawn. Before the first post it ends now.
    pub(crate) fn render(&self, now_s: i64) -> Topics {
        let newest = self.newest.unwrap_or_else(|| now_s.div_euclid(BUCKET_S));
        let mut ranked: Vec<_> = self.totals.iter().map(|(topic, posts)| (Reverse(*posts), topic)).collect();
        if ranked.len() > SERIES {
            ranked.select_nth_unstable(SERIES);
            ranked.truncate(SERIES);
        }
        ranked.sort_unstable();
        Topics {
            bucket_seconds: BUCKET_S,
            start_s: (newest - BUCKETS as i64 + 1) * BUCKET_S,
            buckets: BUCKETS,
            series: ranked.into_iter().map(|(_, topic)| self.series(topic)).collect(),
        }
    }

    fn series(&self, topic: &Arc<str>) -> TopicSeries {
        let missing = BUCKETS - self.buckets.len();
        let empty = std::iter::repeat_n(Cell::default(), missing);
        let cells = empty.chain(self.buckets.iter().map(|bucket| bucket.get(topic).copied().unwrap_or_default()));
        let (count, polarity) = cells.map(|cell| (cell.posts, cell.mean())).unzip();
        TopicSeries { topic: topic.to_string(), count, polarity }
    }

    fn bucket_mut(&mut self, number: i64) -> Option<&mut HashMap<Arc<str>, Cell>> {
        let behind = usize::try_from(self.newest?.checked_sub(number)?).ok()?;
        let index = self.buckets.len().checked_sub(behind + 1)?;
        self.buckets.get_mut(index)
    }

    fn advance(&mut self, number: i64) {
        let steps = match self.newest {
            None => BUCKETS as i64,
            Some(newest) => number.saturating_sub(newest),
        };
        if steps <= 0 {
            return;
        }
        // However far the jump, after one whole round nothing old is left.
        for _ in 0..steps.min(BUCKETS as i64) {
            if self.buckets.len() == BUCKETS
                && let Some(gone) = self.buckets.pop_front()
            {
                self.forget(gone);
            }
            self.buckets.push_back(HashMap::new());
        }
        self.newest = Some(number);
    }

    fn forget(&mut self, bucket: HashMap<Arc<str>, Cell>) {
        for (topic, cell) in bucket {
            if let Some(total) = self.totals.get_mut(&topic) {
                *total -= cell.posts;
                if *total == 0 {
                    self.totals.remove(&topic);
                }
            }
        }
    }
}

impl Cell {
    fn mean(&self) -> Option<f64> {
        // Four digits are more than a plot can show, and keep the JSON short.
        (self.rated > 0).then(|| (self.polarity_sum / self.rated as f64 * 1e4).round() / 1e4)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series<'a>(topics: &'a Topics, topic: &str) -> &'a TopicSeries {
        topics.series.iter().find(|series| series.topic == topic).expect("the topic is drawn")
    }

    #[test]
    fn a_minute_holds_the_mean_polarity_of_its_posts() {
        let mut window = TopicWindow::default();
        window.add(6000, "tea", 1, Some(1.0));
        window.add(6059, "tea", 1, Some(0.0));
        window.add(6060, "tea", 1, None);
        let topics = window.render(0);
        assert_eq!(topics.start_s, 6060 - 59 * 60);
        let tea = series(&topics, "tea");
        assert_eq!((tea.count.len(), &tea.count[58..]), (60, &[2, 1][..]));
        assert_eq!(&tea.polarity[57..], [None, Some(0.5), None]);
    }

    #[test]
    fn the_window_follows_event_time_and_ignores_what_lies_before_it() {
        let mut window = TopicWindow::default();
        window.add(0, "old", 1, None);
        window.add(59 * 60, "tea", 1, None);
        assert_eq!(window.render(0).series.len(), 2, "the first minute is still inside");
        window.add(60 * 60, "tea", 1, None);
        window.add(30, "old", 1, None);
        let topics = window.render(0);
        assert_eq!(topics.series.len(), 1, "the first minute is out");
        assert_eq!(series(&topics, "tea").count.iter().sum::<u64>(), 2);
        window.add(i64::MAX / 2, "far", 1, None);
        assert_eq!(window.render(0).series.len(), 1, "a long jump leaves nothing old");
    }

    #[test]
    fn before_the_first_post_the_window_ends_now() {
        let topics = TopicWindow::default().render(6000);
        assert_eq!((topics.start_s, topics.series.len()), (6000 - 59 * 60, 0));
    }

    #[test]
    fn the_twelve_largest_are_drawn_and_equal_ones_by_name() {
        let mut window = TopicWindow::default();
        for n in 0..20 {
            window.add(0, &format!("t{n:02}"), if n == 17 { 9 } else { 1 }, None);
        }
        let names: Vec<_> = window.render(0).series.into_iter().map(|series| series.topic).collect();
        assert_eq!(names.len(), SERIES);
        assert_eq!(names[..3], ["t17", "t00", "t01"]);
    }

    #[test]
    fn a_bucket_is_bounded_but_goes_on_counting_what_it_knows() {
        let mut window = TopicWindow::default();
        for n in 0..TOPICS_PER_BUCKET {
            assert!(window.add(0, &format!("t{n}"), 1, None));
        }
        assert!(!window.add(0, "one-more", 1, None));
        assert!(window.add(0, "t7", 1, None));
        assert!(window.add(60, "one-more", 1, None), "the next minute has room");
        assert!(window.add(60, &"x".repeat(TOPIC_BYTES + 1), 1, None));
        assert_eq!(window.totals.len(), TOPICS_PER_BUCKET + 1);
    }

    proptest! {
        #[test]
        fn totals_are_the_sums_of_the_buckets(
            posts in prop::collection::vec((0i64..20_000, 0usize..5, 1u64..4, -1.0f64..1.0), 0..300)
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let mut window = TopicWindow::default();
            for (at, topic, posts, polarity) in posts {
                window.add(at, names[topic], posts, Some(polarity));
                prop_assert!(window.buckets.len() <= BUCKETS);
            }
            for series in window.render(0).series {
                prop_assert_eq!(series.count.iter().sum::<u64>(), window.totals[series.topic.as_str()]);
                for (count, polarity) in series.count.iter().zip(&series.polarity) {
                    prop_assert_eq!(polarity.is_some(), *count > 0);
                }
            }
        }
    }
}
