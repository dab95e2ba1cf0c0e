//! A [`Tree`] and its tars to a directory: all of it, or nothing that anyone sees.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::content::Tars;
use super::metadata::{Rights, Target, apply, set_times};
use super::remove::{remove_path, remove_tree};
use crate::tree::{Inode, InodeId, Kind, Tree};
use crate::{Error, Limits, Result};

/// Directories kept open along the path being unpacked; those above are opened again when they are come back to.
const OPEN_COUNT: usize = 64;

/// Left-over staging directories looked at before an unpacking.
const SWEEP_COUNT: usize = 1024;

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Names made: files, directories, links, devices.
    pub names_count: u64,
    /// Owners, attributes and devices left out because the caller is not root.
    pub omitted_count: u64,
}

/// One directory on the way from the root to what is being unpacked.
struct Frame<'a> {
    inode: &'a Inode,
    names: std::collections::btree_map::Iter<'a, Box<[u8]>, InodeId>,
    /// `None`: closed to bound the descriptors; opened again by its path.
    directory: Option<OwnedFd>,
    /// How long the path is at the end of which this directory lies.
    path_bytes: usize,
}

struct Unpacking<'a> {
    tree: &'a Tree,
    tars: Tars,
    limits: &'a Limits,
    rights: Rights,
    root: OwnedFd,
    frames: Vec<Frame<'a>>,
    /// The path of the name being made, relative to the root.
    path: Vec<u8>,
    /// Where the first name of an inode with several lies.
    first_names: HashMap<InodeId, Box<[u8]>>,
    made: Vec<bool>,
    done: Unpacked,
}

/// Unpacks `tree`, whose content lies in `tars`, so that `into` becomes its root directory.
///
/// Crash-safe: everything happens in a staging sibling that is renamed to `into` at the end, after a syncfs(2). If
/// `into` is there already it is left as it is. The parent is made if it is missing, for the owner alone.
///
/// # Errors
/// [`Error::Unpack`] with the path in the tree; [`Error::Io`] about the directories around it. Nothing is left.
pub fn unpack(tree: &Tree, tars: &[PathBuf], into: &Path, limits: &Limits) -> Result<Unpacked> {
    let (Some(parent), Some(name)) = (into.parent(), into.file_name()) else {
        let no_name = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(Error::io("unpack into", into)(no_name));
    };
    if into.exists() {
        return Ok(Unpacked::default());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(Error::io("create directory", parent))?;
    sweep(parent, name);
    let staging = parent.join(staging_name(name));
    let root =
        create_staging(&staging).map_err(|errno| Error::io("create directory", &staging)(errno.into()))?;
    let answer =
        fill(tree, tars, root, limits).and_then(|done| publish(parent, &staging, into).map(|()| done));
    if answer.is_err() {
        let _ = remove_path(&staging);
    }
    answer
}

fn fill(tree: &Tree, tars: &[PathBuf], root: OwnedFd, limits: &Limits) -> Result<Unpacked> {
    let rights =
        Rights { root: rustix::process::geteuid().is_root() && crate::mount::in_initial_user_namespace() };
    let mut unpacking = Unpacking {
        tree,
        tars: Tars::open(tars)?,
        limits,
        rights,
        root,
        frames: Vec::new(),
        path: Vec::new(),
        first_names: HashMap::new(),
        made: vec![false; tree.inodes.len()],
        done: Unpacked::default(),
    };
    unpacking.run()?;
    rustix::fs::syncfs(&unpacking.root)
        .map_err(|errno| Error::Unpack { path: PathBuf::from("/"), reason: format!("sync: {errno}") })?;
    Ok(unpacking.done)
}

/// Renames the staging directory to its name. That another process was faster is fine: both hold the same tree.
fn publish(parent: &Path, staging: &Path, into: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, staging, CWD, into, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST | Errno::NOTEMPTY) => {
            remove_path(staging).map_err(Error::io("delete", staging))?;
            return Ok(());
        }
        Err(errno) => return Err(Error::io("rename to its name", staging)(errno.into())),
    }
    let sync = || fs::File::open(parent)?.sync_all();
    sync().map_err(Error::io("sync directory", parent))
}

impl<'a> Unpacking<'a> {
    fn run(&mut self) -> Result<()> {
        let answer = self.walk();
        answer.map_err(|error| Error::Unpack {
            path: Path::new("/").join(OsStr::from_bytes(&self.path)),
            reason: error.to_string(),
        })
    }

    /// Depth first, iteratively: a tree may be as deep as a path is long.
    fn walk(&mut self) -> io::Result<()> {
        let root = self.inode(Tree::ROOT)?;
        let Kind::Directory(names) = &root.kind else {
            return Err(io::Error::other("the root is not a directory"));
        };
        self.mark(Tree::ROOT)?;
        let own = rustix::io::fcntl_dupfd_cloexec(&self.root, 3)?;
        self.enter(root, names, own);
        while let Some(frame) = self.frames.last_mut() {
            match frame.names.next() {
                Some((name, &id)) => {
                    let parent_bytes = frame.path_bytes;
                    self.path.truncate(parent_bytes);
                    self.make(name, id)?;
                }
                None => self.leave()?,
            }
        }
        Ok(())
    }

    /// Makes one name in the directory of the last frame.
    fn make(&mut self, name: &[u8], id: InodeId) -> io::Result<()> {
        check_name(name, self.limits)?;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        if self.path.len() > self.limits.path_bytes {
            return Err(io::Error::from(Errno::NAMETOOLONG));
        }
        self.done.names_count += 1;
        let inode = self.inode(id)?;
        let parent = self.parent()?;
        if let Kind::Directory(names) = &inode.kind {
            self.mark(id)?;
            rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
            let directory = open_directory(parent.as_fd(), name)?;
            self.keep_parent(parent);
            self.enter(inode, names, directory);
            return Ok(());
        }
        let answer = match self.first_names.get(&id) {
            Some(first) => link(self.root.as_fd(), first, parent.as_fd(), name),
            None => {
                self.mark(id)?;
                if inode.links > 1 {
                    self.first_names.insert(id, self.path.as_slice().into());
                }
                self.create(parent.as_fd(), name, inode)
            }
        };
        self.keep_parent(parent);
        answer
    }

