//! The merged tree of an image: what a container sees as `/`, before any byte of it is written anywhere.
//!
//! Layers are applied from the lowest up; whiteouts are resolved here, so the sinks (EROFS index, directory)
//! never hear of them.
//!
//! ```text
//! inodes: [ root ][ etc ][ etc/passwd ][ bin ] ...      InodeId is an index; 0 is the root
//!            | children: name -> InodeId (sorted)        a hard link is one inode under two names
//! ```

mod error;
mod merge;
mod resolve;
mod whiteout;
mod xattrs;

use std::collections::BTreeMap;

pub use error::{Problem, TreeError};
pub use merge::Merger;

use crate::tar::{FileData, Timestamp, Xattr};

/// Names an inode of one [`Tree`]. The root is [`Tree::ROOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub u32);

/// A whole root filesystem, without its content.
///
/// Inodes that lost their last name stay in the vector with `links == 0` and are skipped by the sinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// All inodes; index 0 is the root directory.
    pub inodes: Vec<Inode>,
}

/// One file, directory, link or device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Permission, setuid, setgid and sticky bits (`mode & 0o7777`).
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Timestamp,
    /// Extended attributes, sorted by name, each name once.
    pub xattrs: Vec<Xattr>,
    /// How many names it has (for a directory 2 and one for each subdirectory, as `stat` shows it).
    pub links: u32,
}

/// What an inode is, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file whose bytes lie in the tar of layer `layer` (an index into the chain, 0 the lowest).
    File {
        /// Which layer's tar.
        layer: u16,
        /// Where in it.
        data: FileData,
    },
    /// A directory and its names; no `.` and `..`.
    Directory(BTreeMap<Box<[u8]>, InodeId>),
    /// A symbolic link's target.
    Symlink(Box<[u8]>),
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

impl Tree {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);

    /// The inode named `id`.
    ///
    /// # Panics
    /// If `id` is of another tree.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0 as usize]
    }

    /// The names in directory `id`; `None` if it is something else.
    pub fn children(&self, id: InodeId) -> Option<&BTreeMap<Box<[u8]>, InodeId>> {
        match &self.inode(id).kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// What `name` in directory `parent` is, if it is there.
    pub fn child(&self, parent: InodeId, name: &[u8]) -> Option<InodeId> {
        self.children(parent)?.get(name).copied()
    }

    /// The inode at `path` (relative to the root, no `.` or `..`), no symbolic link followed.
    pub fn lookup(&self, path: &[u8]) -> Option<InodeId> {
        path.split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
            .try_fold(Self::ROOT, |parent, name| self.child(parent, name))
    }

    /// One path of inode `id`, relative to the root; `None` if it has no name left. Walks the whole tree.
    pub fn path_of(&self, id: InodeId) -> Option<Vec<u8>> {
        let mut above: Vec<Option<(InodeId, &[u8])>> = vec![None; self.inodes.len()];
        let mut directories = vec![Self::ROOT];
        while let Some(directory) = directories.pop() {
            for (name, &child) in self.children(directory).into_iter().flatten() {
                let known = above.get_mut(child.0 as usize).filter(|known| known.is_none());
                if let Some(known) = known.filter(|_| child != Self::ROOT) {
                    *known = Some((directory, &**name));
                    directories.push(child);
                }
            }
        }
        let mut names = Vec::new();
        let mut at = id;
        while at != Self::ROOT {
            let (parent, name) = (*above.get(at.0 as usize)?)?;
            names.push(name);
            at = parent;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }
}
