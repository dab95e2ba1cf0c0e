//! Unpacking and deleting what an enemy made: nothing gets out, nothing is left, nothing grows without a bound.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use celda_layerfs::directory::{remove_path, remove_tree, unpack};
use celda_layerfs::tar::{FileData, Segment, Timestamp};
use celda_layerfs::tree::{Inode, InodeId, Kind, Tree};
use celda_layerfs::{Error, Limits};
use rustix::fs::{Mode, OFlags};

/// An inode of this process's user, so that the tests need no root.
fn inode(kind: Kind, links: u32) -> Inode {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Inode { kind, mode: 0o755, uid, gid, mtime: Timestamp::default(), xattrs: Vec::new(), links }
}

fn directory(names: &[(&[u8], u32)]) -> Inode {
    inode(Kind::Directory(names.iter().map(|(name, id)| ((*name).into(), InodeId(*id))).collect()), 2)
}

fn link(target: &[u8]) -> Inode {
    inode(Kind::Symlink(target.into()), 1)
}

fn file(size_bytes: u64, segments: &[(u64, u64, u64)]) -> Inode {
    let segment =
        |&(logical_offset, tar_offset, length_bytes)| Segment { logical_offset, tar_offset, length_bytes };
    let segments = segments.iter().map(segment).collect();
    inode(Kind::File { layer: 0, data: FileData { size_bytes, segments } }, 1)
}

/// Unpacks into `<store>/trees/rootfs` with a tar of 4 KiB of `x`.
fn unpack_into(store: &Path, inodes: Vec<Inode>) -> (PathBuf, Result<u64, Error>) {
    let tar = store.join("tar");
    fs::write(&tar, [b'x'; 4096]).unwrap();
    let into = store.join("trees/rootfs");
    let answer = unpack(&Tree { inodes }, &[tar], &into, &Limits::default());
    (into, answer.map(|unpacked| unpacked.names_count))
}

#[track_caller]
fn refused(inodes: Vec<Inode>, words: &str) {
    let store = tempfile::tempdir().unwrap();
    let (into, answer) = unpack_into(store.path(), inodes);
    let text = answer.unwrap_err().to_string();
    assert!(text.contains(words), "{text}");
    assert!(!into.exists());
    assert_eq!(fs::read_dir(store.path().join("trees")).unwrap().count(), 0, "something was left");
    assert_eq!(fs::read_dir(store.path()).unwrap().count(), 2, "something got out");
}

#[test]
fn names_that_lead_out_are_refused() {
    let long = vec![b'n'; 256];
    for name in [&b".."[..], b".", b"", b"a/b", b"../out", b"/out", b"nul\0"] {
        refused(vec![directory(&[(name, 1)]), file(0, &[])], "not a file name");
        refused(vec![directory(&[(name, 1)]), directory(&[])], "not a file name");
    }
    refused(vec![directory(&[(&long, 1)]), file(0, &[])], "too long");
}

#[test]
fn trees_that_are_none_are_refused() {
    refused(vec![file(0, &[])], "root is not a directory");
    refused(vec![directory(&[(b"a", 7)])], "does not have");
    refused(vec![directory(&[(b"a", 0)])], "two places");
    refused(vec![directory(&[(b"a", 1)]), directory(&[(b"b", 2)]), directory(&[(b"up", 1)])], "two places");
    refused(vec![directory(&[(b"a", 1), (b"b", 1)]), file(0, &[])], "two places");
}

#[test]
fn content_outside_the_tar_or_the_file_is_refused() {
    refused(vec![directory(&[(b"a", 1)]), file(512, &[(0, 4096, 512)])], "past the end");
    refused(vec![directory(&[(b"a", 1)]), file(1 << 20, &[(0, 512, 1 << 20)])], "past the end");
    refused(vec![directory(&[(b"a", 1)]), file(100, &[(0, 512, 512)])], "segments");
    refused(vec![directory(&[(b"a", 1)]), file(1000, &[(500, 0, 10), (0, 0, 10)])], "segments");
    refused(vec![directory(&[(b"a", 1)]), file(u64::MAX, &[(u64::MAX - 1, 0, 512)])], "segments");
    let mut other_layer = file(1, &[(0, 0, 1)]);
    if let Kind::File { layer, .. } = &mut other_layer.kind {
        *layer = 9;
    }
    refused(vec![directory(&[(b"a", 1)]), other_layer], "layer 9");
}

