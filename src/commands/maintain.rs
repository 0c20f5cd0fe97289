//! `undertone maintain`: expires snapshots and removes files that no table needs; told first, done with `--apply`.
//!
//! It works beside running streams and may be killed and run again at any time:
//! [`undertone_sinks::iceberg::IcebergStore::maintain`] says why. One line a table. With `--sink opensearch` it does so for
//! the indices of days that are older than they are kept, one line each.

use jiff::{Timestamp, tz::TimeZone};
use undertone_error::{Error, ErrorKind, Result};
use undertone_sinks::iceberg::{IcebergStore, Maintained, Tally, Upkeep};
use undertone_sinks::opensearch::OpenSearch;

use super::output::Output;
use crate::Outcome;
use crate::cli::MaintainArgs;
use crate::config::{Role, Stores};

pub(crate) async fn maintain(args: MaintainArgs) -> Result<Outcome> {
    if let Some(role) = args.sink {
        return indices(role, args.place.store(role)?, args.apply).await;
    }
    let upkeep = Upkeep {
        older_than: args.older_than,
        retain_last: args.retain_last,
        orphan_age: args.orphans_older_than,
        apply: args.apply,
    }
    .validated()?;
    let config = args.place.config()?;
    config.is_there()?;
    let store = IcebergStore::connect(&config.tables).await?;
    let mut output = Output::create(None)?;
    for table in IcebergStore::tables() {
        let done = store.maintain(&table, &upkeep).await?;
        output.line(describe(&done, upkeep.apply).as_bytes())?;
        output.flush()?;
    }
    finish(output, upkeep.apply)
}

/// Deletes the indices of days that are older than they are kept.
async fn indices(role: Role, stores: Stores, apply: bool) -> Result<Outcome> {
    let Some(config) = stores.opensearch else {
        let error = Error::new(ErrorKind::Unsupported, "store has nothing to look after").with("--sink", role.name());
        return Err(error.help("clickhouse deletes by its table's TTL; qdrant keeps every post"));
    };
    let Some(days) = config.retention_days else {
        let error = Error::new(ErrorKind::InvalidConfig, "posts are kept for ever").with("sink", role.name());
        return Err(error.help("opensearch.retention_days says how many days they are to be kept"));
    };
    let store = OpenSearch::new(config)?;
    let mut output = Output::create(None)?;
    for expired in store.expired(days, Timestamp::now().to_zoned(TimeZone::UTC).date()).await? {
        if apply {
            store.delete(&expired).await?;
        }
        let does = if apply { "deleted" } else { "would delete" };
        let (index, documents, bytes) = (&expired.index, expired.documents, size(expired.bytes));
        output.line(format!("{index:<19} {does}: {documents} documents, {bytes}").as_bytes())?;
        output.flush()?;
    }
    finish(output, apply)
}

fn finish(mut output: Output, applied: bool) -> Result<Outcome> {
    if !applied {
        output.line(b"nothing was changed: --apply does it")?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

fn describe(done: &Maintained, applied: bool) -> String {
    let Maintained { table, expired, kept, superseded, orphans, young } = done;
    let (expires, removes) = if applied { ("expired", "removed") } else { ("would expire", "would remove") };
    let files = |tally: &Tally| format!("{} files ({})", tally.files, size(tally.bytes));
    let mut line = format!(
        "{table:<19} {expires} {expired} snapshots of {}, {removes} {} of theirs",
        expired + kept,
        files(superseded)
    );
    line.push_str(&format!(" and {} of no snapshot", files(orphans)));
    if young.files > 0 {
        line.push_str(&format!("; {} of no snapshot are too young", files(young)));
    }
    line
}

/// A size that people can read.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_would_be_done_and_what_was() {
        let done = Maintained {
            table: "silver.posts".to_owned(),
            expired: 3,
            kept: 2,
            superseded: Tally { files: 4, bytes: 1_500 },
            ..Maintained::default()
        };
        let would = "silver.posts        would expire 3 snapshots of 5, would remove 4 files (1.5 kB) of theirs and 0 files \
                     (0 B) of no snapshot";
        assert_eq!(describe(&done, false), would);
        let young = Maintained { young: Tally { files: 1, bytes: 7 }, ..done };
        assert!(describe(&young, true).ends_with("; 1 files (7 B) of no snapshot are too young"));
    }
}
