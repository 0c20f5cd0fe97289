//! Bytes that wait for their reader, first in first out: the first of them in memory, the others in a file that has no name
//! and so cannot outlive the process. When everything is read, the file is empty again.

use std::io::{self, SeekFrom};

use axum::body::Bytes;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

/// What waits in memory at each end, and what goes to disk and comes back at once.
const BLOCK: usize = 256 << 10;

#[derive(Default)]
pub(super) struct Backlog {
    /// The oldest bytes.
    front: Vec<u8>,
    /// Between the two.
    file: Option<File>,
    written: u64,
    read: u64,
    /// The newest bytes.
    back: Vec<u8>,
}

impl Backlog {
    /// How many bytes wait.
    pub(super) fn len(&self) -> u64 {
        (self.front.len() + self.back.len()) as u64 + self.on_disk()
    }

    fn on_disk(&self) -> u64 {
        self.written - self.read
    }

    /// Adds bytes at the end.
    pub(super) async fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.on_disk() == 0 && self.back.is_empty() && self.front.len() < BLOCK {
            self.front.extend_from_slice(bytes);
            return Ok(());
        }
        self.back.extend_from_slice(bytes);
        if self.back.len() < BLOCK {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::from_std(tempfile::tempfile()?)),
        };
        file.seek(SeekFrom::Start(self.written)).await?;
        file.write_all(&self.back).await?;
        file.flush().await?;
        self.written += self.back.len() as u64;
        self.back.clear();
        Ok(())
    }

    /// The oldest bytes, of which there are some unless nothing waits.
    pub(super) async fn pop(&mut self) -> io::Result<Bytes> {
        if self.front.is_empty() {
            self.advance().await?;
        }
        Ok(std::mem::take(&mut self.front).into())
    }

    /// Brings what comes next to the front.
    async fn advance(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_mut().filter(|_| self.written > self.read) else {
            std::mem::swap(&mut self.front, &mut self.back);
            return Ok(());
        };
        let size = (self.written - self.read).min(BLOCK as u64);
        file.seek(SeekFrom::Start(self.read)).await?;
        self.front.resize(usize::try_from(size).unwrap_or(BLOCK), 0);
        file.read_exact(&mut self.front).await?;
        self.read += size;
        if self.read == self.written {
            file.set_len(0).await?;
            (self.read, self.written) = (0, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_goes_in_comes_out_in_order(steps in prop::collection::vec((any::<bool>(), 0usize..300_000), 1..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let (mut backlog, mut sent, mut received) = (Backlog::default(), Vec::new(), Vec::new());
                for (push, size) in steps {
                    if push {
                        let bytes: Vec<u8> = (0..size).map(|n| (n + sent.len()) as u8 ^ (size % 251) as u8).collect();
                        backlog.push(&bytes).await.expect("written");
                        sent.extend(bytes);
                    } else {
                        received.extend(backlog.pop().await.expect("read"));
                    }
                    assert_eq!(backlog.len() as usize, sent.len() - received.len());
                    assert!(backlog.front.len() + backlog.back.len() <= 2 * BLOCK + 600_000, "memory is bounded");
                }
                while backlog.len() > 0 {
                    let bytes = backlog.pop().await.expect("read");
                    assert!(!bytes.is_empty());
                    received.extend(bytes);
                }
                assert!(sent == received);
            });
        }
    }
}
