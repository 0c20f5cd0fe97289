//! Table files on the local disk, durable before anything can refer to them.
//!
//! The guarantee: once [`FileWrite::close`] or [`Storage::write`] returned, the file survives a power cut: its bytes are
//! on the disk, and so are its name and every folder above it, up to the root that the storage was opened under. Data
//! files, manifests, manifest lists and metadata files all pass through here before the catalog's pointer moves, so the
//! pointer never leads to a file that is empty or not there. Removals are not synced: a file that comes back is an
//! orphan, which costs only its space.
//!
//! Nothing outside that root is ever written or removed, whatever a table's metadata says: locations are absolute, so
//! those in a copied folder still name the original's files. Reading is not restricted.
//!
//! `iceberg`'s own local storage syncs what it writes piece by piece, but neither metadata files nor folders. It still
//! does the reading and removing here.

use std::collections::HashSet;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileMetadata, FileRead, FileWrite, InputFile, LocalFsStorage, OutputFile, Storage, StorageConfig, StorageFactory,
};
use iceberg::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use super::Listed;

/// The storage, and its own factory: all that it makes share what they know about folders.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::iceberg) struct DurableFsStorage {
    /// A folder that is durable itself.
    root: PathBuf,
    /// Folders below the root that are durable up to it. A sync costs a flush of the disk even if nothing changed, so
    /// each is synced into its parent once a process, whoever made it.
    #[serde(skip)]
    durable: Arc<Mutex<HashSet<PathBuf>>>,
}

impl DurableFsStorage {
    /// A storage for files below `root`, an absolute path to a folder that is durable itself.
    pub(in crate::iceberg) fn under(root: &Path) -> Self {
        Self { root: root.to_owned(), durable: Arc::default() }
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of a location that may be written or removed.
    fn own(&self, location: &str) -> Result<PathBuf> {
        let path = local(location);
        if path != self.root && is_within(&path, &self.root) {
            return Ok(path);
        }
        // A kind that is not waited for: no time mends it.
        Err(Error::new(ErrorKind::FeatureUnsupported, "cannot write or remove what is outside the data folder")
            .with_context("path", path.display().to_string())
            .with_context("data", self.root.display().to_string()))
    }

    async fn create(&self, path: &Path) -> io::Result<File> {
        let missing = path.ancestors().skip(1).take_while(|folder| !folder.exists());
        if let (Some(gone), Some(folder)) = (missing.last(), path.parent()) {
            // Never made yet, or removed behind our back with all that was in it.
            self.durable().retain(|folder| !folder.starts_with(gone));
            fs::create_dir_all(folder).await?;
        }
        File::create(path).await
    }

    /// Makes the name of a file in `folder` durable.
    async fn sync_name(&self, folder: &Path) -> io::Result<()> {
        let fresh = fresh(folder, &self.root, &self.durable());
        sync_dir(folder).await?;
        for parent in fresh.iter().filter_map(|fresh| fresh.parent()) {
            sync_dir(parent).await?;
        }
        // Only now: a folder counts once everything above it does.
        self.durable().extend(fresh);
        Ok(())
    }
}

/// The folders from `folder` up to `root`, without it, whose own names are not known to be durable yet.
fn fresh(folder: &Path, root: &Path, durable: &HashSet<PathBuf>) -> Vec<PathBuf> {
    let above = folder.ancestors();
    above.take_while(|folder| *folder != root && !durable.contains(*folder)).map(Path::to_owned).collect()
}

async fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder).await?.sync_all().await
}

/// Makes `folder` and what is missing above it, durably.
pub(in crate::iceberg) fn create_dir_durably(folder: &Path) -> io::Result<()> {
    let missing: Vec<_> = folder.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.exists()).collect();
    std::fs::create_dir_all(folder)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Whether a path is `root` or below it as it is written, without looking at the disk. One with `..` in it never is.
pub(in crate::iceberg) fn is_within(path: &Path, root: &Path) -> bool {
    path.starts_with(root) && !path.components().any(|component| component == Component::ParentDir)
}

/// The path in a location, read as [`LocalFsStorage`] reads it: `file:///a`, `file:/a` and `/a` are all `/a`.
pub(in crate::iceberg) fn local(location: &str) -> PathBuf {
    match location.strip_prefix("file:") {
        Some(path) => Path::new("/").join(path.trim_start_matches('/')),
        None => PathBuf::from(location),
    }
}

/// Every file below a folder; none if there is no such folder. Links are not followed.
pub(super) async fn list(location: &str) -> Result<Vec<Listed>> {
    let root = local(location);
    let panicked = |e| Err(Error::new(ErrorKind::Unexpected, "listing a folder panicked").with_source(e));
    tokio::task::spawn_blocking(move || walk(&root)).await.unwrap_or_else(panicked)
}

