//! The batch in flight: in its file, and perhaps not yet off its pipe.
//!
//! ```text
//! mark: name, stream, bytes, where the batch begins and ends -> write -> move off the pipe, to the staging file -> clear
//! ```
//! The mark is a page of a file, mapped shared, and the staging file is in the page cache: both are there after a kill of
//! the process. A kernel that moves bytes off a pipe into a file does not stop between the two, so the staging file's
//! length says exactly how much of the batch had left the pipe, and what. A log that is taken up again and finds itself
//! in the mark keeps the batch if all of it had, and otherwise cuts it off and writes only what had.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{Ordering::Relaxed, Ordering::Release, fence};

use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use super::NAME_BYTES_MAX;
use super::error::{LogsError, Result};
use super::files::Position;
use super::record::Stream;
use crate::sys::SharedWords;

const FILE: &str = "logs-in-flight";
const STAGING: &str = "logs-staging";
/// The staging file is emptied at half of it; a batch is far below.
const STAGING_BYTES_MAX: u64 = 2 << 20;
const FILE_BYTES: u64 = 4096;
const NAME_WORDS: usize = NAME_BYTES_MAX / 8;
/// Words of the page.
const STATE: usize = 0;
const STREAM: usize = 1;
const BYTES: usize = 2;
const STAGED: usize = 3;
const SEGMENT: usize = 4;
const OFFSET: usize = 5;
const SEQUENCE: usize = 6;
const END: usize = 7;
const NAME: usize = 8;

/// What was being written when an agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) name: String,
    pub(super) stream: Stream,
    /// Bytes of the stream.
    pub(super) bytes: u64,
    /// Those of them that had left the pipe.
    pub(super) consumed: Vec<u8>,
    /// Where the batch begins.
    pub(super) begin: Position,
    /// Sequence after its last record.
    pub(super) end_sequence: u64,
}

/// The mark of one thread. It holds the lock that says whose the logs are.
#[derive(Debug)]
pub(super) struct Mark {
    page: SharedWords,
    _file: File,
    staging: File,
    /// Bytes in the staging file.
    staged: u64,
}

fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(LogsError::io("open", path))
}

impl Mark {
    /// Opens the mark in the directory of what need not outlive the machine, and what it tells.
    pub(super) fn open(run: &Path) -> Result<(Self, Option<InFlight>)> {
        let (path, staging_path) = (run.join(FILE), run.join(STAGING));
        let file = open(&path)?;
        if !crate::cell::lock::take(&file) {
            return Err(LogsError::Held { path });
        }
        file.set_len(FILE_BYTES).map_err(LogsError::io("size the mark", &path))?;
        let page = SharedWords::map(file.as_fd()).map_err(LogsError::io("map the mark", &path))?;
        let staging = open(&staging_path)?;
        let mut mark = Self { page, _file: file, staging, staged: 0 };
        let told = mark.read().map_err(LogsError::io("read what was in flight", &staging_path))?;
        mark.clear();
        mark.empty().map_err(LogsError::io("empty", &staging_path))?;
        Ok((mark, told))
    }

    fn read(&self) -> io::Result<Option<InFlight>> {
        let words = self.page.words();
        let word = |at: usize| words[at].load(Relaxed);
        let bytes = word(BYTES);
        if word(STATE) != 1 || bytes > STAGING_BYTES_MAX {
            return Ok(None);
        }
        let name: Vec<u8> = (0..NAME_WORDS).flat_map(|at| word(NAME + at).to_le_bytes()).collect();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        let Ok(name) = String::from_utf8(name) else { return Ok(None) };
        let consumed_bytes = self.staging.metadata()?.len().saturating_sub(word(STAGED)).min(bytes);
        let mut consumed = vec![0; consumed_bytes as usize];
        self.staging.read_exact_at(&mut consumed, word(STAGED))?;
        Ok(Some(InFlight {
            name,
            stream: if word(STREAM) == 0 { Stream::Output } else { Stream::Error },
            bytes,
            consumed,
            begin: Position { segment: word(SEGMENT), bytes: word(OFFSET), next_sequence: word(SEQUENCE) },
            end_sequence: word(END),
        }))
    }

    fn empty(&mut self) -> io::Result<()> {
        self.staging.set_len(0)?;
        self.staged = 0;
        Ok(())
    }

    /// Moves bytes off a pipe; answers how many. Fewer where the instance reads its own pipe, or the staging file's
    /// filesystem is full.
    pub(super) fn consume(&mut self, pipe: &OwnedFd, bytes: usize) -> usize {
        let mut moved = 0;
        while moved < bytes {
            let rest = bytes - moved;
            match rustix::pipe::splice(
                pipe,
                None,
                &self.staging,
                Some(&mut self.staged),
                rest,
                SpliceFlags::NONBLOCK,
            ) {
                Ok(count @ 1..) => moved += count,
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => break,
            }
        }
        moved
    }

    /// Says what is about to be written and then consumed.
    pub(super) fn set(&self, name: &[u64; NAME_WORDS], batch: &Batch) {
        let words = self.page.words();
        let set = |at: usize, value: u64| words[at].store(value, Relaxed);
        set(STREAM, u64::from(batch.stream == Stream::Error));
        set(BYTES, batch.bytes);
        set(STAGED, self.staged);
        set(SEGMENT, batch.begin.segment);
        set(OFFSET, batch.begin.bytes);
        set(SEQUENCE, batch.begin.next_sequence);
        set(END, batch.end_sequence);
        for (at, value) in name.iter().enumerate() {
            set(NAME + at, *value);
        }
        // A kill keeps the order of the program; the fence keeps the compiler's.
        fence(Release);
        words[STATE].store(1, Release);
    }

    /// It was consumed, or is not in its file any more.
    pub(super) fn clear(&mut self) {
        self.page.words()[STATE].store(0, Release);
        fence(Release);
        if self.staged > STAGING_BYTES_MAX / 2 {
            let _ = self.empty(); // a longer one does as well, and it is tried again
        }
    }
}

/// A batch, as [`Mark::set`] takes it.
pub(super) struct Batch {
    pub(super) stream: Stream,
    pub(super) bytes: u64,
    pub(super) begin: Position,
    pub(super) end_sequence: u64,
}

/// A name as the mark keeps it.
pub(super) fn name_words(name: &str) -> [u64; NAME_WORDS] {
    let mut bytes = [0; NAME_BYTES_MAX];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let mut words = [0; NAME_WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}
