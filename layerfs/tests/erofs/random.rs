//! Random trees there and back, and indexes with bytes changed.

use celda_layerfs::erofs::{self, Device};
use celda_layerfs::tar::{Entry, EntryKind, FileData, Segment, Timestamp, Xattr};
use celda_layerfs::tree::{InodeId, Merger, Tree};
use celda_layerfs::{Digest, Limits};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::entries::xattr;

const TAR_BYTES: u64 = 40_000;
const LAYERS_COUNT: usize = 3;

/// A tar's bytes, made up: a function of where they are.
fn content(layer: u16, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
    assert!(offset + into.len() as u64 <= TAR_BYTES);
    for (at, byte) in (offset..).zip(into) {
        *byte = (at.wrapping_mul(31) ^ at >> 9 ^ u64::from(layer)) as u8 | 1;
    }
    Ok(())
}

fn devices() -> Vec<Device> {
    let device = |layer: usize| Device { tar_bytes: TAR_BYTES, diff_id: Digest::of(&[layer as u8]) };
    (0..LAYERS_COUNT).map(device).collect()
}

/// Runs with gaps between them, in the file and in the tar, some on blocks and some not.
fn file() -> impl Strategy<Value = EntryKind> {
    let run = (0u64..3000, 0u64..600, 1u64..3000, any::<bool>());
    (vec(run, 0..8), 0u64..5000, prop_oneof![4 => Just(1u64), 1 => Just(1 << 20)]).prop_map(
        |(runs, tail, stretch)| {
            let (mut logical, mut tar) = (0, 512);
            let mut segments = Vec::new();
            for (hole, skip, length_bytes, is_aligned) in runs {
                let (mut logical_offset, mut tar_offset) =
                    (logical + hole / 500 * hole * stretch, tar + skip);
                if is_aligned || segments.is_empty() {
                    logical_offset = logical_offset.next_multiple_of(512);
                    tar_offset = tar_offset.next_multiple_of(512);
                }
                if tar_offset + length_bytes > TAR_BYTES {
                    break;
                }
                segments.push(Segment { logical_offset, tar_offset, length_bytes });
                (logical, tar) = (logical_offset + length_bytes, tar_offset + length_bytes);
            }
            EntryKind::File(FileData { size_bytes: logical + tail / 1000 * tail * stretch, segments })
        },
    )
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "[a-d]".prop_map(String::into_bytes),
        2 => vec(1u8..=255, 1..20),
        1 => vec(b'-'..b'1', 100..=255),
    ]
    .prop_map(|name: Vec<u8>| name.into_iter().map(|byte| if byte == b'/' { b'_' } else { byte }).collect())
    .prop_filter("no name", |name: &Vec<u8>| !matches!(&name[..], b"." | b"..") && !name.starts_with(b".wh."))
}

fn attributes() -> impl Strategy<Value = Vec<Xattr>> {
    let value = prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 400..3000), Just(b"same".to_vec())];
    let named = ("(user|trusted|security)\\.[ab]{1,2}", value).prop_map(|(name, value)| xattr(&name, &value));
    prop_oneof![3 => Just(Vec::new()), 1 => vec(named, 1..5)]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        6 => file(),
        6 => Just(EntryKind::Directory),
        2 => vec(1u8..=255, 1..700).prop_map(|target| EntryKind::Symlink(target.into())),
        2 => name().prop_map(|target| EntryKind::HardLink(target.into())),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
        1 => Just(EntryKind::Fifo),
    ];
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<i64>(), 0u32..1_000_000_000);
    (vec(name(), 1..4), kind, attributes(), numbers).prop_map(
        |(names, kind, xattrs, (mode, uid, gid, seconds, nanoseconds))| Entry {
            path: names.join(&b'/').into(),
            kind,
            mode,
            uid,
            gid,
            mtime: Timestamp { seconds, nanoseconds },
            xattrs,
            header_offset: 0,
        },
    )
}

