//! Parsing a layer's tar and inflating its blob.
//!
//! `cargo bench -p benches --bench tar`
#![allow(missing_docs)]

use std::hint::black_box;
use std::io::Write;

use celda_layerfs::Limits;
use celda_layerfs::decompress::{Compression, DecompressError, Decompressor};
use celda_layerfs::tar::{TarReader, read_all};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "../../layerfs/tests/support/tar_builder.rs"]
mod tar_builder;

use tar_builder::{Head, TarBuilder};

const ENTRIES_COUNT: usize = 10_000;
/// What one file of the bench holds: a little more than the median file of a Debian image.
const FILE_BYTES: usize = 5_000;
/// A chunk as the decompressor hands it out.
const CHUNK_BYTES: usize = 256 << 10;
const LETTERS: &[u8; 64] = b"the quick brown fox jumps over a lazy dog 0123456789 (),.;:{}[]\n";

/// Text-like bytes: DEFLATE takes them to about two thirds.
fn text(state: &mut u32) -> Vec<u8> {
    let mut letter = |_| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        LETTERS[(*state >> 26) as usize]
    };
    (0..FILE_BYTES).map(&mut letter).collect()
}

/// A tar of directories, files and links, every tenth with a pax header, as image builders write them.
fn layer() -> Vec<u8> {
    let mut state = 1u32;
    let mut tar = TarBuilder::new();
    for number in 0..ENTRIES_COUNT {
        let path = format!("usr/lib/package-{:03}/directory/file-{number}", number / 40);
        tar = match number % 40 {
            0 => tar.directory(&path),
            1 => tar.head(Head::ustar(b'2', &path).link("../target")),
            _ if number % 10 == 5 => {
                tar.pax(&[("mtime", b"1700000000.123456789")]).file(&path, &text(&mut state))
            }
            _ => tar.file(&path, &text(&mut state)),
        };
    }
    tar.end()
}

fn inflate(kind: Compression, blob: &[u8], limits: &Limits) -> Result<u64, DecompressError> {
    let mut decompressor = Decompressor::new(kind, limits)?;
    for chunk in blob.chunks(CHUNK_BYTES) {
        decompressor.feed(chunk, &mut |piece| {
            black_box(piece);
            Ok::<_, DecompressError>(())
        })?;
    }
    decompressor.finish()
}

fn parse(criterion: &mut Criterion, tar: &[u8], limits: &Limits) {
    let mut group = criterion.benchmark_group("tar");
    group.throughput(Throughput::Elements(ENTRIES_COUNT as u64));
    group.bench_function("read_all_10000_entries", |bencher| {
        bencher.iter(|| read_all(black_box(tar), limits).expect("the bench's tar is right").len());
    });
    group.throughput(Throughput::Bytes(tar.len() as u64));
    group.bench_function("feed_in_chunks", |bencher| {
        bencher.iter(|| {
            let mut reader = TarReader::new(limits);
            for chunk in tar.chunks(CHUNK_BYTES) {
                reader.feed(black_box(chunk), &mut |_| Ok(())).expect("the bench's tar is right");
            }
            reader.finish().expect("the bench's tar is right")
        });
    });
    group.finish();
}

fn decompress(criterion: &mut Criterion, tar: &[u8], limits: &Limits) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(tar).expect("a Vec takes everything");
    let gzip = encoder.finish().expect("a Vec takes everything");
    let zstd = zstd::encode_all(tar, 3).expect("a Vec takes everything");
    let mut group = criterion.benchmark_group("inflate");
    group.throughput(Throughput::Bytes(tar.len() as u64)).sample_size(10);
    for (name, kind, blob) in [("gzip", Compression::Gzip, &gzip), ("zstd", Compression::Zstd, &zstd)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| inflate(kind, black_box(blob), limits).expect("the bench's blob is right"));
        });
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    let (tar, limits) = (layer(), Limits::default());
    parse(criterion, &tar, &limits);
    decompress(criterion, &tar, &limits);
}

criterion_group!(benches, all);
criterion_main!(benches);
