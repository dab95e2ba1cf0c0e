//! Names, images, leases, removal and gc.

use std::fs;
use std::os::unix::fs::FileExt as _;

use crate::Error;
use crate::store::testing::{PLATFORM, TestLayer, open, pull, record, staged};
use crate::store::{GcReport, RECORD_MAX_BYTES};

fn layers(seeds: &[u8]) -> Vec<TestLayer> {
    seeds.iter().map(|seed| TestLayer::new(*seed, 5000)).collect()
}

#[test]
fn a_pulled_image_is_found_by_name_and_by_id() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    assert_eq!(store.image("a:1", PLATFORM).expect("read"), None);
    let record = pull(&store, "a:1", &layers(&[1, 2])).expect("pulled");
    assert_eq!(store.image("a:1", PLATFORM).expect("read"), Some(record.clone()));
    assert_eq!(store.image("a:1", "linux/arm64").expect("read"), None);
    assert_eq!(store.image_by_id(&record.manifest.to_string()).expect("read"), Some(record.clone()));
    assert_eq!(store.image_by_id(&record.manifest.hex()[..12]).expect("read"), Some(record.clone()));
    assert_eq!(store.image_by_id("abc").expect("too short is no id"), None);
    assert!(store.is_whole(&record));
    let lease = store.lease(&record).expect("leased");
    assert_eq!(lease.tars().len(), 2);
    assert!(lease.source().exists());
    assert!(staged(&store).is_empty());
    assert_eq!(
        store.diff_id_of_blob(&record.layers[0].blob.expect("has one")),
        Some(record.layers[0].diff_id)
    );
}

#[test]
fn an_ambiguous_id_is_refused() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    pull(&store, "a:1", &layers(&[1])).expect("pulled");
    let mut by_first = std::collections::HashMap::new();
    let directory = store.root().join("images");
    // Records whose file names share their first digits; only the names are looked at.
    for tail in ["a", "b"] {
        let name = format!("{}{}.json", "0".repeat(63), tail);
        fs::write(directory.join(&name), b"{}").expect("write");
        by_first.insert(tail, name);
    }
    let error = store.image_by_id("000000").expect_err("ambiguous");
    assert!(matches!(error, Error::AmbiguousImage { .. }), "{error}");
}

#[test]
fn removing_a_name_keeps_the_image_while_it_has_another() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let image = pull(&store, "a:1", &layers(&[1])).expect("pulled");
    let guard = store.begin_pull().expect("guard");
    store.put_image(&guard, "a:latest", PLATFORM, &image).expect("second name");
    drop(guard);
    assert!(matches!(store.remove(&image.manifest.hex(), false), Err(Error::ImageInUse { .. })));
    let removed = store.remove("a:1", false).expect("removed");
    assert_eq!((removed.untagged, removed.deleted), (vec!["a:1".to_owned()], None));
    assert_eq!(store.gc().expect("gc"), GcReport::default());
    assert!(store.is_whole(&image));
    let removed = store.remove(&image.manifest.hex()[..12], false).expect("removed");
    assert_eq!(removed.deleted, Some(image.manifest));
    assert!(matches!(store.remove("a:latest", false), Err(Error::UnknownImage(_))));
    let report = store.gc().expect("gc");
    assert_eq!((report.layers.len(), report.indexes_count, report.blobs_count), (1, 1, 2));
    assert!(report.freed_bytes > 5000);
    assert!(store.files_in("layers/blobs").expect("listed").is_empty());
}

