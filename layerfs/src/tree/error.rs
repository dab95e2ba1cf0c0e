//! Why a layer cannot be merged: which layer, which entry, what is wrong with it.

/// Why layers do not make a [`Tree`](super::Tree).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// An entry says something that no filesystem can show, or that would cost more than is allowed.
    #[error("layer {layer} (0 is the lowest), entry {path:?} at byte {header_offset} of its tar: {problem}")]
    Entry {
        /// Index of the layer in the chain, 0 the lowest.
        layer: u16,
        /// The entry's path, bytes that are no UTF-8 replaced.
        path: String,
        /// Where the entry's header lies in the uncompressed tar.
        header_offset: u64,
        /// What is wrong.
        problem: Problem,
    },
    /// The layers up to this one have more entries than `Limits::entries_count`.
    #[error("up to layer {layer} (0 is the lowest) there are {count} entries; at most {max} are allowed")]
    Entries {
        /// Index of the layer in the chain.
        layer: u16,
        /// How many entries it and those below have.
        count: u64,
        /// `Limits::entries_count`.
        max: u64,
    },
    /// The entries of the layers up to this one hold more memory than `Limits::metadata_bytes`.
    #[error(
        "up to layer {layer} (0 is the lowest) paths, links and attributes take more than {max} bytes of memory"
    )]
    Metadata {
        /// Index of the layer in the chain.
        layer: u16,
        /// `Limits::metadata_bytes`.
        max: u64,
    },
    /// The chain is longer than `Limits::layers_count`, or than 65,535.
    #[error("the image has more than {max} layers")]
    Layers {
        /// How many are allowed.
        max: usize,
    },
}

/// What is wrong with one entry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    /// `.wh.` with nothing, `.` or `..` after it.
    #[error("the whiteout names no file")]
    EmptyWhiteout,
    /// The root itself as a file, link or device.
    #[error("the root must be a directory")]
    RootKind,
    /// A component of the parent path is a file, a device or a fifo.
    #[error("its parent {0:?} is not a directory")]
    ParentKind(String),
    /// More symbolic links in the parent path than the kernel would follow.
    #[error("more than {0} symbolic links on the way to it")]
    Symlinks(usize),
    /// The layer's symbolic links, taken together, cost too much to follow.
    #[error("following the symbolic links of this layer takes more than {0} steps")]
    Steps(u64),
    /// The path, its symbolic links resolved, is nested too deep.
    #[error("it is nested deeper than {0} directories")]
    Depth(usize),
    /// A symbolic link on the way leads through a name that no filesystem has.
    #[error("a symbolic link on the way leads to a name of more than {0} bytes or with a NUL")]
    Name(usize),
    /// The tree has too many inodes or names.
    #[error("the image has more than {0} files and directories, replaced ones counted too")]
    Inodes(usize),
    /// A hard link to something that is not there (yet).
    #[error("hard link to {0:?}, which neither an earlier entry of this layer nor a lower layer has")]
    LinkMissing(String),
    /// A hard link to a directory.
    #[error("hard link to {0:?}, which is a directory")]
    LinkDirectory(String),
    /// A symbolic link without target, or with one that no path can be.
    #[error("symbolic link with an empty or too long target")]
    SymlinkTarget,
    /// A device number that Linux cannot have (12 bits major, 20 bits minor).
    #[error("device number {0}:{1} does not exist on Linux")]
    Device(u32, u32),
    /// An extended attribute whose name or value the kernel would refuse.
    #[error("extended attribute {0:?}: {1}")]
    Xattr(String, &'static str),
}
