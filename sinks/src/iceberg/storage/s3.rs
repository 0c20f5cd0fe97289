//! Table files as objects of a store that speaks S3: AWS, MinIO, Ceph and others.
//!
//! The guarantee is the store's own: an object is there, whole and durable, once its upload was answered with success,
//! and not before. An upload whose answer was lost is sent again under the same name with the same bytes, which changes
//! nothing. What a failed epoch leaves behind is an orphan that costs only its space.
//!
//! Names are used as they stand in a location. One that the client would rewrite (`a//b`) is refused: other readers
//! would look for it where it is not.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::Result;
use iceberg::io::{FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig, StorageFactory};
use opendal::layers::{HttpClientLayer, RetryLayer};
use opendal::raw::HttpClient;
use opendal::services::S3;
use opendal::{Operator, Reader};
use serde::{Deserialize, Serialize};
use undertone_error::{Error, ErrorKind};

use super::Listed;
use super::refusal::{self, Doing};
use super::upload::Upload;
use crate::iceberg::failure::{Doing as _, wrap};
use crate::iceberg::http;
use crate::iceberg::secret::Secret;

/// How long the store may say nothing. While it is sent something it says nothing: a part must be through by then, which
/// a line of 44 kB/s manages.
const SILENCE: Duration = Duration::from_secs(120);
/// Parts of a large file; S3 takes none below 5 MiB.
pub(super) const PART: usize = 5 << 20;
/// Tries at a request that the store did not answer, before the epoch is handed back.
const TRIES: usize = 4;

/// How to reach the store.
#[derive(Clone, Debug, PartialEq)]
pub struct S3Config {
    /// `https://host:port`; left out: AWS in `region`.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the bucket is named in the path and not in the host, as MinIO wants it.
    pub path_style: bool,
    /// The id of the key.
    pub access_key: Secret,
    /// The key.
    pub secret_key: Secret,
    /// What comes with keys that end.
    pub session_token: Option<Secret>,
    /// Authorities to trust beside the system's, in PEM.
    pub ca: Option<PathBuf>,
}

/// The storage, and its own factory. Keys are not sent along when it is serialised, so it works only where it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::iceberg) struct S3Storage {
    #[serde(skip)]
    store: Option<Arc<Store>>,
}

/// What all clones share: the client, and an operator for each bucket.
#[derive(Debug)]
struct Store {
    config: S3Config,
    client: reqwest::Client,
    buckets: Mutex<HashMap<String, Operator>>,
}

/// A location in its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place<'a> {
    bucket: &'a str,
    key: &'a str,
}

/// Bucket and key of a location, or the location if it is none of an object.
pub(super) fn without_scheme(location: &str) -> &str {
    ["s3://", "s3a://", "s3n://"].iter().find_map(|scheme| location.strip_prefix(scheme)).unwrap_or(location)
}

/// Reads `s3://bucket/key`, or `s3a://` and `s3n://`, which Hadoop writes.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for any other location, and for a key that would not be used as it is.
fn place(location: &str) -> std::result::Result<Place<'_>, Error> {
    let wrong = |help| {
        let error = Error::new(ErrorKind::InvalidConfig, "location cannot be written to the object store");
        error.with("location", location).help(help)
    };
    let rest = Some(without_scheme(location)).filter(|rest| rest.len() < location.len());
    let Some((bucket, key)) = rest.and_then(|rest| rest.split_once('/')).filter(|(bucket, _)| !bucket.is_empty())
    else {
        return Err(wrong("with [storage.s3], tables lie at s3://bucket/…; leave the section out for local files"));
    };
    if key.trim() != key || key.split('/').any(|segment| segment.is_empty() || segment == "." || segment == "..") {
        return Err(wrong("its key has an empty segment, '.', '..', or spaces at an end; move the table to another"));
    }
    Ok(Place { bucket, key })
}

impl S3Storage {
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if TLS cannot be set up.
    pub(super) fn open(config: &S3Config) -> undertone_error::Result<Self> {
        let client = http::client(config.ca.as_deref(), "storage.s3.ca", |builder| builder.read_timeout(SILENCE))?;
        let store = Store { config: config.clone(), client, buckets: Mutex::default() };
        Ok(Self { store: Some(Arc::new(store)) })
    }

    /// As [`super::TableStorage::admits`].
    pub(super) fn admits(&self, location: &str) -> undertone_error::Result<()> {
        place(location).map(|_| ())
    }

