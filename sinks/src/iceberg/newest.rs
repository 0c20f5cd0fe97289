//! The posts of a time that were posted last, out of Silver.
//!
//! The guarantee: what is answered is what the view `silver.latest` shows of a snapshot: of each post (`uid`) its greatest
//! version of the live run, unless that deletes it, and by that version alone it is judged whether it has what is asked for.
//! Every version of a post lies in the partition of its day, or among the late ones, so days are read one by one, the newest
//! first, until the answer cannot change any more. Versions are compared without their texts, at most [`MAX_ROWS`] of them; then the rows
//! that are answered are read.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use iceberg::expr::{Predicate, Reference};
use iceberg::spec::Datum;
use iceberg::table::Table;
use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::EventTime;
use uuid::Uuid;

use super::read::{Reader, columns_of, live, scanned, unexpected};
use super::tables::DAY_US;
use crate::chart::ChartQuery;
use crate::found::{FoundPost, TEXT_CHARS};

/// How many days one question may be about.
const MAX_DAYS: i64 = 100;

/// Versions that are compared for one answer: what fits in some 200 MB, and is read in seconds.
const MAX_ROWS: usize = 2_000_000;

const TABLE: &str = "silver.posts";

/// The version of a post that is the greatest so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Newest {
    version: i64,
    created_at_us: EventTime,
    /// It is not deleted, and has what is asked for.
    shown: bool,
}

/// A post that is answered, unless there are enough that were posted later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    created_at_us: Reverse<EventTime>,
    uid: Uuid,
    version: i64,
}

/// The newest version of each post of a day.
#[derive(Debug, Default)]
struct Day(HashMap<Uuid, Newest>);

impl Day {
    fn hear(&mut self, uid: Uuid, found: Newest) {
        let known = self.0.entry(uid).or_insert(found);
        if found.version > known.version {
            *known = found;
        }
    }

    fn shown(self) -> impl Iterator<Item = Candidate> {
        let shown = self.0.into_iter().filter(|(_, newest)| newest.shown);
        shown.map(|(uid, Newest { version, created_at_us, .. })| Candidate {
            created_at_us: Reverse(created_at_us),
            uid,
            version,
        })
    }
}

/// The latest of those found so far, and those of one more day, which is before all of theirs.
fn add(found: &mut Vec<Candidate>, day: Day, limit: usize) {
    let begun = found.len();
    found.extend(day.shown());
    found[begun..].sort_unstable();
    found.truncate(limit);
}

fn day_of(time: EventTime) -> i64 {
    time.div_euclid(DAY_US)
}

/// The days that a time touches.
fn days(query: &ChartQuery) -> Result<Range<i64>> {
    let days = day_of(query.from_us)..day_of(query.until_us.saturating_sub(1)).saturating_add(1);
    if days.end.saturating_sub(days.start) > MAX_DAYS {
        let message = format!("the latest posts of more than {MAX_DAYS} days are not looked for in the tables");
        return Err(Error::new(ErrorKind::TooLarge, message).help("ask for a shorter time"));
    }
    Ok(days)
}

/// Rows of this run, and of the source that is named: all versions of a post have the same. Whatever else is asked for may change
/// from version to version.
fn of(query: &ChartQuery) -> Predicate {
    match &query.source {
        Some(source) => live().and(Reference::new("source").equal_to(Datum::string(source))),
        None => live(),
    }
}

/// Rows whose posts were posted in this time.
fn posted(from: EventTime, last: EventTime) -> Predicate {
    let time = |us| Datum::timestamptz_micros(us);
    let created = || Reference::new("created_at");
    created().greater_than_or_equal_to(time(from)).and(created().less_than_or_equal_to(time(last)))
}

/// How many versions may still be read.
struct Budget(usize);

impl Budget {
    fn spend(&mut self, rows: usize) -> Result<()> {
        let left = self.0.checked_sub(rows).ok_or_else(|| {
            let message = format!("more than {MAX_ROWS} versions of posts would have to be compared");
            Error::new(ErrorKind::TooLarge, message).help("ask for fewer days, or for one source")
        })?;
        self.0 = left;
        Ok(())
    }
}

fn uid(text: &str) -> Result<Uuid> {
    let wrong = |e| Error::new(ErrorKind::Corrupt, "a uid of the table is no UUID").with("table", TABLE).source(e);
    text.parse().map_err(wrong)
}

