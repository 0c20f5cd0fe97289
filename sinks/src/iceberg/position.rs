//! Positions inside a table: one table property per partition, moved by the same commit that adds the rows.
//!
//! `undertone.position.<cluster>.<topic>.<partition>` holds `{"next": 42, "commit_id": "…"}`. The commit id also stands
//! in the summary of the snapshot that moved it, so that a writer can find its own commit beneath later ones, and so
//! that a table whose branch was rolled back beneath its positions is recognised. A re-scoring run has positions of its
//! own beside the stream's: `undertone.run.<run>.position.<cluster>.<topic>.<partition>`. The summary also says where the commit moved
//! which of them, so that a person can have them set back with a branch that was rolled back: [`super::rollback`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use iceberg::spec::TableMetadata;
use serde::{Deserialize, Serialize};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_proto::{LIVE_RUN, Partition};
use uuid::Uuid;

/// What every position property begins with.
pub const POSITION_PREFIX: &str = "undertone.position.";
/// What every property of a re-scoring run begins with.
pub(super) const RUN_PREFIX: &str = "undertone.run.";
/// The snapshot summary's property that names the commit.
pub const COMMIT_ID: &str = "undertone.commit-id";
/// The snapshot summary's property that says where the commit moved its positions: by the name of the position's property, but for
/// the partition, the next offset by partition.
pub(super) const MOVED: &str = "undertone.moved";

/// Clocks of writers may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Where a partition stands in a table, and which commit moved it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPosition {
    /// The offset after the last that is settled.
    pub next: i64,
    /// The commit that moved it there (UUIDv7).
    pub commit_id: Uuid,
}

/// Whose positions: the stream's, or those of one re-scoring run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Track {
    /// The stream's.
    #[default]
    Live,
    /// A run's.
    Run(RunName),
}

/// The name of a re-scoring run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName(String);

impl RunName {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it is "live", empty, long, or has other characters than letters, digits, '-' and '_'.
    pub fn new(name: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if name != LIVE_RUN && (1..=64).contains(&name.len()) && name.chars().all(plain) {
            return Ok(Self(name.to_owned()));
        }
        let error = Error::new(ErrorKind::InvalidInput, "run cannot have this name").with("run", name);
        Err(error.help("letters, digits, '-' and '_', at most 64; 'live' is the stream's own"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Track {
    fn prefix(&self) -> String {
        match self {
            Self::Live => POSITION_PREFIX.to_owned(),
            Self::Run(RunName(run)) => format!("{RUN_PREFIX}{run}.position."),
        }
    }
}

/// The positions that a table holds.
pub type StoredPositions = BTreeMap<Partition, StoredPosition>;

/// The property of a partition on a track.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] if the ids of cluster and topic are empty or hold a dot.
pub fn property(track: &Track, partition: &Partition) -> Result<String> {
    let Partition { cluster, topic, partition } = partition;
    for id in [cluster, topic] {
        if id.is_empty() || id.contains('.') {
            let error = Error::new(ErrorKind::InvalidInput, "id cannot be part of a table property").with("id", id);
            return Err(error.help("ids of clusters and topics have no dot and are not empty"));
        }
    }
    Ok(format!("{}{cluster}.{topic}.{partition}", track.prefix()))
}

/// Reads the positions of a track out of a table's properties.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if a property with our prefix is not one of ours: somebody edited it.
pub fn stored_positions(track: &Track, properties: &HashMap<String, String>) -> Result<StoredPositions> {
    let prefix = track.prefix();
    properties
        .iter()
        .filter_map(|(key, value)| Some((key, key.strip_prefix(&prefix)?, value)))
        .map(|(key, name, value)| {
            let parsed = parse_partition(name).zip(serde_json::from_str(value).ok());
            parsed.ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "table property is not a position")
                    .with("property", key)
                    .with("value", value)
                    .help("restore the property from an earlier metadata file of the table")
            })
        })
        .collect()
}

/// Whose position a property holds, if it holds one: a run's or, without one, the stream's.
pub(super) fn position_of(property: &str) -> Option<(Option<String>, Partition)> {
    if let Some(name) = property.strip_prefix(POSITION_PREFIX) {
        return Some((None, parse_partition(name)?));
    }
    let (run, name) = property.strip_prefix(RUN_PREFIX)?.split_once(".position.")?;
    Some((Some(run.to_owned()), parse_partition(name)?))
}

/// Moves of positions for a snapshot's summary, by the names of their properties.
///
/// # Errors
/// [`ErrorKind::Internal`] for what is no name of one.
pub(super) fn written_moves<'a>(moves: impl IntoIterator<Item = (&'a str, i64)>) -> Result<String> {
    let mut by_topic: BTreeMap<&str, BTreeMap<&str, i64>> = BTreeMap::new();
    for (property, next) in moves {
        let parts = property.rsplit_once('.');
        let (topic, partition) = parts.ok_or_else(|| Error::new(ErrorKind::Internal, "property is not a position"))?;
        by_topic.entry(topic).or_default().insert(partition, next);
    }
    serde_json::to_string(&by_topic).context(ErrorKind::Internal, "cannot write positions as JSON")
}

