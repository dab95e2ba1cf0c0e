//! `true` in a container that runs: celda's library, as a cell calls it, and the commands of its peers.

use super::{Line, cpu_us, print};
use crate::options::Room;
use crate::peers::version;
use crate::worker::{Batch, Measured, WORK, Worker, argv};
use crate::{Result, fixture};
use celda::sandbox::cgroup::Hierarchy;
use celda::sandbox::exec::{Target, process_of, start};
use celda::sandbox::seccomp::{self, Arch, BpfInstruction};
use celda::sandbox::{Container, Exit, NetworkNamespaces, Request, Stdio, plan};
use hdrhistogram::Histogram;
use nix::sys::signal::Signal;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use rustix::mount::OpenTreeFlags;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

/// Ten seconds: a sample beyond that is a failure.
const LATENCY_NS_MAX: u64 = 10_000_000_000;
/// Samples of each side in a smoke run.
const SMOKE_COUNT: u64 = 5;
/// The container's first program; it outlives the bench.
const SLEEP: [&str; 3] = ["/bin/busybox", "sleep", "100000"];

/// Measures and prints.
///
/// # Errors
/// When celda cannot be measured. A peer that cannot is left out aloud.
pub(crate) fn run(options: &Room) -> Result<()> {
    let work = tempfile::tempdir()?;
    fixture::make(work.path())?;
    let bundle = work.path().join("bundle");
    let config = bundle.join("config.json");
    let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&config)?)?;
    value["process"]["args"] = serde_json::json!(SLEEP);
    std::fs::write(&config, serde_json::to_vec(&value)?)?;
    let celda = Celda::start(&bundle, serde_json::from_value(value)?)?;
    let mut peers = Vec::new();
    let own = std::path::PathBuf::from("/");
    for root in [&own].into_iter().chain(&options.peer_roots) {
        for engine in ["crun", "runc"] {
            match Peer::start(engine, root, work.path()) {
                Ok(peer) => peers.push((Side::new(&peer.name)?, peer)),
                Err(error) => eprintln!("benches: leaving out {engine} of {}: {error}", root.display()),
            }
        }
    }
    let mut own = Side::new("celda (library)")?;
    for _ in 0..if options.smoke { 1 } else { options.rounds } {
        own.round(options, &celda)?;
        for (side, peer) in &mut peers {
            side.add(peer.round(options)?);
        }
    }
    celda.end()?;
    let lines: Vec<Line> =
        [&own].into_iter().chain(peers.iter().map(|(side, _)| side)).map(Side::line).collect();
    print(options, "exec", &lines)
}

/// One side's samples.
struct Side {
    who: String,
    histogram: Histogram<u64>,
    cpu_us: u64,
}

impl Side {
    fn new(who: &str) -> Result<Self> {
        Ok(Self {
            who: who.to_owned(),
            histogram: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?,
            cpu_us: 0,
        })
    }

    fn round(&mut self, options: &Room, celda: &Celda) -> Result<()> {
        let (began, before) = (Instant::now(), cpu_us());
        let mut count = 0;
        while if options.smoke { count < SMOKE_COUNT } else { began.elapsed() < options.round() } {
            let from = Instant::now();
            celda.exec()?;
            self.histogram.saturating_record(u64::try_from(from.elapsed().as_nanos())?);
            count += 1;
        }
        self.cpu_us += cpu_us() - before;
        Ok(())
    }

    fn add(&mut self, batch: Batch) {
        for latency_us in batch.latencies_us {
            self.histogram.saturating_record(latency_us * 1000);
        }
        self.cpu_us += batch.cpu_us;
    }

    fn line(&self) -> Line {
        let at = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let count = self.histogram.len();
        let cpu_us_each = self.cpu_us as f64 / count.max(1) as f64;
        Line { who: self.who.clone(), count, p50_us: at(0.5), p99_us: at(0.99), cpu_us_each }
    }
}

