//! A small image made by hand: a tree and the files that stand for its layers' tars.

use std::fs;
use std::path::{Path, PathBuf};

use celda_layerfs::erofs::{self, Device};
use celda_layerfs::tar::{FileData, Segment, Timestamp, Xattr};
use celda_layerfs::tree::{Inode, InodeId, Kind, Tree};
use celda_layerfs::{Digest, Limits, directory};

const BLOCK_BYTES: usize = 512;

/// A tree that grows, and the tars its files lie in.
pub(crate) struct Image {
    pub(crate) tree: Tree,
    tars: Vec<Vec<u8>>,
}

/// An image on disk, ready for every rung.
pub(crate) struct Files {
    pub(crate) index: PathBuf,
    pub(crate) tars: Vec<PathBuf>,
    pub(crate) rootfs: PathBuf,
}

impl Image {
    /// An empty root above `layers_count` empty layers.
    pub(crate) fn new(layers_count: usize) -> Self {
        let root = inode(Kind::Directory([].into()), 0o755);
        Self { tree: Tree { inodes: vec![root] }, tars: vec![vec![0; BLOCK_BYTES]; layers_count] }
    }

    /// Adds `inode` as `name` of `parent`.
    pub(crate) fn add(&mut self, parent: InodeId, name: &[u8], inode: Inode) -> InodeId {
        let id = InodeId(u32::try_from(self.tree.inodes.len()).unwrap());
        let is_directory = matches!(inode.kind, Kind::Directory(_));
        self.tree.inodes.push(inode);
        self.link(parent, name, id);
        if is_directory {
            self.tree.inodes[parent.0 as usize].links += 1;
            self.tree.inodes[id.0 as usize].links = 2;
        } else {
            self.tree.inodes[id.0 as usize].links = 1;
        }
        id
    }

    /// Gives an inode another name.
    pub(crate) fn link(&mut self, parent: InodeId, name: &[u8], id: InodeId) {
        let Kind::Directory(names) = &mut self.tree.inodes[parent.0 as usize].kind else {
            panic!("no directory")
        };
        assert!(names.insert(name.into(), id).is_none());
        self.tree.inodes[id.0 as usize].links += 1;
    }

    /// Without what the filesystem of `store` cannot hold when it is unpacked there: a tmpfs has no `user.*` attributes
    /// before Linux 6.6, and XFS no link target of more than 1023 bytes.
    pub(crate) fn for_directory(mut self, store: &Path) -> Self {
        let name = "user.probe";
        match rustix::fs::setxattr(store, name, b"", rustix::fs::XattrFlags::empty()) {
            Ok(()) => rustix::fs::removexattr(store, name).unwrap(),
            Err(_) => self
                .tree
                .inodes
                .iter_mut()
                .for_each(|inode| inode.xattrs.retain(|xattr| !xattr.name.starts_with(b"user."))),
        }
        let probe = store.join("probe");
        for inode in &mut self.tree.inodes {
            let Kind::Symlink(target) = &mut inode.kind else { continue };
            match rustix::fs::symlink(&**target, &probe) {
                Ok(()) => fs::remove_file(&probe).unwrap(),
                Err(error) => {
                    assert_eq!(error, rustix::io::Errno::NAMETOOLONG);
                    *target = target[..1023].into();
                }
            }
        }
        self
    }

    /// A directory.
    pub(crate) fn directory(&mut self, parent: InodeId, name: &[u8]) -> InodeId {
        self.add(parent, name, inode(Kind::Directory([].into()), 0o755))
    }

