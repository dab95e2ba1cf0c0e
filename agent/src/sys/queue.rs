//! What of a socket's send queue is still on the way.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `int ioctl(int socket, SIOCOUTQ, int *bytes)`: bytes that were written to a TCP socket and that the peer's kernel has not
/// acknowledged, see tcp(7).
///
/// # Errors
/// `EINVAL` for a socket that listens, `ENOTTY` for what is no socket.
pub(crate) fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request, which has the number of TIOCOUTQ, writes one int, which is where it is told to and lives on.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(bytes.unsigned_abs()) }
}
