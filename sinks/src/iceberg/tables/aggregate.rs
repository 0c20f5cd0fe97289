//! What Gold counts. The sums are additive: those of any split of the posts into epochs add up to those of all posts,
//! so each epoch writes partial rows and readers sum them. Nothing is read back, and nothing is counted twice, because
//! the rows ride on the same positions as every other sink's.

use std::collections::BTreeMap;

use undertone_proto::EventTime;
use undertone_proto::v1::ScoredPost;

use super::event_day;
pub(in crate::iceberg) use crate::chart::Grain;

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::iceberg) struct Group {
    pub(in crate::iceberg) window_start_us: EventTime,
    /// None for late posts, as in Silver.
    pub(in crate::iceberg) event_day: Option<i32>,
    pub(in crate::iceberg) run: String,
    pub(in crate::iceberg) source: String,
    pub(in crate::iceberg) language: Option<String>,
    pub(in crate::iceberg) label: Option<String>,
    /// None where posts are not counted by tag.
    pub(in crate::iceberg) tag: Option<String>,
}

/// The sums of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::iceberg) struct Sums {
    /// Posts.
    pub(in crate::iceberg) posts: i64,
    /// Posts that have a polarity.
    pub(in crate::iceberg) polarity_posts: i64,
    /// Sum of their polarities.
    pub(in crate::iceberg) polarity_sum: f64,
    /// Sum of the squares: with the others it gives mean and variance over any groups.
    pub(in crate::iceberg) polarity_sum_squares: f64,
}

pub(in crate::iceberg) type Aggregate = BTreeMap<Group, Sums>;

/// Counts posts by window, source, language and label. Deletions are no posts.
pub(in crate::iceberg) fn by_sentiment(grain: Grain, posts: &[ScoredPost]) -> Aggregate {
    aggregate(grain, posts, |_| vec![None])
}

/// Counts posts also by tag: once under each of its topics, so that sums over tags count posts more than once.
pub(in crate::iceberg) fn by_tag(grain: Grain, posts: &[ScoredPost]) -> Aggregate {
    aggregate(grain, posts, |post| undertone_proto::topics(post).into_iter().map(Some).collect())
}

fn aggregate(grain: Grain, posts: &[ScoredPost], tags: fn(&ScoredPost) -> Vec<Option<String>>) -> Aggregate {
    let mut groups = Aggregate::new();
    for post in posts.iter().filter(|post| !post.deleted) {
        for tag in tags(post) {
            groups.entry(group(grain, post, tag)).or_default().add(post.polarity);
        }
    }
    groups
}

fn group(grain: Grain, post: &ScoredPost, tag: Option<String>) -> Group {
    let length = grain.length_us();
    Group {
        window_start_us: post.created_at_us.div_euclid(length).saturating_mul(length),
        event_day: event_day(post),
        run: post.run.clone(),
        source: post.source.clone(),
        language: post.language.clone(),
        label: post.sentiment.clone(),
        tag,
    }
}

impl Sums {
    fn add(&mut self, polarity: Option<f64>) {
        self.posts += 1;
        if let Some(polarity) = polarity {
            self.polarity_posts += 1;
            self.polarity_sum += polarity;
            self.polarity_sum_squares += polarity * polarity;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_post() -> impl Strategy<Value = ScoredPost> {
        let labels = prop::option::of(prop::sample::select(vec!["negative", "neutral", "positive"]));
        let tags = prop::collection::vec(prop::sample::select(vec!["tea", "Tea", "rain", "#vinyl"]), 0..4);
        let times = -7_200_000_000..90_000_000_000i64;
        (times, any::<bool>(), any::<bool>(), labels, prop::option::of(-1.0..1.0), tags).prop_map(
            |(created_at_us, late, deleted, label, polarity, tags)| ScoredPost {
                created_at_us,
                late,
                deleted,
                sentiment: label.map(str::to_owned),
                polarity,
                tags: tags.into_iter().map(str::to_owned).collect(),
                run: "live".to_owned(),
                ..ScoredPost::default()
            },
        )
    }

    /// What a reader does.
    fn sum(parts: impl IntoIterator<Item = Aggregate>) -> Aggregate {
        let mut all = Aggregate::new();
        for (group, part) in parts.into_iter().flatten() {
            let sums = all.entry(group).or_default();
            sums.posts += part.posts;
            sums.polarity_posts += part.polarity_posts;
            sums.polarity_sum += part.polarity_sum;
            sums.polarity_sum_squares += part.polarity_sum_squares;
        }
        all
    }

    fn alike(a: &Aggregate, b: &Aggregate) -> bool {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        a.len() == b.len()
            && a.iter().zip(b).all(|((group_a, a), (group_b, b))| {
                group_a == group_b
                    && (a.posts, a.polarity_posts) == (b.posts, b.polarity_posts)
                    && close(a.polarity_sum, b.polarity_sum)
                    && close(a.polarity_sum_squares, b.polarity_sum_squares)
            })
    }

    proptest! {
        #[test]
        fn any_split_into_epochs_sums_to_the_whole(
            posts in prop::collection::vec(any_post(), 0..60),
            epoch in 1..20usize,
        ) {
            for count in [by_sentiment, by_tag] {
                for grain in [Grain::Minute, Grain::Hour] {
                    let parts = sum(posts.chunks(epoch).map(|epoch| count(grain, epoch)));
                    prop_assert!(alike(&parts, &count(grain, &posts)));
                }
            }
        }

        #[test]
        fn every_post_that_is_no_deletion_counts_once(posts in prop::collection::vec(any_post(), 0..60)) {
            let counted: i64 = by_sentiment(Grain::Minute, &posts).values().map(|sums| sums.posts).sum();
            prop_assert_eq!(counted as usize, posts.iter().filter(|post| !post.deleted).count());
        }
    }

    #[test]
    fn windows_begin_at_whole_minutes_and_hours_before_1970_too() {
        let at = |created_at_us| ScoredPost { created_at_us, ..ScoredPost::default() };
        let start = |grain, post| by_sentiment(grain, &[post]).into_keys().next().map(|group| group.window_start_us);
        assert_eq!(start(Grain::Minute, at(119_999_999)), Some(60_000_000));
        assert_eq!(start(Grain::Hour, at(3_600_000_000)), Some(3_600_000_000));
        assert_eq!(start(Grain::Minute, at(-1)), Some(-60_000_000));
    }

    #[test]
    fn a_post_counts_once_under_each_of_its_topics_and_a_post_without_a_polarity_has_no_part_in_the_mean() {
        let post = |polarity| ScoredPost {
            tags: vec!["Tea".into(), "tea".into(), "rain".into()],
            polarity,
            ..ScoredPost::default()
        };
        let counted = by_tag(Grain::Hour, &[post(Some(0.5)), post(None)]);
        let sums: Vec<_> = counted
            .iter()
            .map(|(group, sums)| (group.tag.as_deref(), sums.posts, sums.polarity_posts, sums.polarity_sum))
            .collect();
        assert_eq!(sums, [(Some("rain"), 2, 1, 0.5), (Some("tea"), 2, 1, 0.5)]);
    }
}