#[test]
fn gc_keeps_shared_layers_and_drops_what_a_new_pull_replaced() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let old = pull(&store, "a:1", &layers(&[1, 2])).expect("pulled");
    let other = pull(&store, "b:1", &layers(&[1, 3])).expect("pulled");
    // The name moves on: the old image has none any more.
    let mut new = record("a:1", &layers(&[1, 4]));
    new.manifest = crate::Digest::of(b"another manifest");
    pull(&store, "scratch:1", &layers(&[1, 4])).expect("pulled");
    let guard = store.begin_pull().expect("guard");
    store.put_image(&guard, "a:1", PLATFORM, &new).expect("renamed");
    drop(guard);
    let unnamed: Vec<_> =
        store.images().expect("listed").into_iter().filter(|image| image.name.is_none()).collect();
    assert_eq!(unnamed.len(), 1);
    let report = store.gc().expect("gc");
    assert_eq!(report.images, vec![old.manifest]);
    assert_eq!(report.layers, vec![old.layers[1].diff_id]);
    assert!(store.is_whole(&other) && store.is_whole(&new));
}

#[test]
fn a_lease_keeps_an_image_until_it_ends() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let image = pull(&store, "a:1", &layers(&[1])).expect("pulled");
    let lease = store.lease(&image).expect("leased");
    let second = store.lease(&image).expect("leases are shared");
    drop(second);
    let error = store.remove("a:1", false).expect_err("in use");
    assert!(matches!(error, Error::ImageInUse { .. }), "{error}");
    assert!(store.remove("a:1", true).expect("forced").is_kept_by_lease);
    let report = store.gc().expect("gc");
    assert_eq!((report.leased.len(), report.layers.len()), (1, 0));
    assert!(lease.tars()[0].exists() && lease.source().exists());
    drop(lease);
    let report = store.gc().expect("gc");
    assert_eq!((report.images.len(), report.layers.len()), (1, 1));
    assert!(matches!(store.lease(&image), Err(Error::Missing { .. })));
}

#[test]
fn a_second_pull_of_the_same_image_writes_nothing() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let image = pull(&store, "a:1", &layers(&[1])).expect("pulled");
    let stamp = |path: &str| fs::metadata(store.root().join(path)).expect("there").modified().expect("time");
    let before = (stamp("names"), stamp("images"), stamp("index/sha256"), stamp("layers/sha256"));
    assert_eq!(pull(&store, "a:1", &layers(&[1])).expect("pulled"), image);
    assert_eq!(before, (stamp("names"), stamp("images"), stamp("index/sha256"), stamp("layers/sha256")));
}

#[test]
fn damaged_and_oversized_records_are_named_and_keep_gc_from_freeing() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let image = pull(&store, "a:1", &layers(&[1])).expect("pulled");
    let path = store.layout().image(&image.manifest);
    let text = fs::read(&path).expect("read");
    fs::write(&path, &text[..text.len() / 2]).expect("torn");
    let error = store.image("a:1", PLATFORM).expect_err("damaged");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(matches!(store.gc(), Err(Error::Record { .. })));
    assert!(store.has_layer(&image.layers[0].diff_id));
    fs::write(&path, b"").expect("write");
    fs::File::options()
        .write(true)
        .open(&path)
        .expect("open")
        .write_at(b"x", RECORD_MAX_BYTES)
        .expect("grown");
    assert!(store.image("a:1", PLATFORM).expect_err("too large").to_string().contains("more than"));
    // Unknown fields of a newer version are passed over.
    let mut json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    json["of the future"] = serde_json::json!([1, 2, 3]);
    fs::write(&path, json.to_string()).expect("write");
    assert_eq!(store.image("a:1", PLATFORM).expect("read"), Some(image));
}

#[test]
fn a_lost_catalogue_costs_no_layers() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let image = pull(&store, "a:1", &layers(&[1, 2])).expect("pulled");
    for directory in ["names", "images", "layers/blobs", "blobs/sha256", "index/sha256"] {
        fs::remove_dir_all(store.root().join(directory)).expect("removed");
        fs::create_dir(store.root().join(directory)).expect("made");
    }
    assert_eq!(store.image("a:1", PLATFORM).expect("read"), None);
    let stamp = |store: &crate::Store| {
        fs::metadata(store.layer_path(&image.layers[0].diff_id)).expect("kept").modified()
    };
    let before = stamp(&store).expect("time");
    assert_eq!(pull(&store, "a:1", &layers(&[1, 2])).expect("pulled"), image);
    assert_eq!(before, stamp(&store).expect("time"));
    assert!(store.is_whole(&image));
}

