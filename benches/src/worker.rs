//! Worker processes: each sits in one root and starts what it is told to, measuring.
//!
//! ```text
//! harness                      worker (one per root)
//!   Job ── JSON line ──>  reset steps, then timed steps, count times at the given concurrency
//!   Batch <── JSON line ──  a latency for each, wall time, CPU time of everything below the worker's cgroup
//! ```
//! A worker unshares its mount and cgroup namespaces, puts a view of its own cgroup2 directory at /sys/fs/cgroup, binds
//! the work directory to /mnt, and changes its root. Engines in there see one empty unified hierarchy, so none touches
//! a version 1 hierarchy of the machine; the mounts vanish with the worker, and what daemons burn is in the cgroup's sum.

mod inside;
mod library;
mod outside;

pub(crate) use inside::serve;
pub(crate) use outside::Worker;

use serde::{Deserialize, Serialize};

/// Where a worker sees the work directory.
pub(crate) const WORK: &str = "/mnt";
/// Replaced in every argument by an identifier no other start has.
pub(crate) const ID: &str = "{id}";

/// One command line.
pub(crate) type Argv = Vec<String>;

/// A command line out of string slices.
pub(crate) fn argv(words: &[&str]) -> Argv {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What a worker is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Start something many times.
    Measure(Measured),
    /// Run once, untimed; the answer holds what it printed.
    Once(Argv),
    /// Start a daemon; the answer holds its process id.
    Daemon(Argv),
    /// End a daemon that this worker started, and wait for it.
    Stop(u32),
}

/// Something to be started many times.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Before each sample, untimed; failures do not matter.
    pub(crate) reset: Vec<Argv>,
    /// Start through the library, in place of `steps`; a latency is then the time to execve.
    pub(crate) library: bool,
    /// Timed together, one after the other.
    pub(crate) steps: Vec<Argv>,
    /// After each sample, untimed.
    pub(crate) clean: Vec<Argv>,
    /// Samples at least.
    pub(crate) count_min: usize,
    /// Samples at most.
    pub(crate) count_max: usize,
    /// No sample begins later than this, once `count_min` are done.
    pub(crate) budget_ms: u64,
    /// Threads that start samples.
    pub(crate) concurrency: usize,
}

/// A worker's answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// One for each sample.
    pub(crate) latencies_us: Vec<u64>,
    /// From the first start to the last exit.
    pub(crate) wall_us: u64,
    /// CPU time of everything in the worker's cgroup meanwhile, clean-up included at concurrency above one.
    pub(crate) cpu_us: u64,
    /// Samples that did not exit with 0.
    pub(crate) failures_count: usize,
    /// What went wrong first.
    pub(crate) failure: Option<String>,
    /// Standard output of `Once`, process id of `Daemon`.
    pub(crate) output: String,
}
