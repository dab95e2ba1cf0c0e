//! `pthread_sigmask(3)`, for threads that live beside a caller's own.

use std::mem::MaybeUninit;

/// Signals that the calling thread does not take until this is dropped, and that threads begun meanwhile never take: all.
pub struct Blocked(libc::sigset_t);

impl std::fmt::Debug for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Blocked").finish_non_exhaustive()
    }
}

/// Blocks all signals that can be blocked. A thread of a library begins under it: a signal that the caller holds back for
/// itself would else end the process in that thread.
pub fn block_all() -> Blocked {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: sigfillset(3) fills the one, and pthread_sigmask(3), which fails only for an unknown `how`, the other.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        Blocked(before.assume_init())
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set came from the kernel; the old one is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}