    /// A file whose runs `(logical offset, bytes)` are appended to the tar of `layer`.
    pub(crate) fn file(&mut self, layer: u16, size_bytes: u64, runs: &[(u64, &[u8])]) -> Inode {
        let tar = &mut self.tars[usize::from(layer)];
        let mut segments = Vec::new();
        for &(logical_offset, bytes) in runs {
            let (tar_offset, length_bytes) = (tar.len() as u64, bytes.len() as u64);
            segments.push(Segment { logical_offset, tar_offset, length_bytes });
            tar.extend_from_slice(bytes);
            tar.resize(tar.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        inode(Kind::File { layer, data: FileData { size_bytes, segments } }, 0o644)
    }

    /// A plain file.
    pub(crate) fn plain(&mut self, layer: u16, bytes: &[u8]) -> Inode {
        let runs: &[(u64, &[u8])] = if bytes.is_empty() { &[] } else { &[(0, bytes)] };
        self.file(layer, bytes.len() as u64, runs)
    }

    /// Writes tars, index and directory beneath `store`.
    pub(crate) fn write(&self, store: &Path) -> Files {
        let files = self.write_index(store);
        directory::unpack(&self.tree, &files.tars, &files.rootfs, &Limits::default()).unwrap();
        files
    }

    /// Writes tars and index beneath `store`.
    pub(crate) fn write_index(&self, store: &Path) -> Files {
        let mut devices = Vec::new();
        let mut tars = Vec::new();
        for (number, bytes) in self.tars.iter().enumerate() {
            let path = store.join(format!("{number}.tar"));
            fs::write(&path, bytes).unwrap();
            devices.push(Device { tar_bytes: bytes.len() as u64, diff_id: Digest::of(bytes) });
            tars.push(path);
        }
        let mut content = |layer: u16, offset: u64, into: &mut [u8]| {
            into.copy_from_slice(&self.tars[usize::from(layer)][offset as usize..][..into.len()]);
            Ok(())
        };
        let index = store.join("image.erofs");
        fs::write(&index, erofs::write(&self.tree, &devices, &mut content).unwrap()).unwrap();
        Files { index, tars, rootfs: store.join("trees/chain/rootfs") }
    }
}

/// An inode of root's, of a time with nanoseconds.
pub(crate) fn inode(kind: Kind, mode: u32) -> Inode {
    let mtime = Timestamp { seconds: 1_600_000_000, nanoseconds: 123_456_789 };
    Inode { kind, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new(), links: 0 }
}

/// An attribute.
pub(crate) fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().into(), value: value.into() }
}

/// One of everything that a layer may hold, over two layers.
pub(crate) fn one_of_each() -> Image {
    let mut image = Image::new(2);
    let root = Tree::ROOT;
    image.tree.inodes[0].mtime = Timestamp { seconds: 1_500_000_000, nanoseconds: 5 };
    let etc = image.directory(root, b"etc");
    let passwd = image.plain(0, b"root:x:0:0::/root:/bin/sh\n");
    let passwd = image.add(etc, b"passwd", passwd);
    image.link(root, b"passwd-link", passwd);
    let big: Vec<u8> = (0..300_001u32).map(|number| (number % 251) as u8).collect();
    let big = image.plain(1, &big);
    image.add(root, b"big", big);
    let empty = image.plain(0, b"");
    image.add(root, b"empty", empty);
    let sparse = image.file(1, 1 << 20, &[(4096, &[7; 5000]), (512 << 10, &[8; 512])]);
    image.add(root, b"sparse", sparse);
    let mut ping = image.plain(0, b"ping");
    (ping.mode, ping.gid) = (0o6755, 70_000);
    // vfs_cap_data revision 2 with CAP_NET_RAW permitted, effective (linux/capability.h)
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ping.xattrs = vec![xattr("security.capability", &capability), xattr("user.note", b"hi")];
    image.add(root, b"ping", ping);
    let mut far = inode(Kind::Directory([].into()), 0o1777);
    (far.uid, far.gid) = (100_000, 4_000_000_000);
    far.xattrs = vec![xattr("user.directory", b"\0\xff")];
    let tmp = image.add(root, b"tmp", far);
    image.add(
        tmp,
        b"\xff\xfe name",
        inode(Kind::Symlink(b"../../../../etc/shadow".as_slice().into()), 0o777),
    );
    image.add(root, &[b'n'; 255], inode(Kind::Symlink(vec![b't'; 4000].into()), 0o777));
    image.add(root, b"fifo", inode(Kind::Fifo, 0o620));
    image.add(root, b"char", inode(Kind::CharDevice { major: 1, minor: 3 }, 0o666));
    image.add(root, b"block", inode(Kind::BlockDevice { major: 259, minor: 70_000 }, 0o660));
    let mut deep = root;
    for _ in 0..100 {
        deep = image.directory(deep, b"deep");
    }
    let bottom = image.plain(1, b"bottom");
    image.add(deep, b"bottom", bottom);
    image
}
