//! Sparse maps: from the runs that a tar lists to the [`Segment`]s of a file.
//!
//! ```text
//! map      (0, 512) (4096, 1024) (8192, 0)         offset and length in the file
//! tar      |512 |1024     |                        the runs, one after the other
//! file     |512 |  hole    |1024     |   hole   |  real size 8192
//! ```

use super::number::decimal;
use super::{BLOCK_BYTES, FileData, Segment, TarReason};
use crate::Limits;

/// A map being read, run by run.
#[derive(Debug)]
pub(super) struct SparseMap {
    data: FileData,
    /// Where the next run may start in the file.
    logical_end: u64,
    /// Bytes of content that the runs so far take.
    stored_bytes: u64,
    runs_count: usize,
}

impl SparseMap {
    /// A map of a file of `real_size` logical bytes.
    pub(super) fn new(real_size: u64, limits: &Limits) -> Result<Self, TarReason> {
        if real_size > limits.file_bytes {
            return Err(TarReason::Limit {
                limit: "file_bytes",
                asked: real_size,
                allowed: limits.file_bytes,
            });
        }
        let data = FileData { size_bytes: real_size, segments: Vec::new() };
        Ok(Self { data, logical_end: 0, stored_bytes: 0, runs_count: 0 })
    }

    /// Adds the run of `length` bytes at `offset` of the file. Segments hold offsets into the content until
    /// [`finish`](Self::finish) knows where it starts.
    pub(super) fn push(&mut self, (offset, length): (u64, u64), limits: &Limits) -> Result<(), TarReason> {
        self.runs_count += 1;
        if self.runs_count > limits.sparse_segments_count {
            let allowed = limits.sparse_segments_count as u64;
            return Err(TarReason::Limit { limit: "sparse_segments_count", asked: 0, allowed });
        }
        let end = offset.checked_add(length).filter(|&end| end <= self.data.size_bytes);
        let end = end.ok_or(TarReason::Sparse("a run reaches beyond the file's size"))?;
        if offset < self.logical_end {
            return Err(TarReason::Sparse("runs overlap or are out of order"));
        }
        if length > 0 {
            let adjacent = offset == self.logical_end;
            match self.data.segments.last_mut() {
                Some(last) if adjacent => last.length_bytes += length,
                _ => self.data.segments.push(Segment {
                    logical_offset: offset,
                    tar_offset: self.stored_bytes,
                    length_bytes: length,
                }),
            }
        }
        self.logical_end = end;
        // No overflow: runs do not overlap and all lie within size_bytes.
        self.stored_bytes += length;
        Ok(())
    }

    /// How many runs were pushed.
    pub(super) fn runs_count(&self) -> usize {
        self.runs_count
    }

    /// The file's segments, when its content of exactly `content_bytes` starts at `content_offset` of the tar.
    pub(super) fn finish(mut self, content_offset: u64, content_bytes: u64) -> Result<FileData, TarReason> {
        if self.stored_bytes != content_bytes {
            return Err(TarReason::Sparse("the runs' lengths do not add up to the entry's size"));
        }
        for segment in &mut self.data.segments {
            segment.tar_offset += content_offset;
        }
        Ok(self.data)
    }
}

/// The reader of a format 1.0 map: decimal lines at the start of the content, padded to whole blocks. The first
/// line counts the runs; two lines follow for each.
#[derive(Debug, Default)]
pub(super) struct MapLines {
    line: Vec<u8>,
    runs_left: Option<u64>,
    offset: Option<u64>,
}

/// Digits of a line: what 64 bits can need.
const LINE_DIGITS: usize = 20;

impl MapLines {
    /// Reads one block of the content; true when the map is complete and the data starts with the next block.
    pub(super) fn block(
        &mut self,
        block: &[u8; BLOCK_BYTES],
        map: &mut SparseMap,
        limits: &Limits,
    ) -> Result<bool, TarReason> {
        for &byte in block {
            if byte != b'\n' {
                if self.line.len() == LINE_DIGITS {
                    return Err(TarReason::Sparse("a line of the map is no number"));
                }
                self.line.push(byte);
                continue;
            }
            let number = decimal(&self.line).ok_or(TarReason::Sparse("a line of the map is no number"))?;
            self.line.clear();
            if self.number(number, map, limits)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn number(&mut self, number: u64, map: &mut SparseMap, limits: &Limits) -> Result<bool, TarReason> {
        let runs_left = match (self.runs_left, self.offset.take()) {
            (None, _) => number,
            (Some(runs_left), None) => {
                self.offset = Some(number);
                runs_left
            }
            (Some(runs_left), Some(offset)) => {
                map.push((offset, number), limits)?;
                runs_left - 1
            }
        };
        self.runs_left = Some(runs_left);
        Ok(runs_left == 0)
    }
}
