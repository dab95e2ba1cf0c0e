//! The writer: measure every inode, give each its place, then fill the bytes in.

use std::io;

use crate::Digest;
use crate::tree::{Inode, InodeId, Kind, Tree};

use super::chunks::{self, Cut, Piece};
use super::directory::{self, Name};
use super::format::*;
use super::xattr::{self, Shared};
use super::{Device, ErofsError};

/// Bytes of an index. Two million files take about 250 MB; a sparse file made to be expensive could take terabytes.
pub const INDEX_BYTES_MAX: u64 = 1 << 30;
/// No place in the order yet.
const NOT_SEEN: u32 = u32::MAX;

/// Reads the tar of a layer at an offset, filling the slice.
pub type Content<'a> = dyn FnMut(u16, u64, &mut [u8]) -> io::Result<()> + 'a;

/// The index of `tree`, whose layers are `devices`, the lowest first.
///
/// `content` is asked for chunks of sparse files that no block of the tar holds as they are, and for nothing else.
///
/// # Errors
/// [`ErofsError::Inode`] if the tree is none or has what EROFS cannot say, [`ErofsError::TooLarge`],
/// [`ErofsError::Device`], and [`ErofsError::Content`] with what `content` answered.
pub fn write(tree: &Tree, devices: &[Device], content: &mut Content<'_>) -> Result<Vec<u8>, ErofsError> {
    check_devices(devices)?;
    let order = Order::of(tree)?;
    let shared = Shared::collect(tree, &order.inodes)?;
    let layout = Layout::of(tree, devices, &order, &shared)?;
    let mut writer = Writer { tree, devices, order: &order, layout: &layout, bytes: vec![0; layout.bytes()] };
    writer.devices();
    writer.bytes[layout.shared_at as usize..][..shared.bytes.len()].copy_from_slice(&shared.bytes);
    for (number, &id) in order.inodes.iter().enumerate() {
        writer.inode(number, id);
        writer.body(number, id, content)?;
    }
    writer.superblock();
    Ok(writer.bytes)
}

fn check_devices(devices: &[Device]) -> Result<(), ErofsError> {
    // The largest block number means a hole.
    let fits = |device: &Device| device.tar_bytes / BLOCK_BYTES < u64::from(HOLE);
    match devices.iter().position(|device| !fits(device)) {
        Some(bad) => Err(ErofsError::Device(bad)),
        None if devices.len() > usize::from(u16::MAX) => Err(ErofsError::Device(usize::from(u16::MAX))),
        None => Ok(()),
    }
}

/// The inodes in the order they are written: breadth first, so that a directory's inodes are neighbours.
struct Order {
    inodes: Vec<InodeId>,
    /// By inode id: its place in `inodes`.
    number: Vec<u32>,
    /// By inode id: the place of the directory it is in. Right for directories only.
    parent: Vec<u32>,
}

impl Order {
    fn of(tree: &Tree) -> Result<Self, ErofsError> {
        let count = tree.inodes.len();
        let mut order =
            Self { inodes: vec![Tree::ROOT], number: vec![NOT_SEEN; count], parent: vec![0; count] };
        if tree.inodes.first().is_none_or(|root| !matches!(root.kind, Kind::Directory(_))) {
            return Err(ErofsError::Inode { path: String::new(), problem: "the root is not a directory" });
        }
        order.number[0] = 0;
        let mut next = 0;
        while let Some(&directory) = order.inodes.get(next) {
            for (name, &child) in tree.children(directory).into_iter().flatten() {
                if !is_name(name) {
                    return Err(ErofsError::inode(tree, directory, "a name in it is none"));
                }
                let Some(number) = order.number.get_mut(child.0 as usize) else {
                    return Err(ErofsError::inode(tree, directory, "a name in it has no inode"));
                };
                if *number == NOT_SEEN {
                    *number = order.inodes.len() as u32;
                    order.parent[child.0 as usize] = next as u32;
                    order.inodes.push(child);
                } else if tree.children(child).is_some() {
                    return Err(ErofsError::inode(tree, child, "the directory has more than one name"));
                }
            }
            next += 1;
        }
        Ok(order)
    }
}

fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_BYTES_MAX
        && !name.iter().any(|&byte| byte == 0 || byte == b'/')
}

/// What an inode has besides its 64 bytes and attributes.
#[derive(Debug, Clone, Copy)]
enum Body {
    /// Nothing: devices, fifos, empty files.
    Nothing,
    /// So many bytes behind it, in the same block.
    Inline { bytes: u64 },
    /// So many bytes from `at` of the data area on, in blocks of their own.
    Blocks { bytes: u64, at: u64 },
    /// A directory with whole blocks in the data area and the rest behind the inode.
    Both { bytes: u64, at: u64 },
    /// A chunk table behind it, and copies from `at` of the data area on.
    Chunks { cut: Cut, at: u64 },
}

/// An inode's place.
struct Place {
    /// Offset in the inode area.
    at: u64,
    xattrs: Vec<u8>,
    body: Body,
}

/// Where everything goes.
struct Layout {
    places: Vec<Place>,
    shared_at: u64,
    inodes_at: u64,
    data_at: u64,
    data_bytes: u64,
}

impl Layout {
    fn of(tree: &Tree, devices: &[Device], order: &Order, shared: &Shared<'_>) -> Result<Self, ErofsError> {
        let table_end = ((DEVICE_TABLE_SLOT + devices.len()) * DEVICE_SLOT_BYTES) as u64;
        let shared_at = round_up(table_end, BLOCK_BYTES);
        let inodes_at = round_up(shared_at + shared.bytes.len() as u64, BLOCK_BYTES);
        // Inode number 0 would be taken for a deleted file by readdir(3), so the first slot stays empty.
        let (mut cursor, mut data) = (SLOT_BYTES, 0);
        let mut places = Vec::with_capacity(order.inodes.len());
        for &id in &order.inodes {
            let xattrs = shared.encode(tree, id)?;
            let head = INODE_BYTES + xattrs.len() as u64;
            let body = measure(tree, devices, id, head, &mut data)?;
            let room_in_block = BLOCK_BYTES - cursor % BLOCK_BYTES;
            let (unbroken, whole) = match body {
                Body::Nothing | Body::Blocks { .. } => (INODE_BYTES, head),
                Body::Inline { bytes } => (head + bytes, head + bytes),
                Body::Both { bytes, .. } => (head + bytes % BLOCK_BYTES, head + bytes % BLOCK_BYTES),
                Body::Chunks { cut, .. } => (INODE_BYTES, round_up(head, 8) + cut.count * CHUNK_INDEX_BYTES),
            };
            if unbroken > room_in_block {
                cursor += room_in_block;
            }
            places.push(Place { at: cursor, xattrs, body });
            cursor = round_up(cursor + whole, SLOT_BYTES);
            if cursor.saturating_add(data) > INDEX_BYTES_MAX {
                return Err(ErofsError::TooLarge);
            }
        }
        let data_at = round_up(inodes_at + cursor, BLOCK_BYTES);
        Ok(Self { places, shared_at, inodes_at, data_at, data_bytes: data })
    }

    fn bytes(&self) -> usize {
        (self.data_at + self.data_bytes) as usize
    }

    fn nid(&self, number: u32) -> u64 {
        self.places[number as usize].at / SLOT_BYTES
    }
}

