//! A running container: waited for, killed, and cleared away.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::Signal;

use super::cgroup::CgroupDir;
use super::error::{Result, SandboxError};
use super::exit::{self, Exit};

/// The parent's ends of the container's standard files, where [`Stdio::Pipes`](super::Stdio::Pipes) was asked for.
#[derive(Debug, Default)]
pub struct Pipes {
    /// Written here, read by the container.
    pub input: Option<OwnedFd>,
    /// The container's standard output.
    pub output: Option<OwnedFd>,
    /// The container's standard error.
    pub error: Option<OwnedFd>,
}

/// Where the time of a start went, in microseconds from the request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// The plan was written.
    pub planned_us: u64,
    /// Everything was open, and `clone3` was called.
    pub cloned_us: u64,
    /// The program was executed.
    pub executed_us: u64,
}

impl Timings {
    pub(super) fn new(requested: Instant, planned: Instant, cloned: Instant, executed: Instant) -> Self {
        let since = |moment: Instant| {
            u64::try_from(moment.saturating_duration_since(requested).as_micros()).unwrap_or(u64::MAX)
        };
        Self { planned_us: since(planned), cloned_us: since(cloned), executed_us: since(executed) }
    }
}

/// A started container. Dropped without [`Container::wait`], it goes on running.
#[derive(Debug)]
pub struct Container {
    pid: i32,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    pipes: Pipes,
    cgroup: Option<CgroupDir>,
    timings: Timings,
}

impl Container {
    pub(super) fn new(
        pid: i32,
        pidfd: OwnedFd,
        terminal: Option<OwnedFd>,
        pipes: Pipes,
        cgroup: Option<CgroupDir>,
        timings: Timings,
    ) -> Self {
        Self { pid, pidfd, terminal, pipes, cgroup, timings }
    }

    /// Process id of the container's first process, in the caller's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable when the first process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The master of the container's terminal, if it has one.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// The other ends of the container's standard files; take them out to close them.
    pub fn pipes(&mut self) -> &mut Pipes {
        &mut self.pipes
    }

    /// The cgroup that it was born into.
    pub fn cgroup(&self) -> Option<&CgroupDir> {
        self.cgroup.as_ref()
    }

    /// Where the time of the start went.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// `int pidfd_send_signal(...)`, see pidfd_send_signal(2), to the first process. One that has ended is no error.
    ///
    /// # Errors
    /// [`SandboxError::Parent`] with `EPERM` when the caller may not.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(SandboxError::parent("signal the container")(errno.into())),
        }
    }

    /// Waits for the first process to end, ends the others, and clears the cgroup away.
    ///
    /// # Errors
    /// [`SandboxError::Parent`] when the kernel does not let us wait, [`SandboxError::Cgroup`] when the cgroup stays.
    pub fn wait(self) -> Result<Exit> {
        let exit = exit::wait(self.pidfd.as_fd())?;
        let Some(cgroup) = self.cgroup else { return Ok(exit) };
        // A shell whose child was killed says 128 + 9. Without a limit of its own a group may still be under one above.
        let killed = matches!(exit, Exit::Signal(9) | Exit::Code(137));
        let out_of_memory = if killed { cgroup.out_of_memory() } else { None };
        cgroup.remove()?;
        Ok(out_of_memory.map_or(exit, |(kills_count, owner)| Exit::OutOfMemory { kills_count, owner }))
    }
}
