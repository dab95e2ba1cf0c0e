//! `char *const argv[]`, built once and kept.

use std::ffi::{CString, c_char};
use std::fmt;

/// Strings with the null-terminated array of pointers to them that `execve(2)` takes.
#[derive(Debug)]
pub(crate) struct Strings {
    owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers point into heap buffers owned by `owned`, which is never changed after `new`, so sharing
// or moving the whole value between threads leaves them valid, and nothing is written through them.
unsafe impl Send for Strings {}
// SAFETY: as for `Send`: the value is immutable after `new`.
unsafe impl Sync for Strings {}

impl Strings {
    pub(crate) fn new(owned: Vec<CString>) -> Self {
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { owned, pointers }
    }

    /// The array; its last element is null.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

impl fmt::Display for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, string) in self.owned.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", string.to_string_lossy())?;
        }
        Ok(())
    }
}