    /// As [`super::TableStorage::try_out`].
    pub(super) async fn try_out(&self, location: &str) -> undertone_error::Result<()> {
        // Always the same bytes under the same name, and they stay: processes that start in the same moment do not take
        // it away from each other, and a writer needs no right to remove anything.
        let path = format!("{location}/metadata/undertone-check");
        let content = Bytes::from_static(b"written by `undertone check` to see whether it can be");
        self.write(&path, content.clone()).await.doing("cannot write to the object store")?;
        let found = self.read(&path).await.doing("cannot read from the object store")?;
        if found == content {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Corrupt, "object store gives back other bytes than were written");
        Err(error.with("object", path))
    }

    pub(super) fn describe(&self) -> String {
        let config = self.store.as_deref().map(|store| &store.config);
        match config.map(|config| (&config.endpoint, &config.region)) {
            Some((Some(endpoint), region)) => format!("objects at {endpoint} ({region})"),
            Some((None, region)) => format!("objects of AWS in {region}"),
            None => "objects".to_owned(),
        }
    }

    /// As [`super::TableStorage::list`].
    pub(super) async fn list(&self, location: &str) -> Result<Vec<Listed>> {
        let explain = |error| self.explain(&error, location, Doing::Other);
        let location = location.trim_end_matches('/');
        let (operator, key) = self.at(location)?;
        let below = format!("{key}/");
        let mut entries = operator.lister_with(&below).recursive(true).await.map_err(explain)?;
        let mut listed = Vec::new();
        while let Some(entry) = entries.try_next().await.map_err(explain)? {
            let (about, path) = (entry.metadata(), entry.path());
            let (Some(name), true) = (path.strip_prefix(&below), about.is_file()) else { continue };
            // Without a time it counts as made now, and so stays.
            let modified = about.last_modified().map_or_else(SystemTime::now, SystemTime::from);
            let location = format!("{location}/{name}");
            let key = without_scheme(&location).to_owned();
            listed.push(Listed { location, key, size: about.content_length(), modified });
        }
        Ok(listed)
    }

    fn store(&self) -> Result<&Store> {
        let lost = || Error::new(ErrorKind::Internal, "object storage was sent elsewhere without its keys");
        self.store.as_deref().ok_or_else(|| wrap(lost()))
    }

    /// The operator and the key of a location.
    fn at<'a>(&self, location: &'a str) -> Result<(Operator, &'a str)> {
        let store = self.store()?;
        let Place { bucket, key } = place(location).map_err(wrap)?;
        Ok((store.operator(bucket).map_err(|error| self.explain(&error, location, Doing::Other))?, key))
    }

    /// What the store's refusal means, to pass through the `iceberg` crate.
    pub(super) fn explain(&self, error: &opendal::Error, location: &str, doing: Doing) -> iceberg::Error {
        match self.store() {
            Ok(store) => wrap(refusal::explain(&store.config, error, location, doing)),
            Err(lost) => lost,
        }
    }
}

impl Store {
    fn operator(&self, bucket: &str) -> opendal::Result<Operator> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(operator) = buckets.get(bucket) {
            return Ok(operator.clone());
        }
        let operator = self.connect(bucket)?;
        buckets.insert(bucket.to_owned(), operator.clone());
        Ok(operator)
    }

    fn connect(&self, bucket: &str) -> opendal::Result<Operator> {
        let S3Config { endpoint, region, path_style, access_key, secret_key, session_token, ca: _ } = &self.config;
        // Nothing but what the configuration names: not the keys of a profile, not those of the machine.
        let mut builder = S3::default().disable_config_load().disable_ec2_metadata();
        builder = builder.bucket(bucket).region(region).root("/");
        builder = builder.access_key_id(access_key.reveal()).secret_access_key(secret_key.reveal());
        if let Some(token) = session_token {
            builder = builder.session_token(token.reveal());
        }
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint(endpoint);
        }
        if !path_style {
            builder = builder.enable_virtual_host_style();
        }
        Ok(Operator::new(builder)?
            .layer(HttpClientLayer::new(HttpClient::with(self.client.clone())))
            .layer(RetryLayer::new().with_max_times(TRIES - 1).with_min_delay(Duration::from_millis(100)).with_jitter())
            .finish())
    }
}

