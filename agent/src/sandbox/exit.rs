//! How a container ended.

use std::fmt;

/// The way a container's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called `exit` with this status.
    Code(u8),
    /// A signal ended it.
    Signal(i32),
    /// The kernel killed it for want of memory.
    OutOfMemory {
        /// How many processes of the container's cgroup were killed so.
        kills_count: u64,
    },
}

impl Exit {
    /// The exit status that a shell, and Docker, would report: 128 + N for a signal.
    pub fn status(self) -> u8 {
        match self {
            Self::Code(code) => code,
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
            Self::OutOfMemory { kills_count } => write!(f, "out of memory ({kills_count} processes killed)"),
        }
    }
}
