//! Bytes that are kept until they are asked for: the first megabytes in memory, more in a file that has no name and so
//! cannot outlive the process.

use std::io::SeekFrom;

use axum::body::Body;
use tokio::{
    fs::File,
    io::{AsyncSeekExt, AsyncWriteExt},
};
use tokio_util::io::ReaderStream;

use crate::{errors::ProblemCode, problem::Problem};

/// What one call may keep in memory.
const MEMORY: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
}

impl Spool {
    /// Adds bytes at the end.
    ///
    /// # Errors
    /// `exhausted` if there is no room on disk.
    pub(super) async fn write(&mut self, bytes: Vec<u8>) -> Result<(), Problem> {
        self.length += bytes.len() as u64;
        self.memory.extend_from_slice(&bytes);
        if self.memory.len() > MEMORY { self.spill().await.map_err(full) } else { Ok(()) }
    }

    async fn spill(&mut self) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::from_std(tempfile::tempfile()?)),
        };
        file.write_all(&self.memory).await?;
        self.memory.clear();
        Ok(())
    }

    /// All of it, and its length.
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub(super) async fn into_body(mut self) -> Result<(u64, Body), Problem> {
        if self.file.is_none() {
            return Ok((self.length, Body::from(self.memory)));
        }
        self.spill().await.map_err(full)?;
        let Some(mut file) = self.file else { return Ok((self.length, Body::empty())) };
        file.flush().await.map_err(full)?;
        file.seek(SeekFrom::Start(0)).await.map_err(full)?;
        Ok((self.length, Body::from_stream(ReaderStream::with_capacity(file, 256 << 10))))
    }
}

fn full(error: std::io::Error) -> Problem {
    tracing::error!(%error, "cannot keep scores in a temporary file");
    Problem::new(ProblemCode::Exhausted, "the server has no room for the answer; send smaller calls, or try again")
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn what_was_written_comes_back_from_memory_and_from_disk() {
        for pieces in [0usize, 3, 40] {
            let mut spool = Spool::default();
            for piece in 0..pieces {
                spool.write(vec![piece as u8; 1 << 20]).await.expect("written");
            }
            assert!(spool.memory.len() <= MEMORY + (1 << 20));
            let (length, body) = spool.into_body().await.expect("a body");
            let bytes = to_bytes(body, usize::MAX).await.expect("read");
            assert_eq!((bytes.len() as u64, bytes.len()), (length, pieces << 20));
            assert!(
                (0..pieces)
                    .all(|piece| bytes[piece << 20] == piece as u8 && bytes[((piece + 1) << 20) - 1] == piece as u8)
            );
        }
    }
}
