//! Real auctioneers against real cell services, over sockets on this machine.
//!
//! ```text
//! thread "auctioneers"                                    thread "cells"
//!   64 x Poisson arrivals ─> place(batch) ─> one stream to each cell ─> 1,000 services, each with its own listener
//!          intended start ──────── latency ───────> acknowledged
//! ```
//! Load is open: a batch has its intended start from the arrival process, whatever became of those before, and its
//! latency counts from there. Each acknowledged instance counts with the latency of its whole batch. What is placed ends
//! by itself: its reservation is held for [`TTL_US`] and then expires.

use super::AuctionOptions;
use super::report::{Report, Table, thousands};
use crate::Result;
use celda_auction::client::{Auctioneer, Auctions, Cells, Options, Traffic};
use celda_auction::demand::{AppId, Batch, Demand, Resources};
use celda_auction::ledger::{Epoch, Ledger};
use celda_auction::membership::{Change, Member};
use celda_auction::round::Config;
use celda_auction::service::{CellService, Limits, Listener};
use celda_auction::transport::{Address, Users};
use celda_auction::view::Class;
use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::time::Instant;

/// Zones that the cells are divided among.
const ZONES_COUNT: usize = 3;
/// How long what is placed stays.
const TTL_US: u64 = 1_000_000;
/// Instances of a batch, from and to.
const BATCH_COUNT: std::ops::RangeInclusive<u32> = 8..=32;
/// A cell: 64 cores, 256 GiB of memory, 2 TiB of disk.
const CELL: Resources =
    Resources { cpu_milli: 64_000, memory_mib: 256 << 10, disk_mib: 2 << 20, containers: 512, ports: 10_000 };
/// Sizes of instances, one of which a batch has.
const INSTANCES: [Resources; 3] = [
    Resources { cpu_milli: 250, memory_mib: 512, disk_mib: 1024, containers: 1, ports: 1 },
    Resources { cpu_milli: 500, memory_mib: 1024, disk_mib: 1024, containers: 1, ports: 1 },
    Resources { cpu_milli: 1000, memory_mib: 4096, disk_mib: 4096, containers: 1, ports: 1 },
];
/// Load that is not counted before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);
/// Batches that each auctioneer keeps under way when the most that is possible is looked for.
const SATURATING_BATCHES: usize = 4;
/// How long rounds wait for answers.
const PATIENCE_US: u64 = 2_000_000;
/// Latencies up to this are told apart, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;

/// The loads, in placements a second, that are offered after the most that is possible.
const RATES: [f64; 2] = [50_000.0, 25_000.0];
/// Cells that are asked for every four instances: as is the default.
const SAMPLES: [u32; 1] = [Config::DEFAULT.sample_per_four];

const NOTES: &str = "\
Each cell is a gRPC service with a listener of its own; each has one connection, which all auctioneers of the process\n\
share. Cells run on one thread, auctioneers on another. Batches of 8 to 32 equal instances, each instance on another cell.\n\
`offered` 0 is as much as possible, with four batches under way for each auctioneer. Otherwise batches arrive as a Poisson\n\
process, and latency counts from the intended start to the acknowledgement of the whole batch. `messages` are calls and\n\
answers for each placement; `frames` the gRPC messages that they shared. `cores` is the processor time that both sides\n\
took for each second: where it is below what is left idle, others kept the machine busy. `std-dev` is that of the used\n\
fraction of the cells at the end of the load, in points.";

/// A kind of socket.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Unix,
}

/// How the sockets are used.
#[derive(clap::Args, Clone)]
pub(crate) struct SocketOptions {
    /// Cell services.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    socket_cells: usize,
    /// Auctioneers.
    #[arg(long, default_value_t = 64, value_name = "N")]
    auctioneers: usize,
    /// Placements a second that are offered, one measurement for each.
    #[arg(long, value_delimiter = ',', default_values_t = RATES)]
    rates: Vec<f64>,
    /// Seconds of each measurement, after one that is not counted.
    #[arg(long, default_value_t = 5.0, value_name = "S")]
    socket_seconds: f64,
    /// Cells that are asked for every four instances of a batch, a table for each.
    #[arg(long, value_delimiter = ',', default_values_t = SAMPLES, value_name = "N")]
    samples: Vec<u32>,
    /// Only over these.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Tcp, Kind::Unix])]
    kinds: Vec<Kind>,
}

