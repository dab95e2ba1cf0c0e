//! Diego's own simulation: its scenarios, its pass criteria, and its speed beside ours.
//!
//! ```text
//! cells with 100 MiB, 100 MiB of disk and 100 containers ─ what runs already ─> work, largest first ─> new per cell
//! ```
//! Scenarios and tolerances are those of `cloudfoundry/auction`, `simulation/simulation_test.go`; its speed was measured
//! on a machine like this one (see the design's figures). What is placed counts as starting until all of a scenario's
//! work is placed, as there.

use super::AuctionOptions;
use super::fleet::Fleet;
use super::report::{Report, Table, thousands};
use crate::Result;
use celda_auction::demand::Resources;
use celda_auction::local::{Local, Placement};
use celda_auction::round::Config;
use celda_auction::view::CellIndex;
use celda_auction::{AppId, Batch, Demand};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::time::{Duration, Instant};

const CAPACITY: Resources =
    Resources { cpu_milli: 100_000, memory_mib: 100, disk_mib: 100, containers: 100, ports: 0 };
/// Cells are dealt to the zones in turn.
const ZONES: u32 = 2;
/// How long each scenario is repeated.
const MEASURE: Duration = Duration::from_secs(2);
/// Apps are numbered: those of one instance from here on.
const UNIQUE_APPS: u64 = 1_000;

const NOTES: &str = "\
Each scenario on new cells, over and over for two seconds on one thread: place and commit. `batches` gives the auction all\n\
equal instances of an app at once; `one by one` gives it each instance by itself, in Diego's random order. `dist` is the\n\
standard deviation of instances per cell over their mean; `off` how far the new instances of a cell are from their mean at\n\
most. The factor is to the faster end of Diego's range.";

/// What must hold of a scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Criterion {
    /// New instances of each cell are within so many of their mean.
    Within(f64),
    /// Both zones have as many new ones.
    ZonesEqual,
    /// So many are placed, among them the first large one, and the second is not.
    Boulders { placed: u32 },
}

/// One of Diego's scenarios.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    cells: u32,
    /// Instances of 1 MiB that run already, by cell.
    running: Vec<u32>,
    work: Vec<Batch>,
    pub(super) criterion: Criterion,
    /// Diego's placements a second, from the slowest to the fastest run.
    diego: (f64, f64),
    diego_dist: &'static str,
}

/// What came of one run.
pub(super) struct Outcome {
    placed: u32,
    refused: u32,
    /// By cell.
    new: Vec<u32>,
    all: Vec<u32>,
    first_large: u32,
    took: Duration,
}

fn demand(app: u64, memory_mib: u32, priority: u8) -> Demand {
    let resources = Resources { cpu_milli: 0, memory_mib, disk_mib: 1, containers: 1, ports: 0 };
    Demand { app: AppId(app), resources, priority, ..Demand::default() }
}

fn batch(demand: Demand, count: u32) -> Batch {
    Batch::new(demand, count, &[]).expect("the scenarios' batches are sound")
}

/// `count` apps of one instance each.
fn unique(first: u64, count: u32, memory_mib: u32) -> impl Iterator<Item = Batch> {
    (0..u64::from(count)).map(move |app| batch(demand(UNIQUE_APPS + first + app, memory_mib, 0), 1))
}

/// `count` instances, each of one of four apps.
fn of_four_apps(first: u64, count: u32, memory_mib: u32, rng: &mut Pcg64Mcg) -> Vec<Batch> {
    let mut counts = [0; 4];
    (0..count).for_each(|_| counts[rng.random_range(0..4)] += 1);
    let apps = (first..).zip(counts).filter(|(_, count)| *count > 0);
    apps.map(|(app, count)| batch(demand(app, memory_mib, 0), count)).collect()
}

/// Diego's mixture of small and large apps, for so many times 25 cells.
fn mixed(times: u32, rng: &mut Pcg64Mcg) -> Vec<Batch> {
    let mut work = Vec::new();
    for (kind, (count, memory_mib)) in (0..).zip([(1800, 1), (200, 2), (50, 4)]) {
        let half = count * times / 2;
        work.extend(unique(kind * 10_000, half, memory_mib));
        work.extend(of_four_apps(kind * 4, half, memory_mib, rng));
    }
    work
}

