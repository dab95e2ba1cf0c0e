//! `unshare(2)` for the one namespace this crate needs.

use rustix::io::Errno;

/// `unshare(CLONE_NEWNS)`: gives the calling thread (alone) a copy of its mount namespace.
///
/// Manual: unshare(2).
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOSPC` at the limit of `/proc/sys/user/max_mnt_namespaces`.
pub fn unshare_mounts() -> Result<(), Errno> {
    // SAFETY: CLONE_NEWNS (with the CLONE_FS that it implies) changes only how this thread resolves paths; no
    // memory, descriptor or signal state that Rust relies on is touched.
    let answer = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}
