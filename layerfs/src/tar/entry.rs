//! What one tar entry says, with every extension header already applied.

/// One entry of a layer. Content stays where it is: [`FileData`] says at which offsets of the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as in the archive, less leading `./` and `/` and trailing `/`, never empty but for the root
    /// itself; no `.`, `..` or empty component, no NUL. Bytes: tar promises no encoding.
    pub path: Box<[u8]>,
    /// What the entry is.
    pub kind: EntryKind,
    /// Permission, setuid, setgid and sticky bits (`mode & 0o7777`).
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Timestamp,
    /// Extended attributes in the order of the archive, names with their namespace (`user.`, `security.`, ...).
    pub xattrs: Vec<Xattr>,
    /// The offset of the entry's first header block in the tar: what an error points at.
    pub header_offset: u64,
}

impl Entry {
    /// Memory that the entry holds, itself included, as [`Limits::metadata_bytes`](crate::Limits) counts it.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        let own = size_of::<Self>() + self.path.len();
        let of_kind = match &self.kind {
            EntryKind::File(data) => size_of_val(data.segments.as_slice()),
            EntryKind::Symlink(target) | EntryKind::HardLink(target) => target.len(),
            _ => 0,
        };
        let of_xattrs: usize =
            self.xattrs.iter().map(|xattr| size_of_val(xattr) + xattr.name.len() + xattr.value.len()).sum();
        (own + of_kind + of_xattrs) as u64
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File(FileData),
    /// A directory.
    Directory,
    /// A symbolic link with its target as written.
    Symlink(Box<[u8]>),
    /// A hard link to an earlier entry, of this layer or of one below: its path, normalised like [`Entry::path`].
    HardLink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Where a file's bytes lie in its layer's tar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileData {
    /// Logical length in bytes, holes included.
    pub size_bytes: u64,
    /// Ascending, non-overlapping, non-empty, within `size_bytes`; what lies between is holes. A plain file has
    /// one (none if empty).
    pub segments: Vec<Segment>,
}

/// A run of bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where the run starts in the file.
    pub logical_offset: u64,
    /// Where the run starts in the uncompressed tar. A multiple of 512 for the first segment of a file.
    pub tar_offset: u64,
    /// How long the run is.
    pub length_bytes: u64,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// Full name, such as `security.capability`.
    pub name: Box<[u8]>,
    /// Value; any bytes.
    pub value: Box<[u8]>,
}

/// A point in time as tar and EROFS have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// 0 to 999,999,999, counted forward from `seconds`.
    pub nanoseconds: u32,
}
