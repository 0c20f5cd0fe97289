//! Indices of days that are older than they are kept.
//!
//! The guarantee: only an index is named or deleted that readers see through the alias, that is called after it and a day,
//! and all of whose day is older than the retention. Posts whose time no clock could have shown lie in an index without a
//! day, which stays.

use std::collections::BTreeMap;

use jiff::{Span, civil::Date};
use opensearch::http::Method;
use serde::Deserialize;
use serde_json::Value;
use undertone_error::{Context, ErrorKind, Result};

use super::OpenSearch;
use super::document::day_of;

/// An index that is older than it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// "posts-2026.05.01"
    pub index: String,
    /// Documents in it, deleted posts among them.
    pub documents: u64,
    /// Bytes of its primary shards.
    pub bytes: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stats {
    indices: BTreeMap<String, IndexStats>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IndexStats {
    primaries: Primaries,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Primaries {
    docs: Docs,
    store: Size,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Docs {
    count: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Size {
    size_in_bytes: u64,
}

/// Whether `index` is that of a day after which `days` whole days have passed before `today`.
fn is_expired(alias: &str, index: &str, days: u32, today: Date) -> bool {
    let span = Span::new().try_days(i64::from(days)).ok();
    let kept_until = day_of(alias, index).zip(span).and_then(|(day, span)| day.checked_add(span).ok());
    kept_until.is_some_and(|last| last < today)
}

impl OpenSearch {
    /// The indices that are older than `days`, the oldest first.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn expired(&self, days: u32, today: Date) -> Result<Vec<Expired>> {
        let (doing, alias) = ("cannot list indices", &self.config.index);
        // Only those that the alias shows: another index may have a name of the same form.
        let Some(body) = self.call(doing, Method::Get, &format!("/_alias/{alias}"), None).await? else {
            return Ok(Vec::new());
        };
        let shown: BTreeMap<String, Value> = serde_json::from_slice(&body).context(ErrorKind::Unavailable, doing)?;
        let old: Vec<String> = shown.into_keys().filter(|index| is_expired(alias, index, days, today)).collect();
        if old.is_empty() {
            return Ok(Vec::new());
        }
        // An index that nobody searches counts what was written to it only once it is told to.
        self.call("cannot refresh indices", Method::Post, &format!("/{alias}-*/_refresh"), None).await?;
        let parts = "indices.*.primaries.docs.count,indices.*.primaries.store.size_in_bytes";
        let path = format!("/{alias}-*/_stats/docs,store?filter_path={parts}");
        let body = self.call(doing, Method::Get, &path, None).await?;
        let stats: Stats =
            serde_json::from_slice(&body.unwrap_or_else(|| "{}".into())).context(ErrorKind::Unavailable, doing)?;
        let expired = |index: String| {
            let primaries = stats.indices.get(&index).map(|index| &index.primaries);
            let documents = primaries.map_or(0, |primaries| primaries.docs.count);
            let bytes = primaries.map_or(0, |primaries| primaries.store.size_in_bytes);
            Expired { index, documents, bytes }
        };
        Ok(old.into_iter().map(expired).collect())
    }

    /// Deletes an index that [`OpenSearch::expired`] named. One that is gone already is no failure.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn delete(&self, expired: &Expired) -> Result<()> {
        let path = format!("/{}", expired.index);
        self.call("cannot delete an index", Method::Delete, &path, None).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn only_days_that_are_wholly_older_expire_and_nothing_that_is_no_day_of_ours() {
        let today = date(2026, 5, 31);
        for (index, expired) in [
            ("posts-2026.05.20", true),
            ("posts-2026.05.21", false), // of its last moment ten days have not passed
            ("posts-2026.05.31", false),
            ("posts-2027.01.01", false),
            ("posts-2000.01.01", true),
            ("posts-other", false),
            ("posts-2026.5.1", false),
            ("posts-2026.05.01-backup", false),
            ("posts-2-2026.05.01", false),
            ("others-2026.05.01", false),
            ("posts", false),
        ] {
            assert_eq!(is_expired("posts", index, 10, today), expired, "{index}");
        }
        assert!(!is_expired("posts", "posts-2026.05.01", u32::MAX, today));
    }
}
