//! A page of a file, shared with whoever maps it later: what is stored in it outlives a kill of this process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// 64-bit words of the page.
pub(crate) const WORDS_COUNT: usize = 32;

/// Words of a file, mapped shared.
#[derive(Debug)]
pub(crate) struct SharedWords(NonNull<[AtomicU64; WORDS_COUNT]>);

// SAFETY: the mapping is owned by this value, and atomics may be used from any thread.
unsafe impl Send for SharedWords {}
// SAFETY: as for `Send`.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// `void *mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)`, see mmap(2). The file must be at least as
    /// long and stay so: touching what was cut off ends the process.
    ///
    /// # Errors
    /// `EACCES`, `ENODEV` (the filesystem cannot map), `ENOMEM`.
    pub(crate) fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let bytes = size_of::<[AtomicU64; WORDS_COUNT]>();
        // SAFETY: a mapping at an address of the kernel's choice touches no existing memory.
        let page = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = NonNull::new(page.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self(page))
    }

    pub(crate) fn words(&self) -> &[AtomicU64; WORDS_COUNT] {
        // SAFETY: the mapping is as long as the array, page-aligned, lives until the drop, and any bits are a number.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives this value.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<[AtomicU64; WORDS_COUNT]>()) };
    }
}
