//! How a container ended.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

use super::error::{Result, SandboxError};

/// The way a container's first process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called `exit` with this status.
    Code(u8),
    /// A signal ended it.
    Signal(i32),
    /// The kernel killed it for want of memory.
    OutOfMemory {
        /// How many processes of the container's cgroup were killed so.
        kills_count: u64,
        /// Whose limit ran out.
        owner: LimitOwner,
    },
}

/// Who set the memory limit that ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitOwner {
    /// The container: it went beyond its own.
    Container,
    /// A group that the container made below its own.
    Inside,
    /// A group above the container's, at this path of the host; others in it may have used the memory.
    Above(PathBuf),
    /// No group has a limit that ran out: the machine's memory did.
    Machine,
}

impl Exit {
    /// The exit status that a shell, and Docker, would report: 128 + N for a signal.
    pub fn status(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(signal) => u8::try_from(128 + (signal & 0x7f)).unwrap_or(u8::MAX),
            Self::OutOfMemory { .. } => 137,
        }
    }
}

/// `int waitid(P_PIDFD, ...)`, see waitid(2): waits for a child to end, and reaps it.
pub(super) fn wait(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    loop {
        if let Some(exit) = look(pidfd, WaitIdOptions::empty())? {
            return Ok(exit);
        }
    }
}

/// As [`wait`], without waiting: nothing while the child runs.
pub(super) fn try_wait(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>> {
    look(pidfd, WaitIdOptions::NOHANG)
}

fn look(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> Result<Option<Exit>> {
    match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | options) {
        Ok(status) => Ok(status.map(|status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code as u8), // the kernel keeps eight bits
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        })),
        Err(Errno::INTR) => Ok(None),
        Err(errno) => Err(SandboxError::parent("wait for the program")(errno.into())),
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::OutOfMemory { kills_count, owner } => {
                write!(f, "out of memory: {owner} ran out ({kills_count} processes killed)")
            }
        }
    }
}

impl fmt::Display for LimitOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container => write!(f, "the container's own limit (--memory)"),
            Self::Inside => write!(f, "the limit of a cgroup inside of the container"),
            Self::Above(path) => {
                write!(f, "the limit of the cgroup {} above the container's", path.display())
            }
            Self::Machine => write!(f, "the machine's memory, and no limit,"),
        }
    }
}
