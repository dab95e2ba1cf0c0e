//! The merger: layers in, lowest first; one [`Tree`] out.
//!
//! ```text
//! layer n:  1. its whiteouts, against what the layers below left     (order within the archive does not matter)
//!           2. its entries, in the archive's order                   (the last of a path wins)
//! finish:   count names from the root; what has none left keeps links == 0
//! ```
//!
//! Replacing a name only detaches what it named: an inode with another name lives on, and a subtree that lost its
//! only name is found dead at the end.

use std::collections::BTreeMap;

use crate::Limits;
use crate::tar::{Entry, EntryKind, Timestamp};

use super::error::{Problem, TreeError};
use super::resolve::{self, DEPTH_MAX, Resolved, STEPS_MAX, Walk};
use super::whiteout::{self, Meaning};
use super::{Inode, InodeId, Kind, Tree, xattrs};

/// Memory that an inode and its first name take, about. `Limits::metadata_bytes` divided by it bounds the inodes of
/// an image, and the names of its hard links, replaced ones counted too: a path of 4095 bytes can ask for 2,047
/// directories that have no entry of their own, so the limits on entries alone do not bound memory. By default that
/// is four million; the largest public images have about two million files.
const INODE_BYTES: u64 = 256;
/// Permissions of the root and of directories that no entry describes.
const DIRECTORY_MODE: u32 = 0o755;
/// Permissions of symbolic links: what Linux shows for each of them, symlink(7).
const SYMLINK_MODE: u32 = 0o777;
/// Device numbers that Linux has: 12 bits major, 20 bits minor (linux/kdev_t.h).
const MAJOR_MAX: u32 = (1 << 12) - 1;
const MINOR_MAX: u32 = (1 << 20) - 1;

/// Applies layers on one another.
#[derive(Debug)]
pub struct Merger {
    tree: Tree,
    hard_links_count: usize,
    layers_count: usize,
    layers_max: usize,
    entries_count: u64,
    entries_max: u64,
    metadata_bytes: u64,
    metadata_bytes_max: u64,
    inodes_max: usize,
    path_bytes_max: usize,
    name_bytes_max: usize,
}

impl Merger {
    /// A merger that has seen no layer: its tree is an empty root, 0755 root:root of 1970.
    pub fn new(limits: &Limits) -> Self {
        Self {
            tree: Tree { inodes: vec![implied_directory()] },
            hard_links_count: 0,
            layers_count: 0,
            layers_max: limits.layers_count.min(usize::from(u16::MAX)),
            entries_count: 0,
            entries_max: limits.entries_count,
            metadata_bytes: 0,
            metadata_bytes_max: limits.metadata_bytes,
            // Inodes are numbered in 32 bits.
            inodes_max: (limits.metadata_bytes / INODE_BYTES).min(u64::from(u32::MAX)) as usize,
            path_bytes_max: limits.path_bytes,
            name_bytes_max: limits.name_bytes,
        }
    }

    /// Applies the next layer, lowest first.
    ///
    /// An entry whose parent path leads through symbolic links goes where they lead, inside the root; directories
    /// without an entry are made 0755 root:root of 1970. Character devices 0:0 are left out, as overlayfs would
    /// take them for whiteouts: what a lower layer has at their names stays.
    ///
    /// # Errors
    /// [`TreeError`]; the merger must not be used any further then.
    pub fn add_layer(&mut self, entries: Vec<Entry>) -> Result<(), TreeError> {
        if self.layers_count >= self.layers_max {
            return Err(TreeError::Layers { max: self.layers_max });
        }
        let layer = self.layers_count as u16;
        self.layers_count += 1;
        self.count(layer, &entries)?;
        let mut steps = STEPS_MAX;
        whiteout::apply(&mut self.tree, &entries, &mut steps).map_err(|(index, problem)| {
            let entry = &entries[index];
            at(layer, &entry.path, entry.header_offset, problem)
        })?;
        let mut apply = Layer { merger: self, layer, steps, parent: None, devices_left_out: 0 };
        for mut entry in entries {
            let path = std::mem::take(&mut entry.path);
            let header_offset = entry.header_offset;
            apply.entry(&path, entry).map_err(|problem| at(layer, &path, header_offset, problem))?;
        }
        if apply.devices_left_out > 0 {
            tracing::warn!(
                layer,
                count = apply.devices_left_out,
                "character devices 0:0 were left out; overlayfs would take them for whiteouts"
            );
        }
        Ok(())
    }

