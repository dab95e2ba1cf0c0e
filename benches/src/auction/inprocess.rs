//! Ledgers and rounds in one process, without a network: how fast, at what fill, with how many calls.

use super::AuctionOptions;
use super::fleet::Fleet;
use super::report::{Report, Table, thousands};
use crate::Result;
use celda_auction::demand::Resources;
use celda_auction::local::{Calls, Local, Placement};
use celda_auction::round::Config;
use celda_auction::{AppId, Batch, Demand};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::time::{Duration, Instant};

const CAPACITY: Resources =
    Resources { cpu_milli: 64_000, memory_mib: 262_144, disk_mib: 1 << 20, containers: 64, ports: 0 };
/// So that 64 of them fill a cell.
const DEMAND: Resources =
    Resources { cpu_milli: 1_000, memory_mib: 4_096, disk_mib: 16_384, containers: 1, ports: 0 };
const ZONES: u32 = 3;
/// Cells of the speed test.
const SPEED_CELLS: u32 = 100_000;
/// Instances that each thread places in one measurement.
const SPEED_INSTANCES: u32 = 1_000_000;
/// Cells of the test of growth; 64 instances on each fill it.
const GROWTH_CELLS: u32 = 10_000;
/// Cells of the test of scale, from the fewest to the most.
const SCALE_CELLS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Instances that the test of scale places.
const SCALE_INSTANCES: u32 = 16_384;
/// Room for reservations on each of a million cells: their memory is what counts.
const SCALE_RESERVATIONS: u32 = 4;

const NOTES: &str = "\
Auctioneers in the same process as the ledgers: calls are plain function calls, so this is the cost of the arithmetic, of the\n\
random numbers and of memory. Each placement is bid for, reserved and committed. A call is a question with its answer: an ask\n\
for each cell and batch, a reservation for each cell and batch; commits are counted apart, one for each cell and batch.";

/// Runs the three tests.
///
/// # Errors
/// When an instance is refused though there is room, or the document cannot be written.
pub(super) fn run(options: &AuctionOptions) -> Result<()> {
    let mut report = Report::new("auction-inprocess", "The auction in one process", NOTES);
    let shrink = if options.smoke { 100 } else { 1 };
    report.add(speed(options.threads(), shrink)?);
    report.add(growth(shrink)?);
    report.add(scale(shrink)?);
    report.finish(options)
}

/// What one auctioneer did.
struct Run {
    placements: Vec<Placement>,
    calls: Calls,
    took: Duration,
}

/// Places `instances` in batches of `count`, each an app of its own.
fn place(fleet: &Fleet, first_app: u64, instances: u32, count: u32, rng: &mut Pcg64Mcg) -> Result<Run> {
    let mut local = Local::new(&fleet.view, &fleet.ledgers, Config::default());
    let mut placements = Vec::with_capacity(instances as usize);
    let begun = Instant::now();
    for number in 0..instances / count {
        let app = AppId(first_app + u64::from(number));
        let batch = Batch::new(Demand { app, resources: DEMAND, ..Demand::default() }, count, &[])?;
        let before = placements.len();
        let placed = local.place(batch, 0, rng, &mut placements);
        placed.map_err(|refusal| format!("an instance is refused: {refusal:?}"))?;
        fleet.commit(&placements[before..]);
    }
    Ok(Run { placements, calls: local.calls(), took: begun.elapsed() })
}

