//! A file's bytes, from its layer's tar: copied inside the kernel (shared, where the filesystem can), holes kept.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::tar::FileData;
use crate::{Error, Result};

/// Segments up to this length are read and written; copy_file_range(2) costs more than it saves for them.
/// An estimate: the two system calls of a copy against one read and one write of a page-sized file.
const SMALL_BYTES: u64 = 64 << 10;

/// Bytes asked of one copy_file_range(2).
const COPY_BYTES: usize = 1 << 30;

/// The layers' tars, open.
pub(super) struct Tars {
    files: Vec<(File, PathBuf)>,
    buffer: Vec<u8>,
    /// Off once the kernel has said that it cannot copy between these files.
    kernel_copy: bool,
}

impl Tars {
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self> {
        let open = |path: &PathBuf| match File::open(path) {
            Ok(file) => Ok((file, path.clone())),
            Err(error) => Err(Error::io("open layer", path)(error)),
        };
        let files = paths.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { files, buffer: vec![0; SMALL_BYTES as usize], kernel_copy: true })
    }

    /// Writes the content of a new, empty file.
    pub(super) fn copy(&mut self, layer: u16, data: &FileData, into: BorrowedFd<'_>) -> io::Result<()> {
        let Some((tar, path)) = self.files.get(usize::from(layer)) else {
            return Err(io::Error::other(format!("it lies in layer {layer}, which the image does not have")));
        };
        let mut end = 0;
        for segment in &data.segments {
            let stop = segment.logical_offset.checked_add(segment.length_bytes);
            if segment.logical_offset < end || stop.is_none_or(|stop| stop > data.size_bytes) {
                return Err(io::Error::other("its segments overlap or leave the file"));
            }
            end = stop.unwrap_or(u64::MAX);
            let mut run =
                Run { from: segment.tar_offset, to: segment.logical_offset, left: segment.length_bytes };
            if run.left > SMALL_BYTES && self.kernel_copy {
                self.kernel_copy = copy_in_kernel(tar.as_fd(), into, &mut run)?;
            }
            copy_by_buffer(tar.as_fd(), into, &mut run, &mut self.buffer)?;
            if run.left > 0 {
                return Err(io::Error::other(format!(
                    "its bytes lie past the end of {}; `celda verify` mends the layer",
                    path.display()
                )));
            }
        }
        if end < data.size_bytes {
            rustix::fs::ftruncate(into, data.size_bytes)?;
        }
        Ok(())
    }
}

/// What is left to copy of a segment.
struct Run {
    from: u64,
    to: u64,
    left: u64,
}

impl Run {
    fn advance(&mut self, bytes_count: u64) {
        self.from += bytes_count;
        self.to += bytes_count;
        self.left -= bytes_count;
    }
}

/// `copy_file_range`, which also shares extents on btrfs and xfs. `false`: these files cannot, use a buffer.
fn copy_in_kernel(tar: BorrowedFd<'_>, into: BorrowedFd<'_>, run: &mut Run) -> io::Result<bool> {
    while run.left > 0 {
        let wanted = usize::try_from(run.left).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        let (mut from, mut to) = (run.from, run.to);
        match rustix::fs::copy_file_range(tar, Some(&mut from), into, Some(&mut to), wanted) {
            Ok(0) => break,
            Ok(bytes_count) => run.advance(bytes_count as u64),
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

/// pread(2) and pwrite(2). Stops at the end of the tar.
fn copy_by_buffer(
    tar: BorrowedFd<'_>,
    into: BorrowedFd<'_>,
    run: &mut Run,
    buffer: &mut [u8],
) -> io::Result<()> {
    while run.left > 0 {
        let wanted = usize::try_from(run.left).unwrap_or(buffer.len()).min(buffer.len());
        let read_count = match rustix::io::pread(tar, &mut buffer[..wanted], run.from) {
            Ok(0) => return Ok(()),
            Ok(bytes_count) => bytes_count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let written_count = match rustix::io::pwrite(into, &buffer[..read_count], run.to) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes_count) => bytes_count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        run.advance(written_count as u64);
    }
    Ok(())
}