fn walk(root: &Path) -> Result<Vec<Listed>> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Removed since it was seen.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(failed("cannot list folder", &folder, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| failed("cannot list folder", &folder, e))?;
            let path = entry.path();
            // Of the entry itself, not of what a link points at.
            let about = match entry.metadata() {
                Ok(about) => about,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed("cannot look at file", &path, e)),
            };
            if about.is_dir() {
                folders.push(path);
            } else if about.is_file() {
                let modified = about.modified().map_err(|e| failed("cannot look at file", &path, e))?;
                let key = path.display().to_string();
                found.push(Listed { location: format!("file://{key}"), key, size: about.len(), modified });
            }
        }
    }
    Ok(found)
}

fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Unexpected, doing).with_context("path", path.display().to_string()).with_source(error)
}

#[async_trait]
#[typetag::serde]
impl Storage for DurableFsStorage {
    async fn write(&self, path: &str, bs: Bytes) -> Result<()> {
        let mut file = self.writer(path).await?;
        file.write(bs).await?;
        file.close().await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let path = self.own(path)?;
        let file = self.create(&path).await.map_err(|e| failed("cannot create file", &path, e))?;
        Ok(Box::new(DurableFileWrite { storage: self.clone(), path, file: Some(file) }))
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    async fn exists(&self, path: &str) -> Result<bool> {
        LocalFsStorage.exists(path).await
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        LocalFsStorage.metadata(path).await
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        LocalFsStorage.read(path).await
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        LocalFsStorage.reader(path).await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.own(path)?;
        LocalFsStorage.delete(path).await
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        self.own(path)?;
        LocalFsStorage.delete_prefix(path).await
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }
}

#[typetag::serde]
impl StorageFactory for DurableFsStorage {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

/// A file that is being written.
struct DurableFileWrite {
    storage: DurableFsStorage,
    path: PathBuf,
    /// None once it is closed.
    file: Option<File>,
}

#[async_trait]
impl FileWrite for DurableFileWrite {
    async fn write(&mut self, bs: Bytes) -> Result<()> {
        let file =
            self.file.as_mut().ok_or_else(|| Error::new(ErrorKind::DataInvalid, "cannot write to closed file"))?;
        file.write_all(&bs).await.map_err(|e| failed("cannot write file", &self.path, e))
    }

