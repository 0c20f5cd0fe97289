//! The table: as it is made, and as it is compared with one that is there.

use super::ClickHouseConfig;
use crate::latest::State;

/// One column. Texts and times compress several times better with a codec of their own.
struct Column {
    name: &'static str,
    kind: &'static str,
    codec: &'static str,
    comment: &'static str,
}

const fn column(name: &'static str, kind: &'static str, codec: &'static str, comment: &'static str) -> Column {
    Column { name, kind, codec, comment }
}

const COLUMNS: [Column; 20] = [
    column("uid", "UUID", "", "UUIDv5 of source, id and UTC day of created_at: the same for every version of a post"),
    column("day", "Date32", "", "UTC day of created_at"),
    column("version", "UInt64", "", "Orders the versions of a post; greater is later"),
    column("is_deleted", "UInt8", "", "1 for a tombstone, which FINAL does not show"),
    column("source", "LowCardinality(String)", "", "Where it was posted"),
    column("id", "String", "CODEC(ZSTD(1))", "The id within its source"),
    column(
        "created_at",
        "DateTime64(6, 'UTC')",
        "CODEC(Delta(8), ZSTD(1))",
        "When it was posted, as the source claims",
    ),
    column("edited_at", "Nullable(DateTime64(6, 'UTC'))", "CODEC(ZSTD(1))", "When it was last edited"),
    column("author", "Nullable(String)", "CODEC(ZSTD(1))", "Who posted it"),
    column("url", "Nullable(String)", "CODEC(ZSTD(1))", "Where it can be read"),
    column("language", "LowCardinality(String)", "", "Detected language, ISO 639-3; empty if the text is too short"),
    column("text", "String", "CODEC(ZSTD(3))", "What was said; empty for a tombstone"),
    column("tags", "Array(LowCardinality(String))", "", "Tags and hashtags, lowercase, each once, at most 16"),
    column("label", "LowCardinality(String)", "", "Most probable label of the sentiment head; empty for a tombstone"),
    column("polarity", "Nullable(Float64)", "CODEC(ZSTD(1))", "P(positive) - P(negative), -1 to 1"),
    column("confidence", "Nullable(Float32)", "CODEC(ZSTD(1))", "Calibrated probability of the label"),
    column(
        "scores",
        "Map(LowCardinality(String), Float32)",
        "CODEC(ZSTD(1))",
        "Every probability, by head and label: irony.yes",
    ),
    column("model", "LowCardinality(String)", "", "Hash of the files of the model folder"),
    column("ingested_at", "DateTime64(6, 'UTC')", "CODEC(Delta(8), ZSTD(1))", "When the event was made durable"),
    column("scored_at", "DateTime64(6, 'UTC')", "CODEC(Delta(8), ZSTD(1))", "When it was scored"),
];

const PARTITION_KEY: &str = "toYYYYMM(day)";
const SORTING_KEY: &str = "day, source, uid";
/// What every version of a post has in common.
const UNCHANGING: [&str; 4] = ["uid", "day", "source", "id"];

/// The statement that makes the table.
pub(super) fn create(config: &ClickHouseConfig) -> String {
    let column = |c: &Column| format!("    {} {} {} COMMENT '{}'", c.name, c.kind, c.codec, c.comment);
    let columns: Vec<_> = COLUMNS.iter().map(column).collect();
    let ttl = ttl(config).map(|ttl| format!("\nTTL {ttl}")).unwrap_or_default();
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n{}\n)\nENGINE = ReplacingMergeTree(version, is_deleted)\n\
         PARTITION BY {PARTITION_KEY}\nORDER BY ({SORTING_KEY}){ttl}\n\
         COMMENT 'One row per post, at its latest version: read it with FINAL'",
        quoted(&config.table),
        columns.join(",\n"),
    )
}