impl SocketOptions {
    /// For CI: does it still run.
    fn smoke(self) -> Self {
        Self {
            socket_cells: 20,
            auctioneers: 4,
            rates: vec![500.0],
            samples: vec![5],
            socket_seconds: 1.0,
            ..self
        }
    }
}

/// One measurement.
struct Load {
    offered: Option<f64>,
    acknowledged_per_second: f64,
    refused: u64,
    turned_away: u64,
    latencies_us: Histogram<u64>,
    messages: f64,
    frames: f64,
    cpu_us: f64,
    /// Standard deviation of the used fraction of cells (mean of cpu, memory, disk, containers) at the end.
    deviation: f64,
}

impl Load {
    fn row(&self) -> Vec<String> {
        let quantile_ms =
            |quantile| format!("{:.1}", self.latencies_us.value_at_quantile(quantile) as f64 / 1e3);
        vec![
            thousands(self.offered.unwrap_or_default()),
            thousands(self.acknowledged_per_second),
            quantile_ms(0.5),
            quantile_ms(0.99),
            quantile_ms(0.999),
            quantile_ms(1.0),
            self.refused.to_string(),
            self.turned_away.to_string(),
            format!("{:.2}", self.messages),
            format!("{:.2}", self.frames),
            format!("{:.1}", self.cpu_us),
            format!("{:.2}", self.cpu_us * self.acknowledged_per_second / 1e6),
            format!("{:.2}", self.deviation * 100.0),
        ]
    }
}

/// Runs the loads.
///
/// # Errors
/// When a cell cannot be served or reached.
pub(super) fn run(options: &AuctionOptions) -> Result<()> {
    let mut report = Report::new("auction-sockets", "The auction over sockets", NOTES);
    let socket = options.socket.clone();
    let socket = if options.smoke { socket.smoke() } else { socket };
    for kind in &socket.kinds {
        for table in over(*kind, &socket)? {
            report.add(table);
        }
    }
    report.finish(options)
}

/// Runs the loads over one kind of socket.
fn over(kind: Kind, socket: &SocketOptions) -> Result<Vec<Table>> {
    let directory = tempfile::tempdir()?;
    let (sender, receiver) = mpsc::channel();
    let (count, sockets) = (socket.socket_cells, (kind == Kind::Unix).then(|| directory.path().to_owned()));
    // Serves until the process ends.
    std::thread::Builder::new().name("cells".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime
            .map_err(Into::into)
            .and_then(|runtime| runtime.block_on(serve(count, sockets.as_deref(), &sender)));
        if let Err(error) = served {
            let _ = sender.send(Err(error));
        }
    })?;
    let served: Vec<(Address, Arc<Ledger>)> = receiver.iter().take(count).collect::<Result<_>>()?;
    let (addresses, ledgers): (Vec<_>, Vec<_>) = served.into_iter().unzip();
    let cells = members(addresses, Users::owner_of(directory.path())?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let columns = [
        "offered",
        "placed/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "refused",
        "turned away",
        "messages",
        "frames",
        "cpu us",
        "cores",
        "std-dev %",
    ];
    let kind = if kind == Kind::Unix { "unix sockets" } else { "TCP" };
    let mut tables = Vec::new();
    for &sample in &socket.samples {
        let loads = all_loads(socket, sample, &cells, &ledgers);
        let loads = runtime.block_on(tokio::task::LocalSet::new().run_until(loads))?;
        let auctioneers = socket.auctioneers;
        let asks = f64::from(sample) / 4.0;
        let title =
            format!("{count} cells, {auctioneers} auctioneers, {kind}, {asks} asked for each instance");
        let mut table = Table::new(title, &columns);
        table.rows = loads.iter().map(Load::row).collect();
        tables.push(table);
    }
    Ok(tables)
}

