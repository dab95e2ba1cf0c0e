//! The two I/O paths side by side: taking a layer in, and hashing it again as `celda verify` does.
//!
//! ```text
//! cargo bench -p benches --bench io              wall time, and CPU time of the whole process
//! ```
//!
//! `verify/cold` drops the layer's pages before each look, `verify/warm` leaves them. What `io = auto` does follows
//! from this; docs/decisions.md has the numbers.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use celda_layerfs::ingest::{Ingest, LayerSpec};
use celda_layerfs::io::IoChoice;
use celda_layerfs::store::NoHeal;
use celda_layerfs::{Digest, Store, StoreOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};

/// Bytes of the layer's one file.
const LAYER_BYTES: usize = 128 << 20;

/// Bytes that arrive from the network at a time.
const CHUNK_BYTES: usize = 64 << 10;

const PATHS: [IoChoice; 2] = [IoChoice::Threads, IoChoice::Ring];

struct Layer {
    diff_id: Digest,
    blob: Vec<u8>,
    tar_bytes: u64,
}

/// A layer that gzip shrinks to about a third, as it does with programs.
fn layer() -> Layer {
    let mut state = 1_u64;
    let content: Vec<u8> = (0..LAYER_BYTES)
        .map(|at| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if at % 3 == 0 { (state >> 56) as u8 } else { (at >> 6) as u8 }
        })
        .collect();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "program", content.as_slice()).expect("tar in memory");
    let tar = builder.into_inner().expect("tar in memory");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(&tar).expect("gzip in memory");
    let blob = encoder.finish().expect("gzip in memory");
    Layer { diff_id: Digest::of(&tar), blob, tar_bytes: tar.len() as u64 }
}

fn store(place: &tempfile::TempDir, io: IoChoice) -> Store {
    Store::open(place.path(), StoreOptions { io, ..StoreOptions::default() }).expect("store opens")
}

fn ingest(store: &Store, layer: &Layer) {
    let guard = store.begin_pull().expect("guard");
    let spec =
        LayerSpec { blob: Some(Digest::of(&layer.blob)), diff_id: layer.diff_id, label: "bench".into() };
    let Ingest::Started(mut begun) = store.ingest(&guard, spec).expect("begun") else {
        panic!("the store was empty");
    };
    for chunk in layer.blob.chunks(CHUNK_BYTES) {
        begun.feed(chunk).expect("fed");
    }
    begun.finish().expect("published");
}

/// CPU time of this process so far, all threads and what the kernel did for them.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Runs `work` `count` times after `prepare`; gives the wall time or the CPU time of the work alone.
fn measured<T>(
    count: u64,
    is_cpu: bool,
    mut prepare: impl FnMut() -> T,
    mut work: impl FnMut(&T),
) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..count {
        let prepared = prepare();
        let (cpu, wall) = (cpu_time(), Instant::now());
        work(&prepared);
        total += if is_cpu { cpu_time() - cpu } else { wall.elapsed() };
    }
    total
}

fn bench(criterion: &mut Criterion) {
    let layer = layer();
    for (clock, is_cpu) in [("wall", false), ("cpu", true)] {
        let mut group = criterion.benchmark_group(format!("ingest/{clock}"));
        group.throughput(Throughput::Bytes(layer.tar_bytes)).sample_size(10);
        for io in PATHS {
            group.bench_function(io.to_string(), |bencher| {
                bencher.iter_custom(|count| {
                    let fresh = || tempfile::tempdir().expect("temporary directory");
                    measured(count, is_cpu, fresh, |place| ingest(&store(place, io), &layer))
                });
            });
        }
        group.finish();

        let place = tempfile::tempdir().expect("temporary directory");
        ingest(&store(&place, IoChoice::Threads), &layer);
        for is_cold in [true, false] {
            let heat = if is_cold { "cold" } else { "warm" };
            let mut group = criterion.benchmark_group(format!("verify/{heat}/{clock}"));
            group.throughput(Throughput::Bytes(layer.tar_bytes)).sample_size(10);
            for io in PATHS {
                let store = store(&place, io);
                let path = store.layer_path(&layer.diff_id);
                let prepare = || {
                    let tar = File::open(&path).expect("open");
                    let advice =
                        if is_cold { rustix::fs::Advice::DontNeed } else { rustix::fs::Advice::WillNeed };
                    rustix::fs::fadvise(&tar, 0, None, advice).expect("advice");
                };
                group.bench_function(io.to_string(), |bencher| {
                    bencher.iter_custom(|count| {
                        measured(count, is_cpu, prepare, |()| {
                            assert!(store.verify(&NoHeal).expect("verified").is_good());
                        })
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
