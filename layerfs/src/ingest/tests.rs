//! Layers of every kind in, over both I/O paths.

use std::sync::mpsc;
use std::time::Duration;

use crate::ingest::{Ingest, LayerSpec};
use crate::io::IoChoice;
use crate::store::testing::{TestLayer, ingest, open, options, staged};
use crate::store::{Sink, Store};
use crate::{Digest, Error};

const PATHS: [IoChoice; 2] = [IoChoice::Threads, IoChoice::Ring];

fn store_with(io: IoChoice) -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(place.path(), options(io, Sink::Index)).expect("store opens");
    (place, store)
}

#[test]
fn layers_of_all_sizes_and_compressions_arrive_whole() {
    for io in PATHS {
        let (_place, store) = store_with(io);
        let guard = store.begin_pull().expect("guard");
        // Less than a buffer, several, and more than the ring and the pipe hold together.
        for (seed, bytes) in [(1, 10), (2, 1 << 20), (3, 3_500_000), (4, 14_000_000)] {
            let layer = TestLayer::new(seed, bytes);
            let done = ingest(&store, &guard, layer.spec(), &layer.blob).expect("taken in").expect("is new");
            assert_eq!((done.diff_id, done.tar_bytes), (layer.diff_id(), layer.tar.len() as u64));
            assert_eq!(done.entries.len(), 1);
            assert_eq!(std::fs::read(store.layer_path(&done.diff_id)).expect("read"), layer.tar);
        }
        for seed in [5, 6] {
            let layer = TestLayer::new(seed, 2_000_000);
            let blob = if seed == 5 {
                layer.tar.clone()
            } else {
                zstd::encode_all(layer.tar.as_slice(), 1).expect("zstd")
            };
            let spec = LayerSpec { blob: None, ..layer.spec() };
            let done = ingest(&store, &guard, spec, &blob).expect("taken in").expect("is new");
            assert_eq!(done.blob, Digest::of(&blob));
            assert_eq!(store.diff_id_of_blob(&done.blob), Some(layer.diff_id()));
        }
        assert!(staged(&store).is_empty());
    }
}

#[test]
fn wrong_digests_and_torn_blobs_keep_nothing() {
    for io in PATHS {
        let (_place, store) = store_with(io);
        let guard = store.begin_pull().expect("guard");
        let layer = TestLayer::new(1, 2_500_000);
        let other = Digest::of(b"other");

        let spec = LayerSpec { blob: Some(other), ..layer.spec() };
        let error = ingest(&store, &guard, spec, &layer.blob).expect_err("wrong blob digest");
        assert!(matches!(error, Error::DigestMismatch { expected, .. } if expected == other), "{error}");

        let spec = LayerSpec { diff_id: other, ..layer.spec() };
        let error = ingest(&store, &guard, spec, &layer.blob).expect_err("wrong diffID");
        assert!(
            matches!(error, Error::DigestMismatch { actual, .. } if actual == layer.diff_id()),
            "{error}"
        );

        for length in [0, 1, 3, 20, layer.blob.len() / 2, layer.blob.len() - 1] {
            let spec = LayerSpec { blob: None, ..layer.spec() };
            let error = ingest(&store, &guard, spec, &layer.blob[..length]).expect_err("torn");
            assert!(matches!(error, Error::Layer { .. } | Error::DigestMismatch { .. }), "{length}: {error}");
        }

        let mut flipped = layer.blob.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x10;
        ingest(&store, &guard, layer.spec(), &flipped).expect_err("flipped bit");

        let not_a_tar = TestLayer::of_tar(vec![0xaa; 3 << 20]);
        let error = ingest(&store, &guard, not_a_tar.spec(), &not_a_tar.blob).expect_err("not a tar");
        assert!(matches!(error, Error::Layer { .. }), "{error}");

        assert!(staged(&store).is_empty());
        assert!(store.files_in("layers/sha256").expect("listed").is_empty());
        assert!(store.files_in("layers/blobs").expect("listed").is_empty());
        ingest(&store, &guard, layer.spec(), &layer.blob)
            .expect("the right bytes are taken")
            .expect("is new");
    }
}

#[test]
fn a_bomb_is_cut_off() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut options = options(IoChoice::Threads, Sink::Index);
    options.limits.layer_bytes = 4 << 20;
    let store = Store::open(place.path(), options).expect("store opens");
    let guard = store.begin_pull().expect("guard");
    let bomb = TestLayer::of_tar(vec![0; 32 << 20]);
    let error = ingest(&store, &guard, bomb.spec(), &bomb.blob).expect_err("too large");
    assert!(matches!(error, Error::Layer { .. }), "{error}");
    assert!(staged(&store).is_empty());
}

