//! The EROFS index: a metadata image of a whole chain of layers, whose files lie in the layers' tars.
//!
//! ```text
//! index (device 0)                                            tars (devices 1..n, mount options device=...)
//! | 1024 zeros | superblock | device table | ...              layer 0: | header | content | header | content |
//! | shared extended attributes             |                                     ^
//! | inodes: number = offset / 32           |---- chunk (device, block) ----------'
//! |   inode 64 | attributes | tail of a directory, link target or chunk table
//! | whole blocks of directories, long link targets, copies of unaligned chunks of sparse files
//! ```
//!
//! Blocks are of 512 bytes, those of tar, so every file of a layer starts at a block of its device and needs one
//! chunk. [`write()`] is a function of its arguments alone: the same tree gives the same bytes on every machine.
//! [`parse`] reads an index back and trusts nothing in it; [`Index::difference`] says whether it shows a tree.

mod chunks;
mod compare;
mod directory;
mod format;
mod parse;
mod write;
mod xattr;

pub use parse::{Index, OwnExtent, parse};
pub use write::{Content, INDEX_BYTES_MAX, write};

use crate::Digest;
use crate::tree::{InodeId, Tree};

/// A layer's tar as a device of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Length of the uncompressed tar.
    pub tar_bytes: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// Why an index cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    /// More devices than EROFS numbers, or a device too large for its 32-bit block numbers.
    #[error("cannot index layer {0} (0 is the lowest): EROFS has 65,535 devices of 2 TiB at most")]
    Device(usize),
    /// An inode cannot be shown by EROFS, or the tree is not one.
    #[error("cannot index {path:?}: {problem}")]
    Inode {
        /// One path of the inode.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The index would be larger than [`INDEX_BYTES_MAX`].
    #[error("the index of this image would be larger than {INDEX_BYTES_MAX} bytes")]
    TooLarge,
    /// The content of an unaligned chunk of a sparse file could not be read.
    #[error(
        "cannot read {length_bytes} bytes at {tar_offset} of the tar of layer {layer} (0 is the lowest): {source}"
    )]
    Content {
        /// Which layer.
        layer: u16,
        /// Where.
        tar_offset: u64,
        /// How much.
        length_bytes: u64,
        /// Why not.
        source: std::io::Error,
    },
    /// The bytes are not an index as [`write()`] makes them.
    #[error("the index is broken at byte {at}: {what}")]
    Broken {
        /// Offset in the index.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
}

impl ErofsError {
    fn inode(tree: &Tree, id: InodeId, problem: &'static str) -> Self {
        let path = tree.path_of(id).unwrap_or_default();
        Self::Inode { path: String::from_utf8_lossy(&path).into_owned(), problem }
    }
}
