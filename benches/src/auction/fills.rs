//! A trace at several fills: the auction beside a scheduler that sees everything.

use super::AuctionOptions;
use super::auctioneers::Auctioneers;
use super::fleet::Fleet;
use super::omniscient::Omniscient;
use super::replay::{Measured, Play, play};
use super::report::{Report, Table, thousands};
use super::trace::{self, Bin};
use crate::Result;
use crate::plot::draw_lines;
use celda_auction::demand::Resources;
use celda_auction::round::Config;
use plotters::prelude::*;
use std::path::{Path, PathBuf};

/// Cells, zones and auctioneers of the replay.
const CELLS: u32 = 1_000;
const ZONES: u32 = 3;
const AUCTIONEERS: usize = 64;
/// A cell of 64 cores and 256 GiB.
const CAPACITY: Resources =
    Resources { cpu_milli: 64_000, memory_mib: 262_144, disk_mib: 1 << 20, containers: 250, ports: 0 };
/// Copies of each arrival that keep the fleet at a fill: as recorded, the trace needs up to 69 % of it.
const COPIES: u32 = 4;
const FILLS: [f64; 5] = [0.50, 0.80, 0.90, 0.95, 0.99];
const SMOKE_LINES: usize = 2_000;
/// Where the trace lies beside the checkout.
const TRACE: &str = "../shared/traces/azure-v1-dev.csv.gz";
const PICTURE: &str = "auction.svg";
const PLACING: [&str; 10] = [
    "fill",
    "placed",
    "refused",
    "wrongly",
    "tries refused",
    "skew",
    "calls each",
    "batch p50 ms",
    "p99 ms",
    "omniscient refused",
];
const SPREAD: [&str; 14] = [
    "fill",
    "highest",
    "auction",
    "cpu",
    "memory",
    "max/mean",
    "omniscient",
    "cpu",
    "memory",
    "max/mean",
    "starts at once",
    "cpu",
    "memory",
    "max/mean",
];
const SIZE: (u32, u32) = (960, 540);

const NOTES: &str = "\
Virtual machines of the Azure trace of 2017 (`azure-v1-dev.csv.gz`: Cortez et al., SOSP 2017; Bergsma et al., SOSP 2021; CC-BY\n\
4.0), 64 auctioneers, messages of 100 to 400 us each way, starts of 2 ms. All that arrives in a bin of 300 s arrives at once,\n\
each app with one auctioneer, so that they are in each other's way as much as they can be. `as recorded` is the trace itself; a\n\
fill is held by admitting four copies of each arrival as long as neither cpu nor memory in use passes it. `wrongly` refused is\n\
an instance that some cell has room for. `tries refused` are instances that a cell had bid for and then refused. `skew` is the\n\
largest difference of an app's instances between zones while each had room, and how many apps have more than 1 without. Calls\n\
are asks and reservations, a question with its answer each.\n\n\
The spread is the standard deviation over cells, in points, over the bins at that fill, of the mean of cpu and memory in use,\n\
of cpu, and of memory. The omniscient scheduler places the same arrivals one instance after the other, each on the cheapest of\n\
all cells by the same prices; `starts at once` is the same, but nothing is ever starting, so that it levels use alone. `few\n\
asks` never asks more cells for being uneven, and `no memory` asks all of them at random.";

/// A line of the table: its name, how full, and how cells are asked.
struct Case {
    name: String,
    play: Play,
    config: Config,
}

fn cases() -> Vec<Case> {
    let case = |name: &str, fill: f64, config: Config| {
        let copies = if fill.is_finite() { COPIES } else { 1 };
        Case { name: name.to_owned(), play: Play { copies, fill }, config }
    };
    let usual = Config::default();
    let mut cases = vec![case("as recorded", f64::INFINITY, usual)];
    cases.extend(FILLS.map(|fill| case(&format!("{:.0} %", fill * 100.0), fill, usual)));
    // What asking more of uneven cells is good for.
    let few = Config { sample_per_four_uneven: usual.sample_per_four, ..usual };
    cases.push(case("80 %, few asks", 0.80, few));
    cases.push(case("80 %, no memory", 0.80, Config { memory: 0, ..usual }));
    cases
}