/// All of them, with their random parts drawn.
pub(super) fn all(rng: &mut Pcg64Mcg) -> Vec<Scenario> {
    use Criterion::{Boulders, Within, ZonesEqual};
    let scenario = |name, running: Vec<u32>, work: Vec<Batch>, criterion, diego, diego_dist| Scenario {
        name,
        cells: running.len() as u32,
        running,
        work,
        criterion,
        diego,
        diego_dist,
    };
    let nearly_full: Vec<u32> = (0..100).map(|_| rng.random_range(78..=80)).collect();
    let empty_at_the_end = (0..100).map(|cell| if cell < 95 { 50 } else { 0 }).collect();
    let red = |count| vec![batch(demand(1, 1, 0), count)];
    // An app's first instance goes before anybody's second, whatever their sizes.
    let mut boulders: Vec<Batch> = unique(0, 80, 1).map(|small| with_priority(&small, 1)).collect();
    boulders.extend([batch(demand(1, 50, 1), 1), batch(demand(1, 50, 0), 1)]);
    vec![
        scenario(
            "800 @ 40",
            vec![0; 40],
            unique(0, 800, 1).collect(),
            Within(1.0),
            (3_000.0, 6_400.0),
            "0.000",
        ),
        scenario(
            "2,050 mixed @ 25",
            vec![0; 25],
            mixed(1, rng),
            Within(10.0),
            (7_000.0, 11_200.0),
            "0.027 - 0.032",
        ),
        scenario(
            "8,200 mixed @ 100",
            vec![0; 100],
            mixed(4, rng),
            Within(10.0),
            (1_880.0, 3_310.0),
            "0.027 - 0.029",
        ),
        scenario(
            "500 @ 100, 5 empty",
            empty_at_the_end,
            unique(0, 500, 1).collect(),
            Within(1.0),
            (2_360.0, 3_660.0),
            "0.203",
        ),
        scenario("40 @ 3 in 2 zones", vec![0, 50, 0], red(40), ZonesEqual, (39_900.0, 58_500.0), "0.943"),
        scenario(
            "400 @ 100, 78 - 80 % full",
            nearly_full,
            red(400),
            Within(1.0),
            (2_480.0, 3_340.0),
            "0.010",
        ),
        scenario("82 boulders and pebbles @ 1", vec![0], boulders, Boulders { placed: 51 }, (0.0, 0.0), "-"),
    ]
}

fn with_priority(of: &Batch, priority: u8) -> Batch {
    batch(Demand { priority, ..of.demand().clone() }, of.count())
}

impl Scenario {
    /// The work as single instances, in random order within their priority.
    pub(super) fn one_by_one(&self, rng: &mut Pcg64Mcg) -> Vec<Batch> {
        let single = |of: &Batch| std::iter::repeat_n(batch(of.demand().clone(), 1), of.count() as usize);
        let mut work: Vec<Batch> = self.work.iter().flat_map(single).collect();
        work.shuffle(rng);
        work
    }

    /// The work as it is, each app's instances of one size at once.
    pub(super) fn in_batches(&self) -> Vec<Batch> {
        self.work.clone()
    }

    /// Places `work` on new cells.
    pub(super) fn run(&self, mut work: Vec<Batch>, config: Config, rng: &mut Pcg64Mcg) -> Result<Outcome> {
        let fleet = Fleet::uniform(self.cells, ZONES, &CAPACITY, CAPACITY.containers)?;
        for (cell, count) in (0..).zip(&self.running) {
            fleet.run(CellIndex(cell), *count, demand(0, 1, 0).resources)?;
        }
        let wanted: u32 = work.iter().map(Batch::count).sum();
        let mut local = Local::new(&fleet.view, &fleet.ledgers, config);
        let mut placements: Vec<Placement> = Vec::with_capacity(wanted as usize);
        let begun = Instant::now();
        // Diego sorts too, in its time.
        work.sort_by(|a, b| a.demand().order(b.demand()));
        let mut first_large = 0;
        // What runs of each app, by zone: who gives out an app's instances one by one knows that.
        let mut running = vec![[0; ZONES as usize]; UNIQUE_APPS as usize];
        for (number, batch) in work.into_iter().enumerate() {
            let (app, before) = (batch.demand().app.0 as usize, placements.len());
            let batch = match running.get(app) {
                Some(placed) => Batch::new(batch.demand().clone(), batch.count(), placed)?,
                None => batch,
            };
            let placed = local.place(batch, 0, rng, &mut placements);
            if let Some(running) = running.get_mut(app) {
                for placement in &placements[before..] {
                    running[(placement.cell.0 % ZONES) as usize] += placement.count;
                }
            }
            first_large += u32::from(number == 0 && placed.is_ok());
        }
        fleet.commit(&placements);
        let took = begun.elapsed();
        let mut new = vec![0; self.cells as usize];
        placements.iter().for_each(|placement| new[placement.cell.0 as usize] += placement.count);
        let placed = new.iter().sum();
        let all = new.iter().zip(&self.running).map(|(new, running)| new + running).collect();
        Ok(Outcome { placed, refused: wanted - placed, new, all, first_large, took })
    }
}

