//! Images from layouts and archives on this machine.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use celda_layerfs::progress::Event;
use celda_layerfs::pull::{PullOptions, PullPolicy, resolve_local};
use celda_layerfs::store::{NoHeal, Outcome};
use celda_layerfs::{Digest, Platform, Reference};
use common::{Image, Place, always, gzip, tar};
use serde_json::json;

#[test]
fn a_lost_or_damaged_image_record_is_made_again_from_the_blobs() {
    let place = Place::new();
    let layout = place.directory.path().join("layout");
    Image::of(&[tar("one", 5000), tar("two", 300_000)]).write_layout(&layout, "v1");
    let name = format!("oci:{}:v1", layout.display());
    let record = place.pull(&name, &PullOptions::default()).unwrap();
    let path = place.store.root().join(format!("images/{}.json", record.manifest.hex()));
    let is_found = || place.store.image_by_manifest(&record.manifest).ok().flatten() == Some(record.clone());
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    let damage = |path: &Path| std::fs::write(path, "{").unwrap();
    for lose in [remove as fn(&Path), damage] {
        lose(&path);
        assert!(!place.store.check().unwrap().is_good() && !is_found(), "a check changes nothing");
        let report = place.store.verify(&NoHeal).unwrap();
        assert!(report.is_good(), "{report:?}");
        assert!(report.items.iter().any(|item| matches!(item.outcome, Outcome::Healed(_))));
        assert!(is_found());
    }
    remove(&path);
    remove(&place.store.root().join(format!("blobs/sha256/{}", record.config.hex())));
    let report = place.store.verify(&NoHeal).unwrap();
    assert!(!report.is_good() && format!("{report:?}").contains("pull it again"), "{report:?}");
}

fn archive(directory: &Path, to: &Path) {
    let mut builder = tar::Builder::new(std::fs::File::create(to).unwrap());
    builder.append_dir_all(".", directory).unwrap();
    builder.finish().unwrap();
}

fn append(builder: &mut tar::Builder<std::fs::File>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, bytes).unwrap();
}

fn link(builder: &mut tar::Builder<std::fs::File>, name: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, name, target).unwrap();
}

#[test]
fn a_layout_is_pulled_once_and_found_again() {
    let place = Place::new();
    let layout = place.directory.path().join("layout");
    let image = Image::of(&[tar("one", 5000), tar("two", 300_000), tar("one", 5000)]);
    image.write_layout(&layout, "v1");
    let name = format!("oci:{}:v1", layout.display());
    let record = place.pull(&name, &PullOptions::default()).unwrap();
    assert_eq!(record.manifest.to_string(), image.manifest);
    assert_eq!(record.layers.len(), 3);
    assert_eq!(
        place.watcher.count(|event| matches!(event, Event::LayerDone(_))),
        2,
        "a layer twice is one fetch"
    );
    let reference: Reference = name.parse().unwrap();
    assert_eq!(
        resolve_local(&place.store, &reference, &PullOptions::default()).unwrap(),
        Some(record.clone())
    );
    // Without its layers the layout is as good, for an image that is present.
    for layer in &image.layers[..2] {
        std::fs::remove_file(layout.join("blobs/sha256").join(&layer[7..])).unwrap();
    }
    for options in [PullOptions::default(), always()] {
        assert_eq!(place.pull(&name, &options).unwrap().manifest, record.manifest);
    }
}

#[test]
fn a_layout_says_what_its_tags_are() {
    let place = Place::new();
    let layout = place.directory.path().join("layout");
    Image::of(&[tar("one", 10)]).write_layout(&layout, "v1");
    let error = place.refuses(&format!("oci:{}:v2", layout.display()), &always());
    assert!(error.contains("v2") && error.contains("it has v1"), "{error}");
    assert!(place.pull(&format!("oci:{}", layout.display()), &always()).is_ok());
    let error = Place::new().refuses(&format!("oci:{}", place.directory.path().display()), &always());
    assert!(error.contains("index.json is missing"), "{error}");
}

#[test]
fn hostile_layouts_are_refused() {
    let host = Platform::host();
    let layer = tar("one", 100_000);
    let blob = gzip(&layer);
    let good = || Image::with(vec![(blob.clone(), Digest::of(&layer).to_string())], &host);
    let refused = |image: &Image, expected: &str| {
        let place = Place::new();
        let layout = place.directory.path().join("layout");
        image.write_layout(&layout, "v1");
        let error = place.refuses(&format!("oci:{}:v1", layout.display()), &always());
        assert!(error.contains(expected), "{expected:?} is not in: {error}");
    };
    let wrong_diff_id = Image::with(vec![(blob.clone(), Digest::of(b"else").to_string())], &host);
    refused(&wrong_diff_id, "uncompressed layer");
    let mut cut = good();
    let digest = cut.layers[0].clone();
    cut.blobs.get_mut(&digest).unwrap().truncate(blob.len() / 2);
    refused(&cut, "its descriptor says");
    let mut changed = good();
    changed.blobs.get_mut(&digest).unwrap()[blob.len() / 2] ^= 1;
    refused(&changed, "layer");
    let truncated = blob[..blob.len() - 100].to_vec();
    refused(&Image::with(vec![(truncated, Digest::of(&layer).to_string())], &host), "layer");
    let other: Platform =
        if host.architecture == "s390x" { "linux/amd64" } else { "linux/s390x" }.parse().unwrap();
    let foreign = Image::with(vec![(blob.clone(), Digest::of(&layer).to_string())], &other);
    refused(&foreign, &format!("it is for {other}"));
    let mut nested = good();
    (0..10).for_each(|_| nested.wrap(None));
    refused(&nested, "nested more than");
    let mut shallow = good();
    (0..2).for_each(|_| shallow.wrap(None));
    let place = Place::new();
    shallow.write_layout(&place.directory.path().join("layout"), "v1");
    let name = format!("oci:{}:v1", place.directory.path().join("layout").display());
    place.pull(&name, &always()).unwrap();
    assert!(resolve_local(&place.store, &name.parse().unwrap(), &PullOptions::default()).unwrap().is_some());
}