/// Replays the trace at each fill.
///
/// # Errors
/// When trace or cells cannot be read, or results not written.
pub(super) fn run(options: &AuctionOptions) -> Result<()> {
    let named = options.trace.clone().flatten();
    let path = named.clone().unwrap_or_else(|| PathBuf::from(TRACE));
    if named.is_none() && !path.exists() {
        eprintln!("skipped: no trace at {TRACE}; name one with --trace");
        return Ok(());
    }
    let mut report = Report::new("auction-trace", "The auction on a trace of a cloud", NOTES);
    let bins = trace::read(&path, if options.smoke { SMOKE_LINES } else { usize::MAX })?;
    let (mut placing, mut spread) = (Table::new("Placing", &PLACING), Table::new("Spread", &SPREAD));
    let mut last = None;
    let cases = cases();
    // Two lines at a time: each is a world of its own, and nothing here is timed.
    for pair in cases.chunks(options.threads()) {
        let compared = std::thread::scope(|scope| {
            let handles: Vec<_> =
                pair.iter().map(|case| scope.spawn(|| compare(options, &bins, case))).collect();
            let join = |handle: std::thread::ScopedJoinHandle<'_, Result<Compared>>| {
                handle.join().expect("a panic ends the process in a release build")
            };
            handles.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        for (case, compared) in pair.iter().zip(compared) {
            placing.rows.push(compared.placing);
            spread.rows.push(compared.spread);
            if case.play.fill == FILLS[FILLS.len() - 1] {
                last = Some((compared.auction, compared.omniscient));
            }
        }
    }
    report.add(placing);
    report.add(spread);
    if let Some((auction, omniscient)) = last
        && !options.smoke
    {
        std::fs::create_dir_all(&options.docs)?;
        plot(&auction, &omniscient, &options.docs.join(PICTURE))?;
        report.picture(PICTURE);
    }
    report.finish(options)
}

fn fleet(options: &AuctionOptions) -> Result<Fleet> {
    match &options.cells {
        Some(path) => Fleet::read(path),
        None => Fleet::uniform(CELLS, ZONES, &CAPACITY, CAPACITY.containers),
    }
}

/// What came of a line.
struct Compared {
    placing: Vec<String>,
    spread: Vec<String>,
    auction: Measured,
    omniscient: Measured,
}

/// Plays the trace on all three.
fn compare(options: &AuctionOptions, bins: &[Bin], case: &Case) -> Result<Compared> {
    let mut auctioneers = Auctioneers::new(fleet(options)?, AUCTIONEERS, case.config)?;
    let auction = play(&mut auctioneers, bins, case.play)?;
    let omniscient = play(&mut Omniscient::new(fleet(options)?, false), bins, case.play)?;
    let at_once = play(&mut Omniscient::new(fleet(options)?, true), bins, case.play)?;
    let stats = &auctioneers.stats;
    let percent = |part: u64, all: u64| format!("{:.3} %", 100.0 * part as f64 / all.max(1) as f64);
    let milliseconds =
        |quantile| format!("{:.1}", stats.batch_us.value_at_quantile(quantile) as f64 / 1000.0);
    let placing = vec![
        case.name.clone(),
        thousands(auction.placed as f64),
        thousands(auction.refused as f64),
        auction.refused_wrongly.to_string(),
        percent(stats.tries_refused, stats.tries),
        format!("{} ({} of {})", auction.skew_max, auction.skewed_apps, thousands(auction.apps as f64)),
        format!("{:.2}", (stats.asks + stats.reserves) as f64 / auction.placed.max(1) as f64),
        milliseconds(0.5),
        milliseconds(0.99),
        thousands(omniscient.refused as f64),
    ];
    let mut spread = vec![case.name.clone(), format!("{:.1} %", auction.fill_max * 100.0)];
    for measured in [&auction, &omniscient, &at_once] {
        match measured.at_fill.means() {
            Some(means) => spread.extend(means.map(|value| format!("{value:.2}"))),
            None => spread.extend(["-"; 4].map(str::to_owned)),
        }
    }
    Ok(Compared { placing, spread, auction, omniscient })
}

/// The spread of use over the fill, both schedulers.
fn plot(auction: &Measured, omniscient: &Measured, path: &Path) -> Result<()> {
    let line = |measured: &Measured| -> Vec<(f64, f64)> {
        let fills = measured.by_fill.iter().enumerate();
        fills.filter_map(|(fill, spread)| Some((fill as f64, spread.means()?[0]))).collect()
    };
    let lines = [("64 auctioneers", line(auction)), ("omniscient", line(omniscient))];
    let highest = lines.iter().flat_map(|(_, points)| points).map(|point| point.1).fold(1.0, f64::max);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("standard deviation of use over 1,000 cells while they fill, points", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..100.0, 0.0..highest * 1.15)?;
    chart.configure_mesh().x_desc("full, %").y_desc("points").draw()?;
    draw_lines(&mut chart, lines, SeriesLabelPosition::UpperRight)?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::trace::Arrival;
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    /// Arrivals of one to eight instances of one to eight cores, for one to twenty bins.
    fn bins() -> Vec<Bin> {
        let mut rng = Pcg64Mcg::seed_from_u64(5);
        let arrival = |app: u64, rng: &mut Pcg64Mcg| {
            let cpu_milli = 1_000 << rng.random_range(0..4);
            let resources =
                Resources { cpu_milli, memory_mib: 2 * cpu_milli, disk_mib: 0, containers: 1, ports: 0 };
            let count = rng.random_range(1..=8);
            let lifetimes_s = (0..count).map(|_| 300 * rng.random_range(1..=20) - 150).collect();
            Arrival { app, resources, lifetimes_s }
        };
        (0..100)
            .map(|bin| {
                let arrivals =
                    (0..60).map(|number| arrival(u64::from(bin) * 60 + number, &mut rng)).collect();
                Bin { at_s: bin * 300, arrivals }
            })
            .collect()
    }

    #[test]
    fn nothing_is_refused_wrongly_zones_are_even_and_the_spread_is_near_the_omniscient_ones() {
        let fleet = || Fleet::uniform(150, ZONES, &CAPACITY, CAPACITY.containers).unwrap();
        for fill in [0.8, 0.97] {
            let how = Play { copies: 3, fill };
            let mut auctioneers = Auctioneers::new(fleet(), AUCTIONEERS, Config::default()).unwrap();
            let auction = play(&mut auctioneers, &bins(), how).unwrap();
            let omniscient = play(&mut Omniscient::new(fleet(), false), &bins(), how).unwrap();
            assert!(auction.placed > 10_000 && auction.fill_max > fill - 0.02, "{auction:?}");
            assert_eq!(auction.refused_wrongly, 0, "at {fill}");
            assert!(auction.skew_max <= 1, "at {fill}: {}", auction.skew_max);
            let (auction, omniscient) =
                (auction.at_fill.means().unwrap(), omniscient.at_fill.means().unwrap());
            // Sampling has a price, but not a large one.
            assert!(auction[0] < omniscient[0] + 3.0, "at {fill}: {auction:?} {omniscient:?}");
        }
    }
}