#[test]
fn layers_that_are_small_alone_are_counted_together() {
    let layers: Vec<TestLayer> = (1..=4).map(|seed| TestLayer::new(seed, 1_000_000)).collect();
    type Limit = fn(&mut crate::Limits);
    let limits: [(Limit, &str); 3] = [
        (|limits| limits.image_bytes = 3_500_000, "image_bytes = 3500000"),
        (|limits| limits.entries_count = 3, "entries_count = 3"),
        (|limits| limits.metadata_bytes = 500, "metadata_bytes = 500"),
    ];
    for (limit, words) in limits {
        let place = tempfile::tempdir().expect("temporary directory");
        let mut options = options(IoChoice::Threads, Sink::Index);
        limit(&mut options.limits);
        let store = Store::open(place.path(), options).expect("store opens");
        let guard = store.begin_pull().expect("guard");
        for layer in &layers[..3] {
            ingest(&store, &guard, layer.spec(), &layer.blob).expect("is within").expect("is new");
        }
        let refused = ingest(&store, &guard, layers[3].spec(), &layers[3].blob).expect_err("is one too many");
        let Error::Layer { source, .. } = &refused else { panic!("{refused}") };
        assert!(source.to_string().contains(words), "{source}");
        assert!(staged(&store).is_empty());
        // Another image may have as much.
        let guard = store.begin_pull().expect("guard");
        ingest(&store, &guard, layers[3].spec(), &layers[3].blob).expect("is within").expect("is new");
    }
}

#[test]
fn layers_that_are_there_already_count_as_well() {
    let layers: Vec<TestLayer> = (1..=3).map(|seed| TestLayer::new(seed, 1_000_000)).collect();
    let place = tempfile::tempdir().expect("temporary directory");
    let mut options = options(IoChoice::Threads, Sink::Index);
    options.limits.image_bytes = 2_500_000;
    let store = Store::open(place.path(), options).expect("store opens");
    for layer in &layers {
        let guard = store.begin_pull().expect("guard");
        ingest(&store, &guard, layer.spec(), &layer.blob).expect("is within").expect("is new");
    }
    let guard = store.begin_pull().expect("guard");
    let answers: Vec<bool> = layers.iter().map(|layer| store.ingest(&guard, layer.spec()).is_ok()).collect();
    assert_eq!(answers, [true, true, false], "an interrupted pull that is tried again grows without end");
}

#[test]
fn dropping_and_cancelling_leave_nothing() {
    for io in PATHS {
        let (_place, store) = store_with(io);
        let guard = store.begin_pull().expect("guard");
        let layer = TestLayer::new(1, 6_000_000);
        let Ingest::Started(mut begun) = store.ingest(&guard, layer.spec()).expect("begun") else {
            panic!("is new")
        };
        begun.feed(&layer.blob[..layer.blob.len() / 2]).expect("fed");
        assert_eq!(staged(&store).len(), 1);
        drop(begun);
        assert!(staged(&store).is_empty());

        let Ingest::Started(mut begun) = store.ingest(&guard, layer.spec()).expect("begun") else {
            panic!("is new")
        };
        guard.cancel().cancel();
        assert!(matches!(begun.feed(&layer.blob), Err(Error::Cancelled { .. })));
        drop(begun);
        assert!(staged(&store).is_empty());
    }
}

#[test]
fn a_pull_and_its_layers_are_cancelled_by_one_flag() {
    let (_place, store) = store_with(IoChoice::Threads);
    let pull = crate::Cancel::new();
    let guard = store.begin_pull().expect("guard").stopped_by(&pull.child());
    let layer = TestLayer::new(1, 100_000);
    let Ingest::Started(mut begun) = store.ingest(&guard, layer.spec()).expect("begun") else {
        panic!("is new")
    };
    pull.cancel();
    assert!(matches!(begun.feed(&layer.blob), Err(Error::Cancelled { .. })), "at once, not after a poll");
    drop(begun);
    // Nor does a wait for a layer that somebody else holds go on.
    assert!(matches!(store.ingest(&guard, layer.spec()), Err(Error::Cancelled { .. })));
}

#[test]
fn a_second_ingest_waits_for_the_first_and_finds_the_layer() {
    let (_place, store) = store_with(IoChoice::Threads);
    let guard = store.begin_pull().expect("guard");
    let layer = TestLayer::new(1, 3_000_000);
    let Ingest::Started(mut first) = store.ingest(&guard, layer.spec()).expect("begun") else {
        panic!("is new")
    };
    let (answer, second) = mpsc::channel();
    let spec = layer.spec();
    let root = store.root().to_owned();
    let waiter = std::thread::spawn(move || {
        let store = open(&root);
        let guard = store.begin_pull().expect("guard");
        let begun = store.ingest(&guard, spec).expect("waited");
        answer.send(matches!(begun, Ingest::AlreadyThere { .. })).expect("sent");
    });
    first.feed(&layer.blob).expect("fed");
    assert!(second.try_recv().is_err(), "it must wait");
    first.finish().expect("published");
    assert!(second.recv_timeout(Duration::from_secs(20)).expect("it went on"));
    waiter.join().expect("joined");
}

#[test]
fn a_second_ingest_takes_over_when_the_first_gives_up() {
    let (_place, store) = store_with(IoChoice::Threads);
    let guard = store.begin_pull().expect("guard");
    let layer = TestLayer::new(1, 3_000_000);
    let Ingest::Started(mut first) = store.ingest(&guard, layer.spec()).expect("begun") else {
        panic!("is new")
    };
    first.feed(&layer.blob[..1_000_000]).expect("fed");
    let root = store.root().to_owned();
    let (spec, blob) = (layer.spec(), layer.blob.clone());
    let waiter = std::thread::spawn(move || {
        let store = open(&root);
        let guard = store.begin_pull().expect("guard");
        ingest(&store, &guard, spec, &blob).expect("taken in").is_some()
    });
    drop(first);
    assert!(waiter.join().expect("joined"));
    assert_eq!(std::fs::read(store.layer_path(&layer.diff_id())).expect("read"), layer.tar);
}
