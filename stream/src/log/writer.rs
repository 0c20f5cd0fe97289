//! The one place that writes frames. The guarantee: [`Writer::length`] and [`Writer::end`] describe only what is synced,
//! and whatever an append that failed has left behind is cut before the next one starts.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;
use std::{io, process};

use bytes::Bytes;
use undertone_error::{Error, ErrorKind, Result, failpoint};

use super::segment::{self, Header, Mark};
use super::{LogOptions, Shared, frame};
use crate::durable::io_error;
use crate::telemetry;

/// A batch buffer that has grown past this is given back.
const KEEP_BUFFER: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    path: PathBuf,
    /// Bytes of the segment that are durable.
    length: u64,
    /// One past the last durable frame.
    end: i64,
    /// Bytes past `length` may have been written.
    dirty: bool,
    buffer: Vec<u8>,
    /// Makes the next write stop after so many bytes, as a full disk does.
    #[cfg(test)]
    pub(super) room: std::cell::Cell<Option<usize>>,
}

impl Writer {
    pub(super) fn new(file: File, path: PathBuf, length: u64, end: i64) -> Self {
        Self {
            file,
            path,
            length,
            end,
            dirty: false,
            buffer: Vec::new(),
            #[cfg(test)]
            room: std::cell::Cell::default(),
        }
    }

    pub(super) fn append(
        &mut self,
        shared: &Shared,
        payloads: &[Bytes],
        snapshot: &dyn Fn() -> Vec<u8>,
    ) -> Result<Range<i64>> {
        if payloads.is_empty() {
            return Ok(self.end..self.end);
        }
        check_sizes(&shared.options, payloads, self.end)?;
        self.roll_back()?;
        self.roll(shared, snapshot)?;

        let marks = self.encode(payloads);
        self.dirty = true;
        if let Err(error) = self.write(&shared.options) {
            // If this fails too, the next append tries again before anything else.
            if let Err(again) = self.roll_back() {
                tracing::warn!(error = %again, "cannot cut a failed append yet");
            }
            return Err(error);
        }

        let first = self.end;
        self.length += self.buffer.len() as u64;
        self.end = marks.last().map_or(first, |mark| mark.offset + 1);
        self.dirty = false;
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_BUFFER);
        if let Some(active) = shared.segments_mut().last_mut() {
            marks.into_iter().for_each(|mark| active.mark(mark));
        }
        shared.durable.send_replace(self.end);
        Ok(first..self.end)
    }

    /// Puts the batch into the buffer; answers where each frame will stand.
    fn encode(&mut self, payloads: &[Bytes]) -> Vec<Mark> {
        self.buffer.clear();
        let mut marks = Vec::with_capacity(payloads.len());
        for (index, payload) in (0u32..).zip(payloads) {
            let offset = self.end + i64::from(index);
            marks.push(Mark { offset, position: self.length + self.buffer.len() as u64 });
            frame::encode(&mut self.buffer, offset, index, payload);
        }
        marks
    }

    fn write(&self, options: &LogOptions) -> Result<()> {
        let point = |step: &str| failpoint::hit(&format!("{}.{step}", options.name));
        let failed = |e| io_error("cannot append to log", &self.path, e);
        if failpoint::fires(&format!("{}.torn", options.name)) {
            let half = self.buffer.get(..self.buffer.len() / 2).unwrap_or_default();
            let _ = self.file.write_all_at(half, self.length).and_then(|()| self.file.sync_data());
            process::abort();
        }
        self.write_buffer().map_err(failed)?;
        point("before-sync");
        let begun = Instant::now();
        self.file.sync_data().map_err(failed)?;
        metrics::histogram!(telemetry::FSYNC_SECONDS, "log" => options.name).record(begun.elapsed());
        point("after-sync");
        Ok(())
    }

    #[cfg(not(test))]
    fn write_buffer(&self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.length)
    }

    #[cfg(test)]
    fn write_buffer(&self) -> io::Result<()> {
        let room = self.room.take().unwrap_or(usize::MAX);
        self.file.write_all_at(&self.buffer[..room.min(self.buffer.len())], self.length)?;
        if room < self.buffer.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Cuts what a failed append left. Sound after a failed sync as well: every byte below `length` was confirmed by a
    /// sync of its own, cutting dirties the page at the cut again, and this sync must succeed too.
    fn roll_back(&mut self) -> Result<()> {
        if self.dirty {
            let cut = self.file.set_len(self.length).and_then(|()| self.file.sync_all());
            cut.map_err(|e| io_error("cannot go back to the log's durable length", &self.path, e))?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Starts a new segment if this one is full.
    fn roll(&mut self, shared: &Shared, snapshot: &dyn Fn() -> Vec<u8>) -> Result<()> {
        let is_empty = shared.segments().last().is_none_or(|active| active.first == self.end);
        if is_empty || self.length < shared.options.segment_bytes {
            return Ok(());
        }
        let header = Header { topic: shared.topic, first: self.end, snapshot: snapshot() };
        let (file, segment) = segment::create(&shared.dir, &header)?;
        self.path = segment::path(&shared.dir, header.first);
        self.file = file;
        self.length = header.bytes();
        shared.segments_mut().push(segment);
        Ok(())
    }
}

fn check_sizes(options: &LogOptions, payloads: &[Bytes], end: i64) -> Result<()> {
    match payloads.iter().position(|payload| payload.len() > options.max_frame_bytes) {
        None => Ok(()),
        Some(at) => Err(Error::new(ErrorKind::TooLarge, "record is too large for the log")
            .with("log", options.name)
            .with("offset", end.saturating_add_unsigned(at as u64))
            .with("bytes", payloads.get(at).map_or(0, Bytes::len))
            .help(format!("keep records below {} bytes", options.max_frame_bytes))),
    }
}
