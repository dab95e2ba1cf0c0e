//! The reader against other tars: GNU tar's own archives, where `tar` is installed, and the `tar` crate on random
//! trees.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use celda_layerfs::Limits;
use celda_layerfs::tar::{Entry, EntryKind, FileData, Segment, read_all};
use proptest::prelude::*;

fn content(tar: &[u8], data: &FileData) -> Vec<u8> {
    let mut bytes = vec![0; data.size_bytes as usize];
    for &Segment { logical_offset, tar_offset, length_bytes } in &data.segments {
        let (to, from, length) = (logical_offset as usize, tar_offset as usize, length_bytes as usize);
        bytes[to..to + length].copy_from_slice(&tar[from..from + length]);
    }
    bytes
}

fn build_tree(root: &Path) {
    let long = "n".repeat(200);
    let deep = root.join("deep").join(&long).join(&long);
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), b"deep content").unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("pläin"), vec![b'p'; 1000]).unwrap();
    fs::hard_link(root.join("pläin"), root.join("second name")).unwrap();
    std::os::unix::fs::symlink(format!("{long}/{long}"), root.join("long link")).unwrap();
    // Thirty runs: more than an old GNU header and its first extension block hold.
    let mut sparse = fs::File::create(root.join("sparse")).unwrap();
    for run in 0..30u64 {
        sparse.seek(SeekFrom::Start(run << 20)).unwrap();
        sparse.write_all(&[b'0' + run as u8; 5000]).unwrap();
    }
    sparse.set_len(40 << 20).unwrap();
    fs::File::create(root.join("all hole")).unwrap().set_len(1 << 20).unwrap();
}

fn compare(root: &Path, tar: &[u8], entries: &[Entry], what: &str) {
    assert_eq!(entries.len(), 11, "{what}");
    for entry in entries {
        let path = root.join(std::str::from_utf8(&entry.path).unwrap());
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(entry.mtime.seconds, metadata.mtime(), "{what}: {path:?}");
        if what.contains("posix") && !matches!(entry.kind, EntryKind::HardLink(_)) {
            assert_eq!(i64::from(entry.mtime.nanoseconds), metadata.mtime_nsec(), "{what}: {path:?}");
        }
        assert_eq!((entry.uid, entry.gid), (metadata.uid(), metadata.gid()), "{what}: {path:?}");
        match &entry.kind {
            EntryKind::File(data) => {
                assert!(content(tar, data) == fs::read(&path).unwrap(), "{what}: content of {path:?}");
            }
            EntryKind::Directory => assert!(metadata.is_dir(), "{what}: {path:?}"),
            EntryKind::Symlink(target) => {
                let expected = fs::read_link(&path).unwrap();
                assert_eq!(&**target, expected.as_os_str().as_encoded_bytes(), "{what}");
            }
            EntryKind::HardLink(target) => {
                let target = root.join(std::str::from_utf8(target).unwrap());
                assert_eq!(fs::metadata(target).unwrap().ino(), metadata.ino(), "{what}");
            }
            other => panic!("{what}: {path:?} became {other:?}"),
        }
    }
}

#[test]
fn archives_of_gnu_tar() {
    if !Command::new("tar")
        .arg("--version")
        .output()
        .is_ok_and(|answer| answer.stdout.starts_with(b"tar (GNU"))
    {
        println!("skipped: needs GNU tar");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    build_tree(root.path());
    let formats: [&[&str]; 7] = [
        &["--format=gnu"],
        &["--format=posix"],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &["--format=gnu", "--sparse", "--hole-detection=raw"],
    ];
    for format in formats {
        let what = format.join(" ");
        let mut command = Command::new("tar");
        let output = command.args(format).args(["-c", "-C"]).arg(root.path()).arg(".").output().unwrap();
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        if what.contains("sparse") {
            assert!(output.stdout.len() < 1 << 20, "{what}: nothing is sparse here");
        }
        let entries = read_all(&output.stdout, &Limits::default()).unwrap_or_else(|error| {
            panic!("{what}: {error}");
        });
        compare(root.path(), &output.stdout, &entries, &what);
    }
}

#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>),
    Directory,
    Symlink(String),
    HardLink(String),
}

fn node() -> impl Strategy<Value = Node> {
    let name = "[a-zä ./]{1,150}x";
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Node::File),
        1 => Just(Node::Directory),
        1 => name.prop_map(Node::Symlink),
        1 => "[a-z]{1,20}(/[a-z]{1,120}){0,3}".prop_map(Node::HardLink),
    ]
}

fn written(tree: &BTreeMap<String, (Node, u32, u64)>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, (node, mode, number)) in tree {
        let mut header = if number % 2 == 0 { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
        header.set_mode(*mode);
        header.set_uid(number % 2_000_000);
        header.set_gid(number % 70_000);
        header.set_mtime(*number);
        header.set_size(0);
        match node {
            Node::File(content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, content.as_slice()).unwrap();
            }
            Node::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, path, std::io::empty()).unwrap();
            }
            Node::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, target).unwrap();
            }
            Node::HardLink(target) => {
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What the `tar` crate writes and reads back is what is read here.
    #[test]
    fn same_as_the_tar_crate(
        tree in proptest::collection::btree_map(
            "[a-z]{1,40}(/[a-z]{1,120}){0,3}", (node(), 0u32..0o10000, 0u64..4_000_000_000), 0..12),
    ) {
        let tar = written(&tree);
        let entries = read_all(&tar, &Limits::default()).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut theirs = archive.entries().unwrap();
        for entry in &entries {
            let mut other = theirs.next().unwrap().unwrap();
            prop_assert_eq!(&*entry.path, &*other.path_bytes());
            prop_assert_eq!(entry.mode, other.header().mode().unwrap());
            prop_assert_eq!(u64::from(entry.uid), other.header().uid().unwrap());
            prop_assert_eq!(u64::from(entry.gid), other.header().gid().unwrap());
            prop_assert_eq!(entry.mtime.seconds as u64, other.header().mtime().unwrap());
            match &entry.kind {
                EntryKind::File(data) => {
                    let mut expected = Vec::new();
                    other.read_to_end(&mut expected).unwrap();
                    prop_assert!(content(&tar, data) == expected);
                }
                EntryKind::Symlink(target) | EntryKind::HardLink(target) => {
                    let expected = other.link_name_bytes().unwrap();
                    prop_assert_eq!(&**target, &*expected);
                }
                kind => prop_assert_eq!(kind, &EntryKind::Directory),
            }
        }
        prop_assert!(theirs.next().is_none());
    }
}