    /// Makes the first name of an inode that is no directory.
    fn create(&mut self, parent: BorrowedFd<'_>, name: &[u8], inode: &Inode) -> io::Result<()> {
        let device = |major, minor| rustix::fs::makedev(major, minor);
        let (kind, device) = match &inode.kind {
            Kind::File { layer, data } => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::RUSR | Mode::WUSR;
                let file = rustix::fs::openat2(parent, name, flags, mode, resolve())?;
                self.tars.copy(*layer, data, file.as_fd())?;
                return self.finish(Target::Open(file.as_fd()), inode);
            }
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(&**target, parent, name)?;
                return self.finish(Target::Named(parent, name), inode);
            }
            Kind::Directory(_) => return Err(io::Error::other("a directory has two names")),
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::CharDevice { major, minor } => (FileType::CharacterDevice, device(*major, *minor)),
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, device(*major, *minor)),
        };
        match rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device) {
            Ok(()) => self.finish(Target::Named(parent, name), inode),
            Err(Errno::PERM) if !self.rights.root => {
                self.done.omitted_count += 1;
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn finish(&mut self, target: Target<'_>, inode: &Inode) -> io::Result<()> {
        self.done.omitted_count += apply(target, inode, self.rights)?;
        set_times(target, inode)
    }

    fn enter(&mut self, inode: &'a Inode, names: &'a BTreeMap<Box<[u8]>, InodeId>, directory: OwnedFd) {
        let path_bytes = self.path.len();
        self.frames.push(Frame { inode, names: names.iter(), directory: Some(directory), path_bytes });
        if let Some(index) = self.frames.len().checked_sub(OPEN_COUNT + 1)
            && let Some(far) = self.frames.get_mut(index)
        {
            far.directory = None;
        }
    }

    /// A directory is full: its own metadata, now that nothing in it changes any more.
    fn leave(&mut self) -> io::Result<()> {
        if let Some(frame) = self.frames.last() {
            self.path.truncate(frame.path_bytes);
        }
        let directory = self.parent()?;
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        self.finish(Target::Open(directory.as_fd()), frame.inode)
    }

    /// The descriptor of the last frame's directory, taken out of it.
    fn parent(&mut self) -> io::Result<OwnedFd> {
        let frame = self.frames.last_mut().ok_or_else(|| io::Error::other("no directory is open"))?;
        if let Some(directory) = frame.directory.take() {
            return Ok(directory);
        }
        let path = self.path.get(..frame.path_bytes).unwrap_or_default();
        open_directory(self.root.as_fd(), if path.is_empty() { b"." } else { path })
    }

    fn keep_parent(&mut self, parent: OwnedFd) {
        if let Some(frame) = self.frames.last_mut() {
            frame.directory = Some(parent);
        }
    }

    fn inode(&self, id: InodeId) -> io::Result<&'a Inode> {
        self.tree
            .inodes
            .get(id.0 as usize)
            .ok_or_else(|| io::Error::other("the tree names an inode it does not have"))
    }

    /// Each inode is made once; a directory in two places would be a tree without an end.
    fn mark(&mut self, id: InodeId) -> io::Result<()> {
        match self.made.get_mut(id.0 as usize) {
            Some(made) if !*made => {
                *made = true;
                Ok(())
            }
            _ => Err(io::Error::other("the tree has one inode in two places without counting both")),
        }
    }
}

/// A name of a tree is one component; this is where a wrong one would become a way out.
fn check_name(name: &[u8], limits: &Limits) -> io::Result<()> {
    let bad =
        name.is_empty() || matches!(name, b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if bad {
        return Err(io::Error::other("it is not a file name"));
    }
    if name.len() > limits.name_bytes {
        return Err(io::Error::from(Errno::NAMETOOLONG));
    }
    Ok(())
}

fn link(root: BorrowedFd<'_>, first: &[u8], parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let (directory, old_name) = match first.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&first[..slash], &first[slash + 1..]),
        None => (&b"."[..], first),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat2(root, directory, flags, Mode::empty(), resolve())?;
    Ok(rustix::fs::linkat(directory, old_name, parent, name, AtFlags::empty())?)
}

fn open_directory(parent: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(parent, path, flags, Mode::empty(), resolve())?)
}

fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV
}

/// A name that no other unpacking has.
fn staging_name(name: &OsStr) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!(".{}.{}-{number}.partial", name.to_string_lossy(), std::process::id()))
}

/// Creates the staging directory and locks it: a lock that is free says that its maker is dead.
fn create_staging(staging: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::mkdir(staging, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(staging, flags, Mode::empty())?;
    rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive)?;
    Ok(root)
}

/// Deletes what killed unpackings of the same directory left. Best effort.
fn sweep(parent: &Path, name: &OsStr) {
    let prefix = format!(".{}.", name.to_string_lossy());
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.take(SWEEP_COUNT).flatten() {
        let left = entry.file_name();
        let text = left.to_string_lossy();
        if !text.starts_with(&prefix) || !text.ends_with(".partial") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(directory) = rustix::fs::open(entry.path(), flags, Mode::empty()) else { continue };
        if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
            && let Ok(parent) = rustix::fs::open(parent, flags, Mode::empty())
        {
            let _ = remove_tree(parent.as_fd(), &left);
        }
    }
}
