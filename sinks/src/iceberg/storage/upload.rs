//! An object that is being written, in parts if it is large. It is not there before it is closed.

use async_trait::async_trait;
use bytes::Bytes;
use iceberg::Result;
use iceberg::io::{FileWrite, Storage};
use opendal::{ErrorKind, Writer};

use super::refusal::Doing;
use super::s3::S3Storage;

pub(super) struct Upload {
    storage: S3Storage,
    path: String,
    writer: Writer,
    /// Bytes that were given to the writer.
    written: u64,
}

impl Upload {
    pub(super) fn new(storage: S3Storage, path: &str, writer: Writer) -> Self {
        Self { storage, path: path.to_owned(), writer, written: 0 }
    }

    /// Whether the object is there with every byte. Its name is this writer's alone.
    async fn is_there(&self) -> bool {
        self.storage.metadata(&self.path).await.is_ok_and(|found| found.size == self.written)
    }

    /// Lets go of the parts that were sent: they would cost space, and nobody would see them.
    async fn give_up(&mut self, error: &opendal::Error) -> iceberg::Error {
        if let Err(error) = self.writer.abort().await {
            tracing::debug!(path = self.path, %error, "parts of an upload stay");
        }
        self.storage.explain(error, &self.path, Doing::Writing)
    }
}

#[async_trait]
impl FileWrite for Upload {
    async fn write(&mut self, bs: Bytes) -> Result<()> {
        self.written += bs.len() as u64;
        match self.writer.write(bs).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.give_up(&error).await),
        }
    }

    async fn close(&mut self) -> Result<()> {
        match self.writer.close().await {
            Ok(_) => Ok(()),
            // The client repeats what was not answered, and a store that had put the parts together knows no such
            // upload any more.
            Err(error) if error.kind() == ErrorKind::NotFound && self.is_there().await => Ok(()),
            Err(error) => Err(self.give_up(&error).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use undertone_error::ErrorKind;

    use super::*;
    use crate::iceberg::failure::failure;
    use crate::iceberg::storage::s3::PART;
    use crate::iceberg::storage::s3::tests::storage_at;
    use crate::iceberg::tests::server::serve;

    /// A store that takes parts, loses its answer to their completion, and then knows no such upload. It says that
    /// there is an object of `size` bytes. Returns its address and how often completion was asked for.
    fn forgetful_store(size: usize) -> (String, Arc<AtomicUsize>) {
        let completions = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&completions);
        let answer = move |method: &str, path: &str| match method {
            "HEAD" => Some(format!("200 OK\r\nContent-Length: {size}")),
            "PUT" => Some("200 OK\r\nETag: \"1\"".to_owned()),
            "DELETE" => Some("204 No Content".to_owned()),
            _ if path.contains("?uploads") => {
                let document = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
                Some(format!("200 OK|{document}"))
            }
            _ if counted.fetch_add(1, Ordering::SeqCst) == 0 => None,
            _ => {
                let document = "<Error><Code>NoSuchUpload</Code><Message>no such upload</Message></Error>";
                Some(format!("404 Not Found|{document}"))
            }
        };
        (serve(answer), completions)
    }

    /// Uploads two parts to the forgetful store, and says what came of it.
    async fn upload(stored: usize) -> Result<()> {
        let (endpoint, completions) = forgetful_store(stored);
        let storage = storage_at(&endpoint);
        let mut writer = storage.writer("s3://b/w/1.parquet").await?;
        writer.write(Bytes::from(vec![7; PART])).await?;
        writer.write(Bytes::from_static(b"and some more")).await?;
        let closed = writer.close().await;
        assert_eq!(completions.load(Ordering::SeqCst), 2, "completion was asked for again");
        closed
    }

    #[tokio::test]
    async fn an_upload_whose_completion_was_not_answered_is_there() {
        upload(PART + b"and some more".len()).await.expect("every byte is there");
    }

    #[tokio::test]
    async fn an_upload_that_the_store_forgot_is_made_anew() {
        let error = failure(&upload(PART).await.expect_err("bytes are missing"), "cannot write data files");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("NoSuchUpload"), "{error}");
    }
}
