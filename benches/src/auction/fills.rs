//! A trace at several fills: the auction beside a scheduler that sees everything.

use super::AuctionOptions;
use super::auctioneers::Auctioneers;
use super::fleet::Fleet;
use super::omniscient::Omniscient;
use super::replay::{Measured, Play, play};
use super::report::{Report, Table, thousands};
use super::trace::{self, Bin};
use crate::Result;
use celda_auction::demand::Resources;
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
const SIZE: (u32, u32) = (960, 540);

const NOTES: &str = "\
Virtual machines of the Azure trace of 2017 (`azure-v1-dev.csv.gz`: Cortez et al., SOSP 2017; Bergsma et al., SOSP 2021; CC-BY\n\
4.0), 64 auctioneers, messages of 100 to 400 us each way. All that arrives in a bin of 300 s arrives at once, each app with one\n\
auctioneer, so that they are in each other's way as much as they can be. `as recorded` is the trace itself; a fill is held by\n\
admitting four copies of each arrival as long as neither cpu nor memory in use passes it. The omniscient scheduler places the\n\
same arrivals one instance after the other, each on the cheapest of all cells. `wrongly` refused is an instance that some cell\n\
has room for. `tries refused` are instances that a cell had bid for and then refused. sd is the standard deviation over cells\n\
of the mean of cpu and memory in use, of cpu, and of memory, in points, over the bins at that fill. `skew` is the largest difference of an\n\
app's instances between zones while each had room. Calls are asks and reservations.";

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
    let mut table = Table::new(
        "64 auctioneers and the omniscient scheduler",
        &[
            "fill",
            "placed",
            "refused",
            "wrongly",
            "tries refused",
            "skew",
            "sd",
            "cpu",
            "memory",
            "max/mean",
            "omniscient sd",
            "cpu",
            "memory",
            "max/mean",
            "its refused",
            "calls each",
            "batch p50 ms",
            "p99 ms",
        ],
    );
    let recorded = ("as recorded".to_owned(), Play { copies: 1, fill: f64::INFINITY });
    let held = FILLS.map(|fill| (format!("{:.0} %", fill * 100.0), Play { copies: COPIES, fill }));
    let mut last = None;
    for (name, how) in [recorded].into_iter().chain(held) {
        let (row, measured) = compare(options, &bins, &name, how)?;
        eprintln!("{}", row.join("  "));
        table.rows.push(row);
        last = Some(measured);
    }
    report.add(table);
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

/// Plays the trace on both, and gives the line of the table.
fn compare(
    options: &AuctionOptions,
    bins: &[Bin],
    name: &str,
    how: Play,
) -> Result<(Vec<String>, (Measured, Measured))> {
    let mut auctioneers = Auctioneers::new(fleet(options)?, AUCTIONEERS)?;
    let auction = play(&mut auctioneers, bins, how)?;
    let omniscient = play(&mut Omniscient::new(fleet(options)?), bins, how)?;
    let stats = &auctioneers.stats;
    let spread = |measured: &Measured| match measured.at_fill.means() {
        Some([both, cpu, memory, max]) => [both, cpu, memory, max].map(|value| format!("{value:.2}")),
        None => ["-"; 4].map(str::to_owned),
    };
    let percent = |part: u64, all: u64| format!("{:.3} %", 100.0 * part as f64 / all.max(1) as f64);
    let milliseconds =
        |quantile| format!("{:.1}", stats.batch_us.value_at_quantile(quantile) as f64 / 1000.0);
    let mut row = vec![
        name.to_owned(),
        thousands(auction.placed as f64),
        thousands(auction.refused as f64),
        auction.refused_wrongly.to_string(),
        percent(stats.tries_refused, stats.tries),
        format!("{} ({} of {})", auction.skew_max, auction.skewed_apps, auction.apps),
    ];
    row.extend(spread(&auction));
    row.extend(spread(&omniscient));
    row.push(thousands(omniscient.refused as f64));
    row.push(format!("{:.2}", (stats.asks + stats.reserves) as f64 / auction.placed.max(1) as f64));
    row.extend([milliseconds(0.5), milliseconds(0.99)]);
    Ok((row, (auction, omniscient)))
}

/// The spread of use over the fill, both schedulers.
fn plot(auction: &Measured, omniscient: &Measured, path: &Path) -> Result<()> {
    let line = |measured: &Measured| -> Vec<(f64, f64)> {
        let fills = measured.by_fill.iter().enumerate();
        fills.filter_map(|(fill, spread)| Some((fill as f64, spread.means()?[0]))).collect()
    };
    let lines = [
        ("64 auctioneers", RGBColor(213, 94, 0), line(auction)),
        ("omniscient", RGBColor(0, 114, 178), line(omniscient)),
    ];
    let highest = lines.iter().flat_map(|(_, _, points)| points).map(|point| point.1).fold(1.0, f64::max);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("standard deviation of use over 1,000 cells while they fill, points", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..100.0, 0.0..highest * 1.15)?;
    chart.configure_mesh().x_desc("full, %").y_desc("points").draw()?;
    for (name, colour, points) in lines {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()?;
    Ok(())
}
