//! Starts one by one with a number of them at once, beside crun and podman.
//!
//! ```text
//! a task of the cell     Start ... EXITED        a call, a journal, a container's whole life
//! an instance            Start ... RUNNING
//! crun run, podman run   spawn ... exit          as in `benches start`, whose workers these are
//! ```

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::CellOptions;
use super::client::{Client, Life};
use crate::Result;
use crate::peers::{Field, Sources};
use crate::samples::{Row, Samples};
use crate::start::{registry_with_small, workers};
use crate::worker::{Batch, Measured};

/// What a curve shows of the cell.
const TASK: &str = "celda cell, a task's whole life";
const INSTANCE: &str = "celda cell, until it runs";

/// Rows for each number at once.
///
/// # Errors
/// When the cell fails, or a worker is lost. A peer that cannot be measured is left out aloud.
pub(super) fn run(
    options: &CellOptions,
    runtime: &tokio::runtime::Runtime,
    client: &Client,
    work: &Path,
) -> Result<Vec<Row>> {
    std::fs::create_dir_all(work.join("tmp"))?;
    std::fs::copy(&options.celda, work.join("celda"))?;
    let (_registry, small) = registry_with_small(work);
    let sources = Sources { small: small.as_deref() };
    let mut field = Field::assemble(workers(&options.peer_roots, work)?, &sources, &options.only, false)?;
    let mut rows = Vec::new();
    for at_once in options.at_once.iter().copied().filter(|count| !options.smoke || *count <= 4) {
        let at_once = at_once.max(1);
        let starts = if options.smoke { 8 } else { options.starts }.max(at_once);
        let tasks = || runtime.block_on(many(at_once, starts, || client.task()));
        let instances = || runtime.block_on(many(at_once, starts, || client.instance()));
        for (peer, batch) in [(TASK, tasks()?), (INSTANCE, instances()?)] {
            rows.push(row(peer, at_once, batch)?);
        }
        for peer in &field.peers {
            let count = if options.smoke { 8 } else { starts.min(options.peer_starts) }.max(at_once);
            let job =
                Measured { count_min: count, count_max: count, concurrency: at_once, ..peer.start.clone() };
            rows.push(row(&peer.name, at_once, field.workers[peer.worker].measure(&job)?)?);
        }
    }
    Ok(rows)
}

pub(super) fn row(peer: &str, at_once: usize, batch: Batch) -> Result<Row> {
    let mut samples = Samples::new(peer, "warm", at_once)?;
    samples.add(batch);
    Ok(samples.row())
}

/// So many lives, so many at once.
pub(super) async fn many<F: Future<Output = Result<Life>>>(
    at_once: usize,
    count: usize,
    life: impl Fn() -> F,
) -> Result<Batch> {
    let left = AtomicUsize::new(count);
    let began = Instant::now();
    let caller = || async {
        let mut latencies_us = Vec::new();
        while left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            latencies_us.push(life().await?.latency.as_micros() as u64);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(latencies_us)
    };
    let latencies = futures_util::future::try_join_all((0..at_once).map(|_| caller())).await?;
    let wall_us = began.elapsed().as_micros() as u64;
    Ok(Batch { latencies_us: latencies.concat(), wall_us, ..Batch::default() })
}
