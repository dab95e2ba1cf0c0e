//! `char *const argv[]`, built once and kept.

use std::ffi::{CString, c_char};
use std::fmt;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

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

/// Words that are known at the last moment.
pub(crate) const LATE_COUNT: usize = 3;

/// `char *const argv[]` whose first words are set at the last moment, before those of other [`Strings`], which must
/// outlive it.
#[derive(Debug)]
pub(crate) struct LateStrings {
    pointers: Vec<AtomicPtr<c_char>>,
}

impl LateStrings {
    pub(crate) fn before(rest: &Strings) -> Self {
        let late = [const { std::ptr::null() }; LATE_COUNT];
        let all = late.iter().chain(&rest.pointers).map(|pointer| AtomicPtr::new(pointer.cast_mut()));
        Self { pointers: all.collect() }
    }

    pub(super) fn set(&self, words: [*const c_char; LATE_COUNT]) {
        for (to, from) in self.pointers.iter().zip(words) {
            to.store(from.cast_mut(), Relaxed);
        }
    }

    /// The array; its last element is null.
    pub(super) fn as_ptr(&self) -> *const AtomicPtr<c_char> {
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
