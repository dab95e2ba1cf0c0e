//! A published file as a slice of memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A read-only mapping of a whole file of the store.
///
/// Made for layers (read for their headers only) and indexes: files that are complete before they get the name
/// under which they are opened, and are never written again. A disk error while a page is read raises SIGBUS;
/// whoever doubts the disk hashes the file by reads first, as `celda verify` does.
#[derive(Debug)]
pub struct Map(Option<memmap2::Mmap>);

impl Map {
    /// `mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0)`; an empty file gives an empty slice.
    ///
    /// # Errors
    /// `ENODEV` where the filesystem cannot map, `ENOMEM` when the address space is full.
    pub fn of(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the slice must not change or shrink while it is borrowed. Files of the store are written under
        // a staging name, and after the rename that publishes them nothing opens them for writing; removal is
        // unlink, which leaves the mapped inode whole.
        unsafe { memmap2::Mmap::map(file) }.map(|map| Self(Some(map)))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
