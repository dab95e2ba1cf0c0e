//! The worker's own side: into the namespaces and the root, then job after job.

use super::library::Library;
use super::{Argv, Batch, ID, Job, Measured, WORK};
use crate::Result;
use crate::options::WorkerOptions;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::pivot_root;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long a daemon gets to end after SIGTERM before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// Bytes of a failed command's words that are kept.
const FAILURE_BYTES_MAX: usize = 600;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Runs the worker until its standard input ends.
pub(crate) fn serve(options: &WorkerOptions) -> Result<()> {
    enter(options)?;
    let mut daemons = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Job::Measure(measured) => measure(&measured),
            Job::Once(argv) => once(&argv),
            Job::Daemon(argv) => daemon(&argv, &mut daemons),
            Job::Stop(pid) => stop(pid, &mut daemons),
        };
        let batch = answer.unwrap_or_else(|error| Batch {
            failures_count: 1,
            failure: Some(error.to_string()),
            ..Batch::default()
        });
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &batch)?;
        writeln!(out)?;
        out.flush()?;
    }
    for pid in daemons.keys().copied().collect::<Vec<_>>() {
        stop(pid, &mut daemons)?;
    }
    Ok(())
}

fn enter(options: &WorkerOptions) -> Result<()> {
    if let Some(cgroup) = &options.cgroup {
        std::fs::write(cgroup.join("cgroup.procs"), "0")
            .map_err(|error| format!("joining {}: {error}", cgroup.display()))?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)
        .map_err(|error| format!("unshare: {error}"))?;
    const NONE: Option<&Path> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE)?;
    let root = &options.root;
    let at = |place: &str| root.join(place.trim_start_matches('/'));
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    let say = |place: &str, error: nix::Error| format!("mounting {place} of {}: {error}", root.display());
    let is_other = root != Path::new("/");
    if is_other {
        // Engines set the propagation of `/`, so it has to be a mount.
        mount(Some(root), root, NONE, MsFlags::MS_BIND, NONE).map_err(|error| say("/", error))?;
    }
    mount(Some(&options.work), &at(WORK), NONE, bind, NONE).map_err(|error| say(WORK, error))?;
    if is_other {
        for place in ["/proc", "/sys", "/dev"] {
            mount(Some(Path::new(place)), &at(place), NONE, bind, NONE).map_err(|error| say(place, error))?;
        }
    }
    for place in ["/run", "/dev/shm", "/tmp"] {
        mount(Some("tmpfs"), &at(place), Some("tmpfs"), MsFlags::empty(), NONE)
            .map_err(|error| say(place, error))?;
    }
    if options.cgroup.is_some() {
        mount(Some("cgroup2"), &at("/sys/fs/cgroup"), Some("cgroup2"), MsFlags::empty(), NONE)
            .map_err(|error| say("/sys/fs/cgroup", error))?;
    }
    if is_other {
        std::env::set_current_dir(root)?;
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
    }
    std::env::set_current_dir("/")?;
    Ok(())
}

/// A command that inherits nothing of the machine's configuration but a search path.
fn command(argv: &[String]) -> Command {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).env_clear();
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", "/tmp").env("TMPDIR", format!("{WORK}/tmp")).stdin(Stdio::null());
    command
}

fn with_id(argv: &Argv, id: &str) -> Argv {
    argv.iter().map(|word| word.replace(ID, id)).collect()
}