/// The body of inode `id`, whose inode and attributes take `head` bytes; takes its blocks from `data`.
fn measure(
    tree: &Tree,
    devices: &[Device],
    id: InodeId,
    head: u64,
    data: &mut u64,
) -> Result<Body, ErofsError> {
    let mut take = |bytes: u64| {
        let at = *data;
        *data = round_up(at.saturating_add(bytes), BLOCK_BYTES).min(u64::MAX / 2);
        at
    };
    match &tree.inode(id).kind {
        Kind::Directory(children) => {
            let names = directory::with_dots(children.keys().map(|name| (&**name, ())), (), ());
            let bytes = directory::measure(names.map(|(name, ())| name));
            let tail = bytes % BLOCK_BYTES;
            Ok(if tail == 0 || head + tail > BLOCK_BYTES {
                Body::Blocks { bytes, at: take(bytes) }
            } else if bytes < BLOCK_BYTES {
                Body::Inline { bytes }
            } else {
                Body::Both { bytes, at: take(bytes - tail) }
            })
        }
        Kind::Symlink(target) => {
            let bytes = target.len() as u64;
            if bytes == 0 || bytes >= 4096 {
                return Err(ErofsError::inode(tree, id, "its target is empty or longer than 4,095 bytes"));
            }
            let is_inline = head + bytes <= BLOCK_BYTES;
            Ok(if is_inline { Body::Inline { bytes } } else { Body::Blocks { bytes, at: take(bytes) } })
        }
        Kind::File { data, .. } if data.size_bytes == 0 => Ok(Body::Nothing),
        Kind::File { layer, data } => {
            let Some(device) = devices.get(usize::from(*layer)) else {
                return Err(ErofsError::inode(tree, id, "its layer has no device"));
            };
            if data.size_bytes > i64::MAX as u64 || !chunks::is_sound(data, device.tar_bytes) {
                return Err(ErofsError::inode(
                    tree,
                    id,
                    "its data is not within its size and its layer's tar",
                ));
            }
            let runs = chunks::runs(&data.segments);
            let file = chunks::File { size_bytes: data.size_bytes, runs: &runs, tar_bytes: device.tar_bytes };
            let cut = file.cut();
            if cut.count.saturating_mul(CHUNK_INDEX_BYTES).saturating_add(cut.own_bytes) > INDEX_BYTES_MAX {
                return Err(ErofsError::inode(
                    tree,
                    id,
                    "its holes are too many and too unaligned to be indexed",
                ));
            }
            Ok(Body::Chunks { cut, at: take(cut.own_bytes) })
        }
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => Ok(Body::Nothing),
    }
}

struct Writer<'a> {
    tree: &'a Tree,
    devices: &'a [Device],
    order: &'a Order,
    layout: &'a Layout,
    bytes: Vec<u8>,
}

