//! What a tree shows, and what this process holds: to be compared before and after, here and there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use celda_layerfs::Digest;

/// All that an inode shows, but for what a filesystem may choose: inode numbers, directory sizes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    links: u64,
    device: u64,
    content: Content,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The least path of the same inode.
    same_as: PathBuf,
}

impl Shown {
    /// Keeps the attributes that `keep` says, by name and value: for a comparison with a tool that has fewer.
    #[allow(dead_code, reason = "only one of the test binaries compares with such a tool")]
    pub(crate) fn retain_xattrs(&mut self, keep: impl Fn(&[u8], &[u8]) -> bool) {
        self.xattrs.retain(|name, value| keep(name, value));
    }

    /// Takes the time of `other` if that was changed at `since` (seconds) or later: by the unpacking itself.
    #[allow(dead_code, reason = "only one of the test binaries compares with such a tool")]
    pub(crate) fn forgive_time(&mut self, other: &Self, since: i64) {
        if other.mtime.0 >= since {
            self.mtime = other.mtime;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Bytes(u64, Digest),
    Target(PathBuf),
    None,
}

/// Everything beneath a mount or directory held by fd.
pub(crate) fn tree_of(root: BorrowedFd<'_>) -> BTreeMap<PathBuf, Shown> {
    tree_at(&PathBuf::from(format!("/proc/self/fd/{}/.", root.as_raw_fd())))
}

/// Everything beneath a path.
pub(crate) fn tree_at(root: &Path) -> BTreeMap<PathBuf, Shown> {
    let mut shown = BTreeMap::new();
    let mut first_paths = HashMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap();
        let kind = meta.file_type();
        let content = if kind.is_symlink() {
            Content::Target(fs::read_link(&full).unwrap())
        } else if kind.is_file() {
            Content::Bytes(meta.len(), Digest::of(&fs::read(&full).unwrap()))
        } else {
            Content::None
        };
        if kind.is_dir() {
            left.extend(fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
        }
        let device = if kind.is_char_device() || kind.is_block_device() { meta.rdev() } else { 0 };
        let key = if kind.is_dir() { (path.clone(), 0) } else { (PathBuf::new(), meta.ino()) };
        let first: &mut PathBuf = first_paths.entry(key).or_insert_with(|| path.clone());
        *first = first.clone().min(path.clone());
        let shows = Shown {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            links: if kind.is_dir() { 0 } else { meta.nlink() },
            device,
            content,
            xattrs: xattrs_of(&full),
            same_as: PathBuf::from(meta.ino().to_string()),
        };
        shown.insert(path, shows);
    }
    for (path, shows) in &mut shown {
        let inode = shows.same_as.to_str().unwrap().parse().unwrap();
        shows.same_as = first_paths.get(&(PathBuf::new(), inode)).unwrap_or(path).clone();
        if matches!(shows.content, Content::None) && shows.mode & 0o170_000 == 0o040_000 {
            shows.same_as = path.clone();
        }
    }
    shown
}

fn xattrs_of(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let bytes_count = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut found = BTreeMap::new();
    for name in names[..bytes_count].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let value_bytes = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(value_bytes);
        found.insert(name.to_vec(), value);
    }
    found
}

/// Mounts, descriptors and loop devices in use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    mounts: BTreeSet<String>,
    descriptors_count: usize,
    loops: BTreeSet<String>,
}

/// What is held now. Loop devices are those backed by a file beneath `store`.
pub(crate) fn held(store: &Path) -> Held {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().map(str::to_owned).collect();
    let descriptors_count = fs::read_dir("/proc/self/fd").unwrap().count();
    let mut loops = BTreeSet::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        if let Ok(file) = fs::read(entry.path().join("loop/backing_file"))
            && file.starts_with(store.as_os_str().as_bytes())
        {
            loops.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Held { mounts, descriptors_count, loops }
}
