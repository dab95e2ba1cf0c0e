//! Chains with whiteouts: the mounted index shows what `umoci unpack` leaves on disk.

use std::fs;
use std::process::Command;

use crate::image::{Mounted, assert_same, is_root, run, succeed};
use crate::snapshot::tree_at;
use crate::tar_builder::{Head, TarBuilder};

fn layers() -> Vec<Vec<u8>> {
    let base = TarBuilder::new()
        .head(Head::ustar(b'5', "./").mode(0o755).mtime(1000))
        .directory("etc/")
        .file("etc/keep", b"keep")
        .file("etc/gone", b"gone")
        .directory("etc/sub/")
        .file("etc/sub/a", b"a")
        .directory("opaque/")
        .file("opaque/below", b"below")
        .directory("opaque/dir/")
        .file("opaque/dir/deep", b"deep")
        .directory("turns/")
        .file("turns/in", b"in")
        .file("file", b"becomes a directory")
        .file("first", b"linked")
        .head(Head::ustar(b'1', "second").link("first"))
        .head(Head::ustar(b'2', "link").link("etc"))
        .head(Head::ustar(b'2', "real-link").link("etc/sub"))
        .head(Head::ustar(b'6', "pipe").mode(0o600))
        .head(Head::ustar(b'3', "null").mode(0o666).device(1, 3));
    let middle = TarBuilder::new()
        .directory("etc/")
        .file("etc/.wh.gone", b"")
        .file("etc/.wh.sub", b"")
        .file("etc/.wh.never", b"")
        .directory("opaque/")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .file("turns", b"a file now")
        .directory("file/")
        .file("file/in", b"in")
        .file("first", b"other")
        .head(Head::ustar(b'1', "third").link("second"))
        .file("link", b"no link any more");
    let top = TarBuilder::new()
        .directory("etc/")
        .directory("etc/sub/")
        .file("etc/sub/b", b"b")
        .directory("opaque/")
        .file("opaque/late", b"late")
        .file("opaque/.wh.new", b"")
        .file(".wh.pipe", b"")
        .file(".wh.second", b"")
        .pax(&[("mtime", b"-1.5"), ("uid", b"100000"), ("SCHILY.xattr.user.a", b"b")])
        .file("first", b"again")
        .head(Head::ustar(b'5', "./").mode(0o711).mtime(2000));
    vec![base.end(), middle.end(), top.end()]
}

#[test]
fn privileged_a_chain_with_whiteouts_is_what_umoci_unpacks() {
    if !is_root() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let layout = store.path().join("layout");
    let image = format!("{}:t", layout.display());
    let mut init = Command::new("umoci");
    if run(init.arg("init").arg("--layout").arg(&layout)).is_none() {
        return;
    }
    succeed(Command::new("umoci").args(["new", "--image", &image])).unwrap();
    let tars = layers();
    let Some(mounted) = Mounted::new(store.path(), &tars) else { return };
    for tar in &mounted.tars {
        succeed(Command::new("umoci").args(["raw", "add-layer", "--image", &image]).arg(tar)).unwrap();
    }
    let bundle = store.path().join("bundle");
    succeed(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle)).unwrap();
    let unpacked = tree_at(&bundle.join("rootfs"));
    assert!(fs::read_dir(bundle.join("rootfs")).unwrap().count() > 5);
    assert_same(&mounted.shown(), &unpacked, "umoci unpack");
}
