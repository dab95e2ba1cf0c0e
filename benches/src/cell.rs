//! A cell: from one call to the last of its instances running, and starts one by one with a number of them at once.
//!
//! ```text
//! celda agent (a process of its own) <── gRPC on its unix socket ── this: Start, and one Watch that times what runs
//! batch:   one call for --instances; first and last RUNNING, then one Stop without grace to the last EXITED
//! at once: so many callers, each: Start one, wait until it runs, remove it, again
//! soak:    the same, thousands of them with a published port each; what there is before and after
//! ```
//! The agent is in a network namespace of its own, so that the machine's network is left alone.
//! Times are from before the call to the event's arrival here, so they have the journal's sync and the API in them.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use celda_api::cell::v1;
use celda_api::cell::v1::cell_client::CellClient;
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

mod soak;

use crate::machine::Machine;
use crate::{Result, fixture};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Ten minutes: what takes longer is a failure, not a latency.
const LATENCY_US_MAX: u64 = 600_000_000;

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
    /// How many at once, of those that start one by one.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64")]
    at_once: Vec<usize>,
    /// Starts for each of these.
    #[arg(long, default_value_t = 400)]
    starts: usize,
    /// Network of the instances: none or cell.
    #[arg(long, default_value = "cell", value_parser = ["none", "cell"])]
    network: String,
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

/// One round of the one call.
#[derive(Serialize)]
struct Batch {
    accepted_ms: f64,
    first_running_ms: f64,
    last_running_ms: f64,
    stopped_ms: f64,
}

/// Starts one by one.
#[derive(Serialize)]
struct AtOnce {
    at_once: usize,
    starts: u64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    per_second: f64,
}

#[derive(Serialize)]
struct Figures {
    machine: Machine,
    instances: usize,
    batches: Vec<Batch>,
    at_once: Vec<AtOnce>,
    agent_rss_kib: u64,
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
    if let Some(cycles) = options.soak {
        return runtime.block_on(soak::run(options, &agent, work.path(), cycles));
    }
    let (rounds, instances, starts) = if options.smoke {
        (1, options.instances.min(8), 8)
    } else {
        (options.rounds.max(1), options.instances, options.starts)
    };
    let figures: Result<Figures> = runtime.block_on(async {
        let bench = Bench::connect(options, &agent, work.path(), Vec::new()).await?;
        let mut batches = Vec::new();
        for round in 0..rounds {
            batches.push(bench.batch(round, instances).await?);
        }
        let agent_rss_kib = agent.rss_kib();
        let mut at_once = Vec::new();
        for count in options.at_once.iter().copied().filter(|count| !options.smoke || *count <= 4) {
            at_once.push(bench.one_by_one(count.max(1), starts).await?);
        }
        Ok(Figures { machine: Machine::read(), instances, batches, at_once, agent_rss_kib })
    });
    let figures = figures?;
    drop(agent);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print(&figures);
    }
    Ok(())
}

fn print(figures: &Figures) {
    println!("one call for {} instances, milliseconds from the call", figures.instances);
    println!("| accepted | first runs | last runs | all stopped |\n|---|---|---|---|");
    for Batch { accepted_ms, first_running_ms, last_running_ms, stopped_ms } in &figures.batches {
        println!("| {accepted_ms:.1} | {first_running_ms:.1} | {last_running_ms:.1} | {stopped_ms:.1} |");
    }
    println!("\nthe agent after that: {} KiB resident", figures.agent_rss_kib);
    println!("\none by one, from the call to running");
    println!("| at once | starts | p50 ms | p90 ms | p99 ms | starts/s |\n|---|---|---|---|---|---|");
    for AtOnce { at_once, starts, p50_us, p90_us, p99_us, per_second } in &figures.at_once {
        let ms = |us: &u64| *us as f64 / 1e3;
        let (p50, p90, p99) = (ms(p50_us), ms(p90_us), ms(p99_us));
        println!("| {at_once} | {starts} | {p50:.2} | {p90:.2} | {p99:.2} | {per_second:.0} |");
    }
}

/// The agent's process. Dropped, it is drained and ended.
struct Agent {
    child: Child,
    celda: PathBuf,
    root: PathBuf,
    run: PathBuf,
}

impl Agent {
    fn start(options: &CellOptions, work: &Path) -> Result<Self> {
        let celda = options.celda.canonicalize().map_err(|error| {
            format!("--celda {}: {error}; cargo build --release makes it", options.celda.display())
        })?;
        let (root, run) = (work.join("cell-root"), work.join("cell-run"));
        let mut command = Command::new(&celda);
        command.args(["agent", "--root"]).arg(&root).arg("--run").arg(&run);
        if let Some(config) = &options.config {
            command.arg("--config").arg(config);
        }
        command.env("CELDA_LOG", "info").stdin(Stdio::null()).stderr(Stdio::piped());
        // A thread's network namespace is its children's.
        let spawning = std::thread::spawn(move || -> std::io::Result<Child> {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
            command.spawn()
        });
        let mut child = spawning.join().map_err(|_| "the thread that starts the agent panicked")??;
        let mut said = std::io::BufReader::new(child.stderr.take().ok_or("no standard error")?);
        let mut all = String::new();
        while !all.contains("the cell is up") {
            if said.read_line(&mut all)? == 0 {
                return Err(format!("the agent ended: {all}").into());
            }
        }
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::stderr()));
        Ok(Self { child, celda, root, run })
    }

    fn celda(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.celda);
        command.arg("--root").arg(&self.root).arg("--run").arg(&self.run).args(words);
        command.stdout(Stdio::null());
        command
    }

    fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.celda(&["drain", "-t", "0"]).status();
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
        // The image's mount would keep the directory from being removed.
        let _ = self.celda(&["gc"]).status();
    }
}