async fn all_loads(
    socket: &SocketOptions,
    sample: u32,
    cells: &Cells,
    ledgers: &[Arc<Ledger>],
) -> Result<Vec<Load>> {
    let connected = cells.connect().await;
    if connected != socket.socket_cells {
        return Err(format!("only {connected} of {} cells are connected", socket.socket_cells).into());
    }
    let round = Config {
        ttl_us: TTL_US,
        sample_per_four: sample,
        // Under the load that is looked for, answers queue: none is to be taken for lost.
        ask_deadline_us: PATIENCE_US,
        reserve_deadline_us: PATIENCE_US,
        ..Config::default()
    };
    let auctions = Auctions { round, ..Auctions::default() };
    let auctioneers = (0..socket.auctioneers).map(|_| Auctioneer::new(cells.clone(), auctions).map(Rc::new));
    let auctioneers: Vec<_> = auctioneers.collect::<std::result::Result<_, _>>()?;
    let mut loads = Vec::new();
    for rate in std::iter::once(None).chain(socket.rates.iter().copied().map(Some)) {
        loads.push(load(&auctioneers, ledgers, rate, Duration::from_secs_f64(socket.socket_seconds)).await?);
    }
    Ok(loads)
}

/// Serves the cells, each on a listener of its own, and says where.
async fn serve(
    count: usize,
    sockets: Option<&Path>,
    sender: &mpsc::Sender<Result<(Address, Arc<Ledger>)>>,
) -> Result<()> {
    let mut services = tokio::task::JoinSet::new();
    for index in 0..count {
        let listener = match sockets {
            Some(directory) => {
                Listener::unix(&directory.join(index.to_string()), Users::owner_of(directory)?)?
            }
            None => Listener::loopback("127.0.0.1:0").await?,
        };
        let ledger = Arc::new(Ledger::new(&CELL, CELL.containers, Epoch(1))?);
        sender.send(Ok((listener.address().clone(), ledger.clone())))?;
        let service = CellService::new(ledger, Class::default(), Limits::default());
        services.spawn(service.serve(listener, std::future::pending()));
    }
    while let Some(ended) = services.join_next().await {
        ended??;
    }
    Ok(())
}

fn members(addresses: Vec<Address>, users: Users) -> Result<Cells> {
    let cells = Cells::new(Options { users, ..Options::default() });
    for (index, address) in addresses.into_iter().enumerate() {
        let member = Member {
            name: format!("cell-{index}").into(),
            zone: format!("z{}", index % ZONES_COUNT).into(),
            class: Class::default(),
            address,
        };
        cells.apply(Change::Joined(Arc::new(member)))?;
    }
    Ok(cells)
}

/// What a load has come to so far.
struct Tally {
    latencies_us: Histogram<u64>,
    counts_from: Instant,
    counts_to: Instant,
    acknowledged: u64,
    refused: u64,
    turned_away: u64,
    failure: Option<String>,
}

/// Offers `rate` placements a second for `seconds`, or as many as possible.
async fn load(
    auctioneers: &[Rc<Auctioneer>],
    ledgers: &[Arc<Ledger>],
    rate: Option<f64>,
    time: Duration,
) -> Result<Load> {
    let began = Instant::now();
    let tally = Rc::new(RefCell::new(Tally {
        latencies_us: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?,
        counts_from: began + WARM_UP,
        counts_to: began + WARM_UP + time,
        acknowledged: 0,
        refused: 0,
        turned_away: 0,
        failure: None,
    }));
    let mut tasks = tokio::task::JoinSet::new();
    for (index, auctioneer) in auctioneers.iter().enumerate() {
        let rng = Pcg64Mcg::seed_from_u64(index as u64);
        match rate {
            Some(rate) => {
                let batch = f64::from(BATCH_COUNT.start() + BATCH_COUNT.end()) / 2.0;
                let batches_per_second = rate / batch / auctioneers.len() as f64;
                tasks.spawn_local(arrive(auctioneer.clone(), rng, batches_per_second, tally.clone()));
            }
            None => {
                for _ in 0..SATURATING_BATCHES {
                    tasks.spawn_local(repeat(auctioneer.clone(), rng.clone(), tally.clone()));
                }
            }
        }
    }
    let cells = auctioneers.first().ok_or("no auctioneers")?.cells().clone();
    tokio::time::sleep(WARM_UP).await;
    let (traffic, cpu_us) = (cells.traffic(), cpu_us()?);
    tokio::time::sleep(time).await;
    let (traffic_after, cpu_us_after) = (cells.traffic(), self::cpu_us()?);
    let deviation = deviation(ledgers);
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    let tally = tally.borrow();
    if let Some(failure) = &tally.failure {
        return Err(failure.clone().into());
    }
    let cpu_us = cpu_us_after - cpu_us;
    Ok(Load { deviation, ..summary(&tally, rate, time, &traffic, &traffic_after, cpu_us) })
}

