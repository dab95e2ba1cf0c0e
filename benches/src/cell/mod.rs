//! A cell: from one call to the last of its instances running; what it costs to keep them; starts one by one.
//!
//! ```text
//! celda agent (a process of its own) <── gRPC on its unix socket ── this: Start, and one Watch that times what comes
//! batch:   one call for --instances; first and last RUNNING and READY, then one Stop without grace to the last EXITED
//! kept:    the CPU of agent and holder while those are there and nobody asks; their memory with --kept instances
//! curve:   so many callers, each: Start one, wait, remove it, again; beside crun and podman
//! soak:    the same, thousands of them with a published port each; what there is before and after
//! ```
//! Times are from before the call to the event's arrival here, so they have the journal's sync and the API in them.

mod agent;
mod client;
mod curve;
mod soak;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use self::agent::Agent;
use self::client::{Client, Mark, all};
use crate::machine::Machine;
use crate::samples::Row;
use crate::{Result, fixture};

/// Cycles of a soak's smoke run.
const SOAK_SMOKE_CYCLES_COUNT: usize = 200;

#[derive(Args)]
pub(crate) struct CellOptions {
    /// The celda binary under test.
    #[arg(long, default_value = "target/release/celda")]
    celda: PathBuf,
    /// Instances of the one call, 1 to 1024.
    #[arg(long, default_value_t = 300)]
    instances: usize,
    /// Rounds of the one call.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Their network.
    #[arg(long, value_enum, default_value_t = Net::Cell)]
    network: Net,
    /// They serve http and are checked.
    #[arg(long)]
    health: bool,
    /// How many are kept for their memory, up to the cell's capacity of containers; 0: none.
    #[arg(long, default_value_t = 1000)]
    kept: usize,
    /// How long the agent is left alone with --instances of them, in seconds.
    #[arg(long, default_value_t = 10.0)]
    idle_seconds: f64,
    /// How many at once, of those that start one by one.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64")]
    at_once: Vec<usize>,
    /// Starts for each of these.
    #[arg(long, default_value_t = 400)]
    starts: usize,
    /// And of each peer.
    #[arg(long, default_value_t = 128)]
    peer_starts: usize,
    /// Only peers whose name contains one of these.
    #[arg(long, value_delimiter = ',', default_value = "crun,podman")]
    only: Vec<String>,
    /// A root directory with newer peers in it, such as a debootstrap of another release. May be given again.
    #[arg(long = "peer-root", value_name = "DIR")]
    peer_roots: Vec<PathBuf>,
    /// Instead of all that: so many starts and removals of an instance with a published port, and what grew.
    #[arg(long, value_name = "CYCLES")]
    soak: Option<usize>,
    /// Configuration of the agent.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Tiny counts, for CI: does it still run.
    #[arg(long)]
    smoke: bool,
    /// The numbers as JSON on standard output, in place of the table.
    #[arg(long)]
    json: bool,
    /// A directory on the disk to measure on; default is the system's temporary directory.
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Net {
    None,
    Cell,
    Host,
}

/// One round of the one call, in milliseconds from it.
#[derive(Serialize)]
struct Batch {
    accepted_ms: f64,
    first_running_ms: f64,
    last_running_ms: f64,
    /// Of the instance that ran first, from then on; with checks.
    first_ready_after_ms: Option<f64>,
    last_ready_ms: Option<f64>,
    /// From the stop.
    stopped_ms: f64,
}

/// What instances cost that are only kept.
#[derive(Serialize)]
struct Kept {
    idle_instances: usize,
    /// Share of one core, in per cent.
    idle_cpu_percent: f64,
    instances: usize,
    memory_before_kib: u64,
    memory_kib: u64,
}

#[derive(Serialize)]
struct Figures {
    machine: Machine,
    instances: usize,
    batches: Vec<Batch>,
    kept: Kept,
    curve: Vec<Row>,
}

/// Measures and prints.
///
/// # Errors
/// When the cell does not do as it is told.
pub(crate) fn run(options: &CellOptions) -> Result<()> {
    let parent = options.work.clone().unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new().prefix("celda-cell-").tempdir_in(parent)?;
    fixture::make(work.path())?;
    let agent = Agent::start(options, work.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (rounds, instances) = if options.smoke {
        (1, options.instances.min(8))
    } else {
        (options.rounds.max(1), options.instances)
    };
    let client = runtime.block_on(Client::connect(options, &agent.socket(), work.path()))?;
    if let Some(cycles) = options.soak {
        return runtime.block_on(soak::run(options, &agent, &client, cycles));
    }
    let batches = (0..rounds).map(|_| runtime.block_on(batch(&client, instances, options.health)));
    let batches = batches.collect::<Result<_>>()?;
    let kept = runtime.block_on(keep(&client, &agent, instances, options))?;
    let curve = curve::run(options, &runtime, &client, work.path())?;
    drop(agent);
    let figures = Figures { machine: Machine::read(), instances, batches, kept, curve };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print(&figures);
    }
    Ok(())
}

async fn batch(client: &Client, count: usize, has_checks: bool) -> Result<Batch> {
    let ids = client.ids(count);
    let (running, exited) = (client.wait(&ids, Mark::Running), client.wait(&ids, Mark::Exited));
    let ready = if has_checks { client.wait(&ids, Mark::Ready) } else { Vec::new() };
    let called = Instant::now();
    client.start(&ids).await?;
    let accepted = called.elapsed();
    let (running, ready) = (all(running).await?, all(ready).await?);
    let stopped = Instant::now();
    client.stop(ids.clone()).await?;
    let exited = all(exited).await?;
    client.remove(ids).await?;
    let first = (0..count).min_by_key(|index| running[*index]).unwrap_or(0);
    let ms = |from: Instant, to: &Instant| to.saturating_duration_since(from).as_secs_f64() * 1e3;
    Ok(Batch {
        accepted_ms: accepted.as_secs_f64() * 1e3,
        first_running_ms: ms(called, &running[first]),
        last_running_ms: running.iter().max().map_or(0.0, |at| ms(called, at)),
        first_ready_after_ms: ready.get(first).map(|at| ms(running[first], at)),
        last_ready_ms: ready.iter().max().map(|at| ms(called, at)),
        stopped_ms: exited.iter().max().map_or(0.0, |at| ms(stopped, at)),
    })
}

async fn keep(client: &Client, agent: &Agent, count: usize, options: &CellOptions) -> Result<Kept> {
    let started = async |count: usize| {
        let ids = client.ids(count);
        let last = client.wait(&ids, if options.health { Mark::Ready } else { Mark::Running });
        client.start(&ids).await?;
        all(last).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(ids)
    };
    let memory_before_kib = agent.memory_kib();
    let mut ids = started(count).await?;
    let idle = Duration::from_secs_f64(if options.smoke { 0.2 } else { options.idle_seconds });
    let before = agent.cpu();
    tokio::time::sleep(idle).await;
    let idle_cpu_percent = agent.cpu().saturating_sub(before).as_secs_f64() / idle.as_secs_f64() * 100.0;
    let kept = if options.smoke { count } else { options.kept.max(count) };
    if kept > count {
        ids.extend(started(kept - count).await?);
    }
    let memory_kib = agent.memory_kib();
    let gone = client.wait(&ids, Mark::Exited);
    client.stop(ids.clone()).await?;
    all(gone).await?;
    client.remove(ids).await?;
    Ok(Kept { idle_instances: count, idle_cpu_percent, instances: kept, memory_before_kib, memory_kib })
}

fn print(figures: &Figures) {
    let Figures { machine, instances, batches, kept, curve } = figures;
    println!(
        "{}, {} cores ({}), Linux {}; load before {}\n",
        machine.date, machine.cores_count, machine.processor, machine.kernel, machine.load
    );
    println!("one call for {instances} instances, milliseconds from the call");
    println!(
        "| accepted | first runs | last runs | first ready, from its running | last ready | all stopped |"
    );
    println!("|---|---|---|---|---|---|");
    let some = |ms: &Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
    for Batch {
        accepted_ms,
        first_running_ms,
        last_running_ms,
        first_ready_after_ms,
        last_ready_ms,
        stopped_ms,
    } in batches
    {
        let (first_ready, last_ready) = (some(first_ready_after_ms), some(last_ready_ms));
        println!(
            "| {accepted_ms:.1} | {first_running_ms:.1} | {last_running_ms:.1} | {first_ready} | {last_ready} | {stopped_ms:.1} |"
        );
    }
    let Kept { idle_instances, idle_cpu_percent, instances, memory_before_kib, memory_kib } = kept;
    let each = memory_kib.saturating_sub(*memory_before_kib) / (*instances as u64).max(1);
    println!("\n{idle_instances} instances, left alone: {idle_cpu_percent:.2} % of a core, agent and holder");
    println!(
        "{instances} instances: {memory_kib} KiB of agent and holder, {memory_before_kib} without; {each} KiB each"
    );
    println!("\none by one");
    println!(
        "| at once | who | starts | p50 ms | p90 ms | p99 ms | starts/s | failed |\n|---|---|---|---|---|---|---|---|"
    );
    for Row {
        peer, concurrency, samples_count, p50_us, p90_us, p99_us, per_second, failures_count, ..
    } in curve
    {
        let ms = |us: &u64| *us as f64 / 1e3;
        let (p50, p90, p99) = (ms(p50_us), ms(p90_us), ms(p99_us));
        println!(
            "| {concurrency} | {peer} | {samples_count} | {p50:.2} | {p90:.2} | {p99:.2} | {per_second:.0} | {failures_count} |"
        );
    }
}
