//! A further program in a container that runs already: a user's shell, or a check of its health.
//!
//! ```text
//! start -> draft -> opens stdio -> thread: setns(pidfd, pid)  clone3 CLONE_INTO_CGROUP
//!            ^                        ^                          child: setns(pidfd, the rest) -> root, cwd, stdio,
//!            container's spec         only its children go        limits, ids, caps, filter -> execve
//!            and the process          there; the thread ends
//! ```
//! The child is the caller's own, so its end is known by its pidfd, and it is inside the container's pid namespace from
//! its first instruction. What it may do is what the container's spec lets a program do: same cgroup, same filter, same
//! capabilities. The container had time to change everything in it, so its paths are resolved inside its root over no
//! magic link, labels are written through the host's procfs, and a terminal comes from a checked devpts.
//!
//! Until `execve` the child shares the runtime's memory, which is non-dumpable, and has nothing of its files, which it
//! closes first. A container that was given CAP_SYS_PTRACE over the host's user namespace could look into that memory,
//! with whatever secrets the agent has there, so nothing is run in such a container: that takes a process between the
//! two that has none of the agent's memory.

mod draft;
mod running;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Process, Spec};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal};
use rustix::thread::LinkNameSpaceType;

pub use running::Exec;

use super::cgroup::CgroupDir;
use super::container::{Pipes, Timings};
use super::error::{Result, SandboxError};
use super::failure;
use super::inherited::Inherited;
use super::open::{self, Given};
use super::plan::builder::Draft;
use super::request::Stdio;
use super::seccomp::BpfInstruction;
use super::step::Step;
use crate::sys::{self, Job, Report, Spawned};

/// The longest that a child may take to its `execve`. It takes a fraction of a millisecond unless its cgroup is frozen
/// meanwhile, or its working directory lies on a filesystem that does not answer.
pub const SETUP_WAIT_MAX: Duration = Duration::from_secs(10);

/// A container that runs.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its first process.
    pub pidfd: BorrowedFd<'a>,
    /// Its cgroup, into which the program is born; without one it is born into the caller's.
    pub cgroup: Option<&'a CgroupDir>,
    /// What it was started with: which namespaces are its own, and what its ids are mapped to.
    pub spec: &'a Spec,
    /// The compiled filter that it was started with.
    pub seccomp: Option<&'a [BpfInstruction]>,
}

/// The container's own process with other arguments: same user, capabilities, limits, environment and directory.
///
/// # Errors
/// [`SandboxError::Invalid`] when the spec has no process.
pub fn process_of(spec: &Spec, arguments: Vec<String>) -> Result<Process> {
    let mut process = super::plan::process::of(spec)?.clone();
    process.set_args(Some(arguments)).set_terminal(None);
    Ok(process)
}

/// Whether a program can be run in a container of this spec at all: one that cannot be has no use for checks by programs.
///
/// # Errors
/// [`SandboxError::Unsupported`] says why not, and what to do.
pub fn check_joinable(spec: &Spec) -> Result<()> {
    draft::check(spec)
}

/// Runs `process` in the container; when this answers, its program has been executed. A terminal of [`Stdio::Terminal`]
/// is one of the container's devpts.
///
/// Whoever gets an [`Exec`] waits for it or drops it: a container whose first process has ended is not gone before the
/// others are reaped.
///
/// # Errors
/// [`SandboxError::NotFound`] and [`SandboxError::CannotExecute`] for the program; [`SandboxError::Ended`],
/// [`SandboxError::Frozen`] and [`SandboxError::Stuck`] for the container; [`SandboxError::Step`] for a step, as that of
/// a working directory that is not there; [`SandboxError::Unsupported`] for a container that may trace the host's processes, and for one with a time namespace, which
/// the kernel lets no process enter that shares memory. Nothing is left behind.
pub fn start(target: &Target<'_>, process: &Process, stdio: Stdio) -> Result<Exec> {
    start_in_time(target, process, stdio, SETUP_WAIT_MAX)
}

/// As [`start`], for a caller who waits no longer than `wait` for the program to be executed, and no longer than
/// [`SETUP_WAIT_MAX`].
///
/// # Errors
/// As [`start`].
pub fn start_in_time(target: &Target<'_>, process: &Process, stdio: Stdio, wait: Duration) -> Result<Exec> {
    if let Some(cgroup) = target.cgroup
        && cgroup.is_frozen().map_err(|error| ended_or(target, error.into()))?
    {
        return Err(SandboxError::Frozen);
    }
    start_within(target, process, stdio, wait.min(SETUP_WAIT_MAX))
}

