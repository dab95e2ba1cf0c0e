//! How a container ended.

use std::fmt;
use std::path::PathBuf;

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