impl Writer<'_> {
    fn put<const N: usize>(&mut self, at: u64, bytes: [u8; N]) {
        self.bytes[at as usize..][..N].copy_from_slice(&bytes);
    }

    fn devices(&mut self) {
        for (index, device) in self.devices.iter().enumerate() {
            let at = ((DEVICE_TABLE_SLOT + index) * DEVICE_SLOT_BYTES) as u64;
            let tag = device.diff_id.hex();
            self.bytes[at as usize..][..DEVICE_TAG_BYTES].copy_from_slice(tag.as_bytes());
            let blocks = device.tar_bytes.div_ceil(BLOCK_BYTES) as u32;
            self.put(at + DEVICE_TAG_BYTES as u64, blocks.to_le_bytes());
        }
    }

    fn superblock(&mut self) {
        let at = SUPER_OFFSET as u64;
        let layout = self.layout;
        let incompat =
            INCOMPAT_CHUNKED_FILE | if self.devices.is_empty() { 0 } else { INCOMPAT_DEVICE_TABLE };
        self.put(at, SUPER_MAGIC.to_le_bytes());
        self.put(at + 8, (COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        self.put(at + 12, [BLOCK_BITS, 0]);
        self.put(at + 14, (layout.nid(0) as u16).to_le_bytes());
        self.put(at + 16, (self.order.inodes.len() as u64).to_le_bytes());
        self.put(at + 36, ((layout.bytes() as u64 / BLOCK_BYTES) as u32).to_le_bytes());
        self.put(at + 40, ((layout.inodes_at / BLOCK_BYTES) as u32).to_le_bytes());
        self.put(at + 44, ((layout.shared_at / BLOCK_BYTES) as u32).to_le_bytes());
        self.put(at + 48, uuid(self.devices));
        self.put(at + 64, *b"celda");
        self.put(at + 80, incompat.to_le_bytes());
        self.put(at + 86, (self.devices.len() as u16).to_le_bytes());
        self.put(at + 88, (DEVICE_TABLE_SLOT as u16).to_le_bytes());
        let checksum = checksum(&self.bytes[SUPER_OFFSET..][..CHECKSUM_BYTES]);
        self.put(at + 4, checksum.to_le_bytes());
    }

    fn inode(&mut self, number: usize, id: InodeId) {
        let inode = self.tree.inode(id);
        let place = &self.layout.places[number];
        let at = self.layout.inodes_at + place.at;
        let (layout, size, specific) = self.shape(inode, place.body);
        self.put(at, inode_format(layout).to_le_bytes());
        self.put(at + 2, xattr::body_units(place.xattrs.len()).to_le_bytes());
        self.put(at + 4, mode(inode).to_le_bytes());
        self.put(at + 8, size.to_le_bytes());
        self.put(at + 16, specific.to_le_bytes());
        self.put(at + 20, (number as u32 + 1).to_le_bytes());
        self.put(at + 24, inode.uid.to_le_bytes());
        self.put(at + 28, inode.gid.to_le_bytes());
        self.put(at + 32, inode.mtime.seconds.to_le_bytes());
        self.put(at + 40, inode.mtime.nanoseconds.to_le_bytes());
        self.put(at + 44, inode.links.to_le_bytes());
        self.bytes[(at + INODE_BYTES) as usize..][..place.xattrs.len()].copy_from_slice(&place.xattrs);
    }

    /// Data layout, size and the field that means something else for each kind.
    fn shape(&self, inode: &Inode, body: Body) -> (u16, u64, u32) {
        let block = |at: u64| ((self.layout.data_at + at) / BLOCK_BYTES) as u32;
        match (body, &inode.kind) {
            (Body::Inline { bytes }, _) => (LAYOUT_INLINE, bytes, HOLE),
            (Body::Both { bytes, at }, _) => (LAYOUT_INLINE, bytes, block(at)),
            (Body::Blocks { bytes, at }, _) => (LAYOUT_PLAIN, bytes, block(at)),
            (Body::Chunks { cut, .. }, Kind::File { data, .. }) => {
                (LAYOUT_CHUNKS, data.size_bytes, u32::from(CHUNK_INDEXES | u16::from(cut.bits)))
            }
            (_, Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }) => {
                (LAYOUT_PLAIN, 0, encode_device(*major, *minor))
            }
            (_, Kind::File { .. }) => (LAYOUT_PLAIN, 0, HOLE),
            _ => (LAYOUT_PLAIN, 0, 0),
        }
    }

    fn body(&mut self, number: usize, id: InodeId, content: &mut Content<'_>) -> Result<(), ErofsError> {
        let layout = self.layout;
        let place = &layout.places[number];
        let behind = layout.inodes_at + place.at + INODE_BYTES + place.xattrs.len() as u64;
        let data = |at: u64| layout.data_at + at;
        match (&self.tree.inode(id).kind, place.body) {
            (Kind::Directory(_), Body::Inline { bytes }) => {
                let encoded = self.directory(number, id, bytes);
                self.fill(behind, &encoded);
            }
            (Kind::Directory(_), Body::Blocks { bytes, at }) => {
                let encoded = self.directory(number, id, bytes);
                self.fill(data(at), &encoded);
            }
            (Kind::Directory(_), Body::Both { bytes, at }) => {
                let encoded = self.directory(number, id, bytes);
                let (blocks, tail) = encoded.split_at((bytes - bytes % BLOCK_BYTES) as usize);
                self.fill(data(at), blocks);
                self.fill(behind, tail);
            }
            (Kind::Symlink(target), Body::Inline { .. }) => self.fill(behind, target),
            (Kind::Symlink(target), Body::Blocks { at, .. }) => self.fill(data(at), target),
            (Kind::File { .. }, Body::Chunks { cut, at }) => {
                self.chunks(id, cut, round_up(behind, CHUNK_INDEX_BYTES), data(at), content)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn fill(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn directory(&self, number: usize, id: InodeId, bytes: u64) -> Vec<u8> {
        let children = self.tree.children(id).into_iter().flatten();
        let numbered = |child: InodeId| (self.order.number[child.0 as usize], child);
        let parent = self.order.parent[id.0 as usize];
        let names = directory::with_dots(
            children.map(|(name, &child)| (&**name, numbered(child))),
            (number as u32, id),
            // Any directory's type will do for the dots.
            (parent, id),
        );
        let names: Vec<Name<'_>> = names
            .map(|(name, (number, child))| Name {
                name,
                nid: self.layout.nid(number),
                file_type: file_type(mode(self.tree.inode(child))),
            })
            .collect();
        let mut encoded = vec![0; bytes as usize];
        directory::encode(&names, &mut encoded);
        encoded
    }

    fn chunks(
        &mut self,
        id: InodeId,
        cut: Cut,
        table_at: u64,
        own_at: u64,
        content: &mut Content<'_>,
    ) -> Result<(), ErofsError> {
        let Kind::File { layer, data } = &self.tree.inode(id).kind else { return Ok(()) };
        let runs = chunks::runs(&data.segments);
        let tar_bytes = self.devices[usize::from(*layer)].tar_bytes;
        let file = chunks::File { size_bytes: data.size_bytes, runs: &runs, tar_bytes };
        for chunk in 0..cut.count {
            self.put(table_at + chunk * CHUNK_INDEX_BYTES + 4, HOLE.to_le_bytes());
        }
        let mut next_own = own_at;
        let mut current: Option<(u64, u64)> = None;
        let mut result = Ok(());
        file.pieces(cut.bits, &mut |piece| {
            if result.is_err() {
                return;
            }
            match piece {
                Piece::Tar { chunk, block } => {
                    let entry = table_at + chunk * CHUNK_INDEX_BYTES;
                    self.put(entry + 2, (layer + 1).to_le_bytes());
                    self.put(entry + 4, block.to_le_bytes());
                }
                Piece::Own { chunk, at, tar_offset, length_bytes } => {
                    let copy = match current {
                        Some((open, copy)) if open == chunk => copy,
                        _ => {
                            let copy = next_own;
                            next_own += file.copy_bytes(chunk, cut.bits);
                            current = Some((chunk, copy));
                            let entry = table_at + chunk * CHUNK_INDEX_BYTES;
                            self.put(entry + 4, ((copy / BLOCK_BYTES) as u32).to_le_bytes());
                            copy
                        }
                    };
                    let into = &mut self.bytes[(copy + at) as usize..][..length_bytes as usize];
                    result = content(*layer, tar_offset, into).map_err(|source| ErofsError::Content {
                        layer: *layer,
                        tar_offset,
                        length_bytes,
                        source,
                    });
                }
            }
        });
        result
    }
}

fn mode(inode: &Inode) -> u16 {
    let kind = match inode.kind {
        Kind::File { .. } => S_IFREG,
        Kind::Directory(_) => S_IFDIR,
        Kind::Symlink(_) => S_IFLNK,
        Kind::CharDevice { .. } => S_IFCHR,
        Kind::BlockDevice { .. } => S_IFBLK,
        Kind::Fifo => S_IFIFO,
    };
    kind | (inode.mode & 0o7777) as u16
}

/// A UUID of version 8 (RFC 9562: custom) from the layers.
fn uuid(devices: &[Device]) -> [u8; 16] {
    let chain = devices
        .iter()
        .fold(None, |parent: Option<Digest>, device| Some(Digest::chain(parent.as_ref(), &device.diff_id)));
    let mut uuid = [0; 16];
    if let Some(chain) = chain {
        uuid.copy_from_slice(&chain.as_bytes()[..16]);
    }
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}