/// When a row is forgotten, as the server writes it; `None`: never. By Date, which every server can, and which holds the days
/// from 1970 to 2149: one beyond, and a sum beyond, would count as another day, and a post of a wild clock would be forgotten
/// at once. It is kept until the last of them instead, or as if it were of the first.
fn ttl(config: &ClickHouseConfig) -> Option<String> {
    let days = config.retention_days?;
    let last = jiff::civil::date(2149, 6, 6).saturating_sub(jiff::Span::new().days(i64::from(days)));
    Some(format!("toDate(least(greatest(day, toDate32('1970-01-01')), toDate32('{last}'))) + toIntervalDay({days})"))
}

/// An identifier, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// What the server says about the table.
#[derive(Debug, clickhouse::Row, serde::Deserialize)]
pub(super) struct TableInfo {
    pub(super) engine_full: String,
    pub(super) partition_key: String,
    pub(super) sorting_key: String,
}

/// What the server says about a column.
#[derive(Debug, clickhouse::Row, serde::Deserialize)]
pub(super) struct ColumnInfo {
    pub(super) name: String,
    pub(super) kind: String,
}

/// Whether the engine is the one that keeps of each post its greatest version.
fn replaces(table: &TableInfo) -> bool {
    let engine = engine(table);
    engine.contains("ReplacingMergeTree(") && engine.trim_end().ends_with("version, is_deleted)")
}

fn engine(table: &TableInfo) -> &str {
    table.engine_full.split(" PARTITION BY").next().unwrap_or_default()
}

/// Whether versions of a post cannot meet in a table: its rows lie in it, and it keeps them all, or looks for them by what
/// an edit may change. Of an engine that only hands rows on, as Distributed does, the table behind it decides.
fn parts_versions(table: &TableInfo) -> bool {
    let of_uid = |key: &str| {
        let words = key.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let mut columns = words.filter(|word| COLUMNS.iter().any(|column| column.name == *word));
        columns.all(|column| UNCHANGING.contains(&column))
    };
    let sorts = of_uid(&table.sorting_key) && table.sorting_key.contains("uid");
    engine(table).contains("MergeTree") && !(replaces(table) && of_uid(&table.partition_key) && sorts)
}

/// How a table is found; columns of the user's own are none of our business.
pub(super) fn compare(config: &ClickHouseConfig, table: &TableInfo, columns: &[ColumnInfo]) -> State {
    match (differences(config, table, columns).join("; "), parts_versions(table)) {
        (found, true) => State::Unfit(found),
        (found, false) if found.is_empty() => State::There,
        (found, false) => State::Differs(found),
    }
}