    async fn close(&mut self) -> Result<()> {
        let mut file = self.file.take().ok_or_else(|| Error::new(ErrorKind::DataInvalid, "cannot close file twice"))?;
        // A write that failed in the background is reported by the flush alone.
        file.flush().await.map_err(|e| failed("cannot write file", &self.path, e))?;
        file.sync_all().await.map_err(|e| failed("cannot sync file", &self.path, e))?;
        match self.path.parent() {
            Some(folder) => self
                .storage
                .sync_name(folder)
                .await
                .map_err(|e| failed("cannot sync folders above file", &self.path, e)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn set(folders: &[&str]) -> HashSet<PathBuf> {
        folders.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn folders_are_synced_up_to_the_root_or_the_first_that_is_durable() {
        let root = Path::new("/data");
        let cases: [(&str, &[&str], &[&str]); 5] = [
            ("/data", &[], &[]),
            ("/data/w/t", &[], &["/data/w/t", "/data/w"]),
            ("/data/w/t/day=1", &["/data/w/t", "/data/w"], &["/data/w/t/day=1"]),
            ("/data/w/t", &["/data/w/t", "/data/w"], &[]),
            ("/other/t", &[], &["/other/t", "/other", "/"]),
        ];
        for (folder, durable, wanted) in cases {
            assert_eq!(fresh(Path::new(folder), root, &set(durable)), wanted.iter().map(Path::new).collect::<Vec<_>>());
        }
    }

    #[test]
    fn locations_are_read_as_the_local_storage_reads_them() {
        for location in ["file:///srv/my data/ü", "file://srv/my data/ü", "file:/srv/my data/ü", "/srv/my data/ü"] {
            assert_eq!(local(location), Path::new("/srv/my data/ü"), "{location}");
        }
    }

    #[tokio::test]
    async fn files_are_complete_once_closed_and_replace_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let storage = DurableFsStorage::under(root.path()).build(&StorageConfig::new()).unwrap();
        let path = format!("file://{}/warehouse/t/metadata/1.json", root.path().display());
        let output = storage.new_output(&path).unwrap();
        // Longer than what is buffered on the way to the file.
        let long = Bytes::from((0..5_000_000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        output.write(long.clone()).await.unwrap();
        assert_eq!(storage.metadata(&path).await.unwrap().size, 5_000_000);
        assert!(storage.read(&path).await.unwrap() == long);

        let mut writer = output.writer().await.unwrap();
        assert_eq!(storage.metadata(&path).await.unwrap().size, 0);
        for piece in ["one ", "", "two"] {
            writer.write(Bytes::from(piece)).await.unwrap();
        }
        writer.close().await.unwrap();
        assert_eq!(storage.read(&path).await.unwrap(), "one two");
        assert_eq!(storage.reader(&path).await.unwrap().read(4..7).await.unwrap(), "two");
        assert_eq!(writer.write(Bytes::from("late")).await.unwrap_err().kind(), ErrorKind::DataInvalid);
        assert_eq!(writer.close().await.unwrap_err().kind(), ErrorKind::DataInvalid);

        output.delete().await.unwrap();
        assert!(!storage.exists(&path).await.unwrap());
    }

    #[tokio::test]
    async fn a_folder_is_durable_after_the_first_file_and_is_looked_at_again_if_it_was_removed() {
        let root = tempfile::tempdir().unwrap();
        let storage = DurableFsStorage::under(root.path());
        let at = |path: &str| root.path().join(path);
        let write = async |path: &str| storage.write(at(path).to_str().unwrap(), Bytes::from("x")).await.unwrap();

        let mut open = storage.writer(at("t/data/1").to_str().unwrap()).await.unwrap();
        assert!(storage.durable().is_empty(), "nothing is durable before it is closed");
        open.close().await.unwrap();
        assert_eq!(*storage.clone().durable(), HashSet::from([at("t"), at("t/data")]));

        write("u/2").await;
        std::fs::remove_dir_all(at("t")).unwrap();
        let mut open = storage.writer(at("t/metadata/1").to_str().unwrap()).await.unwrap();
        assert_eq!(*storage.durable(), HashSet::from([at("u")]), "what is beneath a removed folder is forgotten");
        open.close().await.unwrap();
        assert_eq!(*storage.durable(), HashSet::from([at("t"), at("t/metadata"), at("u")]));
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_an_error_that_names_the_file() {
        let root = tempfile::tempdir().unwrap();
        let storage = DurableFsStorage::under(root.path());
        std::fs::write(root.path().join("file"), "").unwrap();
        let beneath_a_file = root.path().join("file/1.json");
        let error = storage.write(beneath_a_file.to_str().unwrap(), Bytes::new()).await.unwrap_err();
        assert!(error.to_string().contains("file/1.json"), "{error}");

        // A full disk: the write is taken, and fails behind the writer's back.
        let full = root.path().join("full.json");
        symlink("/dev/full", &full).unwrap();
        let error = storage.write(full.to_str().unwrap(), Bytes::from("x")).await.unwrap_err();
        assert!(error.to_string().contains("cannot write file"), "{error}");
        assert!(storage.durable().is_empty());
    }

    #[tokio::test]
    async fn nothing_outside_the_root_is_written_or_removed() {
        let home = tempfile::tempdir().unwrap();
        let at = |path: &str| format!("file://{}/{path}", home.path().display());
        for folder in ["d0", "d1"] {
            std::fs::create_dir(home.path().join(folder)).unwrap();
            std::fs::write(home.path().join(folder).join("file"), "kept").unwrap();
        }
        let storage = DurableFsStorage::under(&home.path().join("d1"));
        for outside in [at("d0/file"), at("d1/../d0/file"), at("d10/file"), at("d1"), "d1/file".to_owned()] {
            let streamed = futures::stream::iter([outside.clone()]).boxed();
            for refused in [
                storage.write(&outside, Bytes::from("x")).await,
                storage.delete(&outside).await,
                storage.delete_prefix(&outside).await,
                storage.delete_stream(streamed).await,
            ] {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::FeatureUnsupported, "{outside}");
            }
        }
        assert_eq!(storage.read(&at("d0/file")).await.unwrap(), "kept");
        storage.delete(&at("d1/file")).await.unwrap();
        assert!(!home.path().join("d10").exists() && !home.path().join("d1/file").exists());
    }

    #[test]
    fn the_storage_and_its_factory_can_be_sent_elsewhere() {
        let storage = DurableFsStorage::under(Path::new("/data"));
        storage.durable().insert(PathBuf::from("/data/known here"));
        let json = serde_json::to_value(&storage as &dyn Storage).unwrap();
        assert_eq!(json, serde_json::json!({"type": "DurableFsStorage", "root": "/data"}));
        let there: Box<dyn Storage> = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&there).unwrap(), json);
        let factory: Box<dyn StorageFactory> = serde_json::from_value(json).unwrap();
        assert!(format!("{factory:?}").contains("root: \"/data\", durable: Mutex { data: {}"), "{factory:?}");
    }

    #[test]
    fn folders_are_made_with_those_above_them() {
        let root = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            create_dir_durably(&root.path().join("a/b/c")).unwrap();
            assert!(root.path().join("a/b/c").is_dir());
        }
    }
}