#[test]
fn links_are_made_as_written_and_never_followed() {
    let store = tempfile::tempdir().unwrap();
    let outside = store.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.as_os_str().as_encoded_bytes();
    let inodes = vec![
        directory(&[(b"escape", 1), (b"up", 2), (b"z", 3)]),
        link(target),
        link(b"../.."),
        file(3, &[(0, 0, 3)]),
    ];
    let (into, answer) = unpack_into(store.path(), inodes);
    assert_eq!(answer.unwrap(), 3);
    assert_eq!(fs::read_link(into.join("escape")).unwrap(), outside);
    assert_eq!(fs::read(into.join("z")).unwrap(), b"xxx");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::metadata(into.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn holes_stay_holes_and_hard_links_stay_links() {
    let store = tempfile::tempdir().unwrap();
    let mut linked = file(8 << 20, &[(4 << 20, 0, 4096)]);
    linked.links = 2;
    let (into, answer) =
        unpack_into(store.path(), vec![directory(&[(b"a", 1), (b"d", 2)]), linked, directory(&[(b"b", 1)])]);
    answer.unwrap();
    let (first, second) = (fs::metadata(into.join("a")).unwrap(), fs::metadata(into.join("d/b")).unwrap());
    assert_eq!((first.ino(), first.nlink(), first.len()), (second.ino(), 2, 8 << 20));
    assert!(first.blocks() * 512 <= 64 << 10, "{} blocks", first.blocks());
}

#[test]
fn an_unpacked_tree_is_left_alone_and_the_remains_of_a_killed_one_are_swept() {
    let store = tempfile::tempdir().unwrap();
    let trees = store.path().join("trees");
    let remains = trees.join(".rootfs.1-0.partial/deep/er");
    fs::create_dir_all(&remains).unwrap();
    let live = trees.join(".rootfs.1-1.partial");
    fs::create_dir(&live).unwrap();
    let lock = fs::File::open(&live).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (into, answer) = unpack_into(store.path(), vec![directory(&[(b"a", 1)]), file(0, &[])]);
    assert_eq!(answer.unwrap(), 1);
    assert!(!trees.join(".rootfs.1-0.partial").exists() && live.exists());
    fs::write(into.join("mark"), "").unwrap();
    assert_eq!(unpack_into(store.path(), vec![directory(&[])]).1.unwrap(), 0);
    assert!(into.join("mark").exists());
}

#[test]
fn a_tree_as_deep_as_a_path_is_long_is_unpacked_and_deleted_and_a_deeper_one_refused() {
    let chain = |depth: u32| -> Vec<Inode> {
        (0..depth).map(|level| directory(&[(b"d", level + 1)])).chain([directory(&[])]).collect()
    };
    let store = tempfile::tempdir().unwrap();
    let (into, answer) = unpack_into(store.path(), chain(2048));
    assert_eq!(answer.unwrap(), 2048);
    remove_path(&into).unwrap();
    refused(chain(2049), "too long");
}

/// Makes `depth` directories in each other, far deeper than a path is long, each with a file and a link.
fn dig(top: &Path, depth: usize, escape: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = rustix::fs::open(top, flags, Mode::empty()).unwrap();
    for level in 0..depth {
        rustix::fs::symlinkat(escape, &here, "link").unwrap();
        rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
        if level % 100 == 0 {
            rustix::fs::mkdirat(&here, "sibling", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&here, "sibling/empty", Mode::RWXU).unwrap();
        }
        here = rustix::fs::openat(&here, "d", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn a_tree_deeper_than_any_path_is_deleted_and_what_its_links_point_at_is_not() {
    let store = tempfile::tempdir().unwrap();
    let outside = store.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let top = store.path().join("top");
    fs::create_dir(&top).unwrap();
    fs::write(top.join(".celda-deep-0"), "in the way").unwrap();
    symlink(&outside, top.join("out")).unwrap();
    dig(&top, 5000, &outside);
    remove_path(&top).unwrap();
    assert!(!top.exists());
    assert!(outside.join("precious").exists());
}

#[test]
fn modes_that_keep_their_owner_out_do_not_keep_a_tree_alive() {
    let store = tempfile::tempdir().unwrap();
    let top = store.path().join("top");
    fs::create_dir_all(top.join("work/work/in")).unwrap();
    for locked in ["work/work", "work"] {
        fs::set_permissions(top.join(locked), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let parent = fs::File::open(store.path()).unwrap();
    remove_tree(parent.as_fd(), OsStr::new("top")).unwrap();
    assert!(!top.exists());
    remove_tree(parent.as_fd(), OsStr::new("top")).unwrap();
}

#[test]
fn a_wide_directory_is_deleted_in_one_go() {
    let store = tempfile::tempdir().unwrap();
    let top = store.path().join("top");
    for number in 0..3000 {
        fs::create_dir_all(top.join(format!("{number:0>64}/x"))).unwrap();
    }
    remove_path(&top).unwrap();
    assert!(!top.exists());
}