    /// Counts the entries of a layer against what those of all layers may take.
    fn count(&mut self, layer: u16, entries: &[Entry]) -> Result<(), TreeError> {
        self.entries_count = self.entries_count.saturating_add(entries.len() as u64);
        if self.entries_count > self.entries_max {
            return Err(TreeError::Entries { layer, count: self.entries_count, max: self.entries_max });
        }
        let bytes: u64 = entries.iter().map(Entry::metadata_bytes).sum();
        self.metadata_bytes = self.metadata_bytes.saturating_add(bytes);
        if self.metadata_bytes > self.metadata_bytes_max {
            return Err(TreeError::Metadata { layer, max: self.metadata_bytes_max });
        }
        Ok(())
    }

    /// The merged tree.
    pub fn finish(mut self) -> Tree {
        count_links(&mut self.tree);
        self.tree
    }
}

/// One layer being applied.
struct Layer<'a> {
    merger: &'a mut Merger,
    layer: u16,
    steps: u64,
    /// The parent path of the last entry and where it led: neighbours in an archive are neighbours in the tree.
    parent: Option<(Box<[u8]>, InodeId)>,
    devices_left_out: u64,
}

impl Layer<'_> {
    fn entry(&mut self, path: &[u8], entry: Entry) -> Result<(), Problem> {
        if whiteout::meaning(path)? != Meaning::Plain {
            return Ok(());
        }
        if path.is_empty() {
            if entry.kind != EntryKind::Directory {
                return Err(Problem::RootKind);
            }
            return describe(&mut self.merger.tree.inodes[0], entry);
        }
        if let EntryKind::CharDevice { major: 0, minor: 0 } = entry.kind {
            self.devices_left_out += 1;
            return Ok(());
        }
        let (parent_path, name) = whiteout::split(path);
        let target = match &entry.kind {
            EntryKind::HardLink(target) => Some(self.link_target(target)?),
            _ => None,
        };
        let parent = self.parent(parent_path)?;
        if let Some(target) = target {
            self.merger.hard_links_count += 1;
            if self.merger.hard_links_count > self.merger.inodes_max {
                return Err(Problem::Inodes(self.merger.inodes_max));
            }
            self.set(parent, name, target);
            return Ok(());
        }
        if entry.kind == EntryKind::Directory
            && let Some(existing) = self.merger.tree.child(parent, name)
            && self.merger.tree.children(existing).is_some()
        {
            return describe(&mut self.merger.tree.inodes[existing.0 as usize], entry);
        }
        let inode = self.inode(entry)?;
        let id = self.add(inode)?;
        self.set(parent, name, id);
        Ok(())
    }

    /// The inode that `entry` describes. Not for hard links.
    fn inode(&self, mut entry: Entry) -> Result<Inode, Problem> {
        let device = |major, minor| {
            if major > MAJOR_MAX || minor > MINOR_MAX { Err(Problem::Device(major, minor)) } else { Ok(()) }
        };
        let kind = match std::mem::replace(&mut entry.kind, EntryKind::Fifo) {
            EntryKind::File(data) => Kind::File { layer: self.layer, data },
            EntryKind::Directory => Kind::Directory(BTreeMap::new()),
            EntryKind::Symlink(target) => {
                if target.is_empty() || target.len() > self.merger.path_bytes_max || target.contains(&0) {
                    return Err(Problem::SymlinkTarget);
                }
                entry.mode = SYMLINK_MODE;
                Kind::Symlink(target)
            }
            EntryKind::CharDevice { major, minor } => {
                device(major, minor)?;
                Kind::CharDevice { major, minor }
            }
            EntryKind::BlockDevice { major, minor } => {
                device(major, minor)?;
                Kind::BlockDevice { major, minor }
            }
            EntryKind::Fifo | EntryKind::HardLink(_) => Kind::Fifo,
        };
        let mut inode = Inode { kind, ..implied_directory() };
        describe(&mut inode, entry)?;
        Ok(inode)
    }

    fn add(&mut self, inode: Inode) -> Result<InodeId, Problem> {
        let inodes_max = self.merger.inodes_max;
        let inodes = &mut self.merger.tree.inodes;
        if inodes.len() >= inodes_max {
            return Err(Problem::Inodes(inodes_max));
        }
        inodes.push(inode);
        Ok(InodeId((inodes.len() - 1) as u32))
    }

    /// Gives `id` the name `name` in `parent`, whatever had it before.
    fn set(&mut self, parent: InodeId, name: &[u8], id: InodeId) {
        let tree = &mut self.merger.tree;
        // A link may come to stand where the way to the cached parent led through a missing name and back by `..`.
        if matches!(tree.inode(id).kind, Kind::Symlink(_)) {
            self.parent = None;
        }
        let Kind::Directory(children) = &mut tree.inodes[parent.0 as usize].kind else { return };
        let Some(slot) = children.get_mut(name) else {
            children.insert(name.into(), id);
            return;
        };
        let replaced = std::mem::replace(slot, id);
        // Only these can be part of the way to a cached parent.
        if matches!(tree.inode(replaced).kind, Kind::Directory(_) | Kind::Symlink(_)) {
            self.parent = None;
        }
    }

    /// The directory that `path` leads to, made if it is missing.
    fn parent(&mut self, path: &[u8]) -> Result<InodeId, Problem> {
        if let Some((cached, id)) = &self.parent
            && **cached == *path
        {
            return Ok(*id);
        }
        let Resolved { mut directory, depth, missing } = self.walk(path)?;
        if depth + missing.len() > DEPTH_MAX {
            return Err(Problem::Depth(DEPTH_MAX));
        }
        for name in missing {
            let name_bytes_max = self.merger.name_bytes_max;
            if name.len() > name_bytes_max || name.contains(&0) {
                return Err(Problem::Name(name_bytes_max));
            }
            let made = self.add(implied_directory())?;
            self.set(directory, &name, made);
            directory = made;
        }
        self.parent = Some((path.into(), directory));
        Ok(directory)
    }

    fn walk(&mut self, path: &[u8]) -> Result<Resolved, Problem> {
        let walk = Walk { steps: &mut self.steps, shadowed: None };
        let resolved = resolve::directory(&self.merger.tree, path, walk)?;
        Ok(resolved.expect("a walk without shadowed paths always ends somewhere"))
    }

    /// What the hard link target `path` names: links on the way are followed, the last name is not.
    fn link_target(&mut self, path: &[u8]) -> Result<InodeId, Problem> {
        let text = || String::from_utf8_lossy(path).into_owned();
        let (parent, name) = whiteout::split(path);
        let cached = self.parent.as_ref().filter(|(cached, _)| **cached == *parent).map(|(_, id)| *id);
        let directory = match cached {
            Some(id) => id,
            None => {
                let found = self.walk(parent)?;
                if !found.missing.is_empty() {
                    return Err(Problem::LinkMissing(text()));
                }
                found.directory
            }
        };
        if path.is_empty() {
            return Err(Problem::LinkDirectory("/".into()));
        }
        let target = self.merger.tree.child(directory, name).ok_or_else(|| Problem::LinkMissing(text()))?;
        match self.merger.tree.inode(target).kind {
            Kind::Directory(_) => Err(Problem::LinkDirectory(text())),
            _ => Ok(target),
        }
    }
}

