//! Where a command's result goes. A file appears under its name only when it is complete.

use std::fs::File;
use std::io::{BufWriter, ErrorKind as IoErrorKind, Stdout, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use undertone_error::{Context, Error, ErrorKind, Result};

/// Standard output, or a file that is still being written beside its final place.
pub(super) enum Output {
    Stdout(BufWriter<Stdout>),
    /// A pipe or a device, which has a place of its own already.
    Special(BufWriter<File>),
    File {
        writer: BufWriter<File>,
        partial: PathBuf,
        path: PathBuf,
        finished: bool,
    },
}

impl Output {
    /// Opens the output; `None` and "-" are standard output. A link is followed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a folder; [`ErrorKind::Unavailable`] if the file cannot be made.
    pub(super) fn create(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
            return Ok(Self::Stdout(BufWriter::new(std::io::stdout())));
        };
        let failed = |e| {
            let error =
                Error::new(ErrorKind::Unavailable, "cannot write output").with("path", path.display()).source(e);
            error.help("is its folder there, and writable?")
        };
        let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                let error = Error::new(ErrorKind::InvalidInput, "output is a folder").with("path", path.display());
                return Err(error.help("name a file in it"));
            }
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(path).map_err(failed)?;
                return Ok(Self::Special(BufWriter::new(file)));
            }
            _ => {}
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        let file = File::create(&partial).map_err(failed)?;
        Ok(Self::File { writer: BufWriter::new(file), partial, path: path.to_owned(), finished: false })
    }

    /// Writes a value as a line of JSON.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(super) fn json<T: Serialize>(&mut self, value: &T) -> Result<()> {
        let line = serde_json::to_vec(value)
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot write a result").source(e))?;
        self.line(&line)
    }

    /// Writes one line.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]. If the reader of standard output went away, the process ends instead.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<()> {
        let writer: &mut dyn Write = match self {
            Self::Stdout(writer) => writer,
            Self::Special(writer) | Self::File { writer, .. } => writer,
        };
        writer.write_all(line).and_then(|()| writer.write_all(b"\n")).map_err(write_error)
    }

    /// Hands what was written so far to whoever reads standard output.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(super) fn flush(&mut self) -> Result<()> {
        match self {
            Self::Stdout(writer) => writer.flush().map_err(write_error),
            Self::Special(writer) => writer.flush().map_err(write_error),
            Self::File { .. } => Ok(()),
        }
    }

    /// Makes everything durable and, for a file, gives it its name.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(super) fn finish(mut self) -> Result<()> {
        match &mut self {
            Self::Stdout(writer) => writer.flush().map_err(write_error),
            Self::Special(writer) => writer.flush().map_err(write_error),
            Self::File { writer, partial, path, finished } => {
                writer.flush().map_err(write_error)?;
                writer.get_ref().sync_all().map_err(write_error)?;
                std::fs::rename(partial, path).context(ErrorKind::Unavailable, "cannot name the finished output")?;
                *finished = true;
                Ok(())
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::File { partial, finished: false, .. } = self {
            let _ = std::fs::remove_file(partial);
        }
    }
}

fn write_error(error: std::io::Error) -> Error {
    if error.kind() == IoErrorKind::BrokenPipe {
        // `undertone generate | head` has given all that was wanted: end as other tools do, without a word.
        crate::exit::now(0);
    }
    Error::new(ErrorKind::Unavailable, "cannot write output").source(error).help("is the disk full?")
}