/// Reads what [`written_moves`] wrote.
pub(super) fn moves(written: &str) -> Option<BTreeMap<String, i64>> {
    let by_topic: BTreeMap<String, BTreeMap<String, i64>> = serde_json::from_str(written).ok()?;
    let named = |(topic, partitions): (String, BTreeMap<String, i64>)| {
        partitions.into_iter().map(move |(partition, next)| (format!("{topic}.{partition}"), next))
    };
    Some(by_topic.into_iter().flat_map(named).collect())
}

fn parse_partition(name: &str) -> Option<Partition> {
    let mut parts = name.split('.');
    let partition = Partition {
        cluster: parts.next()?.to_owned(),
        topic: parts.next()?.to_owned(),
        partition: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(partition)
}

/// The commits that the table's main branch is made of, as far back as its metadata still knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ancestry {
    commits: HashSet<String>,
    /// Commits of snapshots that the metadata knows and the branch does not hold.
    elsewhere: HashSet<String>,
    /// When the oldest known ancestor was made, if older ones have expired.
    expired_before_ms: Option<i64>,
}

/// Where a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// On the main branch.
    InAncestry,
    /// Older than the oldest snapshot that is kept.
    Expired,
    /// Not on the main branch, though it should be.
    Missing,
}

impl Ancestry {
    /// Walks from the head of the main branch to its first known snapshot.
    pub(super) fn of(metadata: &TableMetadata) -> Self {
        let commit =
            |snapshot: &iceberg::spec::SnapshotRef| snapshot.summary().additional_properties.get(COMMIT_ID).cloned();
        let mut ancestry = Self::default();
        let mut next = metadata.current_snapshot().cloned();
        while let Some(snapshot) = next {
            ancestry.commits.extend(commit(&snapshot));
            next = snapshot.parent_snapshot_id().and_then(|parent| metadata.snapshot_by_id(parent).cloned());
            // Who expires snapshots may also make the oldest that stays forget its parent, as PyIceberg does. The first
            // snapshot of a table is known by its number.
            if next.is_none() && (snapshot.parent_snapshot_id().is_some() || snapshot.sequence_number() > 1) {
                ancestry.expired_before_ms = Some(snapshot.timestamp_ms());
            }
        }
        ancestry.elsewhere =
            metadata.snapshots().filter_map(commit).filter(|id| !ancestry.commits.contains(id)).collect();
        ancestry
    }

    /// A whole history that holds exactly these commits.
    #[cfg(test)]
    pub(super) fn holding(commits: impl IntoIterator<Item = Uuid>) -> Self {
        Self { commits: commits.into_iter().map(|id| id.to_string()).collect(), ..Self::default() }
    }

    /// Where the commit is. Commit ids carry their time, which tells an expired commit from one that was rolled back.
    pub(super) fn standing(&self, commit_id: &Uuid) -> Standing {
        let id = commit_id.to_string();
        if self.commits.contains(&id) {
            return Standing::InAncestry;
        }
        let skew_ms = i64::try_from(CLOCK_SKEW.as_millis()).unwrap_or(i64::MAX);
        match self.expired_before_ms {
            Some(oldest_ms)
                if !self.elsewhere.contains(&id) && made_at_ms(commit_id) <= oldest_ms.saturating_add(skew_ms) =>
            {
                Standing::Expired
            }
            _ => Standing::Missing,
        }
    }
}

/// Whether the table's branch was set back beneath one of the track's positions.
///
/// # Errors
/// As [`stored_positions`].
pub(super) fn is_rolled_back(track: &Track, metadata: &TableMetadata) -> Result<bool> {
    let ancestry = Ancestry::of(metadata);
    let positions = stored_positions(track, metadata.properties())?;
    Ok(positions.values().any(|position| ancestry.standing(&position.commit_id) == Standing::Missing))
}

