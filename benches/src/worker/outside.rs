//! The harness's side of a worker: its cgroup, its process, jobs and answers.

use super::{Argv, Batch, Job, Measured};
use crate::Result;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long processes of a dead worker may take to leave its cgroup.
const EMPTY_WAIT: Duration = Duration::from_secs(5);

/// A running worker. Dropping it ends its processes and removes its cgroup.
pub(crate) struct Worker {
    child: Child,
    jobs: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    cgroup: Option<PathBuf>,
    /// What this root is called in the report: the system's name and release.
    pub(crate) label: String,
}

impl Worker {
    /// Starts a worker in `root` with `work` as its /mnt.
    ///
    /// # Errors
    /// When the cgroup cannot be made or the process cannot be started.
    pub(crate) fn start(root: &Path, work: &Path) -> Result<Self> {
        let root = root.canonicalize().map_err(|error| format!("--peer-root {}: {error}", root.display()))?;
        let cgroup = crate::machine::cgroup2_mount().map(|mount| new_cgroup(&mount)).transpose()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").arg("--root").arg(&root).arg("--work").arg(work);
        if let Some(cgroup) = &cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (jobs, answers) = (child.stdin.take(), child.stdout.take().ok_or("no pipe from the worker")?);
        let label = crate::machine::system_name(&root);
        Ok(Self { child, jobs, answers: BufReader::new(answers), cgroup, label })
    }

    fn ask(&mut self, job: &Job) -> Result<Batch> {
        let jobs = self.jobs.as_mut().ok_or("the worker was ended")?;
        writeln!(jobs, "{}", serde_json::to_string(job)?)?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("the worker for {} ended; its words are above", self.label).into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Measures; failures of samples are in the batch.
    pub(crate) fn measure(&mut self, measured: &Measured) -> Result<Batch> {
        self.ask(&Job::Measure(measured.clone()))
    }

    /// Runs once and gives what it printed.
    pub(crate) fn once(&mut self, argv: &Argv) -> Result<String> {
        let batch = self.ask(&Job::Once(argv.clone()))?;
        batch.failure.map_or(Ok(batch.output), |failure| Err(failure.into()))
    }

    /// Starts a daemon, gives its process id.
    pub(crate) fn daemon(&mut self, argv: &Argv) -> Result<u32> {
        let batch = self.ask(&Job::Daemon(argv.clone()))?;
        match batch.failure {
            Some(failure) => Err(failure.into()),
            None => Ok(batch.output.parse()?),
        }
    }

    /// Ends a daemon.
    pub(crate) fn stop(&mut self, pid: u32) -> Result<()> {
        self.ask(&Job::Stop(pid)).map(drop)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.child.wait();
        if let Some(cgroup) = &self.cgroup {
            // Shims and monitors that outlived their containers; all of them are in here and none else is.
            let _ = std::fs::write(cgroup.join("cgroup.kill"), "1");
            let began = Instant::now();
            while remove_tree(cgroup).is_err() && began.elapsed() < EMPTY_WAIT {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn new_cgroup(mount: &Path) -> Result<PathBuf> {
    for number in 0..64 {
        let path = mount.join(format!("celda-benches-{}-{number}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("making {}: {error}; benches need root", path.display()).into()),
        }
    }
    Err("sixty-four cgroups of this process exist already".into())
}

/// Removes a cgroup and those below it.
fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(cgroup)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(cgroup)
}
