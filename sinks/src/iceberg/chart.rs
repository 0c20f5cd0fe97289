//! Charts out of Gold: the partial rows of each window, summed.
//!
//! The guarantee: what is answered is the sum over every row of one snapshot that the question is about, rows of erased posts
//! taken off; late posts count like others. Rows are summed as they are read, so that memory grows with the answer, and not with
//! how many commits there were.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;
use iceberg::expr::{Predicate, Reference};
use iceberg::spec::Datum;
use undertone_error::{Error, ErrorKind, Result};

use super::read::{Reader, columns_of, live, scanned, unexpected};
use super::tables::DAY_US;
use crate::chart::{ChartQuery, Grain, Point, TagCount};

/// Different tags that are counted at once: what fits in some 100 MB.
const MAX_TAGS: usize = 500_000;

/// The sums of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    posts: i64,
    polarity_posts: i64,
    polarity_sum: f64,
}

impl Sums {
    fn add(&mut self, part: Self) {
        self.posts = self.posts.saturating_add(part.posts);
        self.polarity_posts = self.polarity_posts.saturating_add(part.polarity_posts);
        self.polarity_sum += part.polarity_sum;
    }

    /// How many posts; none where all of them were erased.
    fn posts(self) -> Option<u64> {
        u64::try_from(self.posts).ok().filter(|posts| *posts > 0)
    }

    fn mean(self) -> Option<f64> {
        // Sums that were taken apart again leave a last bit, which must not make a mean beyond what polarities are.
        (self.polarity_posts > 0).then(|| (self.polarity_sum / self.polarity_posts as f64).clamp(-1.0, 1.0))
    }
}

/// Partial sums, put together.
#[derive(Debug)]
struct Totals<K>(HashMap<K, Sums>);

impl<K: Eq + Hash> Totals<K> {
    fn add(&mut self, key: K, part: Sums) {
        self.0.entry(key).or_default().add(part);
    }
}

fn points(totals: Totals<(i64, Option<String>)>) -> Vec<Point> {
    let point = |((start_us, label), sums): ((i64, Option<String>), Sums)| {
        Some(Point { start_us, label, posts: sums.posts()?, mean_polarity: sums.mean() })
    };
    let mut points: Vec<Point> = totals.0.into_iter().filter_map(point).collect();
    points.sort_by(|a, b| (a.start_us, &a.label).cmp(&(b.start_us, &b.label)));
    points
}

/// The tags of most posts, those of as many by name.
fn top(totals: Totals<String>, limit: usize) -> Vec<TagCount> {
    let count = |(tag, sums): (String, Sums)| Some(TagCount { tag, posts: sums.posts()?, mean_polarity: sums.mean() });
    let mut counts: Vec<TagCount> = totals.0.into_iter().filter_map(count).collect();
    counts.sort_unstable_by(|a, b| (Reverse(a.posts), &a.tag).cmp(&(Reverse(b.posts), &b.tag)));
    counts.truncate(limit);
    counts
}

/// Windows that start in the time of the query, with what it names. The day lets a scan skip whole partitions; it is null for
/// late posts, which lie in one.
fn asked(query: &ChartQuery) -> Predicate {
    let time = |us| Datum::timestamptz_micros(us);
    let day =
        |us: i64| Datum::date(i32::try_from(us.div_euclid(DAY_US)).unwrap_or(if us < 0 { i32::MIN } else { i32::MAX }));
    let (from, last) = (query.from_us, query.until_us.saturating_sub(1));
    let days = Reference::new("event_day")
        .greater_than_or_equal_to(day(from))
        .and(Reference::new("event_day").less_than_or_equal_to(day(last)));
    let mut asked = Reference::new("window_start")
        .greater_than_or_equal_to(time(from))
        .and(Reference::new("window_start").less_than_or_equal_to(time(last)))
        .and(days.or(Reference::new("event_day").is_null()))
        .and(live());
    let named =
        [("source", &query.source), ("language", &query.language), ("label", &query.label), ("tag", &query.tag)];
    for (column, value) in named {
        if let Some(value) = value {
            asked = asked.and(Reference::new(column).equal_to(Datum::string(value)));
        }
    }
    asked
}

/// The sums of each row, in its order; the last three columns of what was asked for.
fn sums<'a>(batch: &'a RecordBatch, table: &'a str) -> Result<impl Iterator<Item = Sums> + 'a> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| unexpected(table));
    let posts = column("posts")?.as_primitive_opt::<Int64Type>();
    let polarity_posts = column("polarity_posts")?.as_primitive_opt::<Int64Type>();
    let polarity_sums = column("polarity_sum")?.as_primitive_opt::<Float64Type>();
    let (Some(posts), Some(polarity_posts), Some(polarity_sums)) = (posts, polarity_posts, polarity_sums) else {
        return Err(unexpected(table));
    };
    let rows = posts.values().iter().zip(polarity_posts.values()).zip(polarity_sums.values());
    Ok(rows.map(|((posts, polarity_posts), polarity_sum)| Sums {
        posts: *posts,
        polarity_posts: *polarity_posts,
        polarity_sum: *polarity_sum,
    }))
}

