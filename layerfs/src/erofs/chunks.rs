//! How a file's bytes are cut into chunks.
//!
//! ```text
//! file    |====data====|......hole......|==data==|     runs, from the tar's map of the file
//! chunks  | tar | tar  | own  |  hole   | own    |     all of one size: a power of two blocks
//! ```
//!
//! A chunk is either a hole, or `chunk bytes` of the tar from a block on, or, where data and hole meet within it or
//! the data does not start at a block of the tar, a copy in the index itself ("own"). A plain file is one chunk. For
//! a sparse one the size is chosen that makes the index smallest.

use crate::tar::{FileData, Segment};

use super::format::{BLOCK_BITS, BLOCK_BYTES, CHUNK_BITS_MAX, CHUNK_INDEX_BYTES, round_up};

/// The size of a file's chunks and what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Chunks are `BLOCK_BYTES << bits`.
    pub bits: u8,
    /// How many.
    pub count: u64,
    /// Bytes of the index for copies, whole blocks.
    pub own_bytes: u64,
}

/// What a stretch of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Chunk `chunk` is the tar from `block` on.
    Tar { chunk: u64, block: u32 },
    /// Chunk `chunk`, which is a copy, has `length_bytes` of the tar at `tar_offset` from byte `at` on.
    Own { chunk: u64, at: u64, tar_offset: u64, length_bytes: u64 },
}

/// Joins segments that continue one another in the file and in the tar.
pub(super) fn runs(segments: &[Segment]) -> Vec<Segment> {
    let mut runs: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments.iter().filter(|segment| segment.length_bytes > 0) {
        match runs.last_mut() {
            Some(last)
                if last.logical_offset + last.length_bytes == segment.logical_offset
                    && last.tar_offset + last.length_bytes == segment.tar_offset =>
            {
                last.length_bytes += segment.length_bytes;
            }
            _ => runs.push(*segment),
        }
    }
    runs
}

/// Whether `data` is ascending, without overlap, within its size and within a tar of `tar_bytes`.
pub(super) fn is_sound(data: &FileData, tar_bytes: u64) -> bool {
    let mut end = 0;
    data.segments.iter().all(|segment| {
        let in_order = segment.logical_offset >= end;
        let ends = (
            segment.logical_offset.checked_add(segment.length_bytes),
            segment.tar_offset.checked_add(segment.length_bytes),
        );
        let (Some(logical_end), Some(tar_end)) = ends else { return false };
        end = logical_end;
        in_order && logical_end <= data.size_bytes && tar_end <= tar_bytes
    })
}

/// A file being cut: its size, its runs, and the whole blocks of its tar.
pub(super) struct File<'a> {
    pub size_bytes: u64,
    pub runs: &'a [Segment],
    pub tar_bytes: u64,
}

impl File<'_> {
    /// The cheapest cut.
    pub(super) fn cut(&self) -> Cut {
        let largest = largest_bits(self.size_bytes);
        let plain =
            Cut { bits: largest, count: self.size_bytes.div_ceil(chunk_bytes(largest)), own_bytes: 0 };
        match self.runs {
            [] => return plain,
            [run] if run.length_bytes == self.size_bytes && self.is_in_tar(run) => return plain,
            _ => {}
        }
        let mut best = (u64::MAX, plain);
        for bits in (0..=largest).rev() {
            let chunk = chunk_bytes(bits);
            let count = self.size_bytes.div_ceil(chunk);
            let table = count.saturating_mul(CHUNK_INDEX_BYTES);
            // Smaller chunks only make the table longer.
            if table >= best.0 {
                break;
            }
            let own_bytes = self.own_bytes(chunk);
            let cost = table.saturating_add(own_bytes);
            if cost < best.0 {
                best = (cost, Cut { bits, count, own_bytes });
            }
        }
        best.1
    }

    /// Calls `piece` for each chunk with data, in order.
    pub(super) fn pieces(&self, bits: u8, piece: &mut dyn FnMut(Piece)) {
        let chunk = chunk_bytes(bits);
        for run in self.runs {
            let end = run.logical_offset + run.length_bytes;
            for index in run.logical_offset / chunk..=(end - 1) / chunk {
                let start = run.logical_offset.max(index * chunk);
                let tar_offset = run.tar_offset + (start - run.logical_offset);
                if self.is_own(run, index, chunk) {
                    let length_bytes = end.min((index + 1) * chunk) - start;
                    piece(Piece::Own { chunk: index, at: start - index * chunk, tar_offset, length_bytes });
                } else {
                    piece(Piece::Tar { chunk: index, block: (tar_offset >> BLOCK_BITS) as u32 });
                }
            }
        }
    }

    /// Bytes that the copy of chunk `index` takes in the index: whole blocks, and none past the end of the file.
    pub(super) fn copy_bytes(&self, index: u64, bits: u8) -> u64 {
        let chunk = chunk_bytes(bits);
        chunk.min(round_up(self.size_bytes, BLOCK_BYTES) - index * chunk)
    }

    /// Bytes of all chunks that need a copy.
    fn own_bytes(&self, chunk: u64) -> u64 {
        let mut count = 0u64;
        // Chunks below are counted already: neighbouring runs share one.
        let mut next = 0u64;
        let mut add = |first: u64, last: u64| {
            let first = first.max(next);
            if first <= last {
                count += last - first + 1;
                next = last + 1;
            }
        };
        for run in self.runs {
            let first = run.logical_offset / chunk;
            let last = (run.logical_offset + run.length_bytes - 1) / chunk;
            if !is_aligned(run) {
                add(first, last);
                continue;
            }
            for index in [first, last] {
                if self.is_own(run, index, chunk) {
                    add(index, index);
                }
            }
        }
        let past_the_end = (next * chunk).saturating_sub(round_up(self.size_bytes, BLOCK_BYTES));
        count.saturating_mul(chunk) - past_the_end
    }

    /// Whether chunk `index`, of which `run` has a part, must be a copy.
    fn is_own(&self, run: &Segment, index: u64, chunk: u64) -> bool {
        let end = run.logical_offset + run.length_bytes;
        let starts_inside = run.logical_offset > index * chunk;
        let ends_inside = end < (index + 1) * chunk && !(end == self.size_bytes && self.is_in_tar(run));
        !is_aligned(run) || starts_inside || ends_inside
    }

    /// Whether the run is aligned and its last block whole, so that the kernel may read past its end.
    fn is_in_tar(&self, run: &Segment) -> bool {
        let end = run.tar_offset + run.length_bytes;
        is_aligned(run) && round_up(end, BLOCK_BYTES) <= self.tar_bytes
    }
}

/// Whether blocks of the file are blocks of the tar.
fn is_aligned(run: &Segment) -> bool {
    run.tar_offset % BLOCK_BYTES == run.logical_offset % BLOCK_BYTES
}

/// Bytes of a chunk.
pub(super) const fn chunk_bytes(bits: u8) -> u64 {
    BLOCK_BYTES << bits
}

/// The bits with which a file of that size is one chunk, or the most there are.
fn largest_bits(size_bytes: u64) -> u8 {
    (0..CHUNK_BITS_MAX).find(|&bits| chunk_bytes(bits) >= size_bytes).unwrap_or(CHUNK_BITS_MAX)
}
