//! The only place for `unsafe` and raw `libc` calls: the syscalls that no safe wrapper of our dependencies has.
#![allow(unsafe_code)]

pub mod close_behind;
#[cfg(test)]
pub(crate) mod forbid;
pub mod loop_device;
pub mod map;
pub mod mount_setattr;
pub mod namespace;
#[cfg(feature = "ring")]
pub mod page_buffer;
pub mod project;
pub mod shutdown;
pub mod writeback;

/// The `errno` of the call that just failed on this thread.
fn last_errno() -> rustix::io::Errno {
    let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    rustix::io::Errno::from_raw_os_error(code)
}