/// What differs, in words.
fn differences(config: &ClickHouseConfig, table: &TableInfo, columns: &[ColumnInfo]) -> Vec<String> {
    let mut found = Vec::new();
    if !replaces(table) {
        found.push(format!("its engine is {}, not ReplacingMergeTree(version, is_deleted)", engine(table)));
    }
    for (key, is, wanted) in
        [("partition", &table.partition_key, PARTITION_KEY), ("sorting", &table.sorting_key, SORTING_KEY)]
    {
        if is != wanted {
            found.push(format!("its {key} key is {is}, not {wanted}"));
        }
    }
    let is = table.engine_full.split_once(" TTL ").map(|(_, rest)| rest.split(" SETTINGS ").next().unwrap_or(rest));
    let wanted = ttl(config);
    if is != wanted.as_deref() {
        let words = |ttl: Option<&str>| ttl.unwrap_or("none").to_owned();
        found.push(format!("its TTL is {}, not {}", words(is), words(wanted.as_deref())));
    }
    for wanted in &COLUMNS {
        let kind = wanted.kind;
        match columns.iter().find(|column| column.name == wanted.name) {
            None => found.push(format!("it has no column {}", wanted.name)),
            Some(column) if column.kind != kind => {
                found.push(format!("column {} is {}, not {kind}", wanted.name, column.kind));
            }
            Some(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(engine_full: &str) -> TableInfo {
        TableInfo {
            engine_full: engine_full.to_owned(),
            partition_key: PARTITION_KEY.to_owned(),
            sorting_key: SORTING_KEY.to_owned(),
        }
    }

    fn kept(retention_days: Option<u32>) -> ClickHouseConfig {
        let (url, database, table, user) = (String::new(), "d".to_owned(), "posts".to_owned(), "default".to_owned());
        ClickHouseConfig { url, database, table, user, password: None, retention_days }
    }

    fn columns() -> Vec<ColumnInfo> {
        COLUMNS.iter().map(|c| ColumnInfo { name: c.name.to_owned(), kind: c.kind.to_owned() }).collect()
    }

    #[test]
    fn a_table_as_we_make_it_differs_in_nothing_also_replicated_and_with_columns_of_the_users() {
        let mut columns = columns();
        columns.push(ColumnInfo { name: "team".to_owned(), kind: "String".to_owned() });
        for engine in [
            "ReplacingMergeTree(version, is_deleted) PARTITION BY toYYYYMM(day) ORDER BY (day, source, uid)",
            "ReplicatedReplacingMergeTree('/p/{shard}', '{replica}', version, is_deleted) PARTITION BY toYYYYMM(day)",
        ] {
            assert_eq!(compare(&kept(None), &table(engine), &columns), State::There);
        }
    }

    #[test]
    fn what_would_break_the_promise_is_named() {
        let mut wrong = table("MergeTree PARTITION BY toYYYYMM(day)");
        wrong.sorting_key = "created_at, uid".to_owned(); // an edit that repeats only the day would not meet its post
        let mut some = columns();
        some.retain(|column| column.name != "text");
        let State::Unfit(said) = compare(&kept(None), &wrong, &some) else { panic!("it doubles posts") };
        for words in ["its engine is MergeTree", "its sorting key is created_at, uid", "no column text"] {
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_table_in_which_versions_of_a_post_do_not_meet_is_unfit_and_others_may_differ() {
        let replacing = "ReplacingMergeTree(version, is_deleted)";
        for (engine, partition, sorting, unfit) in [
            (replacing, "toMonday(day)", "source, day, uid", false),
            (replacing, "", "uid", false),
            (replacing, "toYYYYMM(created_at)", SORTING_KEY, true), // an edit may bring another time of the day
            (replacing, PARTITION_KEY, "day, label, uid", true),
            (replacing, PARTITION_KEY, "day, source", true), // all posts of a day would be one
            ("ReplacingMergeTree(version)", PARTITION_KEY, SORTING_KEY, true),
            ("MergeTree", PARTITION_KEY, SORTING_KEY, true),
            ("Distributed('c', 'd', 'posts', rand())", "", "", false), // the tables behind it decide
        ] {
            let (partition_key, sorting_key) = (partition.to_owned(), sorting.to_owned());
            let table = TableInfo { engine_full: engine.to_owned(), partition_key, sorting_key };
            let found = compare(&kept(None), &table, &columns());
            assert_eq!(matches!(found, State::Unfit(_)), unfit, "{engine} {partition} {sorting}: {found:?}");
            assert_ne!(found, State::There);
        }
    }

    #[test]
    fn a_table_that_keeps_posts_for_another_time_differs() {
        let engine = "ReplacingMergeTree(version, is_deleted) PARTITION BY toYYYYMM(day) ORDER BY (day, source, uid)";
        let ten = "toDate(least(greatest(day, toDate32('1970-01-01')), toDate32('2149-05-27'))) + toIntervalDay(10)";
        assert!(create(&kept(Some(10))).contains(&format!("\nTTL {ten}\n")));
        let there = table(&format!("{engine} TTL {ten} SETTINGS index_granularity = 8192"));
        for (table, config, same) in [
            (&there, kept(Some(10)), true),
            (&there, kept(Some(11)), false),
            (&there, kept(None), false),
            (&table(engine), kept(Some(10)), false),
        ] {
            let said = differences(&config, table, &columns());
            assert_eq!(said.is_empty(), same, "{said:?}");
        }
    }

    #[test]
    fn names_cannot_end_their_quotes() {
        assert_eq!(quoted("a`b\\c"), "`a\\`b\\\\c`");
    }
}
