//! The parser: an index back to a tree, every offset and count in it checked.
//!
//! An index that the parser accepts costs no more memory than a few times its own length and
//! `Limits::metadata_bytes`: inodes are at distinct offsets, and what could be referred to many times over
//! (directory blocks, chunk tables, shared attributes) is counted against a budget.

use std::collections::{BTreeMap, HashMap};

use crate::tar::{FileData, Segment, Timestamp, Xattr};
use crate::tree::{Inode, InodeId, Kind, Tree};
use crate::{Digest, Limits};

use super::chunks::chunk_bytes;
use super::format::*;
use super::{Device, ErofsError, directory, xattr};

/// An index as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The layers' tars, lengths rounded up to whole blocks.
    pub devices: Vec<Device>,
    /// What is mounted. Files have the segments that lie in their layer's tar; those without any have layer 0.
    pub tree: Tree,
    /// Stretches of files that were copied into the index, by file, ascending.
    pub own: BTreeMap<InodeId, Vec<OwnExtent>>,
}

/// A stretch of a file that lies in the index itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnExtent {
    /// Where it starts in the file.
    pub logical_offset: u64,
    /// Where it starts in the index.
    pub index_offset: u64,
    /// How long it is.
    pub length_bytes: u64,
}

/// Reads an index.
///
/// # Errors
/// [`ErofsError::Broken`] with the offset of what [`write()`](super::write()) would not have written.
pub fn parse(index: &[u8], limits: &Limits) -> Result<Index, ErofsError> {
    let image = Image { bytes: index };
    let root = image.superblock()?;
    let devices = image.devices(limits)?;
    let mut reader = Reader {
        image: &image,
        devices: &devices,
        tree: Tree { inodes: Vec::new() },
        own: BTreeMap::new(),
        ids: HashMap::new(),
        nids: Vec::new(),
        parents: Vec::new(),
        metadata_budget: limits.metadata_bytes,
        data_budget: index.len() as u64,
        symlink_bytes_max: limits.path_bytes as u64,
    };
    reader.reach(root, root);
    let mut next = 0;
    while next < reader.nids.len() {
        reader.inode(next)?;
        next += 1;
    }
    reader.check_links()?;
    Ok(Index { tree: reader.tree, own: reader.own, devices })
}

fn broken<T>(at: u64, what: &'static str) -> Result<T, ErofsError> {
    Err(ErofsError::Broken { at, what })
}

/// Bounds-checked little-endian reads.
struct Image<'a> {
    bytes: &'a [u8],
}

impl<'a> Image<'a> {
    fn slice(&self, at: u64, length: u64) -> Result<&'a [u8], ErofsError> {
        let range = at
            .checked_add(length)
            .and_then(|end| Some(usize::try_from(at).ok()?..usize::try_from(end).ok()?));
        match range.and_then(|range| self.bytes.get(range)) {
            Some(slice) => Ok(slice),
            None => broken(at, "something lies past its end"),
        }
    }

    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], ErofsError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(at, N as u64)?);
        Ok(array)
    }

    fn u16(&self, at: u64) -> Result<u16, ErofsError> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    fn u32(&self, at: u64) -> Result<u32, ErofsError> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(&self, at: u64) -> Result<u64, ErofsError> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    /// Checks the superblock and returns the number of the root.
    fn superblock(&self) -> Result<u64, ErofsError> {
        let at = SUPER_OFFSET as u64;
        if self.u32(at)? != SUPER_MAGIC {
            return broken(at, "no EROFS superblock");
        }
        let mut sum = self.slice(at, CHECKSUM_BYTES as u64)?.to_vec();
        sum[4..8].fill(0);
        if self.u32(at + 4)? != checksum(&sum) {
            return broken(at + 4, "the superblock's checksum is wrong");
        }
        let known = INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE;
        if self.array(at + 12)? != [BLOCK_BITS, 0] || self.u32(at + 80)? & !known != 0 {
            return broken(at, "an EROFS image, but no tar index of celda");
        }
        if u64::from(self.u32(at + 36)?) * BLOCK_BYTES != self.bytes.len() as u64 {
            return broken(at + 36, "the superblock has another length");
        }
        Ok(u64::from(self.u16(at + 14)?))
    }

    fn inodes_at(&self) -> Result<u64, ErofsError> {
        Ok(u64::from(self.u32(SUPER_OFFSET as u64 + 40)?) * BLOCK_BYTES)
    }

    fn shared_at(&self) -> Result<u64, ErofsError> {
        Ok(u64::from(self.u32(SUPER_OFFSET as u64 + 44)?) * BLOCK_BYTES)
    }

    fn devices(&self, limits: &Limits) -> Result<Vec<Device>, ErofsError> {
        let at = SUPER_OFFSET as u64;
        let count = usize::from(self.u16(at + 86)?);
        let table = u64::from(self.u16(at + 88)?) * DEVICE_SLOT_BYTES as u64;
        if count > limits.layers_count {
            return broken(at + 86, "more devices than an image may have layers");
        }
        (0..count as u64)
            .map(|index| {
                let slot = table + index * DEVICE_SLOT_BYTES as u64;
                let tag = self.slice(slot, DEVICE_TAG_BYTES as u64)?;
                let diff_id =
                    std::str::from_utf8(tag).ok().and_then(|hex| format!("sha256:{hex}").parse().ok());
                let Some(diff_id): Option<Digest> = diff_id else {
                    return broken(slot, "a device's tag is no digest");
                };
                let blocks = self.u32(slot + DEVICE_TAG_BYTES as u64)?;
                Ok(Device { tar_bytes: u64::from(blocks) * BLOCK_BYTES, diff_id })
            })
            .collect()
    }
}

