//! Merging layers and writing, reading and checking the index.
//!
//! `cargo bench -p benches --bench index`
#![allow(missing_docs)]

use std::hint::black_box;
use std::io;

use celda_layerfs::erofs::{self, Device};
use celda_layerfs::tar::{Entry, EntryKind, FileData, Segment, Timestamp, Xattr};
use celda_layerfs::tree::{Merger, Tree};
use celda_layerfs::{Digest, Limits};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const ENTRIES_COUNT: u64 = 10_000;
const LAYERS_COUNT: usize = 40;
const FILE_BYTES: u64 = 5_000;
/// A header block and the content of a file.
const SLOT_BYTES: u64 = 512 + FILE_BYTES.next_multiple_of(512);

/// A layer as image builders make them: directories first, files, links among them, now and then an attribute or a
/// hard link; paths are those of `number`.
fn layer(entries_count: u64, number: usize) -> Vec<Entry> {
    let file = |at: u64| format!("usr/lib/package-{:03}/directory-{number}/file-{at}", at / 40);
    let entry = |at: u64| {
        let kind = match at % 40 {
            0 => EntryKind::Directory,
            1 => EntryKind::Symlink(b"../target".as_slice().into()),
            2 if at > 40 => EntryKind::HardLink(file(at - 37).into_bytes().into()),
            _ => {
                let tar_offset = at * SLOT_BYTES + 512;
                let segment = Segment { logical_offset: 0, tar_offset, length_bytes: FILE_BYTES };
                EntryKind::File(FileData { size_bytes: FILE_BYTES, segments: vec![segment] })
            }
        };
        let path = if at.is_multiple_of(40) {
            file(at).rsplit_once('/').expect("it has one").0.to_owned()
        } else {
            file(at)
        };
        let capable = || Xattr { name: (*b"security.capability").into(), value: [1; 20].into() };
        Entry {
            path: path.into_bytes().into(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Timestamp { seconds: 1_700_000_000 + at as i64, nanoseconds: 1 },
            xattrs: if at % 100 == 7 { vec![capable()] } else { Vec::new() },
            header_offset: at * SLOT_BYTES,
        }
    };
    (0..entries_count).map(entry).collect()
}

/// The layers of a chain that remove a little of one another.
fn chain() -> Vec<Vec<Entry>> {
    let whiteout = |number: usize| {
        let mut entry = layer(4, number).pop().expect("it has four");
        entry.path = format!("usr/lib/package-000/.wh.directory-{number}").into_bytes().into();
        entry
    };
    (0..LAYERS_COUNT)
        .map(|number| {
            let mut entries = layer(ENTRIES_COUNT / LAYERS_COUNT as u64, number);
            entries.extend(number.checked_sub(5).map(whiteout));
            entries
        })
        .collect()
}

fn merge(layers: Vec<Vec<Entry>>) -> Tree {
    let mut merger = Merger::new(&Limits::default());
    for layer in layers {
        merger.add_layer(layer).expect("the bench's layers are right");
    }
    merger.finish()
}

fn content(_: u16, _: u64, _: &mut [u8]) -> io::Result<()> {
    Err(io::Error::other("nothing is sparse here"))
}

fn write(tree: &Tree, devices: &[Device]) -> Vec<u8> {
    erofs::write(tree, devices, &mut content).expect("the bench's tree is right")
}

fn devices(count: usize) -> Vec<Device> {
    let device = |number: usize| Device {
        tar_bytes: (ENTRIES_COUNT + 1) * SLOT_BYTES,
        diff_id: Digest::of(&number.to_le_bytes()),
    };
    (0..count).map(device).collect()
}

fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(ENTRIES_COUNT));
    for (name, layers) in [("1_layer", vec![layer(ENTRIES_COUNT, 0)]), ("40_layers", chain())] {
        let devices = devices(layers.len());
        group.bench_function(format!("merge_10000_entries_{name}"), |bencher| {
            bencher.iter_batched(|| layers.clone(), merge, BatchSize::LargeInput);
        });
        group.bench_function(format!("merge_and_write_10000_entries_{name}"), |bencher| {
            bencher.iter_batched(
                || layers.clone(),
                |layers| write(&merge(layers), &devices),
                BatchSize::LargeInput,
            );
        });
        let tree = merge(layers.clone());
        let index = write(&tree, &devices);
        let limits = Limits::default();
        group.bench_function(format!("parse_{name}"), |bencher| {
            bencher.iter(|| erofs::parse(black_box(&index), &limits).expect("it was just written"));
        });
        group.bench_function(format!("difference_{name}"), |bencher| {
            let parsed = erofs::parse(&index, &limits).expect("it was just written");
            bencher.iter(|| parsed.difference(&index, black_box(&tree), &mut content).expect("no content"));
        });
    }
    group.finish();
}

criterion_group!(benches, all);
criterion_main!(benches);
