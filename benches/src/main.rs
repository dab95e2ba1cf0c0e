//! Measures how fast containers start and images become running, celda beside its peers; and the auction.
//!
//! ```text
//! main ──> auction ──> simulated worlds, Diego's scenarios, ledgers in this process, a replayed trace
//!   ├────> cell ──> an agent, and its instances by the hundred
//!   ├────> exec | logs | health | network ──> a room of the cell, beside its floor or a peer
//!   └────> start | pull ──> worker processes, one per root ──> celda, crun, runc, podman, ctr
//!              │                 (own cgroup, own mount namespace, chroot)
//!              └──> samples ──> report (table, JSON, docs/figures.md) and plot (SVG)
//! ```
//! What is measured is a whole process against a whole process: from before the spawn of the command to its exit. Peers
//! take turns in rounds, so that whatever else the machine does meets all of them.

#![deny(unsafe_code)]

mod auction;
mod big;
mod bundle;
mod cell;
mod containerd;
mod fixture;
mod machine;
mod options;
mod peers;
mod plot;
mod pull;
mod registry;
mod report;
mod rooms;
mod samples;
mod start;
mod worker;

use clap::Parser;
use options::{Command, Options};
use std::process::ExitCode;

/// What any part may answer: a sentence that says what was being done.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let outcome = match Options::parse().command {
        Command::Start(options) => start::run(&options),
        Command::Pull(options) => pull::run(&options),
        Command::Auction(options) => auction::run(&options),
        Command::Cell(options) => cell::run(&options),
        Command::Exec(options) => rooms::exec(&options),
        Command::Health(options) => rooms::health(&options),
        Command::Network(options) => rooms::network(&options),
        Command::Logs(options) => rooms::logs(&options),
        Command::Worker(options) => worker::serve(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches: {error}");
            ExitCode::FAILURE
        }
    }
}
