//! A directory tree of everything, packed by GNU tar: the mounted index shows the tree as it was, as GNU tar unpacks
//! it, and as mkfs.erofs makes it.

use std::ffi::CStr;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use celda_layerfs::mount::Ladder;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, utimensat,
};

use crate::image::{Mounted, assert_same, is_root, run, succeed};
use crate::snapshot::{tree_at, tree_of};

fn touch(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    utimensat(
        CWD,
        path,
        &Timestamps { last_access: time, last_modification: time },
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

fn node(path: &Path, kind: FileType, mode: u32, device: (u32, u32)) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), makedev(device.0, device.1)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn attribute(path: &Path, name: &CStr, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn build(root: &Path) {
    files(root);
    links(root);
    node(&root.join("null"), FileType::CharacterDevice, 0o666, (1, 3));
    node(&root.join("disk"), FileType::BlockDevice, 0o660, (259, 70_000));
    node(&root.join("pipe"), FileType::Fifo, 0o620, (0, 0));
    let many = root.join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..5000 {
        fs::write(many.join(format!("name-{number:07}")), format!("{number}")).unwrap();
    }
    let mut deep = root.join("deep");
    for level in 0..10 {
        deep.push(format!("{level}{}", "d".repeat(199)));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "far down").unwrap();
    let locked = root.join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o751)).unwrap();
    touch(&many, -86_401, 250_000_000);
    touch(&root.join("deep"), 0, 0);
    touch(root, 1_234_567_890, 123_456_789);
}

fn files(root: &Path) {
    let path = |name: &str| root.join(name);
    for size in [0, 1, 511, 512, 513, 4095, 4096, 4097, 1_000_003usize] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 249) as u8).collect();
        fs::write(path(&format!("size-{size}")), bytes).unwrap();
    }
    fs::write(path("ids"), "far ids").unwrap();
    chown(path("ids"), Some(4_000_000_000), Some(65_536)).unwrap();
    fs::write(path("setuid"), "su").unwrap();
    fs::set_permissions(path("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::write(path("capable"), "ping").unwrap();
    // struct vfs_cap_data of revision 2 (linux/capability.h): CAP_NET_RAW, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    attribute(&path("capable"), c"security.capability", &capability);
    for name in ["attributes", "more-attributes"] {
        fs::write(path(name), "a").unwrap();
        attribute(&path(name), c"user.shared", b"\0binary\xff\n");
        attribute(&path(name), c"trusted.long", &[b'v'; 700]);
        attribute(&path(name), c"user.empty", b"");
    }
    attribute(&path("attributes"), c"user.own", b"mine");
    fs::write(root.join(std::ffi::OsStr::new("ünïcode ☃\n")), "odd name").unwrap();
    fs::write(path(&"n".repeat(255)), "long name").unwrap();
    for (name, seconds, nanoseconds) in [("old", -1, 999_999_999), ("new", 1 << 33, 1), ("epoch", 0, 0)] {
        fs::write(path(name), name).unwrap();
        touch(&path(name), seconds, nanoseconds);
    }
    let mut sparse = fs::File::create(path("sparse")).unwrap();
    for run in 0..40u64 {
        sparse.seek(SeekFrom::Start(run * 40_960)).unwrap();
        sparse.write_all(&[b'0' + run as u8; 5000]).unwrap();
    }
    sparse.set_len((3 << 20) + 77).unwrap();
    fs::File::create(path("all-hole")).unwrap().set_len(10 << 20).unwrap();
}

fn links(root: &Path) {
    fs::create_dir(root.join("links")).unwrap();
    for (name, target) in [("hard", "size-513"), ("again", "size-513"), ("pipe-too", "ids")] {
        fs::hard_link(root.join(target), root.join("links").join(name)).unwrap();
    }
    for length in [1, 300, 447, 448, 449, 512, 4095] {
        symlink("t".repeat(length), root.join(format!("links/to-{length}"))).unwrap();
    }
    symlink("/absolute/../x", root.join("links/absolute")).unwrap();
    lchown(root.join("links/absolute"), Some(70_000), Some(70_001)).unwrap();
    touch(&root.join("links/absolute"), 5, 6);
    fs::hard_link(root.join("links/absolute"), root.join("links/hard-to-link")).unwrap();
}

fn tar(root: &Path, more: &[&str]) -> Option<Vec<u8>> {
    let mut command = Command::new("tar");
    command.args(["--format=posix", "--xattrs", "--xattrs-include=*"]).args(more);
    succeed(command.arg("-cC").arg(root).arg("."))
}

#[test]
fn privileged_an_index_shows_what_was_packed_and_what_gnu_tar_unpacks() {
    if !is_root() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let source = store.path().join("source");
    fs::create_dir(&source).unwrap();
    build(&source);
    let Some(tar) = tar(&source, &["--sparse"]) else { return };
    let Some(mounted) = Mounted::new(store.path(), &[tar]) else { return };
    let shown = mounted.shown();
    assert!(shown.len() > 5050);
    assert_same(&shown, &tree_at(&source), "as it was");
    mounted.fsck();
    let unpacked = store.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let mut command = Command::new("tar");
    command.args(["-xp", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C"]);
    succeed(command.arg(&unpacked).arg("-f").arg(&mounted.tars[0])).unwrap();
    assert_same(&shown, &tree_at(&unpacked), "as GNU tar unpacks it");
}

#[test]
fn privileged_an_index_shows_what_mkfs_erofs_makes_of_the_tar() {
    if !is_root() {
        return;
    }
    let Some(help) = run(Command::new("mkfs.erofs").arg("--help")) else { return };
    if !String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("--tar=") {
        return println!("skipped: this mkfs.erofs has no --tar");
    }
    let store = tempfile::tempdir().unwrap();
    let source = store.path().join("source");
    fs::create_dir(&source).unwrap();
    build(&source);
    // It does not know the names that GNU tar gives sparse files in a pax archive, and erofs-utils 1.8 takes a fraction of
    // a second for that many nanoseconds.
    let Some(tar) = tar(&source, &["--mtime=@1600000000"]) else { return };
    let Some(mounted) = Mounted::new(store.path(), &[tar]) else { return };
    let shown = mounted.shown();
    for mode in ["f", "i"] {
        let image = store.path().join(format!("mkfs-{mode}.erofs"));
        let mut command = Command::new("mkfs.erofs");
        succeed(command.arg(format!("--tar={mode}")).arg("--quiet").arg(&image).arg(&mounted.tars[0]))
            .unwrap();
        let tars: &[PathBuf] = if mode == "i" { &mounted.tars } else { &[] };
        let theirs = Ladder::probe(store.path()).mount_image(&image, tars).unwrap();
        assert_same(&shown, &tree_of(theirs.as_fd()), &format!("mkfs.erofs --tar={mode}"));
    }
}
