//! An instance or a task as a pure state machine: `(event, now) -> effects`, legal moves only.
//!
//! ```text
//! Reserved ─> Preparing ─> Starting ─> Running ─────────────────────────────┐ ended by itself
//!               ^  │ failed    │ failed   │ stop, health                    v
//!               │  └───────────┴──────────┼──────────> policy ── no ──> Exited (kept, then removed)
//!               │                         v               │               ^
//!               │                      Stopping ── ended ─┼── stopped ────┘
//!               └────────── time is over ── Waiting <─────┘ yes
//! ```
//! A stop during the preparation is an end at once: what is under way is abandoned, and cleared away when it comes.
//!
//! Nothing here reads a clock or does anything: the effects are for who runs the machine, in order. Each start is a new
//! container, named by the instance and the [attempt](Machine::attempt); what one leaves is cleared away by
//! [`Effect::Clean`], exactly once. [`Effect::Release`] comes exactly once as well, with the last end.

mod end;
mod policy;
mod step;
#[cfg(test)]
mod tests;

pub use end::{Cause, End, StoppedBy};
pub use policy::{CRASHES_COUNT_MAX, PERIOD_MS_MAX, Policy, Restart, SIGTERM};

use serde::{Deserialize, Serialize};

/// Where an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Its resources are held; nothing is made.
    Reserved,
    /// Image, root and network are being made ready.
    Preparing,
    /// The holder was told to start it.
    Starting,
    /// It runs.
    Running {
        /// Since when, in milliseconds since 1970.
        since_ms: u64,
    },
    /// It is to end.
    Stopping {
        /// Who wants it.
        by: StoppedBy,
        /// How far that has come.
        stage: Stage,
        /// Since when it ran, if it did.
        since_ms: Option<u64>,
    },
    /// It crashed, and is started again when the time is over.
    Waiting {
        /// When that is, in milliseconds since 1970.
        until_ms: u64,
    },
    /// It ended for good.
    Exited,
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It was being prepared. Journals of older versions have it: now that is abandoned, and the stop is an end at once.
    Preparing,
    /// It is being started: that is let to end first.
    Starting,
    /// It was asked by its stop signal.
    Asked {
        /// When it is killed, in milliseconds since 1970.
        kill_at_ms: u64,
    },
    /// It was killed.
    Killed,
}

/// What happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its wish is on disk: begin.
    Begin,
    /// Its root and network are there.
    Prepared,
    /// It runs.
    Started,
    /// It could not be prepared or started; nothing is left of the attempt but what [`Effect::Clean`] takes.
    Failed(Cause),
    /// Its first process ended.
    Ended(Cause),
    /// The cell came back, and its container is not there.
    Lost,
    /// It is to end.
    Stop {
        /// Who wants it.
        by: StoppedBy,
        /// Milliseconds from the stop signal to the kill, instead of the policy's.
        grace_ms: Option<u64>,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Make image, root and network ready for a new attempt; answered by `Prepared` or `Failed`.
    Prepare,
    /// Start the container; answered by `Started` or `Failed`.
    Launch,
    /// Send this signal to the first process.
    Signal(i32),
    /// Kill all its processes.
    Kill,
    /// Clear away what the attempt has left; a preparation that is under way is abandoned, is not answered any more, and
    /// what comes of it is cleared away as well.
    Clean,
    /// Give its resources back to the ledger.
    Release,
}

/// The effects of one event, in order: at most as many as there are kinds.
pub type Effects = Vec<Effect>;

/// An event that cannot happen in this state: somebody's bookkeeping is wrong, and nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} cannot happen to an instance that is {state}")]
pub struct Illegal {
    /// The event.
    pub event: &'static str,
    /// The state.
    pub state: &'static str,
}

/// One instance or task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// How it is kept running and ended.
    pub policy: Policy,
    state: State,
    attempt: u32,
    crashes: u32,
    changed_ms: u64,
    last_end: Option<End>,
}

impl Machine {
    /// One that is reserved.
    pub fn new(policy: Policy, now_ms: u64) -> Self {
        Self { policy, state: State::Reserved, attempt: 0, crashes: 0, changed_ms: now_ms, last_end: None }
    }

    /// Where it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The number of its container, from 1; 0 before the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Crashes in a row.
    pub fn crashes(&self) -> u32 {
        self.crashes
    }

    /// When it came to its state, in milliseconds since 1970.
    pub fn changed_ms(&self) -> u64 {
        self.changed_ms
    }

    /// Its last end, if it ever had one.
    pub fn last_end(&self) -> Option<&End> {
        self.last_end.as_ref()
    }

    /// Whether it ended for good: its resources are given back.
    pub fn is_over(&self) -> bool {
        self.state == State::Exited
    }

    /// Whether a container of its own is there, as far as this machine knows.
    pub fn has_container(&self) -> bool {
        match &self.state {
            State::Running { .. } | State::Starting => true,
            State::Stopping { stage, .. } => *stage != Stage::Preparing,
            _ => false,
        }
    }

    /// When [`Event::Tick`] does something next, in milliseconds since 1970.
    pub fn wakes_at_ms(&self) -> Option<u64> {
        match &self.state {
            State::Waiting { until_ms } => Some(*until_ms),
            State::Stopping { stage: Stage::Asked { kill_at_ms }, .. } => Some(*kill_at_ms),
            _ => None,
        }
    }
}

impl State {
    /// The words for all of them, in the order that instances come to them.
    pub const NAMES: [&str; 7] =
        ["reserved", "preparing", "starting", "running", "stopping", "waiting", "exited"];

    /// A word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Waiting { .. } => "waiting",
            Self::Exited => "exited",
        }
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Begin => "a beginning",
            Self::Prepared => "the end of its preparation",
            Self::Started => "a start",
            Self::Failed(_) => "a failed start",
            Self::Ended(_) => "an end",
            Self::Lost => "a loss",
            Self::Stop { .. } => "a stop",
            Self::Tick => "the passing of time",
        }
    }
}
