//! The reading side: from a place in a log on, with what was removed or damaged meanwhile counted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::error::{LogsError, Result};
use super::files::{list, path_of};
use super::record::{HEADER_BYTES, LINE_BYTES_MAX, Record, SEGMENT_HEADER_BYTES, SegmentHeader, Stream};
use super::source::Progress;

/// Bytes that are read from a segment at once, at most and at least; the longest record fits.
const READ_BYTES_MAX: usize = 64 << 10;
const READ_BYTES_MIN: usize = HEADER_BYTES + LINE_BYTES_MAX;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The oldest record that is kept.
    Oldest,
    /// The record of this sequence: a token that a former read has given.
    Sequence(u64),
    /// So many records before the end.
    Tail(u64),
    /// The first record that is not older, in nanoseconds since 1970.
    Time(u64),
}

/// A record, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As [`Record::sequence`].
    pub sequence: u64,
    /// As [`Record::time_ns`].
    pub time_ns: u64,
    /// As [`Record::stream`].
    pub stream: Stream,
    /// As [`Record::is_partial`].
    pub is_partial: bool,
    /// As [`Record::payload`].
    pub payload: Vec<u8>,
}

/// What one read gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Records that are not there any more, before the entries: removed by rotation, or damaged.
    pub missed_count: u64,
    /// What follows them.
    pub entries: Vec<Entry>,
}

/// Reads one log.
#[derive(Debug)]
pub struct Follower {
    directory: PathBuf,
    progress: watch::Receiver<Progress>,
    /// Sequence of the record that is to be read next.
    next: u64,
    since_ns: u64,
    /// The log's end when nothing could be read before it: records that are damaged, in a segment that is written to.
    blind_until: u64,
    /// The log's end when this began, and where it ends.
    begun_at_end: u64,
    until: u64,
    segment: Option<Segment>,
    /// Empty while there is nothing to read: followers are many, and most of them wait.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    /// None while it is let go; it is opened again by its name, if it is still there.
    file: Option<File>,
    first: u64,
    at: u64,
    /// Sequence of the record at `at`.
    next: u64,
}

impl Follower {
    pub(super) fn of(directory: &Path, progress: watch::Receiver<Progress>, from: From) -> Result<Self> {
        let end = progress.borrow().next_sequence;
        let firsts = list(directory)?;
        let oldest = firsts.front().copied().unwrap_or(0);
        let (next, since_ns) = match from {
            From::Oldest => (oldest, 0),
            From::Sequence(sequence) => (sequence.min(end), 0),
            From::Tail(count) => (end.saturating_sub(count).max(oldest), 0),
            From::Time(time_ns) => {
                (first_at(directory, firsts.iter().rev(), time_ns).unwrap_or(oldest), time_ns)
            }
        };
        let directory = directory.to_owned();
        Ok(Self {
            directory,
            progress,
            next,
            since_ns,
            blind_until: 0,
            begun_at_end: end,
            until: u64::MAX,
            segment: None,
            buffer: Vec::new(),
        })
    }

    /// Reads no further than to where the log's end was when this began: whoever writes on does not make it longer.
    pub fn only_what_was_there(&mut self) {
        self.until = self.begun_at_end;
    }

    /// Sequence of the record that comes next: where another follower goes on.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Lets go of the file and the buffer, until more is read: for one of many that are read in turns.
    pub fn let_go(&mut self) {
        self.buffer = Vec::new();
        if let Some(segment) = &mut self.segment {
            segment.file = None;
        }
    }

    /// What there is now, up to about so many bytes, the last record beyond them; empty at the end.
    ///
    /// # Errors
    /// [`LogsError::Io`].
    pub fn read(&mut self, bytes_max: usize) -> Result<Chunk> {
        let mut chunk = Chunk::default();
        let mut bytes = 0;
        while bytes < bytes_max {
            let end = self.progress.borrow_and_update().next_sequence.min(self.until);
            if self.next >= end {
                self.buffer = Vec::new();
                break;
            }
            if !self.enter(&mut chunk)? {
                break;
            }
            match self.take(end, bytes_max - bytes, &mut chunk)? {
                Some(taken) => bytes += taken,
                None if self.skip(end, &mut chunk)? => {}
                None => {
                    self.blind_until = end;
                    break;
                }
            }
        }
        Ok(chunk)
    }

