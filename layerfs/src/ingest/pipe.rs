//! The second half of an ingest: a thread that hashes the tar, reads its headers and has it written.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::digest::Hasher;
use crate::io::{BUFFER_BYTES, BlobWriter};
use crate::limits::{Budget, OverBudget};
use crate::store::PullGuard;
use crate::store::crash::{self, Step};
use crate::tar::{Entry, TarError, TarReader};
use crate::{Digest, Error, Limits, Result};

/// Buffers of one layer: at most this many MiB lie between the inflater and the disk.
pub(crate) const BUFFERS_COUNT: usize = 8;

/// The ingest thread has ended before the layer did; [`Pipe::finish`] tells why.
#[derive(Debug, thiserror::Error)]
#[error("the ingest thread ended early")]
pub(crate) struct PipeClosed;

/// Why the ingest thread gave up.
#[derive(Debug)]
pub(crate) enum StageError {
    /// The tar is not what it must be.
    Tar(TarError),
    /// All layers of the image together are too much.
    Budget(OverBudget),
    /// The disk did not take it.
    Write { written_bytes: u64, source: io::Error },
    /// The thread is gone without an answer.
    Ended,
}

/// What the ingest thread found.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) diff_id: Digest,
    pub(crate) tar_bytes: u64,
    pub(crate) entries: Vec<Entry>,
}

/// The caller's end: collects bytes into buffers and sends the full ones.
#[derive(Debug)]
pub(crate) struct Pipe {
    filling: Vec<u8>,
    made_count: usize,
    free: Receiver<Vec<u8>>,
    full: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<std::result::Result<Parsed, StageError>>>,
}

impl Pipe {
    /// Starts the thread that takes the tar in and writes it to `file`.
    pub(crate) fn start(guard: &PullGuard, file: File, limits: &Limits) -> Result<Self> {
        let (full, queue) = sync_channel(BUFFERS_COUNT);
        let (returns, free) = sync_channel(BUFFERS_COUNT);
        let limits = limits.clone();
        let guard = guard.clone();
        let thread = std::thread::Builder::new()
            .name("celda-ingest".into())
            .spawn(move || take_in(&queue, guard.workshop().writer(file, returns), &limits, guard.budget()))
            .map_err(Error::io("start an ingest thread for", ""))?;
        let (full, thread) = (Some(full), Some(thread));
        Ok(Self { filling: Vec::new(), made_count: 0, free, full, thread })
    }

    /// Adds bytes of the tar; blocks while all buffers are full.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> std::result::Result<(), PipeClosed> {
        while !bytes.is_empty() {
            if self.filling.capacity() == 0 {
                self.filling = self.next_buffer()?;
            }
            let count = bytes.len().min(BUFFER_BYTES - self.filling.len());
            self.filling.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.filling.len() == BUFFER_BYTES {
                self.send()?;
            }
        }
        Ok(())
    }

    fn next_buffer(&mut self) -> std::result::Result<Vec<u8>, PipeClosed> {
        if let Ok(buffer) = self.free.try_recv() {
            return Ok(buffer);
        }
        if self.made_count < BUFFERS_COUNT {
            self.made_count += 1;
            return Ok(Vec::with_capacity(BUFFER_BYTES));
        }
        self.free.recv().map_err(|_| PipeClosed)
    }

    fn send(&mut self) -> std::result::Result<(), PipeClosed> {
        let buffer = std::mem::take(&mut self.filling);
        self.full.as_ref().ok_or(PipeClosed)?.send(buffer).map_err(|_| PipeClosed)
    }

    /// Sends what is left and waits for the thread's answer.
    pub(crate) fn finish(&mut self) -> std::result::Result<Parsed, StageError> {
        if !self.filling.is_empty() {
            // If it is closed, the thread's answer says why.
            let _ = self.send();
        }
        drop(self.full.take());
        let thread = self.thread.take().ok_or(StageError::Ended)?;
        thread.join().unwrap_or(Err(StageError::Ended))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        drop(self.full.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The ingest thread.
fn take_in(
    queue: &Receiver<Vec<u8>>,
    mut writer: BlobWriter,
    limits: &Limits,
    budget: &Budget,
) -> std::result::Result<Parsed, StageError> {
    let mut hasher = Hasher::new();
    let mut reader = TarReader::new(limits);
    let mut entries = Vec::new();
    let mut tar_bytes = 0;
    while let Ok(buffer) = queue.recv() {
        budget.take_bytes(buffer.len() as u64).map_err(StageError::Budget)?;
        hasher.update(&buffer);
        let mut counted = Ok(());
        let mut keep = |entry: Entry| {
            // One that is too many is not kept, and the layer ends with this buffer.
            counted = counted.clone().and_then(|()| budget.take_entry(entry.metadata_bytes()));
            if counted.is_ok() {
                entries.push(entry);
            }
            Ok(())
        };
        reader.feed(&buffer, &mut keep).map_err(StageError::Tar)?;
        counted.map_err(StageError::Budget)?;
        let count = buffer.len() as u64;
        writer.write(buffer).map_err(|source| StageError::Write { written_bytes: tar_bytes, source })?;
        tar_bytes += count;
        crash::reached(Step::LayerHalfWritten);
    }
    reader.finish().map_err(StageError::Tar)?;
    writer.finish().map_err(|source| StageError::Write { written_bytes: tar_bytes, source })?;
    // They are kept until the last layer is there.
    entries.shrink_to_fit();
    Ok(Parsed { diff_id: hasher.finish(), tar_bytes, entries })
}