fn at(layer: u16, path: &[u8], header_offset: u64, problem: Problem) -> TreeError {
    TreeError::Entry { layer, path: String::from_utf8_lossy(path).into_owned(), header_offset, problem }
}

fn implied_directory() -> Inode {
    Inode {
        kind: Kind::Directory(BTreeMap::new()),
        mode: DIRECTORY_MODE,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Vec::new(),
        links: 0,
    }
}

/// Gives `inode` the owner, mode, time and attributes of `entry`.
fn describe(inode: &mut Inode, entry: Entry) -> Result<(), Problem> {
    inode.xattrs = xattrs::canonical(entry.xattrs)?;
    inode.mode = entry.mode & 0o7777;
    inode.uid = entry.uid;
    inode.gid = entry.gid;
    inode.mtime = entry.mtime;
    Ok(())
}

/// Counts the names of each inode that is reachable from the root, and empties directories that are not.
fn count_links(tree: &mut Tree) {
    let mut links = vec![0u32; tree.inodes.len()];
    links[0] = 2;
    let mut directories = vec![Tree::ROOT];
    while let Some(directory) = directories.pop() {
        for &child in tree.children(directory).into_iter().flatten().map(|(_, child)| child) {
            if tree.children(child).is_some() {
                links[directory.0 as usize] += 1;
                links[child.0 as usize] = 2;
                directories.push(child);
            } else {
                links[child.0 as usize] += 1;
            }
        }
    }
    for (inode, links) in tree.inodes.iter_mut().zip(links) {
        inode.links = links;
        if links == 0
            && let Kind::Directory(children) = &mut inode.kind
        {
            children.clear();
        }
    }
}