    /// Waits until there is more, or until nothing more will come: then it answers false.
    pub async fn changed(&mut self) -> bool {
        let seen = self.next.max(self.blind_until);
        let progress =
            self.progress.wait_for(|progress| progress.next_sequence > seen || progress.has_ended).await;
        progress.is_ok_and(|progress| progress.next_sequence > seen)
    }

    /// Opens the segment that has the next record, or the first one after it. False when there is none, or when what is
    /// missing has to be told before what comes after it.
    fn enter(&mut self, chunk: &mut Chunk) -> Result<bool> {
        match &mut self.segment {
            Some(Segment { file: Some(_), .. }) => return Ok(true),
            Some(segment) => {
                segment.file = open(&path_of(&self.directory, segment.first))?;
                if segment.file.is_some() {
                    return Ok(true);
                }
                self.segment = None; // removed since it was let go
            }
            None => {}
        }
        let firsts = list(&self.directory)?;
        let of_next = firsts.iter().rev().find(|first| **first <= self.next);
        let Some(first) = of_next.or_else(|| firsts.front()).copied() else { return Ok(false) };
        if first > self.next {
            if !chunk.entries.is_empty() {
                return Ok(false);
            }
            chunk.missed_count += first - self.next;
            self.next = first;
        }
        let file = open(&path_of(&self.directory, first))?;
        if file.is_none() {
            return self.enter(chunk); // removed meanwhile: another look finds the one after it
        }
        self.segment = Some(Segment { file, first, at: SEGMENT_HEADER_BYTES as u64, next: first });
        Ok(true)
    }

    /// Reads records of the open segment; answers the bytes of those that were wanted, nothing when there is none.
    fn take(&mut self, end: u64, bytes_max: usize, chunk: &mut Chunk) -> Result<Option<usize>> {
        let Some(segment) = &mut self.segment else { return Ok(None) };
        let Some(file) = &segment.file else { return Ok(None) };
        // No more than is wanted, with the last record whole, once the first that is wanted is reached.
        let is_there = segment.next >= self.next;
        let read_bytes = if is_there { bytes_max.saturating_add(READ_BYTES_MIN) } else { READ_BYTES_MAX };
        self.buffer.resize(read_bytes.min(READ_BYTES_MAX), 0);
        let count = file
            .read_at(&mut self.buffer, segment.at)
            .map_err(LogsError::io("read the log", &path_of(&self.directory, segment.first)))?;
        let bytes = self.buffer.get(..count).unwrap_or_default();
        let (mut at, mut taken) = (0, 0);
        while let Ok((record, record_bytes)) = Record::decode(bytes.get(at..).unwrap_or_default()) {
            if record.sequence != segment.next || record.sequence >= end || taken >= bytes_max {
                break;
            }
            at += record_bytes;
            segment.next += 1;
            if record.sequence < self.next {
                continue;
            }
            self.next = record.sequence + 1;
            if record.time_ns >= self.since_ns {
                taken += record.payload.len() + record_bytes;
                chunk.entries.push(Entry {
                    sequence: record.sequence,
                    time_ns: record.time_ns,
                    stream: record.stream,
                    is_partial: record.is_partial,
                    payload: record.payload.to_vec(),
                });
            }
        }
        segment.at += at as u64;
        Ok((at > 0).then_some(taken))
    }

    /// Leaves a segment that has nothing more for the one after it. False when there is none.
    fn skip(&mut self, end: u64, chunk: &mut Chunk) -> Result<bool> {
        let Some(segment) = &self.segment else { return Ok(false) };
        let firsts = list(&self.directory)?;
        let Some(after) = firsts.iter().find(|first| **first > segment.first).copied() else {
            return Ok(false); // damaged, and still written to
        };
        if after > end || (after > self.next && !chunk.entries.is_empty()) {
            return Ok(false);
        }
        chunk.missed_count += after.saturating_sub(self.next);
        self.next = self.next.max(after);
        self.segment = None;
        Ok(true)
    }
}

/// A segment, or nothing when it has been removed.
fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogsError::io("open the log", path)(error)),
    }
}

/// The first sequence of the last segment that was made at that time or before.
fn first_at<'a>(directory: &Path, latest_first: impl Iterator<Item = &'a u64>, time_ns: u64) -> Option<u64> {
    let made_at_ns = |first: u64| {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let file = File::open(path_of(directory, first)).ok()?;
        file.read_exact_at(&mut header, 0).ok()?;
        SegmentHeader::decode(&header).ok().map(|header| header.made_at_ns)
    };
    latest_first.copied().find(|first| made_at_ns(*first).is_some_and(|made_at_ns| made_at_ns <= time_ns))
}
