//! Room that the journal has for itself, so that on a full disk what ends can still be written down.
//!
//! ```text
//! journal | written | reserved: no bytes of the file yet, but blocks of the disk |
//!                   ^ stops, ends, removals are written here when nothing else can be
//!                                         starts are taken only where the reserve is whole after them
//! ```
//! Blocks beyond the end of a file (fallocate(2), `FALLOC_FL_KEEP_SIZE`) are the file's until it is cut or removed.

use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::Journal;
use crate::cell::error::{CellError, Result};

/// Bytes that an instance may still have written about it: a stop, an end, a removal, of some 600 bytes each.
pub const RESERVE_BYTES_PER_INSTANCE: u64 = 2 << 10;
/// What is taken off the disk at once beyond what is needed, so that few turns ask for it.
const AHEAD_BYTES: u64 = 1 << 20;
/// With less free than this no container gets far: its layer and its log need some.
const FREE_BYTES_MIN: u64 = 1 << 20;

impl Journal {
    /// From now on so many bytes are kept free for what has to be written on a full disk. That there is no room for them
    /// now is no failure: starts are refused until there is.
    pub fn keep_reserve(&mut self, reserve_bytes: u64) {
        self.reserve_bytes = reserve_bytes;
        if let Err(error) = self.reserve(0) {
            tracing::warn!(%error, "nothing new is started until there is room on the disk");
        }
    }

    /// Whether there is room for something new: for `more_bytes` and the reserve after them, and for what else begins on
    /// this disk with it.
    ///
    /// # Errors
    /// [`CellError::Io`] when there is none.
    pub fn has_room(&mut self, more_bytes: u64) -> Result<()> {
        let failed = |errno| room(&self.path, errno);
        let facts = rustix::fs::fstatvfs(&self.file).map_err(failed)?;
        // A filesystem without blocks does not count them.
        if facts.f_blocks > 0 && facts.f_bavail.saturating_mul(facts.f_frsize) < FREE_BYTES_MIN {
            return Err(failed(Errno::NOSPC));
        }
        self.reserve(more_bytes)
    }

    /// Sees to it that there is room for `more_bytes` and the reserve after them.
    ///
    /// # Errors
    /// [`CellError::Io`] when the disk is full. A filesystem that cannot reserve is taken as it is: then what cannot be
    /// written is refused when it is written.
    pub fn reserve(&mut self, more_bytes: u64) -> Result<()> {
        let needed_bytes = self.bytes + more_bytes + self.reserve_bytes;
        if self.reserve_bytes == 0 || needed_bytes <= self.reserved_bytes {
            return Ok(());
        }
        let ask = |until_bytes: u64| {
            let flags = FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.file, flags, self.bytes, until_bytes - self.bytes)
        };
        let reserved_bytes = match ask(needed_bytes + AHEAD_BYTES) {
            Ok(()) => needed_bytes + AHEAD_BYTES,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => u64::MAX,
            Err(_) => {
                ask(needed_bytes).map_err(|errno| room(&self.path, errno))?;
                needed_bytes
            }
        };
        self.reserved_bytes = reserved_bytes;
        Ok(())
    }
}

fn room(path: &Path, errno: Errno) -> CellError {
    CellError::io("keep room on the disk for", path)(errno.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::cell::journal::{Known, Message, Record};

    #[test]
    fn the_reserve_is_on_the_disk_and_not_in_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, _) = Journal::open(directory.path(), 1 << 20).expect("opened");
        journal.keep_reserve(256 << 10);
        let facts = || std::fs::metadata(directory.path().join("journal")).expect("there");
        let (length_bytes, blocks) = (facts().len(), facts().blocks());
        assert_eq!(length_bytes, journal.bytes());
        if journal.reserved_bytes == u64::MAX {
            return println!("skipped: this filesystem cannot reserve");
        }
        assert!(blocks * 512 >= 256 << 10, "{blocks} blocks");
        let spec = Record::Spec { digest: "d".into(), message: Message(vec![7; 100 << 10]) };
        journal.append(&spec).expect("appended");
        journal.commit(true).expect("committed");
        assert!(facts().len() > length_bytes && facts().blocks() == blocks, "it is written into the reserve");
        journal.compact(&Known::default()).expect("compacted");
        assert!(facts().blocks() * 512 >= 256 << 10, "the new file has one as well");
        let absurd = journal.reserve(1 << 60).expect_err("no disk has that");
        assert!(absurd.to_string().contains("keep room on the disk"), "{absurd}");
        journal.reserve(0).expect("it is as it was");
    }
}
