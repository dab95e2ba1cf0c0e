//! Descriptors that the runtime waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `int epoll_ctl(int epfd, EPOLL_CTL_ADD, int fd, ...)` of the runtime's epoll, see epoll_ctl(2). To be called on the
/// runtime; `fd` must not block.
///
/// # Errors
/// `EMFILE`, `ENOMEM`, `ENOSPC`; `EPERM` for a file that cannot be waited for. `fd` is closed.
pub(crate) fn async_fd(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is the same open descriptor until it is dropped, and AsyncFd, which owns it from here on and has
    // taken it off the epoll by then, gives it out by shared reference or by value only.
    let made = unsafe { AsyncFd::register_with_interest(fd, interest) };
    made.map_err(io::Error::from)
}
