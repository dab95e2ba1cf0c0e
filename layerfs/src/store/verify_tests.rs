//! Bits that flipped, files that shrank or went: verify sees them, and mends what it can.

use std::fs;
use std::path::Path;

use crate::io::IoChoice;
use crate::store::testing::{TestLayer, ingest, manifest_bytes, options, pull};
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
fn a_broken_layer_nobody_has_is_named_and_the_next_pull_mends_it() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(place.path(), options(IoChoice::Threads, Sink::Index)).expect("store opens");
    let image = pull(&store, "a:1", &layers()).expect("pulled");
    flip(&store.layer_path(&image.layers[1].diff_id));
    let report = store.verify(&NoHeal).expect("verified");
    assert!(!report.is_good());
    let broken = report.items.iter().find(|item| item.part == Part::Layer && item.outcome != Outcome::Good);
    assert_eq!(broken.expect("named").images, vec!["a:1".to_owned()]);
    assert!(!store.is_whole(&image), "it must not be run any more");
    assert!(matches!(store.lease(&image), Err(Error::Missing { .. })));
    pull(&store, "a:1", &layers()).expect("pulled again");
    assert_eq!(not_good(&store.verify(&NoHeal).expect("verified")), vec![]);
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
