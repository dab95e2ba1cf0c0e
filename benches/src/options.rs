//! The command line.

use crate::auction::AuctionOptions;
use crate::cell::CellOptions;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Measures container starts and pulls, celda beside its peers (as root), and the auction.
#[derive(Parser)]
#[command(name = "benches", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start latency and starts per second of an image that is present.
    Start(Measure),
    /// From an empty store to a running process, out of a registry on loopback.
    Pull(Measure),
    /// Placement: simulated worlds, Diego's scenarios, speed in one process, a replayed trace. Needs no root.
    Auction(AuctionOptions),
    /// An agent: hundreds of instances by one call, and one by one, a number of them at once.
    Cell(CellOptions),
    /// A program in a container that runs, beside `crun exec` and `runc exec`. As root.
    Exec(Room),
    /// What a look at an instance costs.
    Health(Room),
    /// Networks of ten thousand instances, one after the other. As root.
    Network(Room),
    /// Lines of a thousand instances to files, beside a `cat >/dev/null` for each.
    Logs(Room),
    /// The process that starts what it is told to, in a root of its own.
    #[command(hide = true)]
    Worker(WorkerOptions),
}

#[derive(Args, Clone)]
pub(crate) struct Measure {
    /// The celda binary under test.
    #[arg(long, default_value = "target/release/celda")]
    pub(crate) celda: PathBuf,
    /// A root directory with newer peers in it, such as a debootstrap of another release. May be given again.
    #[arg(long = "peer-root", value_name = "DIR")]
    pub(crate) peer_roots: Vec<PathBuf>,
    /// Only peers whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// How many at once.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64")]
    pub(crate) concurrency: Vec<usize>,
    /// Rounds of alternation.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Seconds per peer and concurrency, over all rounds.
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
    /// Tiny counts, for CI: does it still run. Writes no document.
    #[arg(long)]
    pub(crate) smoke: bool,
    /// The samples as JSON on standard output, in place of the table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where figures.md and the plot are written.
    #[arg(long, default_value = "docs", value_name = "DIR")]
    pub(crate) docs: PathBuf,
    /// A directory on the disk to measure on; default is the system's temporary directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    /// An OCI layout made by tests/images/make.sh; its Debian images are pulled as well.
    #[arg(long, env = "CELDA_TEST_IMAGES", value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub(crate) struct Room {
    /// A root directory with newer peers in it. May be given again.
    #[arg(long = "peer-root", value_name = "DIR")]
    pub(crate) peer_roots: Vec<PathBuf>,
    /// Rounds of alternation.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Seconds for each side, over all rounds.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Tiny counts, for CI: does it still run.
    #[arg(long)]
    pub(crate) smoke: bool,
    /// JSON on standard output, in place of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Room {
    /// Time of one side in one round.
    pub(crate) fn round(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.max(0.0) / self.rounds.max(1) as f64)
    }
}

#[derive(Args)]
pub(crate) struct WorkerOptions {
    /// The root to run in.
    #[arg(long)]
    pub(crate) root: PathBuf,
    /// The directory that shall be /mnt in there.
    #[arg(long)]
    pub(crate) work: PathBuf,
    /// A cgroup2 directory of its own.
    #[arg(long)]
    pub(crate) cgroup: Option<PathBuf>,
}