/// Tells the versions of a batch.
fn heard(batch: &RecordBatch, query: &ChartQuery, mut hear: impl FnMut(Uuid, Newest)) -> Result<()> {
    let [uids, versions, deleted, times, languages, labels, topics] = columns_of(batch)?;
    let (Some(uids), Some(versions), Some(deleted), Some(times), Some(languages), Some(labels), Some(topics)) = (
        uids.as_string_opt::<i32>(),
        versions.as_primitive_opt::<Int64Type>(),
        deleted.as_boolean_opt(),
        times.as_primitive_opt::<TimestampMicrosecondType>(),
        languages.as_string_opt::<i32>(),
        labels.as_string_opt::<i32>(),
        topics.as_list_opt::<i32>(),
    ) else {
        return Err(unexpected(TABLE));
    };
    let is = |asked: &Option<String>, column: &StringArray, row| {
        asked.as_deref().is_none_or(|asked| text(column, row) == Some(asked))
    };
    for row in 0..batch.num_rows() {
        let created_at_us = times.value(row);
        let tagged = match query.tag.as_deref() {
            None => true,
            Some(tag) => strings(&*topics.value(row))?.iter().flatten().any(|topic| topic == tag),
        };
        let shown = !deleted.value(row)
            && (query.from_us..query.until_us).contains(&created_at_us)
            && is(&query.language, languages, row)
            && is(&query.label, labels, row)
            && tagged;
        let newest = Newest { version: versions.value(row), created_at_us, shown };
        hear(uid(uids.value(row))?, newest);
    }
    Ok(())
}

