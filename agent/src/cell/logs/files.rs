//! The segments of one log on disk: named by their first sequence, the last one written to, the oldest removed.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::error::{LogsError, Result};
use super::record::{Records, SEGMENT_HEADER_BYTES, SegmentHeader, Stream};

const SUFFIX: &str = ".log";
/// Digits of a name: those of the largest sequence, so that names sort as numbers.
const DIGITS_COUNT: usize = 20;

/// How much of a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one segment: 1 MiB to 1 GiB.
    pub segment_bytes: u64,
    /// Segments: 2 to 1,000. The oldest is removed when another is begun.
    pub segments_count: usize,
}

impl Default for Limits {
    /// 4 segments of 4 MiB: a thousand instances keep 16 GB at most.
    fn default() -> Self {
        Self { segment_bytes: 4 << 20, segments_count: 4 }
    }
}

impl Limits {
    pub(super) fn check(self) -> Result<Self> {
        if !(1 << 20..=1 << 30).contains(&self.segment_bytes) {
            return Err(LogsError::Limit { what: "segment_bytes", why: "1 MiB to 1 GiB" });
        }
        if !(2..=1000).contains(&self.segments_count) {
            return Err(LogsError::Limit { what: "segments_count", why: "2 to 1,000" });
        }
        Ok(self)
    }
}

/// A place in a log: the segment by its first sequence, and how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) bytes: u64,
    pub(super) next_sequence: u64,
}

/// What a log's end says about its streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// Lines were being dropped.
    pub(super) is_dropping: bool,
}

/// The segments, and the last of them open.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    limits: Limits,
    firsts: VecDeque<u64>,
    active: File,
    bytes: u64,
    next_sequence: u64,
}

pub(super) fn path_of(directory: &Path, first_sequence: u64) -> PathBuf {
    directory.join(format!("{first_sequence:0DIGITS_COUNT$}{SUFFIX}"))
}

/// The first sequences of a directory's segments, ascending.
pub(super) fn list(directory: &Path) -> Result<VecDeque<u64>> {
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(LogsError::io("list the log", directory))? {
        let entry = entry.map_err(LogsError::io("list the log", directory))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        let number = number
            .filter(|digits| digits.len() == DIGITS_COUNT)
            .and_then(|digits| digits.parse::<u64>().ok());
        firsts.extend(number);
    }
    firsts.sort_unstable();
    Ok(firsts.into())
}

fn open(path: &Path, create: bool) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(create).truncate(create).mode(0o640);
    options.open(path).map_err(LogsError::io("open the log", path))
}

impl Files {
    /// Opens a log, begun if there is none; a torn tail is cut off.
    pub(super) fn open(directory: &Path, limits: Limits, now_ns: u64) -> Result<(Self, Tail)> {
        std::fs::create_dir_all(directory).map_err(LogsError::io("make", directory))?;
        let mut firsts = list(directory)?;
        while let Some(first) = firsts.back().copied() {
            let path = path_of(directory, first);
            let active = open(&path, false)?;
            let bytes = std::fs::read(&path).map_err(LogsError::io("read the log", &path))?;
            let header = SegmentHeader::decode(&bytes).ok().filter(|header| header.first_sequence == first);
            if header.is_none() {
                // It was being made: nothing has been written to it.
                std::fs::remove_file(&path).map_err(LogsError::io("remove the torn segment", &path))?;
                firsts.pop_back();
                continue;
            }
            let mut records = Records::new(bytes.get(SEGMENT_HEADER_BYTES..).unwrap_or_default(), first);
            let mut tail = Tail::default();
            for record in records.by_ref().filter(|record| record.stream == Stream::Notice) {
                tail.is_dropping = record.is_dropping;
            }
            let valid_bytes = (SEGMENT_HEADER_BYTES + records.valid_bytes()) as u64;
            active.set_len(valid_bytes).map_err(LogsError::io("cut the torn end off", &path))?;
            let next_sequence = records.next_sequence();
            let directory = directory.to_owned();
            return Ok((Self { directory, limits, firsts, active, bytes: valid_bytes, next_sequence }, tail));
        }
        let active = begin(directory, 0, now_ns)?;
        let bytes = SEGMENT_HEADER_BYTES as u64;
        let directory = directory.to_owned();
        Ok((Self { directory, limits, firsts: [0].into(), active, bytes, next_sequence: 0 }, Tail::default()))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn position(&self) -> Position {
        let segment = self.firsts.back().copied().unwrap_or(0);
        Position { segment, bytes: self.bytes, next_sequence: self.next_sequence }
    }

    /// Begins another segment when the last one has no room for so many bytes.
    pub(super) fn make_room(&mut self, bytes: u64, now_ns: u64) -> Result<()> {
        if self.bytes + bytes <= self.limits.segment_bytes || self.bytes <= SEGMENT_HEADER_BYTES as u64 {
            return Ok(());
        }
        self.active = begin(&self.directory, self.next_sequence, now_ns)?;
        self.firsts.push_back(self.next_sequence);
        self.bytes = SEGMENT_HEADER_BYTES as u64;
        while self.firsts.len() > self.limits.segments_count {
            let Some(oldest) = self.firsts.pop_front() else { break };
            let path = path_of(&self.directory, oldest);
            std::fs::remove_file(&path).map_err(LogsError::io("remove the oldest segment", &path))?;
        }
        Ok(())
    }

    /// Writes encoded records, all of them or none.
    pub(super) fn append(&mut self, records: &[u8], records_count: u64) -> Result<()> {
        if let Err(error) = self.active.write_all_at(records, self.bytes) {
            // What did get there would be found as records that nobody consumed.
            let _ = self.active.set_len(self.bytes);
            let path = path_of(&self.directory, self.position().segment);
            return Err(LogsError::io("write the log", &path)(error));
        }
        self.bytes += records.len() as u64;
        self.next_sequence += records_count;
        Ok(())
    }

    /// Goes back to where a batch began that is to be written again.
    pub(super) fn rewind(&mut self, to: Position) -> Result<()> {
        let now = self.position();
        if to.segment != now.segment || to.bytes > now.bytes {
            return Ok(());
        }
        let path = path_of(&self.directory, to.segment);
        self.active.set_len(to.bytes).map_err(LogsError::io("cut the unfinished batch off", &path))?;
        self.bytes = to.bytes;
        self.next_sequence = to.next_sequence;
        Ok(())
    }
}

fn begin(directory: &Path, first_sequence: u64, now_ns: u64) -> Result<File> {
    let path = path_of(directory, first_sequence);
    let file = open(&path, true)?;
    let header = SegmentHeader { first_sequence, made_at_ns: now_ns }.encode();
    file.write_all_at(&header, 0).map_err(LogsError::io("write the log", &path))?;
    Ok(file)
}