#[test]
fn an_unchanged_archive_is_not_read_again() {
    let place = Place::new();
    let layout = place.directory.path().join("layout");
    let file = place.directory.path().join("image.tar");
    Image::of(&[tar("one", 300_000)]).write_layout(&layout, "v1");
    archive(&layout, &file);
    let name = format!("oci-archive:{}:v1", file.display());
    let reference: Reference = name.parse().unwrap();
    let local = || resolve_local(&place.store, &reference, &PullOptions::default()).unwrap();
    assert!(local().is_none());
    let record = place.pull(&name, &PullOptions::default()).unwrap();
    assert_eq!(local(), Some(record));
    Image::of(&[tar("other", 1000)]).write_layout(&layout, "v1");
    archive(&layout, &file);
    assert!(local().is_none(), "a changed archive is read");
    let names = place.pull(&name, &PullOptions::default()).map(|_| place.store.images().unwrap()).unwrap();
    assert_eq!(names.iter().filter(|image| image.name.is_some()).count(), 1);
}

#[test]
fn a_docker_archive_with_links_and_compressed_layers() {
    let place = Place::new();
    let file = place.directory.path().join("saved.tar");
    let layers = [tar("one", 5000), tar("two", 70_000)];
    let diff_ids = [&layers[0], &layers[1], &layers[0]].map(|layer| Digest::of(layer).to_string());
    let host = Platform::host();
    let config = json!({"os": host.os, "architecture": host.architecture, "variant": host.variant,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let mut builder = tar::Builder::new(std::fs::File::create(&file).unwrap());
    append(&mut builder, "a/layer.tar", &layers[0]);
    append(&mut builder, "b/layer.tar", &gzip(&layers[1]));
    link(&mut builder, "c/layer.tar", "../a/layer.tar");
    append(&mut builder, "config.json", config.to_string().as_bytes());
    let manifest = json!([
        {"Config": "config.json", "RepoTags": ["nginx:latest"], "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]},
        {"Config": "config.json", "RepoTags": null, "Layers": ["../../etc/passwd", "b/layer.tar", "c/layer.tar"]},
    ]);
    append(&mut builder, "manifest.json", manifest.to_string().as_bytes());
    builder.finish().unwrap();
    let name = |tag: &str| format!("docker-archive:{}{tag}", file.display());
    let error = place.refuses(&name(""), &always());
    assert!(error.contains("several images") && error.contains("nginx:latest"), "{error}");
    assert!(place.refuses(&name(":busybox"), &always()).contains("no image named"));
    assert!(place.refuses(&name(":@1"), &always()).contains("missing"));
    assert!(place.refuses(&name(":@7"), &always()).contains("no image named"));
    let record = place.pull(&name(":docker.io/library/nginx"), &PullOptions::default()).unwrap();
    assert_eq!(record.layers.iter().map(|layer| layer.blob).collect::<Vec<_>>(), [None; 3]);
    let reference = name(":docker.io/library/nginx").parse().unwrap();
    assert!(resolve_local(&place.store, &reference, &PullOptions::default()).unwrap().is_some());
    assert_eq!(place.pull(&name(":@0"), &always()).unwrap().manifest, record.manifest);
}

#[test]
fn what_is_no_archive_says_so() {
    let place = Place::new();
    let file = place.directory.path().join("file");
    let name = format!("docker-archive:{}", file.display());
    assert!(place.refuses(&name, &always()).contains("No such file"));
    std::fs::write(&file, gzip(&tar("one", 10))).unwrap();
    assert!(place.refuses(&name, &always()).contains("gzip -d"));
    std::fs::write(&file, [7; 4096]).unwrap();
    assert!(place.refuses(&name, &always()).contains("archive"));
    std::fs::write(&file, tar("one", 10)).unwrap();
    assert!(place.refuses(&name, &always()).contains("manifest.json is missing"));
    let mut torn = tar("one", 100_000);
    torn.truncate(50_000);
    std::fs::write(&file, torn).unwrap();
    assert!(place.refuses(&name, &always()).contains("archive"));
    assert!(
        place
            .refuses(&format!("docker-archive:{}", place.directory.path().display()), &always())
            .contains("regular file")
    );
}

#[test]
fn an_image_that_may_not_be_pulled_must_be_there() {
    let options = PullOptions { policy: PullPolicy::Never, ..PullOptions::default() };
    let error = Place::new().refuses("debian:12", &options);
    assert!(error.contains("docker.io/library/debian:12") && error.contains("celda pull"), "{error}");
}
