//! Bits that flipped, files that shrank or went: verify sees them, and mends what it can.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::io::IoChoice;
use crate::store::testing::{TestLayer, ingest, manifest_bytes, options, pull, staged};
use crate::store::{Heal, ImageRecord, NoHeal, Outcome, Part, PullGuard, Sink, Store, VerifyReport};
use crate::{Digest, Error, Result};

fn layers() -> Vec<TestLayer> {
    vec![TestLayer::new(1, 2_500_000), TestLayer::new(2, 100)]
}

/// Has the layers and the manifest of "a:1".
struct Refetch;

impl Heal for Refetch {
    fn fetch_layer(
        &self,
        store: &Store,
        guard: &PullGuard,
        image: &ImageRecord,
        layer: usize,
    ) -> Result<bool> {
        let found = layers().remove(layer);
        assert_eq!(found.diff_id(), image.layers[layer].diff_id);
        ingest(store, guard, found.spec(), &found.blob).map(|_| true)
    }

    fn fetch_blob(
        &self,
        store: &Store,
        guard: &PullGuard,
        image: &ImageRecord,
        blob: &Digest,
    ) -> Result<bool> {
        if *blob != image.manifest {
            return Err(Error::Cancelled { what: "the registry is gone".into() });
        }
        store.put_blob(guard, &manifest_bytes("a:1")).map(|_| true)
    }
}

/// Its registry does not answer.
struct Offline;

impl Heal for Offline {
    fn fetch_layer(&self, _: &Store, _: &PullGuard, _: &ImageRecord, _: usize) -> Result<bool> {
        Err(Error::Cancelled { what: "the registry is gone".into() })
    }

    fn fetch_blob(&self, _: &Store, _: &PullGuard, _: &ImageRecord, _: &Digest) -> Result<bool> {
        Err(Error::Cancelled { what: "the registry is gone".into() })
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("write");
}

fn truncate(path: &Path) {
    let length = fs::metadata(path).expect("there").len();
    fs::File::options().write(true).open(path).expect("open").set_len(length / 2).expect("cut");
}

fn outcomes(report: &VerifyReport, part: Part) -> Vec<&Outcome> {
    report.items.iter().filter(|item| item.part == part).map(|item| &item.outcome).collect()
}

fn not_good(report: &VerifyReport) -> Vec<(Part, &Outcome)> {
    report
        .items
        .iter()
        .filter(|item| item.outcome != Outcome::Good)
        .map(|item| (item.part, &item.outcome))
        .collect()
}

#[test]
fn a_good_store_is_good_by_both_paths() {
    for io in [IoChoice::Threads, IoChoice::Ring] {
        for sink in [Sink::Index, Sink::Directory] {
            let place = tempfile::tempdir().expect("temporary directory");
            let store = Store::open(place.path(), options(io, sink)).expect("store opens");
            pull(&store, "a:1", &layers()).expect("pulled");
            let report = store.verify(&NoHeal).expect("verified");
            assert!(report.is_good(), "{report:?}");
            assert_eq!(not_good(&report), vec![]);
            assert_eq!(outcomes(&report, Part::Layer).len(), 2);
            assert_eq!(outcomes(&report, Part::Blob).len(), 2);
            let seen_bytes: u64 =
                report.items.iter().filter(|item| item.part == Part::Layer).map(|item| item.bytes).sum();
            assert_eq!(seen_bytes, layers().iter().map(|layer| layer.tar.len() as u64).sum::<u64>());
        }
    }
}

#[test]
fn broken_layers_are_fetched_again() {
    for (io, break_it) in
        [(IoChoice::Threads, flip as fn(&Path)), (IoChoice::Ring, flip), (IoChoice::Auto, truncate)]
    {
        let place = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(place.path(), options(io, Sink::Index)).expect("store opens");
        let image = pull(&store, "a:1", &layers()).expect("pulled");
        break_it(&store.layer_path(&image.layers[0].diff_id));
        let report = store.verify(&Refetch).expect("verified");
        assert!(report.is_good(), "{report:?}");
        assert!(matches!(not_good(&report)[..], [(Part::Layer, Outcome::Healed(_))]), "{report:?}");
        assert_eq!(not_good(&store.verify(&NoHeal).expect("verified")), vec![]);
    }
}

#[test]
fn a_broken_layer_nobody_has_is_named_and_kept_until_somebody_has_it() {
    for heal in [&NoHeal as &dyn Heal, &Offline] {
        let place = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(place.path(), options(IoChoice::Threads, Sink::Index)).expect("store opens");
        let image = pull(&store, "a:1", &layers()).expect("pulled");
        let path = store.layer_path(&image.layers[1].diff_id);
        let index = fs::read(store.index_path(&image.chain_id)).expect("read");
        flip(&path);
        let flipped = fs::read(&path).expect("read");
        let report = store.verify(heal).expect("verified");
        let broken =
            report.items.iter().find(|item| item.part == Part::Layer && item.outcome != Outcome::Good);
        assert_eq!(broken.expect("named").images, vec!["a:1".to_owned()]);
        assert!(fs::read(&path).expect("kept") == flipped);
        assert!(
            fs::read(store.index_path(&image.chain_id)).expect("read") == index,
            "made of a broken layer"
        );
        assert_eq!(staged(&store), Vec::<String>::new());
        assert!(store.verify(&Refetch).expect("verified").is_good());
        assert_eq!(not_good(&store.verify(&NoHeal).expect("verified")), vec![]);
    }
}

/// Everything in the store: path, inode, and the bytes of files.
fn snapshot(store: &Store) -> Vec<(PathBuf, u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![store.root().to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("there");
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).expect("listed").map(|item| item.expect("listed").path()));
        }
        let bytes = if metadata.is_file() { fs::read(&path).expect("read") } else { Vec::new() };
        found.push((path, metadata.ino(), bytes));
    }
    found.sort();
    found
}