#[async_trait]
#[typetag::serde]
impl Storage for S3Storage {
    async fn exists(&self, path: &str) -> Result<bool> {
        let (operator, key) = self.at(path)?;
        operator.exists(key).await.map_err(|error| self.explain(&error, path, Doing::Other))
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let (operator, key) = self.at(path)?;
        let found = operator.stat(key).await.map_err(|error| self.explain(&error, path, Doing::Other))?;
        Ok(FileMetadata { size: found.content_length() })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        let (operator, key) = self.at(path)?;
        let read = operator.read(key).await.map_err(|error| self.explain(&error, path, Doing::Other))?;
        Ok(read.to_bytes())
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        let (operator, key) = self.at(path)?;
        let reader = operator.reader(key).await.map_err(|error| self.explain(&error, path, Doing::Other))?;
        Ok(Box::new(ObjectRead { storage: self.clone(), path: path.to_owned(), reader }))
    }

    async fn write(&self, path: &str, bs: Bytes) -> Result<()> {
        let (operator, key) = self.at(path)?;
        operator.write(key, bs).await.map_err(|error| self.explain(&error, path, Doing::Writing))?;
        Ok(())
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let (operator, key) = self.at(path)?;
        let writer = operator.writer_with(key).chunk(PART).await;
        let writer = writer.map_err(|error| self.explain(&error, path, Doing::Writing))?;
        Ok(Box::new(Upload::new(self.clone(), path, writer)))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let (operator, key) = self.at(path)?;
        operator.delete(key).await.map_err(|error| self.explain(&error, path, Doing::Other))
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        let (operator, key) = self.at(path.trim_end_matches('/'))?;
        operator.remove_all(&format!("{key}/")).await.map_err(|error| self.explain(&error, path, Doing::Other))
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

#[typetag::serde]
impl StorageFactory for S3Storage {
    /// What the catalog says about keys and endpoints is not heard: the configuration's hold.
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

/// An object that is being read.
struct ObjectRead {
    storage: S3Storage,
    path: String,
    reader: Reader,
}

#[async_trait]
impl FileRead for ObjectRead {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let explain = |error| self.storage.explain(&error, &self.path, Doing::Other);
        let read = self.reader.read(range).await.map_err(explain)?;
        Ok(read.to_bytes())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Nobody listens on port 9 of this machine.
    fn storage() -> S3Storage {
        storage_at("http://127.0.0.1:9")
    }

    pub(in crate::iceberg::storage) fn storage_at(endpoint: &str) -> S3Storage {
        S3Storage::open(&S3Config {
            endpoint: Some(endpoint.to_owned()),
            region: "us-east-1".to_owned(),
            path_style: true,
            access_key: Secret::new("KEY_ID", "the-id"),
            secret_key: Secret::new("KEY", "the-key"),
            session_token: None,
            ca: None,
        })
        .expect("a storage")
    }

    #[test]
    fn locations_are_taken_apart_as_they_are_or_refused() {
        for location in ["s3://b/w/posts/1.parquet", "s3a://b/w/posts/1.parquet", "s3n://b/w/posts/1.parquet"] {
            assert_eq!(place(location).expect(location), Place { bucket: "b", key: "w/posts/1.parquet" });
        }
        let day = "s3://b/w/day=2026-05-01/run=a%2Fb/1.parquet";
        assert_eq!(place(day).expect(day).key, "w/day=2026-05-01/run=a%2Fb/1.parquet");
        for wrong in ["file:///w/1", "/w/1", "s3://b", "s3://b/", "s3:///k", "s3://b/a//k", "s3://b/../k", "s3://b/k "]
        {
            assert_eq!(place(wrong).expect_err(wrong).kind(), ErrorKind::InvalidConfig, "{wrong}");
        }
        assert!(storage().admits("s3://b/w/posts").is_ok());
        assert!(storage().admits("s3://b/w/posts/").is_err(), "its files would be at s3://b/w/posts//data");
    }

    #[test]
    fn keys_are_not_sent_elsewhere() {
        let json = serde_json::to_value(&storage() as &dyn Storage).expect("json");
        assert_eq!(json, serde_json::json!({"type": "S3Storage"}));
        assert!(!format!("{:?}", storage()).contains("the-"), "{:?}", storage());
        let elsewhere: Box<dyn Storage> = serde_json::from_value(json).expect("a storage");
        let error = elsewhere.new_output("s3://b/k").expect("no look yet");
        assert_eq!(error.location(), "s3://b/k");
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_is_an_outside_fault_with_its_address() {
        let error = storage().try_out("s3://b/w/posts").await.expect_err("nobody listens");
        let text = error.to_string();
        assert!(error.retryable(), "{text}");
        assert!(text.contains("http://127.0.0.1:9") && text.contains("storage.s3.endpoint"), "{text}");
    }
}