/// Placements a second on many cells, by size of batch and number of threads.
fn speed(threads: usize, shrink: u32) -> Result<Table> {
    let fleet = Fleet::uniform(SPEED_CELLS / shrink, ZONES, &CAPACITY, CAPACITY.containers)?;
    let title = format!("Speed on {} cells", thousands(f64::from(SPEED_CELLS / shrink)));
    let columns = ["instances in a batch", "threads", "placements/s", "ns each, each thread", "calls each"];
    let mut table = Table::new(title, &columns);
    for count in [1, 8, 64, 256] {
        for threads in [1, threads] {
            let instances = SPEED_INSTANCES / shrink;
            let begun = Instant::now();
            let runs = std::thread::scope(|scope| {
                let fleet = &fleet;
                let handles: Vec<_> = (0..threads as u64)
                    .map(|thread| {
                        let mut rng = Pcg64Mcg::seed_from_u64(thread);
                        scope.spawn(move || place(fleet, thread << 32, instances, count, &mut rng))
                    })
                    .collect();
                let join = |handle: std::thread::ScopedJoinHandle<'_, Result<Run>>| {
                    handle.join().expect("a panic ends the process in a release build")
                };
                handles.into_iter().map(join).collect::<Result<Vec<Run>>>()
            })?;
            let took_s = begun.elapsed().as_secs_f64();
            let placed = f64::from(instances / count * count) * threads as f64;
            let calls: u64 = runs.iter().map(|run| run.calls.asks + run.calls.reserves).sum();
            table.rows.push(vec![
                count.to_string(),
                threads.to_string(),
                thousands(placed / took_s),
                format!("{:.0}", took_s * 1e9 * threads as f64 / placed),
                format!("{:.2}", calls as f64 / placed),
            ]);
            runs.iter().for_each(|run| fleet.release(&run.placements));
        }
    }
    Ok(table)
}

/// The cost of a placement while more and more instances run.
fn growth(shrink: u32) -> Result<Table> {
    let cells = GROWTH_CELLS / shrink;
    let fleet = Fleet::uniform(cells, ZONES, &CAPACITY, CAPACITY.containers)?;
    let title = format!("Cost on {} cells while they fill", thousands(f64::from(cells)));
    let mut table =
        Table::new(title, &["instances running", "full", "ns each, single", "ns each, batches of 64"]);
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let tenth = cells * CAPACITY.containers / 10 / 64 * 64;
    let part = tenth / 16 / 64 * 64;
    for step in 0..10 {
        let app = u64::from(step) << 32;
        let single = place(&fleet, app, part, 1, &mut rng)?;
        let batches = place(&fleet, app | 1 << 31, part, 64, &mut rng)?;
        place(&fleet, app | 1 << 30, tenth - 2 * part, 64, &mut rng)?;
        let each = |run: &Run| format!("{:.0}", run.took.as_secs_f64() * 1e9 / f64::from(part));
        table.rows.push(vec![
            thousands(f64::from(tenth * step)),
            format!("{} %", step * 10),
            each(&single),
            each(&batches),
        ]);
    }
    Ok(table)
}

/// Calls and cost of a placement from a thousand cells to a million.
fn scale(shrink: u32) -> Result<Table> {
    let columns = [
        "cells",
        "instances in a batch",
        "asks each",
        "reservations each",
        "commits each",
        "calls each",
        "ns each",
    ];
    let mut table = Table::new("Calls for each placement, by number of cells", &columns);
    for cells in SCALE_CELLS.into_iter().filter(|cells| shrink == 1 || *cells <= 10_000) {
        let fleet = Fleet::uniform(cells, ZONES, &CAPACITY, SCALE_RESERVATIONS)?;
        let instances = SCALE_INSTANCES.min(cells * SCALE_RESERVATIONS / 2 / 256 * 256);
        for count in [1, 8, 64, 256] {
            let mut rng = Pcg64Mcg::seed_from_u64(u64::from(cells));
            let Run { placements, calls, took } = place(&fleet, 1, instances, count, &mut rng)?;
            fleet.release(&placements);
            let each = |number: u64| format!("{:.2}", number as f64 / f64::from(instances));
            let commits = placements.len() as u64;
            table.rows.push(vec![
                thousands(f64::from(cells)),
                count.to_string(),
                each(calls.asks),
                each(calls.reserves),
                each(commits),
                each(calls.asks + calls.reserves + commits),
                format!("{:.0}", took.as_secs_f64() * 1e9 / f64::from(instances)),
            ]);
        }
    }
    Ok(table)
}