/// A container of celda's that sleeps.
struct Celda {
    container: Container,
    spec: Spec,
    filter: Vec<BpfInstruction>,
    process: Process,
    null: File,
}

impl Celda {
    fn start(bundle: &Path, spec: Spec) -> Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let rootfs = rustix::mount::open_tree(rustix::fs::CWD, bundle.join("rootfs"), flags)?;
        let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let filter = seccomp::compile(profile.ok_or("a bundle without seccomp")?, Arch::host())?;
        let id = format!("bench-exec-{}", std::process::id());
        let request = Request {
            spec: spec.clone(),
            rootfs,
            stdio: Stdio::Files([
                null.try_clone()?.into(),
                null.try_clone()?.into(),
                null.try_clone()?.into(),
            ]),
            cgroup: Some(Hierarchy::find()?.create(&id, &LinuxResources::default())?),
            network: Some(NetworkNamespaces::new(0)?.take()?),
            seccomp: Some(filter.clone()),
            init: false,
            dies_with_caller: false,
            id,
        };
        let container = plan(request)?.start()?;
        let process = process_of(&spec, vec![fixture::PROGRAM.to_owned()])?;
        Ok(Self { container, spec, filter, process, null })
    }

    fn exec(&self) -> Result<()> {
        let target = Target {
            pidfd: self.container.pidfd(),
            cgroup: self.container.cgroup(),
            spec: &self.spec,
            seccomp: Some(&self.filter),
        };
        let null = || self.null.try_clone();
        let stdio = Stdio::Files([null()?.into(), null()?.into(), null()?.into()]);
        match start(&target, &self.process, stdio)?.wait()? {
            Exit::Code(0) => Ok(()),
            exit => Err(format!("true ended with {exit}").into()),
        }
    }

    fn end(self) -> Result<()> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.container.pid()), Signal::SIGKILL)?;
        self.container.wait()?;
        Ok(())
    }
}

/// A container of a peer's over the same bundle, in a worker that ends it with itself.
struct Peer {
    worker: Worker,
    name: String,
    exec: Measured,
}

const PEER_ID: &str = "celda-bench-exec";

impl Peer {
    fn start(engine: &str, root: &Path, work: &Path) -> Result<Self> {
        let mut worker = Worker::start(root, work)?;
        let version = version(&mut worker, &[engine, "--version"]).ok_or("it is not installed")?;
        let state = format!("/run/{engine}");
        // As in the bench of starts: crun refuses a hierarchy without controllers that it would enable.
        let flags: &[&str] = if engine == "crun" { &["--cgroup-manager=disabled"] } else { &[] };
        let words = |rest: &[&str]| argv(&[&[engine, "--root", &state], flags, rest].concat());
        // The container keeps its standard files: they must not be the pipe whose end the worker waits for.
        let run = words(&["run", "--detach", "--bundle", &format!("{WORK}/bundle"), PEER_ID]).join(" ");
        worker.once(&argv(&["/bin/sh", "-c", &format!("{run} </dev/null >/dev/null 2>/run/{engine}.words || {{ cat /run/{engine}.words >&2; exit 1; }}")]))?;
        let exec = Measured {
            steps: vec![words(&["exec", PEER_ID, fixture::PROGRAM])],
            concurrency: 1,
            ..Measured::default()
        };
        Ok(Self { name: format!("{engine} {version} exec ({})", worker.label), worker, exec })
    }

    fn round(&mut self, options: &Room) -> Result<Batch> {
        let job = Measured {
            count_min: SMOKE_COUNT as usize,
            count_max: if options.smoke { SMOKE_COUNT as usize } else { usize::MAX },
            budget_ms: options.round().as_millis() as u64,
            ..self.exec.clone()
        };
        let batch = self.worker.measure(&job)?;
        match batch.failure {
            Some(failure) => Err(failure.into()),
            None => Ok(batch),
        }
    }
}
