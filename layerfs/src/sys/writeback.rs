//! Starting write-back early, so that the fsync before a publish finds little left to do.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// `sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE)`
///
/// See `man 2 sync_file_range`: starts writing the range's dirty pages and does not wait for the disk. It says
/// nothing about durability: `fsync` comes after it.
///
/// # Errors
/// `ESPIPE` and `EINVAL` for files that have no pages to write; a caller may ignore every error.
pub fn start(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let range = |value: u64| i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (offset, length) = (range(offset)?, range(length)?);
    // SAFETY: the call takes no pointers, and `file` keeps the descriptor open while it runs.
    let answer =
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
