//! Indexes byte for byte, as `tests/golden/README.md` describes them.
//!
//! `CELDA_WRITE_GOLDEN=1 cargo test -p celda-layerfs golden` writes them anew.

use std::fs;
use std::path::Path;

use crate::image::index;
use crate::tar_builder::{Head, TarBuilder};

/// A file of each kind, with attributes of its own and shared ones.
fn kinds() -> Vec<Vec<u8>> {
    let note: (&str, &[u8]) = ("SCHILY.xattr.user.note", b"shared");
    let tar = TarBuilder::new()
        .head(Head::ustar(b'5', "./").mode(0o755).mtime(1_600_000_000))
        .pax(&[note, ("mtime", b"-1.25"), ("uid", b"70000")])
        .file("file", b"hello")
        .head(Head::ustar(b'1', "hard").link("file"))
        .pax(&[note, ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")])
        .file("capable", b"x")
        .file("empty", b"")
        .head(Head::ustar(b'5', "directory").mode(0o1777).ids(1, 2))
        .head(Head::ustar(b'2', "directory/link").link("../file"))
        .head(Head::ustar(b'3', "null").mode(0o666).device(1, 3))
        .head(Head::ustar(b'4', "disk").mode(0o660).device(259, 70_000))
        .head(Head::ustar(b'6', "pipe").mode(0o620));
    vec![tar.end()]
}

/// Three layers of which the second removes and replaces and the third is empty.
fn layers() -> Vec<Vec<u8>> {
    let lower = TarBuilder::new().file("d/gone", b"1").file("d/stays", b"2").file("replaced", b"3");
    let upper = TarBuilder::new().file("d/.wh.gone", b"").file("replaced", &[b'4'; 1000]).file("d/new", b"5");
    vec![lower.end(), upper.end(), TarBuilder::new().end()]
}

/// Chunks in the tar, holes, and a chunk that is a copy.
fn sparse() -> Vec<Vec<u8>> {
    let head = Head::gnu(b'S', "sparse").octal(483, 12, 16_384);
    let head = head.octal(386, 12, 0).octal(398, 12, 4096).octal(410, 12, 8292).octal(422, 12, 100);
    vec![TarBuilder::new().entry(head, &[b's'; 4196]).end()]
}

/// Names that fill more than a block, and a link target that does.
fn blocks() -> Vec<Vec<u8>> {
    let mut tar = TarBuilder::new().long_link(&"t".repeat(600)).head(Head::gnu(b'2', "long"));
    for number in 0..30 {
        tar = tar.file(&format!("many/a-rather-long-name-{number}"), b"");
    }
    vec![tar.end()]
}

#[test]
fn golden_indexes_are_written_byte_for_byte() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let all = [
        ("kinds", kinds()),
        ("layers", layers()),
        ("sparse", sparse()),
        ("blocks", blocks()),
        ("empty", Vec::new()),
    ];
    for (name, tars) in all {
        let path = directory.join(format!("{name}.erofs"));
        let written = index(&tars);
        if std::env::var_os("CELDA_WRITE_GOLDEN").is_some() {
            fs::write(&path, &written).unwrap();
        }
        let golden = fs::read(&path).unwrap();
        let differs = written.iter().zip(&golden).position(|(one, other)| one != other);
        assert_eq!((differs, written.len()), (None, golden.len()), "{name}: the first byte that differs");
    }
}
