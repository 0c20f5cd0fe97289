//! The data folder of embedded mode: where everything lies, whose it is, and that only one process works in it.
//!
//! ```text
//! data/lock  data/id  data/version  data/input/  data/scored/  data/dead-letters.jsonl  data/catalog.db  data/warehouse/
//! ```
//!
//! The guarantee: while a [`DataFolder`] lives, no other process has one of the same folder; the operating system lets
//! go of the lock when the process ends, however it ends. The id never changes.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind as IoKind, Read, Write};
use std::path::{Path, PathBuf};

use undertone_error::{Error, ErrorKind, Result};
use uuid::Uuid;

use crate::durable::{create_dir, io_error, replace};

/// The layout that this version writes and reads.
const VERSION: u32 = 1;

/// A data folder, locked.
#[derive(Debug)]
pub struct DataFolder {
    root: PathBuf,
    id: Uuid,
    /// Holds the lock; closing it lets go.
    _lock: File,
}

impl DataFolder {
    /// Opens the folder, making it if there is none, and locks it. Blocks on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another process works in it, naming that process; [`ErrorKind::Unsupported`] for the
    /// folder of another version; [`ErrorKind::Corrupt`] if its id is not readable; errors of the file system.
    pub fn open(root: &Path) -> Result<Self> {
        create_dir(root)?;
        let lock = lock(root)?;
        check_version(&root.join("version"))?;
        let id = read_id(root)?;
        Ok(Self { root: root.to_owned(), id, _lock: lock })
    }

    /// The folder's id, the `cluster` of its events' origins.
    pub fn id(&self) -> String {
        self.id.to_string()
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the input log.
    pub fn input(&self) -> PathBuf {
        self.root.join("input")
    }

    /// The folder of the scored log.
    pub fn scored(&self) -> PathBuf {
        self.root.join("scored")
    }

    /// The file in which the scoring stage counts its attempts.
    pub fn attempts(&self) -> PathBuf {
        self.root.join("attempts.json")
    }

    /// The dead letters.
    pub fn dead_letters(&self) -> PathBuf {
        dead_letters(&self.root)
    }

    /// The SQLite database of the Iceberg catalog.
    pub fn catalog(&self) -> PathBuf {
        self.root.join("catalog.db")
    }

    /// The folder of the Iceberg tables.
    pub fn warehouse(&self) -> PathBuf {
        self.root.join("warehouse")
    }
}

/// Where the dead letters of the data folder `root` lie. Reading them needs no lock.
pub fn dead_letters(root: &Path) -> PathBuf {
    root.join("dead-letters.jsonl")
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let failed = |e| io_error("cannot lock data folder", &path, e);
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() };
            return Err(Error::new(ErrorKind::Conflict, "another process works in this data folder")
                .with("folder", root.display())
                .with("pid", pid)
                .help("stop it first, or choose another folder with --data"));
        }
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    // Only for people: the lock itself is the operating system's.
    file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes())).map_err(failed)?;
    Ok(file)
}

fn check_version(path: &Path) -> Result<()> {
    match read(path)? {
        None => replace(path, format!("{VERSION}\n").as_bytes()),
        Some(found) if found.trim() == VERSION.to_string() => Ok(()),
        Some(found) => {
            Err(Error::new(ErrorKind::Unsupported, "data folder has a layout that this version does not know")
                .with("path", path.display())
                .with("version", found.trim())
                .help(format!(
                    "run the version of undertone that made it, or choose another folder; this one knows {VERSION}"
                )))
        }
    }
}

fn read_id(root: &Path) -> Result<Uuid> {
    let path = root.join("id");
    match read(&path)? {
        Some(text) => text.trim().parse().map_err(|e: uuid::Error| {
            Error::new(ErrorKind::Corrupt, "id of the data folder is not a UUID")
                .with("path", path.display())
                .source(e)
                .help("restore the file from a copy; the tables name their events by it")
        }),
        // Events that are there carry the lost id: with a new one they would be counted as others.
        None if root.join("input").exists() => Err(Error::new(ErrorKind::Corrupt, "data folder has lost its id")
            .with("path", path.display())
            .help("restore the file from a copy; the tables name their events by it")),
        None => {
            let id = Uuid::new_v4();
            replace(&path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == IoKind::NotFound => Ok(None),
        Err(e) => Err(io_error("cannot read file", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_id() {
        let dir = crate::testing::dir();
        let root = dir.path().join("deep/data");
        let id = DataFolder::open(&root).unwrap().id();
        assert_eq!(DataFolder::open(&root).unwrap().id(), id);
    }

    #[test]
    fn a_second_opening_is_refused_by_name_and_pid() {
        let dir = crate::testing::dir();
        let first = DataFolder::open(dir.path()).unwrap();
        let error = DataFolder::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let message = error.to_string();
        assert!(message.contains(&format!("pid: {}", std::process::id())), "{message}");
        assert!(message.contains(&dir.path().display().to_string()), "{message}");
        drop(first);
        DataFolder::open(dir.path()).unwrap();
    }

    #[test]
    fn what_is_lost_or_strange_is_not_made_again() {
        let dir = crate::testing::dir();
        drop(DataFolder::open(dir.path()).unwrap());
        fs::create_dir(dir.path().join("input")).unwrap();
        fs::remove_file(dir.path().join("id")).unwrap();
        assert_eq!(DataFolder::open(dir.path()).unwrap_err().kind(), ErrorKind::Corrupt);
        fs::write(dir.path().join("id"), "x").unwrap();
        assert_eq!(DataFolder::open(dir.path()).unwrap_err().kind(), ErrorKind::Corrupt);
        fs::write(dir.path().join("version"), "9\n").unwrap();
        assert_eq!(DataFolder::open(dir.path()).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
