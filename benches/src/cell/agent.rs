//! The agent's process, and what it costs.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::CellOptions;
use crate::Result;

/// Linux counts CPU time for user space in hundredths of a second on every architecture that celda runs on.
const TICK_MS: u64 = 10;

/// A cell of its own under the work directory, in a network namespace of its own, so that the machine's is left alone.
/// Dropped, it is drained and ended.
pub(super) struct Agent {
    child: Child,
    holder: u32,
    celda: PathBuf,
    pub(super) root: PathBuf,
    pub(super) run: PathBuf,
}

impl Agent {
    /// Starts one and waits until it is up.
    ///
    /// # Errors
    /// What it says when it does not come up.
    pub(super) fn start(options: &CellOptions, work: &Path) -> Result<Self> {
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
        let holder = holder(&run)?;
        Ok(Self { child, holder, celda, root, run })
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    fn celda(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.celda);
        command.arg("--root").arg(&self.root).arg("--run").arg(&self.run).args(words);
        command.stdout(Stdio::null());
        command
    }

    /// The agent, and the holder of its containers.
    pub(super) fn processes(&self) -> [u32; 2] {
        [self.child.id(), self.holder]
    }

    /// Memory of agent and holder in KiB: anonymous pages, which are nobody else's.
    pub(super) fn memory_kib(&self) -> u64 {
        let of = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        self.processes().iter().map(of).sum()
    }

    /// CPU time of both so far, threads that have ended among it; in ticks of 10 ms.
    pub(super) fn cpu(&self) -> Duration {
        let of = |pid: &u32| -> u64 {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Behind the name in brackets: proc_pid_stat(5) counts utime and stime as 14 and 15, state as 3.
            let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
        };
        Duration::from_millis(self.processes().iter().map(of).sum::<u64>() * TICK_MS)
    }
}

/// The process whose words end with `holder` and the cell's directory.
fn holder(run: &Path) -> Result<u32> {
    let words = [b"\0holder\0", run.join("cell").as_os_str().as_encoded_bytes(), b"\0"].concat();
    let all = std::fs::read_dir("/proc")?.flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_holder =
        |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(&words));
    pids.find(is_holder).ok_or_else(|| "the cell's holder is not there".into())
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