struct Reader<'a> {
    image: &'a Image<'a>,
    devices: &'a [Device],
    tree: Tree,
    own: BTreeMap<InodeId, Vec<OwnExtent>>,
    /// Inodes found so far, by number; read in the order of `nids`.
    ids: HashMap<u64, InodeId>,
    nids: Vec<u64>,
    /// By id: the number of the directory it was first found in.
    parents: Vec<u64>,
    metadata_budget: u64,
    data_budget: u64,
    symlink_bytes_max: u64,
}

/// The fields of an inode that the readers of its body need.
#[derive(Clone, Copy)]
struct Head {
    at: u64,
    /// Where its attributes end.
    behind: u64,
    layout: u16,
    size: u64,
    specific: u32,
}

impl Reader<'_> {
    /// The id of inode `nid`, which directory `parent` has an entry for, and whether this is its first one.
    fn reach(&mut self, nid: u64, parent: u64) -> (InodeId, bool) {
        let next = InodeId(self.nids.len() as u32);
        let id = *self.ids.entry(nid).or_insert(next);
        if id == next {
            self.nids.push(nid);
            self.parents.push(parent);
        }
        (id, id == next)
    }

    fn inode(&mut self, index: usize) -> Result<(), ErofsError> {
        let nid = self.nids[index];
        let image = self.image;
        let Some(at) = nid.checked_mul(SLOT_BYTES).and_then(|at| at.checked_add(image.inodes_at().ok()?))
        else {
            return broken(0, "an inode's number is too large");
        };
        image.slice(at, INODE_BYTES)?;
        let (format, mode) = (image.u16(at)?, image.u16(at + 4)?);
        let layout = format >> 1;
        if format != inode_format(layout) || ![LAYOUT_PLAIN, LAYOUT_INLINE, LAYOUT_CHUNKS].contains(&layout) {
            return broken(at, "an inode of a form that is not written");
        }
        let attributes = xattr::body_bytes(image.u16(at + 2)?) as u64;
        let head = Head {
            at,
            behind: at + INODE_BYTES + attributes,
            layout,
            size: image.u64(at + 8)?,
            specific: image.u32(at + 16)?,
        };
        let nanoseconds = image.u32(at + 40)?;
        if nanoseconds >= 1_000_000_000 {
            return broken(at + 40, "an inode's time has more than a second of nanoseconds");
        }
        let id = InodeId(index as u32);
        let xattrs = self.xattrs(at + INODE_BYTES, attributes)?;
        let kind = self.kind(id, nid, mode, head)?;
        self.tree.inodes.push(Inode {
            kind,
            mode: u32::from(mode & 0o7777),
            uid: image.u32(at + 24)?,
            gid: image.u32(at + 28)?,
            mtime: Timestamp { seconds: image.u64(at + 32)? as i64, nanoseconds },
            xattrs,
            links: image.u32(at + 44)?,
        });
        Ok(())
    }

    fn kind(&mut self, id: InodeId, nid: u64, mode: u16, head: Head) -> Result<Kind, ErofsError> {
        let (major, minor) = decode_device(head.specific);
        let kind = match mode & S_IFMT {
            S_IFDIR => return self.directory(nid, head),
            S_IFREG => return self.file(id, head),
            S_IFLNK => return self.symlink(head),
            S_IFCHR => Kind::CharDevice { major, minor },
            S_IFBLK => Kind::BlockDevice { major, minor },
            S_IFIFO => Kind::Fifo,
            _ => return broken(head.at + 4, "an inode of no kind"),
        };
        if head.size != 0 || head.layout != LAYOUT_PLAIN {
            return broken(head.at + 8, "a device or fifo with content");
        }
        Ok(kind)
    }

    /// The bytes of a directory or link target.
    fn flat(&mut self, head: Head) -> Result<Vec<u8>, ErofsError> {
        match self.data_budget.checked_sub(head.size) {
            Some(rest) => self.data_budget = rest,
            None => return broken(head.at + 8, "directories and links overlap"),
        }
        let start = u64::from(head.specific) * BLOCK_BYTES;
        match head.layout {
            LAYOUT_PLAIN => Ok(self.image.slice(start, head.size)?.to_vec()),
            LAYOUT_INLINE => {
                let tail = head.size % BLOCK_BYTES;
                if tail == 0 || head.behind % BLOCK_BYTES + tail > BLOCK_BYTES {
                    return broken(head.behind, "the tail of a directory or link crosses a block");
                }
                let mut bytes = Vec::new();
                if head.size > tail {
                    bytes.extend_from_slice(self.image.slice(start, head.size - tail)?);
                }
                bytes.extend_from_slice(self.image.slice(head.behind, tail)?);
                Ok(bytes)
            }
            _ => broken(head.at, "a directory or link with chunks"),
        }
    }

    fn symlink(&mut self, head: Head) -> Result<Kind, ErofsError> {
        if head.size == 0 || head.size > self.symlink_bytes_max {
            return broken(head.at + 8, "a link target of no possible length");
        }
        let target = self.flat(head)?;
        if target.contains(&0) {
            return broken(head.at, "a link target with a NUL");
        }
        Ok(Kind::Symlink(target.into()))
    }

    fn directory(&mut self, nid: u64, head: Head) -> Result<Kind, ErofsError> {
        let bytes = self.flat(head)?;
        let mut children = BTreeMap::new();
        let mut last: Vec<u8> = Vec::new();
        let mut dots = 0;
        for block in bytes.chunks(BLOCK_BYTES as usize) {
            let Some(names) = directory::decode(block) else {
                return broken(head.at, "a directory block is not sound");
            };
            for name in names {
                if name.name <= &last[..] || name.name.len() > NAME_BYTES_MAX || name.name.contains(&b'/') {
                    return broken(head.at, "a directory's names are out of order, or none");
                }
                last = name.name.to_vec();
                let expected = self.nid_of_dot(nid, name.name);
                if let Some(expected) = expected {
                    dots += 1;
                    if name.nid != expected || name.file_type != file_type(S_IFDIR) {
                        return broken(head.at, "a directory's dots lead elsewhere");
                    }
                    continue;
                }
                let (child, is_first) = self.reach(name.nid, nid);
                if name.file_type != file_type(self.mode_of(name.nid)?) {
                    return broken(head.at, "a directory entry has another type than its inode");
                }
                if name.file_type == file_type(S_IFDIR) && !is_first {
                    return broken(head.at, "a directory has more than one name");
                }
                children.insert(name.name.into(), child);
            }
        }
        if dots != 2 {
            return broken(head.at, "a directory without its dots");
        }
        Ok(Kind::Directory(children))
    }

    fn nid_of_dot(&self, nid: u64, name: &[u8]) -> Option<u64> {
        match name {
            b"." => Some(nid),
            b".." => Some(self.parents[self.ids[&nid].0 as usize]),
            _ => None,
        }
    }

    fn mode_of(&self, nid: u64) -> Result<u16, ErofsError> {
        let at = nid.checked_mul(SLOT_BYTES).and_then(|at| at.checked_add(self.image.inodes_at().ok()? + 4));
        at.map_or_else(|| broken(0, "an inode's number is too large"), |at| self.image.u16(at))
    }

    fn file(&mut self, id: InodeId, head: Head) -> Result<Kind, ErofsError> {
        let empty = |size_bytes| Kind::File { layer: 0, data: FileData { size_bytes, segments: Vec::new() } };
        match head.layout {
            LAYOUT_PLAIN if head.size == 0 => return Ok(empty(0)),
            LAYOUT_CHUNKS if head.size > 0 && head.size <= i64::MAX as u64 => {}
            _ => return broken(head.at, "a file without chunks"),
        }
        let bits = (head.specific & 0x1f) as u8;
        if head.specific != u32::from(CHUNK_INDEXES | u16::from(bits)) {
            return broken(head.at + 16, "a file's chunks are of a form that is not written");
        }
        let chunk = chunk_bytes(bits);
        let count = head.size.div_ceil(chunk);
        match count.checked_mul(CHUNK_INDEX_BYTES).and_then(|bytes| self.data_budget.checked_sub(bytes)) {
            Some(rest) => self.data_budget = rest,
            None => return broken(head.at, "more chunks than the index has room for"),
        }
        let table = round_up(head.behind, CHUNK_INDEX_BYTES);
        let mut data = FileData { size_bytes: head.size, segments: Vec::new() };
        let mut device = 0;
        for index in 0..count {
            let at = table + index * CHUNK_INDEX_BYTES;
            let (chunk_device, block) = (self.image.u16(at + 2)?, self.image.u32(at + 4)?);
            let logical_offset = index * chunk;
            let length_bytes = chunk.min(head.size - logical_offset);
            let offset = u64::from(block) * BLOCK_BYTES;
            if block == HOLE {
                continue;
            }
            if chunk_device == 0 {
                self.image.slice(offset, length_bytes)?;
                let extent = OwnExtent { logical_offset, index_offset: offset, length_bytes };
                self.own.entry(id).or_default().push(extent);
                continue;
            }
            let tar_bytes =
                self.devices.get(usize::from(chunk_device) - 1).map_or(0, |device| device.tar_bytes);
            if offset + length_bytes > tar_bytes || device != 0 && device != chunk_device {
                return broken(at, "a chunk lies past the end of its layer, or in another one than the file");
            }
            device = chunk_device;
            match data.segments.last_mut() {
                Some(last)
                    if last.logical_offset + last.length_bytes == logical_offset
                        && last.tar_offset + last.length_bytes == offset =>
                {
                    last.length_bytes += length_bytes;
                }
                _ => data.segments.push(Segment { logical_offset, tar_offset: offset, length_bytes }),
            }
        }
        Ok(Kind::File { layer: device.saturating_sub(1), data })
    }

    fn xattrs(&mut self, at: u64, length: u64) -> Result<Vec<Xattr>, ErofsError> {
        let mut xattrs = Vec::new();
        if length == 0 {
            return Ok(xattrs);
        }
        let image = self.image;
        let body = image.slice(at, length)?;
        let shared = u64::from(body[4]);
        let entries_at = XATTR_HEADER_BYTES as u64 + 4 * shared;
        let Some(mut entries) = body.get(entries_at as usize..) else {
            return broken(at, "more shared attributes than there is room for");
        };
        let mut add = |bytes: &[u8], from: u64| match xattr::decode_entry(bytes) {
            Some((xattr, taken)) => {
                let cost = (xattr.name.len() + xattr.value.len()) as u64;
                let Some(rest) = self.metadata_budget.checked_sub(cost) else {
                    return broken(from, "more extended attributes than an image may have");
                };
                self.metadata_budget = rest;
                xattrs.push(xattr);
                Ok(taken)
            }
            None => broken(from, "an extended attribute is not sound"),
        };
        for index in 0..shared {
            let id = image.u32(at + XATTR_HEADER_BYTES as u64 + 4 * index)?;
            let from = image.shared_at()? + 4 * u64::from(id);
            add(image.slice(from, (image.bytes.len() as u64).saturating_sub(from))?, from)?;
        }
        while !entries.is_empty() {
            let taken = add(entries, at)?;
            entries = &entries[taken..];
        }
        xattrs.sort();
        if xattrs.windows(2).any(|pair| pair[0].name == pair[1].name) {
            return broken(at, "an extended attribute is there twice");
        }
        Ok(xattrs)
    }

    /// Whether every inode has as many names as it says.
    fn check_links(&self) -> Result<(), ErofsError> {
        let mut links = vec![0u32; self.tree.inodes.len()];
        links[0] = 2;
        for (index, inode) in self.tree.inodes.iter().enumerate() {
            let Kind::Directory(children) = &inode.kind else { continue };
            for child in children.values().map(|child| child.0 as usize) {
                if matches!(self.tree.inodes[child].kind, Kind::Directory(_)) {
                    links[index] += 1;
                    links[child] = 2;
                } else {
                    links[child] += 1;
                }
            }
        }
        match self.tree.inodes.iter().zip(&links).position(|(inode, links)| inode.links != *links) {
            Some(wrong) => {
                broken(self.nids[wrong] * SLOT_BYTES, "an inode has another number of names than it says")
            }
            None if matches!(self.tree.inodes[0].kind, Kind::Directory(_)) => Ok(()),
            None => broken(0, "the root is not a directory"),
        }
    }
}