fn text(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

fn strings(column: &dyn Array) -> Result<&StringArray> {
    column.as_string_opt::<i32>().ok_or_else(|| unexpected(TABLE))
}

/// The posts of a batch that are wanted, taken off what is.
fn take(batch: &RecordBatch, wanted: &mut HashMap<(Uuid, i64), usize>, posts: &mut [Option<FoundPost>]) -> Result<()> {
    let [uids, versions, sources, ids, authors, urls, texts, languages, labels, polarities, times, topics] =
        columns_of(batch)?;
    let (uids, sources, ids, texts) = (strings(&**uids)?, strings(&**sources)?, strings(&**ids)?, strings(&**texts)?);
    let (authors, urls) = (strings(&**authors)?, strings(&**urls)?);
    let (languages, labels) = (strings(&**languages)?, strings(&**labels)?);
    let (Some(versions), Some(polarities), Some(times), Some(topics)) = (
        versions.as_primitive_opt::<Int64Type>(),
        polarities.as_primitive_opt::<Float64Type>(),
        times.as_primitive_opt::<TimestampMicrosecondType>(),
        topics.as_list_opt::<i32>(),
    ) else {
        return Err(unexpected(TABLE));
    };
    for row in 0..batch.num_rows() {
        // Of an event that was sent twice any row will do.
        let Some(place) = wanted.remove(&(uid(uids.value(row))?, versions.value(row))) else { continue };
        let tags = strings(&*topics.value(row))?.iter().flatten().map(str::to_owned).collect();
        posts[place] = Some(FoundPost {
            uid: uids.value(row).to_owned(),
            source: sources.value(row).to_owned(),
            id: ids.value(row).to_owned(),
            author: text(authors, row).map(str::to_owned),
            url: text(urls, row).map(str::to_owned),
            text: texts.value(row).chars().take(TEXT_CHARS).collect(),
            language: text(languages, row).map(str::to_owned),
            label: text(labels, row).map(str::to_owned),
            polarity: polarities.is_valid(row).then(|| polarities.value(row)),
            created_at_us: times.value(row),
            tags,
        });
    }
    Ok(())
}

impl Reader {
    /// The latest posts, each as it is now, those that were posted last first.
    ///
    /// # Errors
    /// As [`Reader::tag_mood`]; [`ErrorKind::TooLarge`] if too many days or versions would have to be looked at.
    pub async fn latest(&self, query: &ChartQuery, limit: usize) -> Result<Vec<FoundPost>> {
        let days = days(query)?;
        let table = self.load("silver", "posts").await?;
        let mut budget = Budget(MAX_ROWS);
        // Clocks gone wild share one partition; what it has of these days is read once.
        let mut late: HashMap<i64, Day> = HashMap::new();
        let (from, last) = (days.start.saturating_mul(DAY_US), days.end.saturating_mul(DAY_US).saturating_sub(1));
        let filter = posted(from, last).and(Reference::new("event_day").is_null());
        let hear = |uid, version: Newest| late.entry(day_of(version.created_at_us)).or_default().hear(uid, version);
        compare(&table, filter, query, &mut budget, hear).await?;
        let mut found = Vec::new();
        for day in days.rev() {
            let mut newest = late.remove(&day).unwrap_or_default();
            let filter = Reference::new("event_day").equal_to(Datum::date(i32::try_from(day).unwrap_or(i32::MAX)));
            compare(&table, filter, query, &mut budget, |uid, version| newest.hear(uid, version)).await?;
            add(&mut found, newest, limit);
            if found.len() == limit {
                break;
            }
        }
        rows(&table, query, &found).await
    }
}

/// Tells the versions that a filter lets through.
async fn compare(
    table: &Table,
    filter: Predicate,
    query: &ChartQuery,
    budget: &mut Budget,
    mut hear: impl FnMut(Uuid, Newest),
) -> Result<()> {
    let columns = ["uid", "version", "deleted", "created_at", "language", "sentiment", "topics"];
    let mut batches = std::pin::pin!(scanned(table, filter.and(of(query)), &columns).await?);
    while let Some(batch) = batches.try_next().await? {
        budget.spend(batch.num_rows())?;
        heard(&batch, query, &mut hear)?;
    }
    Ok(())
}

/// The rows of posts, in their order.
async fn rows(table: &Table, query: &ChartQuery, found: &[Candidate]) -> Result<Vec<FoundPost>> {
    let (Some(first), Some(last)) = (found.first(), found.last()) else { return Ok(Vec::new()) };
    let days = [last, first].map(|post| i32::try_from(day_of(post.created_at_us.0)).unwrap_or(i32::MAX));
    let day = || Reference::new("event_day");
    let of_days = day()
        .greater_than_or_equal_to(Datum::date(days[0]))
        .and(day().less_than_or_equal_to(Datum::date(days[1])))
        .or(day().is_null());
    let filter = posted(last.created_at_us.0, first.created_at_us.0).and(of_days).and(of(query));
    let columns = [
        "uid",
        "version",
        "source",
        "id",
        "author",
        "url",
        "text",
        "language",
        "sentiment",
        "polarity",
        "created_at",
        "topics",
    ];
    let mut wanted: HashMap<_, _> = found.iter().enumerate().map(|(n, post)| ((post.uid, post.version), n)).collect();
    let mut posts: Vec<Option<FoundPost>> = vec![None; found.len()];
    let mut batches = std::pin::pin!(scanned(table, filter, &columns).await?);
    while !wanted.is_empty()
        && let Some(batch) = batches.try_next().await?
    {
        take(&batch, &mut wanted, &mut posts)?;
    }
    Ok(posts.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_budget_is_spent_to_the_last_row() {
        let mut budget = Budget(5);
        assert!(budget.spend(3).is_ok() && budget.spend(2).is_ok());
        assert_eq!(budget.spend(1).expect_err("spent").kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn a_time_touches_its_days_and_not_too_many() {
        let touched = |from_us, until_us| days(&ChartQuery { from_us, until_us, ..ChartQuery::default() });
        for (from, until, wanted) in [
            (0, DAY_US, 0..1),
            (0, DAY_US + 1, 0..2),
            (DAY_US - 1, DAY_US, 0..1),
            (-1, 1, -1..1),
            (0, MAX_DAYS * DAY_US, 0..MAX_DAYS),
        ] {
            assert_eq!(touched(from, until).expect("few days"), wanted, "{from} {until}");
        }
        for (from, until) in [(0, MAX_DAYS * DAY_US + 1), (i64::MIN, 0), (i64::MIN, i64::MAX)] {
            assert_eq!(touched(from, until).expect_err("many days").kind(), ErrorKind::TooLarge);
        }
    }

    proptest! {
        /// Whatever versions come in whatever order: each post counts as its greatest, and days can be read one by one.
        #[test]
        fn the_latest_are_those_of_sorting_everything(
            rows in prop::collection::vec((0..14u128, 0..5i64, 0..DAY_US, any::<bool>()), 0..60),
            limit in 1..9usize,
        ) {
            // What a version says depends on which it is; a post's day on its uid.
            let said: BTreeMap<_, _> = rows.iter().map(|&(n, version, time, shown)| ((n, version), (time, shown))).collect();
            let version = |n: u128, version: i64| {
                let (time, shown) = said[&(n, version)];
                Newest { version, created_at_us: (n % 3) as i64 * DAY_US + time, shown }
            };
            let mut found = Vec::new();
            for day in [2, 1, 0] {
                let mut newest = Day::default();
                for &(n, v, ..) in rows.iter().filter(|(n, ..)| n % 3 == day) {
                    newest.hear(Uuid::from_u128(n), version(n, v));
                }
                add(&mut found, newest, limit);
                if found.len() == limit {
                    break;
                }
            }
            let latest: BTreeMap<u128, i64> = said.keys().copied().collect();
            let latest = latest.into_iter().map(|(n, v)| (n, version(n, v))).filter(|(_, newest)| newest.shown);
            let mut wanted: Vec<_> = latest.map(|(n, newest)| (Reverse(newest.created_at_us), n, newest.version)).collect();
            wanted.sort();
            wanted.truncate(limit);
            let found: Vec<_> = found.iter().map(|c| (c.created_at_us, c.uid.as_u128(), c.version)).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
