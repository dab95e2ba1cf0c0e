//! What agent and holder say to each other.

use serde::{Deserialize, Serialize};

use crate::cell::words::WORDS_BYTES_MAX;
use crate::sandbox::{Exit, LimitOwner};

/// The version of these messages. A holder outlives the agent that started it, so a newer agent meets older holders:
/// what an older one would misread gets a new number, and both refuse the other.
pub const VERSION: u32 = 2;
/// Bytes of a packet.
pub(super) const PACKET_BYTES_MAX: usize = 8 << 10;
const _: () = assert!(
    WORDS_BYTES_MAX + (1 << 10) < PACKET_BYTES_MAX,
    "an error's words, an id and names fit in a packet"
);
/// Descriptors beside a packet.
pub(super) const FDS_COUNT_MAX: usize = 8;

/// What an agent asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Who are you.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// Start a container. Descriptors: body, root, the writable layer's lock, the image's lease, and the network
    /// namespace if there is one.
    Start {
        /// The container's id.
        id: String,
        /// With a reaper as process 1.
        init: bool,
        /// With a pipe as standard input. Whether it has a terminal is in its spec.
        input: bool,
    },
    /// Kill all processes of a container.
    Kill {
        /// Its id.
        id: String,
    },
    /// Let go of a container: its end is known. One that runs is killed first.
    Forget {
        /// Its id.
        id: String,
    },
    /// Say what there is, and from then on what ends.
    Attend,
}

/// What the holder answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To `Hello`.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// It runs. Descriptors: pidfd, standard output, standard error, and what it reads, if it reads anything: the end of a
    /// pipe, or the master of its terminal.
    Started {
        /// On the host.
        pid: i32,
        /// Microseconds from the request to clone3, and to execve.
        cloned_us: u64,
        /// As above.
        executed_us: u64,
    },
    /// It does not run, and nothing is left of it.
    Failed {
        /// Docker's exit status: 125, 126 or 127.
        status: u8,
        /// Why.
        why: String,
    },
    /// Done.
    Done,
    /// To `Attend`, one for each container. Descriptors: pidfd, standard output, standard error, body, and what it reads,
    /// if it reads anything.
    There {
        /// Its id.
        id: String,
        /// On the host.
        pid: i32,
        /// Its end, if it has ended.
        ended: Option<Ended>,
    },
    /// To `Attend`: that was all.
    All,
    /// To `Attend`, later: a container ended.
    Ended {
        /// Its id.
        id: String,
        /// How.
        ended: Ended,
    },
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Exit status, or the signal as a negative number.
    pub status: i32,
    /// Processes killed for want of memory; 0: none, or no limit was set.
    pub kills_count: u64,
    /// The container's own memory limit ran out.
    pub own_limit: bool,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Ended {
    pub(super) fn new(exit: Exit, at_ms: u64) -> Self {
        let (status, kills_count, own_limit) = match exit {
            Exit::Code(code) => (i32::from(code), 0, false),
            Exit::Signal(signal) => (-signal, 0, false),
            Exit::OutOfMemory { kills_count, owner } => (-9, kills_count, owner == LimitOwner::Container),
        };
        Self { status, kills_count, own_limit, at_ms }
    }
}