/// The time in a UUIDv7; the beginning of time for any other.
fn made_at_ms(id: &Uuid) -> i64 {
    let Some(time) = id.get_timestamp() else { return 0 };
    let (seconds, nanos) = time.to_unix();
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::{NoContext, Timestamp};

    use super::*;

    fn commit_at(seconds: u64) -> Uuid {
        Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0))
    }

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written(
            cluster in "[A-Za-z0-9_-]{1,22}",
            topic in "[A-Za-z0-9_-]{1,36}",
            partition in 0..9999i32,
            next in 0..i64::MAX,
            run in prop::option::of("[A-Za-z0-9_-]{1,22}"),
        ) {
            let track = run.map_or(Track::Live, |run| Track::Run(RunName(run)));
            let other = Track::Run(RunName::new("another").expect("a name"));
            let partition = Partition { cluster, topic, partition };
            let stored = StoredPosition { next, commit_id: Uuid::now_v7() };
            let properties = HashMap::from([
                (property(&track, &partition).expect("ids without dots"), serde_json::to_string(&stored).expect("json")),
                ("write.format.default".to_owned(), "parquet".to_owned()),
            ]);
            let name = property(&track, &partition).expect("ids without dots");
            let run = match &track { Track::Live => None, Track::Run(run) => Some(run.as_str().to_owned()) };
            prop_assert_eq!(position_of(&name), Some((run, partition.clone())));
            let written = written_moves([(name.as_str(), stored.next)]).expect("json");
            prop_assert_eq!(moves(&written), Some(BTreeMap::from([(name, stored.next)])));
            let read = stored_positions(&track, &properties).expect("well formed");
            prop_assert_eq!(read, StoredPositions::from([(partition, stored)]));
            prop_assert!(stored_positions(&other, &properties).expect("none").is_empty());
        }
    }

    #[test]
    fn what_somebody_edited_is_refused_rather_than_ignored() {
        for (key, value) in [("c.t.0", "42"), ("c.t", "{}"), ("c.t.x.0", "{}"), ("c.t.0", r#"{"next":1}"#)] {
            let properties = HashMap::from([(format!("{POSITION_PREFIX}{key}"), value.to_owned())]);
            assert_eq!(
                stored_positions(&Track::Live, &properties).expect_err(key).kind(),
                ErrorKind::Corrupt,
                "{key} {value}"
            );
        }
    }

    #[test]
    fn runs_have_plain_names() {
        for name in ["better", "2026-11_v2", "L"] {
            assert_eq!(RunName::new(name).expect(name).as_str(), name);
        }
        for name in ["", "live", "a.b", "a b", "ü", &"a".repeat(65)] {
            assert_eq!(RunName::new(name).expect_err(name).kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn ids_that_would_be_read_as_others_are_refused() {
        for (cluster, topic) in [("a.b", "t"), ("c", ""), ("", "t")] {
            let partition = Partition { cluster: cluster.to_owned(), topic: topic.to_owned(), partition: 0 };
            assert_eq!(property(&Track::Live, &partition).expect_err("no property").kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_missing_commit_is_expired_only_if_it_is_older_than_what_is_kept() {
        let (old, new) = (commit_at(1_000), commit_at(9_000));
        let kept_since_5000 = Some(5_000_000);
        let none = HashSet::new;
        let holding = |id: &Uuid| HashSet::from([id.to_string()]);
        let cases = [
            (
                "on the branch",
                Ancestry { commits: holding(&new), elsewhere: none(), expired_before_ms: None },
                new,
                Standing::InAncestry,
            ),
            (
                "whole history, not there",
                Ancestry { commits: none(), elsewhere: none(), expired_before_ms: None },
                old,
                Standing::Missing,
            ),
            (
                "before what is kept",
                Ancestry { commits: none(), elsewhere: none(), expired_before_ms: kept_since_5000 },
                old,
                Standing::Expired,
            ),
            (
                "after what is kept",
                Ancestry { commits: none(), elsewhere: none(), expired_before_ms: kept_since_5000 },
                new,
                Standing::Missing,
            ),
            (
                "on another branch",
                Ancestry { commits: none(), elsewhere: holding(&old), expired_before_ms: kept_since_5000 },
                old,
                Standing::Missing,
            ),
        ];
        for (case, ancestry, commit, wanted) in cases {
            assert_eq!(ancestry.standing(&commit), wanted, "{case}");
        }
    }
}