/// Who waits for which status of an instance, and is told when it came.
type Waiting = Arc<Mutex<HashMap<(String, i32), oneshot::Sender<Instant>>>>;

struct Bench {
    client: CellClient<Channel>,
    waiting: Waiting,
    spec: v1::Spec,
    next: AtomicUsize,
}

impl Bench {
    async fn connect(
        options: &CellOptions,
        agent: &Agent,
        work: &Path,
        ports: Vec<v1::Port>,
    ) -> Result<Self> {
        let socket = format!("unix://{}", agent.run.join("agent.sock").display());
        let channel = Endpoint::from_shared(socket)?.connect().await?;
        let client = CellClient::new(channel);
        let waiting = Waiting::default();
        let mut stream = client.clone().watch(v1::WatchRequest::default()).await?.into_inner();
        let told = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                let now = Instant::now();
                let mut waiting = told.lock().unwrap_or_else(PoisonError::into_inner);
                for instance in message.events.into_iter().filter_map(|event| event.instance) {
                    if let Some(who) = waiting.remove(&(instance.id, instance.status)) {
                        let _ = who.send(now);
                    }
                }
            }
        });
        let command = ["/bin/busybox", "sleep", "100000"].map(str::to_owned).to_vec();
        let network = if options.network == "cell" { v1::Network::Cell } else { v1::Network::None };
        let spec = v1::Spec {
            image: format!("oci:{}:bench", work.join("image").display()),
            process: Some(v1::Process { command, ..v1::Process::default() }),
            network: network.into(),
            ports,
            ..v1::Spec::default()
        };
        Ok(Self { client, waiting, spec, next: AtomicUsize::new(0) })
    }

    fn wait(&self, id: &str, status: v1::Status) -> oneshot::Receiver<Instant> {
        let (send, receive) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert((id.to_owned(), status.into()), send);
        receive
    }

    async fn start(&self, ids: &[String]) -> Result<()> {
        let spec = Some(self.spec.clone());
        let group =
            v1::StartGroup { spec, app: "bench".into(), ids: ids.to_vec(), ..v1::StartGroup::default() };
        let request = v1::StartRequest { groups: vec![group] };
        let outcomes = self.client.clone().start(request).await?.into_inner().outcomes;
        match outcomes.iter().find(|outcome| outcome.result() != v1::outcome::Result::Done) {
            Some(outcome) => Err(format!("{}: {}", outcome.id, outcome.detail).into()),
            None => Ok(()),
        }
    }

    async fn batch(&self, round: usize, count: usize) -> Result<Batch> {
        let ids: Vec<String> = (0..count).map(|index| format!("batch{round}-{index}")).collect();
        let running: Vec<_> = ids.iter().map(|id| self.wait(id, v1::Status::Running)).collect();
        let called = Instant::now();
        self.start(&ids).await?;
        let accepted = called.elapsed();
        let running = all(running).await?;
        let exited: Vec<_> = ids.iter().map(|id| self.wait(id, v1::Status::Exited)).collect();
        let stopped = Instant::now();
        let request = v1::StopRequest { ids: ids.clone(), grace_ms: Some(0), reason: "bench".into() };
        self.client.clone().stop(request).await?;
        let exited = all(exited).await?;
        self.client.clone().remove(v1::RemoveRequest { ids, force: false }).await?;
        let ms = |from: Instant, to: Option<&Instant>| {
            to.map_or(f64::NAN, |to| to.saturating_duration_since(from).as_secs_f64() * 1e3)
        };
        Ok(Batch {
            accepted_ms: accepted.as_secs_f64() * 1e3,
            first_running_ms: ms(called, running.iter().min()),
            last_running_ms: ms(called, running.iter().max()),
            stopped_ms: ms(stopped, exited.iter().max()),
        })
    }

    async fn one_by_one(&self, at_once: usize, starts: usize) -> Result<AtOnce> {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, LATENCY_US_MAX, 3)?;
        let left = AtomicUsize::new(starts.max(at_once));
        let began = Instant::now();
        let callers = (0..at_once).map(|_| self.caller(&left));
        let latencies = futures_util::future::try_join_all(callers).await?;
        let wall = began.elapsed().as_secs_f64();
        for latency in latencies.into_iter().flatten() {
            histogram.saturating_record(latency.as_micros() as u64);
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Ok(AtOnce {
            at_once,
            starts: histogram.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            per_second: histogram.len() as f64 / wall,
        })
    }

    /// Starts and removes until none are left.
    async fn caller(&self, left: &AtomicUsize) -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        while left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let id = format!("one-{}", self.next.fetch_add(1, Ordering::Relaxed));
            let (running, gone) = (self.wait(&id, v1::Status::Running), self.wait(&id, v1::Status::Removed));
            let called = Instant::now();
            self.start(std::slice::from_ref(&id)).await?;
            let at = all(vec![running]).await?;
            latencies.extend(at.first().map(|at| at.saturating_duration_since(called)));
            self.client.clone().remove(v1::RemoveRequest { ids: vec![id], force: true }).await?;
            all(vec![gone]).await?;
        }
        Ok(latencies)
    }
}

/// When each came.
async fn all(waiting: Vec<oneshot::Receiver<Instant>>) -> Result<Vec<Instant>> {
    let mut came = Vec::with_capacity(waiting.len());
    for one in waiting {
        came.push(tokio::time::timeout(DEADLINE, one).await.map_err(|_| "an instance does not come")??);
    }
    Ok(came)
}