fn once(argv: &Argv) -> Result<Batch> {
    let output = command(argv).output().map_err(|error| format!("{}: {error}", argv[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let failure =
        (!output.status.success()).then(|| format!("{}: {}: {}", argv.join(" "), output.status, tail(&said)));
    Ok(Batch {
        failures_count: usize::from(failure.is_some()),
        failure,
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        ..Batch::default()
    })
}

fn tail(text: &str) -> &str {
    let text = text.trim();
    let from = text.char_indices().map(|(at, _)| at).find(|at| text.len() - at <= FAILURE_BYTES_MAX);
    &text[from.unwrap_or(0)..]
}

fn daemon(argv: &Argv, daemons: &mut HashMap<u32, Child>) -> Result<Batch> {
    let log = File::create(format!("{WORK}/daemon.log"))?;
    let mut command = command(argv);
    command.stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().map_err(|error| format!("{}: {error}", argv[0]))?;
    let pid = child.id();
    daemons.insert(pid, child);
    Ok(Batch { output: pid.to_string(), ..Batch::default() })
}

fn stop(pid: u32, daemons: &mut HashMap<u32, Child>) -> Result<Batch> {
    let mut child = daemons.remove(&pid).ok_or("no such daemon of this worker")?;
    let pid = nix::unistd::Pid::from_raw(pid.try_into()?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > STOP_WAIT {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Batch::default())
}

/// CPU microseconds of this worker's cgroup, which is the root of the view it has.
fn cpu_us() -> u64 {
    let text = std::fs::read_to_string("/sys/fs/cgroup/cpu.stat").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok()).unwrap_or(0)
}

fn measure(measured: &Measured) -> Result<Batch> {
    let library = measured.library.then(library).transpose()?;
    let total = Mutex::new(Batch::default());
    let begun = AtomicUsize::new(0);
    let (began, cpu_before) = (Instant::now(), cpu_us());
    let budget = Duration::from_millis(measured.budget_ms);
    std::thread::scope(|scope| {
        for _ in 0..measured.concurrency.max(1) {
            scope.spawn(|| {
                loop {
                    let number = begun.fetch_add(1, Ordering::Relaxed);
                    let late = number >= measured.count_min && began.elapsed() > budget;
                    if number >= measured.count_max || late {
                        return;
                    }
                    let one = library.map_or_else(|| sample(measured), through_library);
                    let mut total = total.lock().expect("a sample does not panic");
                    total.latencies_us.extend(&one.latencies_us);
                    total.cpu_us += one.cpu_us;
                    total.failures_count += one.failures_count;
                    if total.failure.is_none() {
                        total.failure = one.failure;
                    }
                }
            });
        }
    });
    let mut total = total.into_inner().expect("a sample does not panic");
    total.wall_us = micros(began);
    if measured.concurrency > 1 {
        total.cpu_us = cpu_us().saturating_sub(cpu_before);
    }
    Ok(total)
}

/// Opened by the first who asks.
fn library() -> Result<&'static Library> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| Library::open().map_err(|error| error.to_string()));
    library.as_ref().map_err(|error| error.clone().into())
}

fn through_library(library: &Library) -> Batch {
    let id = format!("library{}", NEXT_ID.fetch_add(1, Ordering::Relaxed));
    let cpu_before = cpu_us();
    let outcome = library.start(&id);
    let cpu_us = cpu_us().saturating_sub(cpu_before);
    match outcome {
        Ok(latency) => Batch { latencies_us: vec![latency.as_micros() as u64], cpu_us, ..Batch::default() },
        Err(error) => Batch { failures_count: 1, failure: Some(error.to_string()), ..Batch::default() },
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn sample(measured: &Measured) -> Batch {
    let id = format!("bench{}", NEXT_ID.fetch_add(1, Ordering::Relaxed));
    for argv in &measured.reset {
        let _ = once(&with_id(argv, &id));
    }
    let log_path = format!("{WORK}/log-{id}");
    let (cpu_before, began) = (cpu_us(), Instant::now());
    let failure = measured.steps.iter().find_map(|argv| step(&with_id(argv, &id), &log_path).err());
    let mut batch = Batch { latencies_us: vec![micros(began)], ..Batch::default() };
    batch.cpu_us = cpu_us().saturating_sub(cpu_before);
    if let Some(failure) = failure {
        batch.latencies_us.clear();
        batch.failures_count = 1;
        batch.failure = Some(failure.to_string());
    }
    for argv in &measured.clean {
        let _ = once(&with_id(argv, &id));
    }
    let _ = std::fs::remove_file(&log_path);
    batch
}

fn step(argv: &Argv, log_path: &str) -> Result<()> {
    let log = File::create(log_path)?;
    let status = command(argv)
        .stdout(Stdio::null())
        .stderr(log)
        .status()
        .map_err(|error| format!("{}: {error}", argv[0]))?;
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read(log_path).unwrap_or_default();
    Err(format!("{}: {status}: {}", argv.join(" "), tail(&String::from_utf8_lossy(&said))).into())
}
