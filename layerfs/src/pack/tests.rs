use super::*;
use crate::Limits;
use crate::manifest::{self, Document};
use crate::tar::{EntryKind, read_all};
use std::os::unix::fs::PermissionsExt as _;

fn script(directory: &Path) -> PathBuf {
    let path = directory.join("hello");
    std::fs::write(&path, "#!/bin/sh\necho hello\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).unwrap();
    path
}

fn plain(files: Vec<(PathBuf, PathBuf)>) -> PackOptions {
    PackOptions { files, compression: LayerCompression::Plain, ..PackOptions::default() }
}

fn entries(layout: &Path, packed: &Packed) -> Vec<crate::tar::Entry> {
    let tar = std::fs::read(layout.join("blobs/sha256").join(packed.diff_id.hex())).unwrap();
    read_all(&tar, &Limits::default()).unwrap()
}

#[test]
fn the_same_files_give_the_same_image_and_tags_stand_side_by_side() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    let files = vec![(script(directory.path()), PathBuf::from("/bin/hello"))];
    for compression in [LayerCompression::Gzip, LayerCompression::Zstd, LayerCompression::Plain] {
        let options = PackOptions { files: files.clone(), compression, ..PackOptions::default() };
        let tags = ["one", "two", "one"].map(|tag| pack(&layout, tag, &options).unwrap());
        assert_eq!(tags[0], tags[1]);
        assert_eq!(tags[0], tags[2]);
    }
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let Document::Index(manifests) = manifest::parse(&index, None, &Limits::default()).unwrap() else {
        panic!("not an index")
    };
    let mut tags: Vec<_> =
        manifests.iter().map(|manifest| manifest.annotations[crate::transport::REF_NAME].clone()).collect();
    tags.sort();
    assert_eq!(tags, ["one", "two"]);
    let left: Vec<_> = std::fs::read_dir(layout.join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.iter().all(|name| name.len() == 64), "{left:?}");
}

#[test]
fn modes_users_and_empty_directories_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let long = PathBuf::from(format!("/opt/{}/hello", "x".repeat(150)));
    let options = plain(vec![(script(directory.path()), long.clone())]);
    let packed = pack(&directory.path().join("layout"), "t", &options).unwrap();
    let entries = entries(&directory.path().join("layout"), &packed);
    let find = |path: &str| entries.iter().find(|entry| &*entry.path == path.as_bytes()).unwrap();
    assert_eq!(find("tmp").mode, 0o1777);
    assert_eq!(find("etc/passwd").uid, 0);
    let hello = find(long.to_str().unwrap().trim_start_matches('/'));
    assert_eq!((hello.mode, hello.uid, hello.gid), (0o4755, 0, 0));
    assert!(packed.files.contains(&long));
}

#[test]
fn a_dynamic_program_brings_its_loader_and_libraries() {
    let program = std::env::current_exe().unwrap();
    let needed = elf::needed(&program).unwrap();
    if needed.is_empty() {
        println!("skipped: this test program is static");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    let packed = pack(&layout, "t", &plain(vec![(program, PathBuf::from("/bin/test"))])).unwrap();
    let entries = entries(&layout, &packed);
    for path in needed {
        let first = path.components().nth(1).unwrap();
        let host = std::fs::symlink_metadata(Path::new("/").join(first)).unwrap();
        let name = first.as_os_str().to_str().unwrap();
        let packed = entries.iter().find(|entry| &*entry.path == name.as_bytes()).unwrap();
        assert_eq!(host.is_symlink(), matches!(packed.kind, EntryKind::Symlink(_)), "{name}");
        let real = std::fs::canonicalize(&path).unwrap();
        let real = real.to_str().unwrap().trim_start_matches('/');
        assert!(entries.iter().any(|entry| &*entry.path == real.as_bytes()), "{real}");
    }
}

#[test]
fn what_cannot_be_packed_is_refused_and_leaves_no_layout_changed() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    let hello = script(directory.path());
    let to = |from: &Path, to: &str| plain(vec![(from.to_owned(), PathBuf::from(to))]);
    for options in [
        to(&hello, "/"),
        to(&hello, "/bin/"),
        to(&hello, "/../x"),
        to(&hello, "/etc"),
        to(&hello, "/etc/passwd/x"),
        to(directory.path(), "/x"),
        to(Path::new("/nonexistent"), "/x"),
        PackOptions { env: vec!["novalue".into()], ..to(&hello, "/x") },
    ] {
        assert!(pack(&layout, "t", &options).is_err(), "{options:?}");
    }
    assert!(pack(&layout, "", &to(&hello, "/x")).is_err());
    assert!(!layout.exists());
    std::fs::create_dir(&layout).unwrap();
    std::fs::write(layout.join("index.json"), "[]").unwrap();
    assert!(pack(&layout, "t", &to(&hello, "/x")).is_err());
    assert_eq!(std::fs::read(layout.join("index.json")).unwrap(), b"[]");
}
