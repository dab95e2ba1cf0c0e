//! Letting go of files when that takes the kernel long, without anybody waiting for it.
//!
//! ```text
//! this process --fork--> child --fork--> grandchild    closes all but the files, waits for the end of a pipe, exits:
//!     |                    |                           the kernel frees the files there
//!     | closes the files   ' exits, is waited for: nobody has to wait for the grandchild
//!     ' closes the pipe
//! ```
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// Drops `files` so that their last close, with which the kernel frees the space and the cached pages of a file
/// without a name, happens in another process. Nothing else of this process stays open there.
///
/// Manual: fork(2), close_range(2), Linux 5.9.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`, `EMFILE`: no process or no pipe could be made; then the files were closed here.
pub fn close_behind(files: Vec<File>) -> io::Result<()> {
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut kept: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    kept.push(wait.as_raw_fd());
    kept.sort_unstable();
    // SAFETY: other threads may hold locks of the allocator and the like; the child calls only `fork` (of libc, whose
    // handlers take no lock that a thread of ours could hold for ever), `close_range`, `read` and `_exit`, allocates
    // nothing and drops nothing.
    match unsafe { libc::fork() } {
        0 => in_child(&kept, wait.as_raw_fd()),
        -1 => Err(io::Error::last_os_error()),
        child => {
            let mut status = 0;
            // SAFETY: `status` outlives the call, and the child is ours: nobody else waits for this id.
            while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
            drop(files);
            drop(go);
            Ok(())
        }
    }
}

/// The child: makes the grandchild and ends. The grandchild holds `kept` until `wait` ends.
fn in_child(kept: &[RawFd], wait: RawFd) -> ! {
    // SAFETY: as in `close_behind`: system calls on plain numbers, and a buffer of this frame's. `_exit` runs no
    // destructor and no handler of the process that was copied.
    unsafe {
        if libc::fork() == 0 {
            let mut from = 0;
            for &fd in kept {
                close_range(from, fd - 1);
                from = fd + 1;
            }
            close_range(from, RawFd::MAX);
            let mut byte = 0u8;
            libc::read(wait, (&raw mut byte).cast(), 1);
        }
        libc::_exit(0)
    }
}

/// `close_range(from, to, 0)`; nothing if that is no range.
fn close_range(from: RawFd, to: RawFd) {
    if from <= to {
        // SAFETY: only called in a process that uses none of the descriptors in the range.
        unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};
    use std::time::{Duration, Instant};

    #[test]
    fn files_are_closed_and_nothing_else_is_held() {
        let place = tempfile::tempdir().expect("temporary directory");
        let paths = ["kept", "other"].map(|name| place.path().join(name));
        let [kept, other] = paths.clone().map(|path| File::create(path).expect("made"));
        for file in [&kept, &other] {
            flock(file, FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
        }
        close_behind(vec![kept]).expect("forked");
        drop(other);
        // A lock lives as long as any copy of its descriptor.
        let deadline = Instant::now() + Duration::from_secs(20);
        for path in paths {
            let again = File::open(path).expect("there");
            while flock(&again, FlockOperation::NonBlockingLockExclusive).is_err() {
                assert!(Instant::now() < deadline, "something holds the file for ever");
                std::thread::yield_now();
            }
        }
    }
}
