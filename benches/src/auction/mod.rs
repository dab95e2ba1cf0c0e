//! The auction: does it hold, is it fair, how fast is it.
//!
//! ```text
//! simulate    worlds by seed, with faults            ──> 0 broken invariants, or a line that shows one again
//! scenarios   Diego's own, with its pass criteria    ──> placements/s beside Diego's
//! inprocess   100,000 cells in this process          ──> placements/s, cost by fill, messages by number of cells
//! trace       arrivals and lifetimes of a real cloud ──> refusals, spread of use beside a scheduler that sees all
//! sockets     auctioneers and cell services, gRPC     ──> acknowledged placements/s, latency from the intended start
//! ```
//! Each part prints tables, or JSON, and writes a section of docs/figures.md.

mod auctioneers;
mod fills;
mod fleet;
mod inprocess;
mod omniscient;
mod replay;
mod report;
mod scenarios;
mod simulate;
mod sockets;
mod trace;

use crate::Result;
use clap::Args;
use std::path::PathBuf;

/// What to run; without any of the parts named, all of them.
#[derive(Args, Clone)]
pub(crate) struct AuctionOptions {
    /// Run simulated worlds.
    #[arg(long)]
    pub(crate) simulate: bool,
    /// How many worlds, from --first on.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) first: u64,
    /// Run this one world, and show all that happens in it.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    pub(crate) seed: Option<u64>,
    /// Threads; default is one for each core.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Run Diego's scenarios.
    #[arg(long)]
    pub(crate) scenarios: bool,
    /// Place on ledgers in this process.
    #[arg(long)]
    pub(crate) inprocess: bool,
    /// Replay a trace: the file named, or the Azure trace beside the checkout. CSV, plain or gzip, with the columns
    /// arrival_s,app,cpu_milli,memory_mib,lifetime_s,censored, in order of arrival.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub(crate) trace: Option<Option<PathBuf>>,
    /// The cells of the replay: CSV with the columns name,zone,cpu_milli,memory_mib,disk_mib,containers.
    #[arg(long, value_name = "FILE")]
    pub(crate) cells: Option<PathBuf>,
    /// Place on real cell services over sockets.
    #[arg(long)]
    pub(crate) sockets: bool,
    #[command(flatten)]
    pub(crate) socket: sockets::SocketOptions,
    /// Tiny counts, for CI: does it still run. Writes no document.
    #[arg(long)]
    pub(crate) smoke: bool,
    /// Results as JSON on standard output, in place of the tables.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where figures.md and the plots are written.
    #[arg(long, default_value = "docs", value_name = "DIR")]
    pub(crate) docs: PathBuf,
}

impl AuctionOptions {
    fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or(cores).max(1)
    }
}

/// Runs the parts that are asked for.
///
/// # Errors
/// The first invariant that is broken, or whatever cannot be read or written.
pub(crate) fn run(options: &AuctionOptions) -> Result<()> {
    let is_replay = options.trace.is_some() || options.cells.is_some();
    let names_none = !(is_replay
        || options.scenarios
        || options.inprocess
        || options.simulate
        || options.sockets
        || options.seed.is_some());
    if options.simulate || options.seed.is_some() || names_none {
        simulate::run(options)?;
    }
    if options.scenarios || names_none {
        scenarios::run(options)?;
    }
    if options.inprocess || names_none {
        inprocess::run(options)?;
    }
    if options.sockets || names_none {
        sockets::run(options)?;
    }
    if is_replay || names_none {
        fills::run(options)?;
    }
    Ok(())
}