/// Merges what can be merged: an entry that cannot be is left out.
fn merge(mut layers: Vec<Vec<Entry>>) -> Tree {
    loop {
        let mut merger = Merger::new(&Limits::default());
        let bad = layers.iter_mut().find_map(|layer| {
            layer.iter_mut().zip(0u64..).for_each(|(entry, index)| entry.header_offset = index);
            match merger.add_layer(layer.clone()) {
                Ok(()) => None,
                Err(celda_layerfs::tree::TreeError::Entry { header_offset, .. }) => {
                    layer.remove(header_offset as usize);
                    Some(())
                }
                Err(other) => panic!("{other}"),
            }
        });
        if bad.is_none() {
            return merger.finish();
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    vec(vec(any_entry(), 0..60), LAYERS_COUNT).prop_map(merge)
}

fn write(tree: &Tree) -> Vec<u8> {
    erofs::write(tree, &devices(), &mut content).unwrap()
}

/// Makes the superblock's checksum right: CRC-32C of its block with zeros in the checksum's place, not inverted.
fn seal(index: &mut [u8]) {
    index[1028..1032].fill(0);
    let sum = index[1024..1536].iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ ((crc & 1) * 0x82F6_3B78))
    });
    index[1028..1032].copy_from_slice(&sum.to_le_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_written_is_read_back_without_a_difference(tree in tree()) {
        let index = write(&tree);
        prop_assert_eq!(&index, &write(&tree));
        let parsed = erofs::parse(&index, &Limits::default()).unwrap();
        let rounded = |device: Device| Device { tar_bytes: device.tar_bytes.next_multiple_of(512), ..device };
        prop_assert_eq!(&parsed.devices, &devices().into_iter().map(rounded).collect::<Vec<_>>());
        prop_assert_eq!(parsed.difference(&index, &tree, &mut content).unwrap(), None);
    }

    #[test]
    fn another_tree_is_told_apart(tree in tree(), which in any::<prop::sample::Index>(), what in 0..6) {
        let index = write(&tree);
        let parsed = erofs::parse(&index, &Limits::default()).unwrap();
        let mut other = tree.clone();
        let alive: Vec<usize> = (0..tree.inodes.len()).filter(|&at| tree.inodes[at].links > 0).collect();
        let inode = &mut other.inodes[alive[which.index(alive.len())]];
        match what {
            0 => inode.mode ^= 0o100,
            1 => inode.uid ^= 1 << 31,
            2 => inode.mtime.nanoseconds ^= 1,
            3 => inode.links += 1,
            4 => inode.xattrs.push(xattr("user.more", b"")),
            _ => inode.gid ^= 1,
        }
        prop_assert!(parsed.difference(&index, &other, &mut content).unwrap().is_some());
    }

    /// Whatever bytes are changed: no panic, and no more inodes than the index has room for.
    #[test]
    fn a_changed_index_is_refused_or_read_within_bounds(
        tree in tree(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..4), 1..12),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let mut index = write(&tree);
        for (at, byte, spread) in changes {
            // Half of the changes go where the superblock, the devices and the first inodes are.
            let length = if spread % 2 == 0 { index.len() } else { index.len().min(4096) - 1024 };
            let at = at.index(length) + if spread % 2 == 0 { 0 } else { 1024 };
            index[at] = if spread < 2 { byte } else { index[at] ^ (1 << (byte % 8)) };
        }
        index.truncate(cut.map_or(index.len(), |cut| cut.index(index.len())).max(1536));
        seal(&mut index);
        if let Ok(parsed) = erofs::parse(&index, &Limits::default()) {
            prop_assert!(parsed.tree.inodes.len() <= index.len() / 32);
            prop_assert!(parsed.difference(&index, &tree, &mut content).is_ok());
            prop_assert!(parsed.tree.path_of(InodeId(0)).is_some());
        }
    }
}

#[test]
fn a_wide_directory_is_read_in_time_that_grows_with_it() {
    let mut merger = Merger::new(&Limits::default());
    let names = (0..100_000).map(|number| crate::entries::directory(&format!("{number:06}")));
    merger.add_layer(names.collect()).unwrap();
    let tree = merger.finish();
    let index = write(&tree);
    let parsed = erofs::parse(&index, &Limits::default()).unwrap();
    assert_eq!(parsed.difference(&index, &tree, &mut content).unwrap(), None);
}
