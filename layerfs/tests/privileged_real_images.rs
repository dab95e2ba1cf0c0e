//! Images made of Debian packages by tests/images/make.sh: what celda shows is what `umoci unpack` leaves on disk,
//! entry by entry, on the index and on the directory rung.
#![allow(clippy::unwrap_used)]

#[path = "mount/snapshot.rs"]
#[allow(dead_code)]
mod snapshot;

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use celda_layerfs::mount::{Ladder, Rung};
use celda_layerfs::progress::{Progress, Silent};
use celda_layerfs::pull::{PullOptions, pull};
use celda_layerfs::store::{Sink, Store, StoreOptions};
use celda_layerfs::transport::Cancel;

/// Every image of the layout that runs on this machine: whole Debians, forty layers, one static file, zstd, a
/// multi-platform index, and one of everything that a layer may contain.
const TAGS: [&str; 8] = [
    "debian-nginx:1",
    "debian-python:1",
    "forty:1",
    "busybox:1",
    "busybox-zstd:1",
    "multi:1",
    "torture:1",
    "torture-wide:1",
];

/// What umoci 0.4 cannot unpack (zstd, multi-platform indexes), and the image that has the same files; of the last one
/// only the two rungs are compared.
const NOT_UMOCI: [(&str, Option<&str>); 3] =
    [("busybox-zstd:1", Some("busybox:1")), ("multi:1", Some("busybox:1")), ("torture-wide:1", None)];

/// The folder with the images; made where tests must not be skipped, `None` where they may.
fn images() -> Option<PathBuf> {
    let must = std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_some_and(|value| value == "1");
    if !rustix::process::geteuid().is_root() {
        assert!(!must, "needs root");
        println!("skipped: needs root");
        return None;
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder =
        std::env::var_os("CELDA_TEST_IMAGES").map_or_else(|| top.join("target/test-images"), PathBuf::from);
    if !folder.join("oci/index.json").exists() {
        if !must {
            println!("skipped: tests/images/make.sh makes the images that this needs");
            return None;
        }
        let made = Command::new(top.join("tests/images/make.sh")).env("CELDA_TEST_IMAGES", &folder).status();
        assert!(made.unwrap().success(), "tests/images/make.sh failed");
    }
    Some(folder)
}

/// What an image shows once it is pulled and mounted.
fn shown(image: &str, root: &Path, rung: Rung) -> std::collections::BTreeMap<PathBuf, snapshot::Shown> {
    let sink = if rung == Rung::Directory { Sink::Directory } else { Sink::Index };
    let store = Store::open(root, StoreOptions { sink, ..StoreOptions::default() }).unwrap();
    let quiet: Arc<dyn Progress> = Arc::new(Silent);
    let reference = image.parse().unwrap();
    let record = pull(&store, &reference, &PullOptions::default(), &quiet, &Cancel::new()).unwrap();
    let lease = store.lease(&record).unwrap();
    let ladder = Ladder::probe(root).with_rung(rung);
    let mount = ladder.mount_image(lease.source(), lease.tars()).unwrap();
    snapshot::tree_of(mount.as_fd())
}

#[test]
fn privileged_real_images_are_what_umoci_unpacks() {
    let Some(images) = images() else { return };
    std::thread::scope(|scope| {
        for tag in TAGS {
            let images = &images;
            scope.spawn(move || unpacks_as_umoci_does(images, tag));
        }
    });
}

fn unpacks_as_umoci_does(images: &Path, tag: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let layout = images.join("oci");
    let bundle = scratch.path().join("bundle");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let umoci = Command::new("umoci")
        .args(["unpack", "--image", &format!("{}:{tag}", layout.display())])
        .arg(&bundle)
        .output()
        .unwrap();
    let image = format!("oci:{}:{tag}", layout.display());
    let by_index = shown(&image, &scratch.path().join("index"), Ladder::probe(scratch.path()).rung);
    let by_directory = shown(&image, &scratch.path().join("directory"), Rung::Directory);
    compare(&by_index, &by_directory, &format!("{tag}: index and directory"));
    if umoci.status.success() {
        let (mut ours, mut unpacked) = (by_index, snapshot::tree_at(&bundle.join("rootfs")));
        // Left out on purpose, as overlayfs would take it for a whiteout.
        unpacked.remove(Path::new("dev/zero-zero"));
        // Go's reader of tars takes an attribute without a value for one to be deleted; GNU tar writes such.
        ours.values_mut().for_each(|shows| shows.retain_xattrs(|_, value| !value.is_empty()));
        // A directory that an upper layer has no entry for gets a new time when umoci puts a file into it.
        for (path, shows) in &mut ours {
            unpacked.get(path).into_iter().for_each(|other| shows.forgive_time(other, since));
        }
        compare(&ours, &unpacked, &format!("{tag}: index and umoci"));
    } else {
        let said = String::from_utf8_lossy(&umoci.stderr);
        let known = NOT_UMOCI.iter().find(|(known, _)| *known == tag);
        let (_, same) = known.unwrap_or_else(|| panic!("{said}"));
        if let Some(same) = same {
            let image = format!("oci:{}:{same}", layout.display());
            let other = shown(&image, &scratch.path().join("same"), Ladder::probe(scratch.path()).rung);
            compare(&by_index, &other, &format!("{tag}: the same files as {same}"));
        }
    }
}

fn compare(
    got: &std::collections::BTreeMap<PathBuf, snapshot::Shown>,
    wanted: &std::collections::BTreeMap<PathBuf, snapshot::Shown>,
    what: &str,
) {
    let missing: Vec<_> = wanted.keys().filter(|path| !got.contains_key(*path)).collect();
    let extra: Vec<_> = got.keys().filter(|path| !wanted.contains_key(*path)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}: missing {missing:?}, extra {extra:?}");
    for (path, shows) in got {
        assert_eq!(shows, &wanted[path], "{what}: {}", path.display());
    }
}
