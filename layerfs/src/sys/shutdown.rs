//! Ending a filesystem whose content nobody wants any more.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

// linux/ext4.h and fs/xfs/libxfs/xfs_fs.h: _IOR('X', 125, __u32)
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
const EXT4_GOING_FLAGS_NOLOGFLUSH: u32 = 2;

/// `ioctl(directory, EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH)`: nothing of the filesystem is written to its device
/// any more, and whoever still uses it gets `EIO`. Its unmount has nothing to wait for then.
///
/// Manual: none; Documentation in fs/ext4/ioctl.c, since Linux 4.11.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOTTY` for other filesystems, `EBADF` for a descriptor that is a mere path.
pub fn shut_down(directory: BorrowedFd<'_>) -> io::Result<()> {
    let flags = EXT4_GOING_FLAGS_NOLOGFLUSH;
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel reads the four bytes of `flags`, which
    // outlives it.
    let answer = unsafe { libc::ioctl(directory.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const flags) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