fn summary(
    tally: &Tally,
    rate: Option<f64>,
    time: Duration,
    before: &Traffic,
    after: &Traffic,
    cpu_us: f64,
) -> Load {
    let placements = tally.acknowledged.max(1) as f64;
    let delta = |count: fn(&Traffic) -> u64| (count(after) - count(before)) as f64 / placements;
    Load {
        offered: rate,
        acknowledged_per_second: tally.acknowledged as f64 / time.as_secs_f64(),
        refused: tally.refused,
        turned_away: tally.turned_away,
        latencies_us: tally.latencies_us.clone(),
        messages: delta(|traffic| traffic.calls + traffic.answers),
        frames: delta(|traffic| traffic.messages + traffic.answer_messages),
        cpu_us: cpu_us / placements,
        deviation: 0.0,
    }
}

/// Batches that arrive as a Poisson process, each placed by a task of its own.
async fn arrive(
    auctioneer: Rc<Auctioneer>,
    mut rng: Pcg64Mcg,
    batches_per_second: f64,
    tally: Rc<RefCell<Tally>>,
) {
    let end = tally.borrow().counts_to;
    let mut intended = Instant::now();
    loop {
        // The waiting times of a Poisson process are exponential.
        let wait = -(1.0 - rng.random::<f64>()).ln() / batches_per_second;
        intended += Duration::from_secs_f64(wait);
        if intended >= end {
            return;
        }
        tokio::time::sleep_until(intended).await;
        let batch = random_batch(&mut rng);
        tokio::task::spawn_local(place(auctioneer.clone(), batch, intended, tally.clone()));
    }
}

/// One batch after another.
async fn repeat(auctioneer: Rc<Auctioneer>, mut rng: Pcg64Mcg, tally: Rc<RefCell<Tally>>) {
    let end = tally.borrow().counts_to;
    while Instant::now() < end {
        let batch = random_batch(&mut rng);
        place(auctioneer.clone(), batch, Instant::now(), tally.clone()).await;
    }
}

fn random_batch(rng: &mut Pcg64Mcg) -> std::result::Result<Batch, celda_auction::Error> {
    let demand = Demand {
        app: AppId(rng.random()),
        resources: INSTANCES[rng.random_range(0..INSTANCES.len())],
        ..Demand::default()
    };
    Batch::new(demand, rng.random_range(BATCH_COUNT), &[])
}

async fn place(
    auctioneer: Rc<Auctioneer>,
    batch: std::result::Result<Batch, celda_auction::Error>,
    intended: Instant,
    tally: Rc<RefCell<Tally>>,
) {
    let placed = match batch {
        Ok(batch) => auctioneer.place(batch).await,
        Err(error) => {
            tally.borrow_mut().failure = Some(error.to_string());
            return;
        }
    };
    let now = Instant::now();
    let mut tally = tally.borrow_mut();
    if now < tally.counts_from || now >= tally.counts_to {
        return;
    }
    match placed {
        Ok(outcome) => {
            let held = u64::from(outcome.held());
            tally.acknowledged += held;
            tally.refused += u64::from(outcome.refused);
            let latency_us = now.duration_since(intended).as_micros() as u64;
            tally.latencies_us.saturating_record_n(latency_us.max(1), held);
        }
        Err(_) => tally.turned_away += 1,
    }
}

/// The standard deviation of the used fraction of cells.
fn deviation(ledgers: &[Arc<Ledger>]) -> f64 {
    let used = |ledger: &Arc<Ledger>| {
        let parts = ledger.free().amounts().into_iter().zip(CELL.amounts()).take(4);
        parts.map(|(free, all)| 1.0 - f64::from(free) / f64::from(all)).sum::<f64>() / 4.0
    };
    let used: Vec<f64> = ledgers.iter().map(used).collect();
    let mean = used.iter().sum::<f64>() / used.len() as f64;
    (used.iter().map(|used| (used - mean).powi(2)).sum::<f64>() / used.len() as f64).sqrt()
}

/// Processor time of this process so far, in microseconds.
fn cpu_us() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let us = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
    Ok(us(usage.user_time()) + us(usage.system_time()))
}
