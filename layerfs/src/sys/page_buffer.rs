//! Page-aligned buffers that a ring may keep: what O_DIRECT and registration both want.
#![allow(unsafe_code)]

use std::io;

use memmap2::MmapMut;
use tokio_uring::buf::{IoBuf, IoBufMut};

/// An anonymous mapping with a length that grows up to its size as it is filled.
#[derive(Debug)]
pub struct PageBuffer {
    map: MmapMut,
    filled: usize,
}

impl PageBuffer {
    /// `mmap(NULL, bytes, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)`
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(bytes: usize) -> io::Result<Self> {
        Ok(Self { map: MmapMut::map_anon(bytes)?, filled: 0 })
    }
}

// SAFETY: the mapping neither moves nor goes away when the `PageBuffer` moves, anonymous memory is initialised
// (zeros) over its whole size, and `filled` never exceeds that size.
unsafe impl IoBuf for PageBuffer {
    fn stable_ptr(&self) -> *const u8 {
        self.map.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.filled
    }

    fn bytes_total(&self) -> usize {
        self.map.len()
    }
}

// SAFETY: as for `IoBuf`; the mapping is private to this value, so the pointer is not aliased, and the length is
// clamped to what is mapped.
unsafe impl IoBufMut for PageBuffer {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, filled: usize) {
        self.filled = filled.min(self.map.len()).max(self.filled);
    }
}
