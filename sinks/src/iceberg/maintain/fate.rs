//! What becomes of a file: a pure decision over where it lies, how old it is, and what the table says.

use std::time::SystemTime;

use iceberg::table::Table;

use super::reach::{Files, Place};
use crate::iceberg::storage::{Listed, TableStorage};

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The table needs it, or it is not the table's to judge.
    Needed,
    /// It was part of the table, and no kept snapshot reaches it.
    Superseded(Place),
    /// It is old, and was never part of the table as far as that can be told.
    Orphan,
    /// It may belong to a commit that is under way.
    Young,
}

/// Where the files of a table lie that are ours to judge.
#[derive(Debug)]
pub(super) struct Folder {
    key: String,
    /// Whether metadata files are left to whoever writes the table; a REST catalog looks after them itself.
    judges_metadata: bool,
}

impl Folder {
    pub(super) fn of(table: &Table, storage: &TableStorage, judges_metadata: bool) -> Self {
        Self { key: storage.key(table.metadata().location()), judges_metadata }
    }

    /// What becomes of `file`. Orphans changed before `old` are old.
    pub(super) fn fate(&self, file: &Listed, files: &Files, old: SystemTime) -> Fate {
        let inside = file.key.strip_prefix(&self.key).and_then(|rest| rest.strip_prefix('/'));
        let ours = match inside.and_then(|inside| inside.split_once('/')) {
            Some(("data", _)) => true,
            // A pointer of Hadoop's catalogs, and what `undertone check` writes.
            Some(("metadata", "version-hint.text" | "undertone-check")) => false,
            Some(("metadata", name)) => self.judges_metadata || !name.ends_with(".metadata.json"),
            // Somebody else put it there.
            _ => false,
        };
        if !ours || files.needed.contains(&file.key) {
            return Fate::Needed;
        }
        match files.once.get(&file.key) {
            Some(&place) => Fate::Superseded(place),
            None if file.modified < old => Fate::Orphan,
            None => Fate::Young,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn only_what_was_in_the_table_once_or_is_old_goes_and_only_from_its_own_folders() {
        let mut files = Files::default();
        files.needed.extend(["t/data/kept".to_owned(), "t/metadata/kept-and-once".to_owned()]);
        files.once.insert("t/metadata/kept-and-once".to_owned(), Place::Manifest);
        files.once.insert("t/data/once".to_owned(), Place::Data);
        files.once.insert("elsewhere/once".to_owned(), Place::Data);
        let cases = [
            ("t/data/kept", 1, Fate::Needed),
            ("t/metadata/kept-and-once", 1, Fate::Needed),
            ("t/data/once", 1, Fate::Superseded(Place::Data)),
            ("t/data/once", 9, Fate::Superseded(Place::Data)), // known: its age does not matter
            ("t/data/day=1/run=x/unknown", 4, Fate::Orphan),
            ("t/data/day=1/run=x/unknown", 5, Fate::Young),
            ("t/metadata/unknown", 4, Fate::Orphan),
            ("t/metadata/00001-x.metadata.json", 4, Fate::Orphan),
            ("t/metadata/version-hint.text", 1, Fate::Needed),
            ("t/metadata/undertone-check", 1, Fate::Needed),
            ("t/notes.txt", 1, Fate::Needed),
            ("t/photos/cat", 1, Fate::Needed),
            ("tt/data/x", 1, Fate::Needed), // another table
            ("elsewhere/once", 1, Fate::Needed),
        ];
        let folder = Folder { key: "t".to_owned(), judges_metadata: true };
        let listed = |key: &str, seconds| Listed {
            location: format!("s3://{key}"),
            key: key.to_owned(),
            size: 1,
            modified: at(seconds),
        };
        for (key, seconds, wanted) in cases {
            assert_eq!(folder.fate(&listed(key, seconds), &files, at(5)), wanted, "{key} at {seconds}");
        }
        let of_a_server = Folder { judges_metadata: false, ..folder };
        assert_eq!(of_a_server.fate(&listed("t/metadata/1-x.metadata.json", 1), &files, at(5)), Fate::Needed);
    }
}