#[test]
fn gc_waits_for_nobody_forever() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let guard = store.begin_pull().expect("guard");
    let error = store.gc().expect_err("a pull is under way");
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    drop(guard);
    store.gc().expect("gc");
}

#[test]
fn dead_containers_go_and_live_ones_stay() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let containers = store.root().join("containers");
    let live = crate::mount::WritableLayer::create(&containers, "live").expect("made");
    drop(crate::mount::WritableLayer::create(&containers, "dead").expect("made"));
    fs::write(containers.join("dead/upper/file"), vec![1; 10_000]).expect("write");
    let report = store.gc().expect("gc");
    assert_eq!(report.containers, vec!["dead".to_owned()]);
    assert!(report.freed_bytes >= 10_000);
    assert!(live.path().exists());
}

#[test]
fn a_dead_container_stays_until_what_it_left_running_has_ended() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let containers = store.root().join("containers");
    drop(crate::mount::WritableLayer::create(&containers, "dead").expect("made"));
    let asked = std::cell::RefCell::new(Vec::new());
    let end = |directory: &std::path::Path| {
        let mut asked = asked.borrow_mut();
        asked.push(directory.to_owned());
        assert!(crate::mount::remove_container(&containers, "dead").is_err(), "it is locked");
        if asked.len() == 1 { Err(std::io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
    };
    assert!(store.gc_unfreed(&end).expect("gc").0.containers.is_empty());
    assert!(containers.join("dead/upper").exists());
    assert_eq!(store.gc_unfreed(&end).expect("gc").0.containers, ["dead"]);
    assert_eq!(asked.into_inner(), [containers.join("dead"), containers.join("dead")]);
}

#[test]
fn an_image_without_layers_has_an_index() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let image = pull(&store, "empty:1", &[]).expect("pulled");
    assert!(store.lease(&image).expect("leased").tars().is_empty());
}

#[test]
fn staging_files_of_a_process_with_the_same_id_are_left_alone() {
    use crate::store::publish::Staged;
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let staging = store.layout().staging();
    let theirs = |kind: &str, count| staging.join(format!("{kind}-{}-{count}", std::process::id()));
    // More than this process stages in all its tests.
    for count in 0..4096 {
        fs::write(theirs("blob", count), b"theirs").expect("written");
        fs::create_dir_all(theirs("tree", count).join("theirs")).expect("made");
    }
    for _ in 0..4 {
        let blob = Staged::file(store.layout(), "blob").expect("staged");
        let tree = Staged::directory(store.layout(), "tree").expect("staged");
        assert_ne!(blob.path(), Staged::file(store.layout(), "blob").expect("staged").path());
        drop((blob, tree));
    }
    for count in 0..4096 {
        assert_eq!(fs::read(theirs("blob", count)).expect("still there"), b"theirs", "{count}");
        assert!(theirs("tree", count).join("theirs").exists(), "{count}");
    }
}

#[test]
fn gc_lets_go_of_the_store_before_the_kernel_frees_the_layers() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = open(place.path());
    let image = pull(&store, "a:1", &layers(&[1, 2])).expect("pulled");
    store.remove("a:1", false).expect("removed");
    let (report, unfreed) = store.gc_unfreed(&|_| Ok(())).expect("freed");
    assert_eq!((report.layers.len(), unfreed.count()), (2, 2));
    assert!(image.layers.iter().all(|layer| !store.has_layer(&layer.diff_id)));
    pull(&store, "a:1", &layers(&[1, 2])).expect("nothing is locked any more");
    unfreed.free_behind();
    assert!(store.is_whole(&image));
}