/// As [`start_in_time`], for a cgroup that may be frozen already.
fn start_within(target: &Target<'_>, process: &Process, stdio: Stdio, wait: Duration) -> Result<Exec> {
    let requested_at = Instant::now();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| SandboxError::parent("make the process non-dumpable")(errno.into()))?;
    let terminal = if let Stdio::Terminal(size) = &stdio { Some(*size) } else { None };
    let inherited = Inherited::here(!super::plan::has_own_user(target.spec));
    let draft = draft::write(target, process, terminal, inherited)?;
    let planned_at = Instant::now();
    let report = Report::new();
    let given = Given { rootfs: None, network: None, container: target.pidfd.as_raw_fd() };
    let open::Opened { table, mut slots, ours } = open::all(&draft, given, stdio)?;
    let spawned = spawn(&draft, &mut slots, &report, target, wait);
    drop(table); // the child's ends, so that pipes end when the program does
    let spawned = spawned?;
    let program = process.args().as_ref().and_then(|arguments| arguments.first());
    failure::check(&draft.steps, &report, program.map_or("", String::as_str), &spawned, ours.verdict)
        .map_err(|error| ended_or(target, error))?;
    let terminal = ours.channel.map(|channel| open::receive(channel.as_fd())).transpose();
    let terminal = terminal.inspect_err(|_| failure::discard(&spawned))?;
    let Spawned { pid, pidfd, cloned_at, executed_at } = spawned;
    let [input, output, error] = ours.pipes;
    let pipes = Pipes { input, output, error };
    let timings = Timings::new(requested_at, planned_at, cloned_at, executed_at);
    Ok(Exec::new(pid, pidfd, terminal, pipes, timings))
}

/// Clones on a thread of its own: it is the thread whose children are born in the container, and it sleeps until the
/// child has executed its program, while this one keeps the time.
fn spawn(
    draft: &Draft,
    slots: &mut [i32],
    report: &Report,
    target: &Target<'_>,
    wait: Duration,
) -> Result<Spawned> {
    let pid = AtomicI32::new(0);
    let cgroup = target.cgroup.map(|cgroup| cgroup.fd().as_raw_fd());
    let joins_pid = draft.join_pid.is_some();
    let (steps, namespaces, pid) = (&draft.steps, draft.namespaces, &pid);
    std::thread::scope(|scope| {
        let (done, answer) = mpsc::sync_channel(1);
        let spawner = move || {
            let mut job = Job { steps, slots, report, namespaces, cgroup, pid };
            let spawned = join_pid(target, joins_pid)
                .and_then(|()| sys::spawn(&mut job).map_err(|error| clone_failed(target, error)));
            // The receiver waits for this below, whatever happens.
            let _ = done.send(spawned);
        };
        std::thread::Builder::new()
            .name("celda-exec".to_owned())
            .spawn_scoped(scope, spawner)
            .map_err(SandboxError::parent("start a thread to clone on"))?;
        let lost = || SandboxError::parent("clone")(io::Error::other("the thread that clones has panicked"));
        match answer.recv_timeout(wait) {
            Ok(spawned) => spawned,
            Err(RecvTimeoutError::Disconnected) => Err(lost()),
            Err(RecvTimeoutError::Timeout) => {
                // Not reaped before the thread has answered, so that the number is still the child's.
                if let Some(pid) = Pid::from_raw(pid.load(Relaxed)) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
                failure::discard(&answer.recv().map_err(|_| lost())??);
                let step = steps.get(report.step()).map(Step::to_string).unwrap_or_default();
                Err(SandboxError::Stuck { step, waited_ms: wait.as_millis() as u64 })
            }
        }
    })
}

fn join_pid(target: &Target<'_>, joins: bool) -> Result<()> {
    if !joins {
        return Ok(());
    }
    let kind = Some(LinkNameSpaceType::ProcessID);
    rustix::thread::move_into_link_name_space(target.pidfd, kind).map_err(|errno| match errno {
        Errno::SRCH => SandboxError::Ended,
        errno => SandboxError::parent("join the container's pid namespace")(errno.into()),
    })
}

/// A pid namespace whose first process is ending takes no other (`ENOMEM`, clone(2)); a cgroup that was removed has no
/// place (`ENODEV`).
fn clone_failed(target: &Target<'_>, error: io::Error) -> SandboxError {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOMEM | Errno::NODEV) => SandboxError::Ended,
        _ => ended_or(target, SandboxError::parent("clone into the container")(error)),
    }
}

/// The error, unless the container has ended, which explains it.
fn ended_or(target: &Target<'_>, error: SandboxError) -> SandboxError {
    let mut look = [PollFd::from_borrowed_fd(target.pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_step = matches!(&error, SandboxError::Step { source, .. } if source.raw_os_error() == Some(Errno::SRCH.raw_os_error()));
    if is_step || rustix::event::poll(&mut look, Some(&now)).is_ok_and(|count| count > 0) {
        return SandboxError::Ended;
    }
    error
}