impl Reader {
    /// Counts and mean polarity by time and label, in the order of both.
    ///
    /// # Errors
    /// As [`Reader::tag_mood`].
    pub async fn series(&self, query: &ChartQuery, grain: Grain) -> Result<Vec<Point>> {
        let table = match (grain, query.tag.is_some()) {
            (Grain::Minute, false) => "sentiment_1m",
            (Grain::Hour, false) => "sentiment_1h",
            (Grain::Minute, true) => "tags_1m",
            (Grain::Hour, true) => "tags_1h",
        };
        let columns = ["window_start", "label", "posts", "polarity_posts", "polarity_sum"];
        let mut totals = Totals(HashMap::new());
        let loaded = self.load("gold", table).await?;
        let mut batches = std::pin::pin!(scanned(&loaded, asked(query), &columns).await?);
        while let Some(batch) = batches.try_next().await? {
            let [starts, labels, ..] = columns_of::<5>(&batch)?;
            let (Some(starts), Some(labels)) =
                (starts.as_primitive_opt::<TimestampMicrosecondType>(), labels.as_string_opt::<i32>())
            else {
                return Err(unexpected(table));
            };
            for ((start, label), part) in starts.values().iter().zip(labels).zip(sums(&batch, table)?) {
                totals.add((*start, label.map(str::to_owned)), part);
            }
        }
        Ok(points(totals))
    }

    /// The most used tags, of windows of `grain`.
    ///
    /// # Errors
    /// As [`Reader::tag_mood`]; [`ErrorKind::TooLarge`] if there are more different ones than are counted at once.
    pub async fn top_tags(&self, query: &ChartQuery, grain: Grain, limit: usize) -> Result<Vec<TagCount>> {
        let table = match grain {
            Grain::Minute => "tags_1m",
            Grain::Hour => "tags_1h",
        };
        let columns = ["tag", "posts", "polarity_posts", "polarity_sum"];
        let mut totals = Totals(HashMap::new());
        let loaded = self.load("gold", table).await?;
        let mut batches = std::pin::pin!(scanned(&loaded, asked(query), &columns).await?);
        while let Some(batch) = batches.try_next().await? {
            let [tags, ..] = columns_of::<4>(&batch)?;
            let tags = tags.as_string_opt::<i32>().ok_or_else(|| unexpected(table))?;
            for (tag, part) in tags.iter().zip(sums(&batch, table)?) {
                totals.add(tag.unwrap_or_default().to_owned(), part);
            }
            if totals.0.len() > MAX_TAGS {
                let message = format!("there are more than {MAX_TAGS} different tags in this time");
                return Err(Error::new(ErrorKind::TooLarge, message).help("ask for less of it"));
            }
        }
        Ok(top(totals, limit))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn part(posts: i64, polarity_posts: i64, polarity_sum: f64) -> Sums {
        Sums { posts, polarity_posts, polarity_sum }
    }

    #[test]
    fn parts_are_summed_and_what_was_erased_is_gone() {
        let mut totals = Totals(HashMap::new());
        let label = |name: &str| Some(name.to_owned());
        for (start, label, sums) in [
            (60, label("positive"), part(2, 2, 1.5)),
            (60, label("positive"), part(1, 0, 0.0)),
            (0, label("positive"), part(1, 1, 0.3)),
            (0, label("positive"), part(-1, -1, -0.3)),
            (60, None, part(1, 0, 0.0)),
            (0, label("negative"), part(3, 3, -3.0)),
            (0, label("negative"), part(-1, -1, 0.999_999_999)),
        ] {
            totals.add((start, label), sums);
        }
        let found: Vec<_> =
            points(totals).into_iter().map(|p| (p.start_us, p.label, p.posts, p.mean_polarity)).collect();
        assert_eq!(
            found,
            [(0, label("negative"), 2, Some(-1.0)), (60, None, 1, None), (60, label("positive"), 3, Some(0.75))]
        );
    }

    proptest! {
        #[test]
        fn the_top_is_that_of_sorting_everything(
            rows in prop::collection::vec(("[a-e]", 1..4i64, -1.0..1.0f64), 0..40),
            limit in 1..7usize,
        ) {
            let mut totals = Totals(HashMap::new());
            let mut wanted: BTreeMap<String, (i64, f64)> = BTreeMap::new();
            for (tag, posts, polarity) in rows {
                totals.add(tag.clone(), part(posts, posts, polarity * posts as f64));
                let sums = wanted.entry(tag).or_default();
                *sums = (sums.0 + posts, sums.1 + polarity * posts as f64);
            }
            let mut wanted: Vec<_> = wanted.into_iter().collect();
            wanted.sort_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.0.cmp(&b.0)));
            wanted.truncate(limit);
            let found = top(totals, limit);
            prop_assert_eq!(found.len(), wanted.len());
            for (found, (tag, (posts, sum))) in found.iter().zip(&wanted) {
                prop_assert_eq!((&found.tag, found.posts), (tag, *posts as u64));
                prop_assert!((found.mean_polarity.unwrap_or(9.0) - sum / *posts as f64).abs() < 1e-9);
            }
        }
    }
}
