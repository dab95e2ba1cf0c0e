//! Why a container ended, and who had asked for it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The end of one container, or of the try to make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// What happened.
    pub cause: Cause,
    /// Who had asked for it; `None`: it ended by itself.
    pub stopped_by: Option<StoppedBy>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// It crashed as often in a row as its policy allows, and is not started again.
    pub gave_up: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The first process called `exit` with this status.
    Exit {
        /// Eight bits of it.
        code: u8,
    },
    /// A signal ended the first process.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// The kernel killed for want of memory.
    OutOfMemory {
        /// Processes of the container killed so.
        kills_count: u64,
        /// The container's own limit ran out, not that of a group above it or the machine's memory.
        own_limit: bool,
    },
    /// It never ran.
    Failed {
        /// Docker's exit status for it: 125, 126 or 127.
        status: u8,
        /// What went wrong, and what to do.
        why: String,
    },
    /// It ran, and the cell came back without it: the machine or its holder went down meanwhile.
    CellRestart,
    /// It was stopped before it ran.
    NeverRan,
}

/// Who asked for an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoppedBy {
    /// A call to stop or remove it, with the caller's reason.
    Client(String),
    /// The cell was drained.
    Drain,
    /// Its health check failed, in these words.
    Health(String),
}

impl StoppedBy {
    /// Whether it is a wish that it stays ended. A failed health check is a crash.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Health(_))
    }
}

impl Cause {
    /// Whether a restart policy of "on failure" takes it for a success.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exit { code: 0 })
    }
}

impl fmt::Display for StoppedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(reason) if reason.is_empty() => f.write_str("client"),
            Self::Client(reason) => write!(f, "client: {reason}"),
            Self::Drain => f.write_str("drain"),
            Self::Health(why) => write!(f, "health: {why}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit { code } => write!(f, "exit status {code}"),
            Self::Signal { signal } => write!(f, "killed by signal {signal}"),
            Self::OutOfMemory { kills_count, own_limit } => {
                let whose = if *own_limit { "its own limit" } else { "not its own limit" };
                write!(f, "out of memory ({whose}; {kills_count} processes killed)")
            }
            Self::Failed { why, .. } => write!(f, "failed to start: {why}"),
            Self::CellRestart => f.write_str("gone when the cell came back"),
            Self::NeverRan => f.write_str("stopped before it ran"),
        }
    }
}