#[test]
fn a_check_changes_nothing_whatever_is_broken() {
    for sink in [Sink::Index, Sink::Directory] {
        let place = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(place.path(), options(IoChoice::Threads, sink)).expect("store opens");
        let image = pull(&store, "a:1", &layers()).expect("pulled");
        let spare = pull(&store, "b:1", &[TestLayer::new(3, 10)]).expect("pulled");
        flip(&store.layer_path(&image.layers[0].diff_id));
        fs::remove_file(store.layer_path(&image.layers[1].diff_id)).expect("removed");
        flip(&store.layout().blob(&image.manifest));
        fs::remove_file(store.lease_path(&spare.chain_id)).expect("removed");
        fs::write(store.layout().staging().join("layer-left"), b"by a dead pull").expect("written");
        let before = snapshot(&store);
        let report = store.check().expect("looked");
        let broken = |part| outcomes(&report, part).iter().filter(|one| ***one != Outcome::Good).count();
        let sink_part = if sink == Sink::Index { Part::Index } else { Part::Tree };
        assert_eq!((broken(Part::Layer), broken(Part::Blob)), (2, 1), "{report:?}");
        assert!(broken(sink_part) >= 1, "{report:?}");
        assert!(!report.items.iter().any(|item| matches!(item.outcome, Outcome::Healed(_))), "{report:?}");
        assert!(snapshot(&store) == before, "a check has changed the store");
    }
}

#[test]
fn a_layer_that_cannot_be_read_is_not_taken_away() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(place.path(), options(IoChoice::Threads, Sink::Index)).expect("store opens");
    let image = pull(&store, "a:1", &layers()).expect("pulled");
    let path = store.layer_path(&image.layers[0].diff_id);
    // Stands for EMFILE, EACCES and EIO: an open that fails whoever asks.
    fs::rename(&path, path.with_extension("away")).expect("renamed");
    std::os::unix::fs::symlink(&path, &path).expect("linked");
    for heal in [&NoHeal as &dyn Heal, &Refetch] {
        let report = store.verify(heal).expect("verified");
        assert!(format!("{:?}", not_good(&report)).contains("cannot be opened"), "{report:?}");
        assert!(fs::symlink_metadata(&path).expect("still there").is_symlink());
    }
}

#[test]
fn broken_and_missing_indexes_are_made_again() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(place.path(), options(IoChoice::Threads, Sink::Index)).expect("store opens");
    let image = pull(&store, "a:1", &layers()).expect("pulled");
    let path = store.index_path(&image.chain_id);
    let right = fs::read(&path).expect("read");
    let remove = |path: &Path| fs::remove_file(path).expect("removed");
    for break_it in [flip as fn(&Path), truncate, remove] {
        break_it(&path);
        let report = store.verify(&NoHeal).expect("verified");
        assert!(matches!(not_good(&report)[..], [(Part::Index, Outcome::Healed(_))]), "{report:?}");
        assert!(fs::read(&path).expect("read") == right);
    }
}

#[test]
fn broken_blobs_and_records_are_mended_or_named() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(place.path(), options(IoChoice::Threads, Sink::Index)).expect("store opens");
    let image = pull(&store, "a:1", &layers()).expect("pulled");
    flip(&store.layout().blob(&image.manifest));
    assert_eq!(store.blob(&image.manifest).expect("read"), None, "never trusted unseen");
    let report = store.verify(&Refetch).expect("verified");
    assert!(matches!(not_good(&report)[..], [(Part::Blob, Outcome::Healed(_))]), "{report:?}");

    fs::remove_file(store.layout().blob(&image.config)).expect("removed");
    let report = store.verify(&Refetch).expect("verified");
    assert!(matches!(not_good(&report)[..], [(Part::Blob, Outcome::Broken(_))]), "{report:?}");
    assert!(format!("{report:?}").contains("the registry is gone"));

    truncate(&store.layout().image(&image.manifest));
    let report = store.verify(&NoHeal).expect("verified");
    assert!(outcomes(&report, Part::Record).iter().any(|outcome| matches!(outcome, Outcome::Broken(_))));
}
