//! Prices, a ledger under contention by thread count, and rounds against ledgers in one process.
//!
//! `cargo bench -p benches --bench auction`
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use celda_auction::ledger::{Outcome, Terms};
use celda_auction::local::Local;
use celda_auction::round::Config;
use celda_auction::view::Class;
use celda_auction::{AppId, Batch, Demand, Epoch, Ledger, ReservationId, Resources, View, score};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

const CELL: Resources =
    Resources { cpu_milli: 64_000, memory_mib: 262_144, disk_mib: 1 << 20, containers: 250, ports: 0 };
const INSTANCE: Resources =
    Resources { cpu_milli: 100, memory_mib: 512, disk_mib: 1024, containers: 1, ports: 0 };
const RESERVATIONS_COUNT: u32 = 250;
const THREADS: [u64; 4] = [1, 2, 4, 8];
const CELLS_COUNT: u32 = 10_000;
const BATCHES: [u32; 3] = [1, 8, 64];
const TERMS: Terms = Terms { epoch: Epoch(1), now_us: 0, ttl_us: 1_000_000 };

fn demand(app: u64) -> Demand {
    Demand { app: AppId(app), resources: INSTANCE, ..Demand::default() }
}

fn ledger() -> Ledger {
    Ledger::new(&CELL, RESERVATIONS_COUNT, Epoch(1)).expect("the capacity is a cell's")
}

fn prices(criterion: &mut Criterion) {
    let (ledger, demand) = (ledger(), demand(1));
    let mut group = criterion.benchmark_group("score");
    group.throughput(Throughput::Elements(1));
    let snapshot = ledger.snapshot(demand.app);
    group.bench_function("price", |bencher| {
        bencher.iter(|| score::price(black_box(&snapshot), black_box(&demand)));
    });
    group.bench_function("bid for 8", |bencher| {
        bencher.iter(|| black_box(&ledger).bid(black_box(&demand), 8));
    });
    group.finish();
}

/// Reserve, commit and release, `turns` times in all, from `threads` at once on the same ledger.
fn contend(ledger: &Ledger, threads: u64, turns: u64) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let (demand, mut rng) = (demand(thread), Pcg64Mcg::seed_from_u64(thread));
                for _ in 0..turns / threads {
                    let id = ReservationId::random(&mut rng);
                    // Two ids in one bucket at one moment may tell one of the threads that it is busy.
                    if ledger.reserve(id, &demand, TERMS).is_ok() {
                        black_box(ledger.commit(id));
                        assert_eq!(ledger.release(id), Outcome::Done);
                    }
                }
            });
        }
    });
    start.elapsed()
}

fn ledgers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger: reserve, commit, release on one cell");
    group.throughput(Throughput::Elements(1));
    for threads in THREADS {
        let ledger = ledger();
        group.bench_with_input(BenchmarkId::from_parameter(threads), &threads, |bencher, threads| {
            bencher.iter_custom(|turns| contend(&ledger, *threads, turns.max(*threads)));
        });
        assert_eq!(ledger.free(), CELL, "everything was released");
    }
    group.finish();
}

fn rounds(criterion: &mut Criterion) {
    let mut view = View::new();
    let class = view.class(&Class::default()).expect("a first class has room");
    for cell in 0..CELLS_COUNT {
        let zone = view.zone(&format!("z{}", cell % 3)).expect("three zones have room");
        view.join(class, zone).expect("so few cells have room");
    }
    let ledgers: Vec<Ledger> = (0..CELLS_COUNT).map(|_| ledger()).collect();
    let mut group = criterion.benchmark_group("round: place, commit, release on 10,000 cells, by batch");
    for count in BATCHES {
        group.throughput(Throughput::Elements(count.into()));
        let mut local = Local::new(&view, &ledgers, Config::default());
        let (mut rng, mut placements, mut app) = (Pcg64Mcg::seed_from_u64(1), Vec::new(), 0);
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |bencher, count| {
            bencher.iter(|| {
                app += 1;
                placements.clear();
                let batch = Batch::new(demand(app), *count, &[]).expect("the count is in bounds");
                local.place(batch, 0, &mut rng, &mut placements).expect("the cells are empty");
                for placement in &placements {
                    for id in (0..placement.count).map(|offset| placement.first.plus(offset)) {
                        ledgers[placement.cell.0 as usize].commit(id);
                        ledgers[placement.cell.0 as usize].release(id);
                    }
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, prices, ledgers, rounds);
criterion_main!(benches);
