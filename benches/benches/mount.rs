//! Mounting images of one and of forty layers, overlays over them, and taking both down.
//!
//! `sudo cargo bench -p benches --bench mount`; without root it says so and measures nothing.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use celda_layerfs::Digest;
use celda_layerfs::erofs::{self, Device};
use celda_layerfs::mount::{Ladder, Rung, WritableLayer};
use celda_layerfs::tar::Timestamp;
use celda_layerfs::tree::{Inode, Kind, Tree};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// Layers of the large image: what a build of many small steps has.
const LAYERS_COUNT: usize = 40;

/// Bytes of an empty tar.
const TAR_BYTES: usize = 1024;

/// An image of empty layers beneath `store`, named as the store names them.
fn image(store: &Path, layers_count: usize) -> (PathBuf, Vec<PathBuf>) {
    let root = Inode {
        kind: Kind::Directory([].into()),
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Vec::new(),
        links: 2,
    };
    let (mut devices, mut tars) = (Vec::new(), Vec::new());
    for number in 0..layers_count {
        let mut bytes = vec![0; TAR_BYTES];
        bytes[0] = u8::try_from(number).unwrap();
        let diff_id = Digest::of(&bytes);
        let path = store.join(format!("{}.tar", diff_id.hex()));
        fs::write(&path, bytes).unwrap();
        devices.push(Device { tar_bytes: TAR_BYTES as u64, diff_id });
        tars.push(path);
    }
    let index = store.join(format!("{layers_count}.erofs"));
    let bytes = erofs::write(&Tree { inodes: vec![root] }, &devices, &mut |_, _, _| Ok(())).unwrap();
    fs::write(&index, bytes).unwrap();
    (index, tars)
}

fn bench(criterion: &mut Criterion) {
    // The store's filesystem matters: CELDA_BENCH_DIR chooses it, /var/tmp is a disk where /tmp may be none.
    let base = env::var_os("CELDA_BENCH_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let store = tempfile::tempdir_in(base).unwrap();
    let run = store.path().join("run");
    let ladder = Ladder::load(store.path(), &run);
    if ladder.rung == Rung::Directory {
        println!("skipped: no index can be mounted here: {:?}", ladder.why);
        return;
    }
    criterion.bench_function("ladder/load", |bencher| bencher.iter(|| Ladder::load(store.path(), &run)));
    for layers_count in [1, LAYERS_COUNT] {
        let (index, tars) = image(store.path(), layers_count);
        let mount = || ladder.mount_image(&index, &tars).unwrap();
        let name = |what: &str| format!("{what}/{layers_count}-layers");
        criterion.bench_function(&name("mount"), |bencher| bencher.iter_with_large_drop(mount));
        criterion.bench_function(&name("unmount"), |bencher| {
            bencher.iter_batched(mount, drop, BatchSize::PerIteration);
        });
    }
    let (index, tars) = image(store.path(), 1);
    let lower = ladder.mount_image(&index, &tars).unwrap();
    let containers = store.path().join("containers");
    let mut number = 0;
    let mut layer = || {
        number += 1;
        WritableLayer::create(&containers, &format!("{number}")).unwrap()
    };
    criterion.bench_function("writable-layer/create-and-remove", |bencher| {
        bencher.iter(|| layer().remove().unwrap());
    });
    criterion.bench_function("overlay", |bencher| {
        let make = |layer: WritableLayer| (ladder.overlay(lower.as_fd(), Some(layer.path())).unwrap(), layer);
        bencher.iter_batched(&mut layer, make, BatchSize::PerIteration);
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = bench
}
criterion_main!(benches);
