//! Entries without a tar, and trees as text. Shared by tests, each of which uses a part of it.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::{BTreeMap, HashMap};

use celda_layerfs::tar::{Entry, EntryKind, FileData, Segment, Timestamp, Xattr};
use celda_layerfs::tree::{InodeId, Kind, Tree};

pub fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.as_bytes().into(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Vec::new(),
        header_offset: 0,
    }
}

/// A directory of mode 0700, unlike one that is made because it is missing.
pub fn directory(path: &str) -> Entry {
    Entry { mode: 0o700, ..entry(path, EntryKind::Directory) }
}

/// A file of `size_bytes` bytes, by which tests tell one from the other.
pub fn file(path: &str, size_bytes: u64) -> Entry {
    let segment = Segment { logical_offset: 0, tar_offset: 512, length_bytes: size_bytes };
    let segments = if size_bytes == 0 { Vec::new() } else { vec![segment] };
    entry(path, EntryKind::File(FileData { size_bytes, segments }))
}

pub fn symlink(path: &str, target: &str) -> Entry {
    entry(path, EntryKind::Symlink(target.as_bytes().into()))
}

pub fn hard_link(path: &str, target: &str) -> Entry {
    entry(path, EntryKind::HardLink(target.as_bytes().into()))
}

pub fn device(path: &str, major: u32, minor: u32) -> Entry {
    entry(path, EntryKind::CharDevice { major, minor })
}

/// A whiteout, opaque or not.
pub fn whiteout(path: &str) -> Entry {
    file(path, 0)
}

pub fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().into(), value: value.into() }
}

/// A line for each name, sorted: `path kind`, and ` = first path` for the further names of an inode.
pub fn show(tree: &Tree) -> Vec<String> {
    let mut names = BTreeMap::new();
    let mut directories = vec![(String::new(), Tree::ROOT)];
    while let Some((path, id)) = directories.pop() {
        for (name, &child) in tree.children(id).unwrap() {
            let slash = if path.is_empty() { "" } else { "/" };
            let path = format!("{path}{slash}{}", String::from_utf8_lossy(name));
            names.insert(path.clone(), child);
            if tree.children(child).is_some() {
                directories.push((path, child));
            }
        }
    }
    let mut first: HashMap<InodeId, String> = HashMap::new();
    let mut lines = Vec::new();
    for (path, id) in names {
        let what = describe(tree, id);
        let same = first.get(&id).map_or_else(String::new, |first| format!(" = {first}"));
        lines.push(format!("{path} {what}{same}"));
        first.entry(id).or_insert(path);
    }
    lines
}

fn describe(tree: &Tree, id: InodeId) -> String {
    let inode = tree.inode(id);
    match &inode.kind {
        Kind::File { layer, data } => format!("file {layer}:{}", data.size_bytes),
        Kind::Directory(_) => format!("directory {:o}", inode.mode),
        Kind::Symlink(target) => format!("link {}", String::from_utf8_lossy(target)),
        Kind::CharDevice { major, minor } => format!("char {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("block {major}:{minor}"),
        Kind::Fifo => "fifo".into(),
    }
}