impl Outcome {
    /// How far the new instances of a cell are from their mean, at most.
    fn off(&self) -> f64 {
        let mean = f64::from(self.placed) / self.new.len() as f64;
        self.new.iter().map(|new| (f64::from(*new) - mean).abs()).fold(0.0, f64::max)
    }

    /// Diego's measure of balance: the standard deviation of instances per cell over their mean.
    fn dist(&self) -> f64 {
        let count = self.all.len() as f64;
        let mean = self.all.iter().sum::<u32>() as f64 / count;
        let variance = self.all.iter().map(|all| (f64::from(*all) - mean).powi(2)).sum::<f64>() / count;
        variance.sqrt() / mean
    }

    /// Whether the scenario's criterion holds, or what is wrong.
    pub(super) fn check(&self, criterion: Criterion) -> Result<(), String> {
        let new = &self.new;
        match criterion {
            Criterion::Within(most) if self.off() > most || self.refused > 0 => Err(format!(
                "{} refused, new instances {:.1} off their mean: {new:?}",
                self.refused,
                self.off()
            )),
            Criterion::ZonesEqual => {
                let zone = |zone: usize| new.iter().skip(zone).step_by(ZONES as usize).sum::<u32>();
                if zone(0) == zone(1) && self.refused == 0 {
                    Ok(())
                } else {
                    Err(format!("zones differ: {new:?}"))
                }
            }
            Criterion::Boulders { placed } if self.placed != placed || self.first_large != 1 => {
                Err(format!("{} placed of {placed}, the large one first: {}", self.placed, self.first_large))
            }
            _ => Ok(()),
        }
    }
}

/// Runs all scenarios, checks them and measures them.
///
/// # Errors
/// A criterion that does not hold.
pub(super) fn run(options: &AuctionOptions) -> Result<()> {
    let mut report = Report::new("auction-scenarios", "The auction on Diego's scenarios", NOTES);
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let columns =
        ["scenario", "placed", "refused", "dist", "Diego's", "off", "placements/s", "Diego's", "factor"];
    let measure = if options.smoke { Duration::ZERO } else { MEASURE };
    for title in ["In batches", "One by one"] {
        let mut table = Table::new(title, &columns);
        for scenario in all(&mut rng) {
            table.rows.push(measure_scenario(&scenario, title == "In batches", measure, &mut rng)?);
        }
        report.add(table);
    }
    report.finish(options)
}

fn measure_scenario(
    scenario: &Scenario,
    in_batches: bool,
    measure: Duration,
    rng: &mut Pcg64Mcg,
) -> Result<Vec<String>> {
    let (mut rates, begun) = (Vec::new(), Instant::now());
    let (mut off, mut dist) = (0.0_f64, 0.0_f64);
    let (placed, refused) = loop {
        let work = if in_batches { scenario.in_batches() } else { scenario.one_by_one(rng) };
        let outcome = scenario.run(work, Config::default(), rng)?;
        outcome.check(scenario.criterion).map_err(|what| format!("{}: {what}", scenario.name))?;
        rates.push(f64::from(outcome.placed) / outcome.took.as_secs_f64());
        (off, dist) = (off.max(outcome.off()), dist.max(outcome.dist()));
        if begun.elapsed() >= measure {
            break (outcome.placed, outcome.refused);
        }
    };
    rates.sort_by(f64::total_cmp);
    let rate = rates[rates.len() / 2];
    let (slow, fast) = scenario.diego;
    let diego = if fast > 0.0 { format!("{} - {}", thousands(slow), thousands(fast)) } else { "-".into() };
    let factor = if fast > 0.0 { format!("{:.0}", rate / fast) } else { "-".into() };
    Ok(vec![
        scenario.name.into(),
        thousands(f64::from(placed)),
        thousands(f64::from(refused)),
        format!("{dist:.3}"),
        scenario.diego_dist.into(),
        format!("{off:.1}"),
        thousands(rate),
        diego,
        factor,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diegos_criteria_hold_in_batches_and_one_by_one() {
        for seed in 0..2 {
            let mut rng = Pcg64Mcg::seed_from_u64(seed);
            for scenario in all(&mut rng) {
                for work in [scenario.in_batches(), scenario.one_by_one(&mut rng)] {
                    let outcome = scenario.run(work, Config::default(), &mut rng).unwrap();
                    let checked = outcome.check(scenario.criterion);
                    assert_eq!(checked, Ok(()), "{} with seed {seed}", scenario.name);
                }
            }
        }
    }
}
