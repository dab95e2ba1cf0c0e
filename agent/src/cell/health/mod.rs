//! Whether an instance has come up, lives, and is ready, found out without a process for each look.
//!
//! ```text
//!  Watch ──> machine (pure) ──Begin──> engine: one thread ── socket in the instance's network namespace ── http, tcp
//!              ^      |                   |      '── launchers ── sandbox::exec ── pidfd ──────────────── exec
//!              |      v                   |
//!              |   State: Up, Ready,      |
//!              |   NotReady, Failed       |
//!              '────────Outcome───────────'
//! ```
//! A socket belongs to the network namespace it was made in, so the engine's thread goes there to make one and comes
//! back. Whatever a server does, a look ends by its timeout, has read no more than [`HEAD_BYTES_MAX`] bytes, and has
//! kept no other look waiting. The defaults are Diego's: polled every 2 s until up, 60 s for that; then every 30 s, 1 s
//! for an answer; one failure ends the instance, while a failure to be ready only takes it off its routes.

mod engine;
mod error;
mod exec;
mod http;
mod image;
mod looking;
mod machine;
mod probe;
mod programs;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use engine::{Health, Report, Watch, WatchId};
pub use error::{HealthError, Result};
pub use http::{Answer, HEAD_BYTES_MAX, answer, request};
pub use image::of_image;
pub use machine::{Effect, Kind, Machine, Outcome, State};

use crate::sandbox::exec::Exec;

/// Watches that one engine takes.
pub const WATCHES_COUNT_MAX: usize = 65_536;
/// Threads that start programs for exec checks, and so the starts that may be stuck before others wait.
pub const EXEC_THREADS_COUNT_MAX: usize = 64;
/// The first pause between two looks at an instance that is coming up; each is twice the one before, up to the interval.
pub const STARTUP_PAUSE_FIRST: Duration = Duration::from_millis(5);

/// Starts a check's program in its instance within a time, see [`start_in_time`](crate::sandbox::exec::start_in_time); 0 is
/// success. Its standard files are the caller's choice.
pub type Launch = Arc<dyn Fn(Duration) -> crate::sandbox::Result<Exec> + Send + Sync>;

/// One way to look at an instance.
#[derive(Clone)]
pub enum Probe {
    /// A connection to a port of the instance's loopback address is accepted.
    Tcp {
        /// The port.
        port: u16,
    },
    /// `GET` over HTTP/1.1 is answered with one of the statuses.
    Http {
        /// The port.
        port: u16,
        /// The path, from `/` on.
        path: String,
        /// Statuses that are success; Diego's is 200 alone.
        statuses: RangeInclusive<u16>,
    },
    /// A program in the instance ends with 0.
    Exec(Launch),
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { port } => write!(f, "Tcp({port})"),
            Self::Http { port, path, statuses } => write!(f, "Http({port}, {path}, {statuses:?})"),
            Self::Exec(_) => write!(f, "Exec"),
        }
    }
}

/// A probe, and how often and how patiently it is used.
#[derive(Clone, Debug)]
pub struct Check<P = Probe> {
    /// How to look.
    pub probe: P,
    /// From the end of one look to the next: 100 ms to a day.
    pub interval: Duration,
    /// The longest that one look may take: 10 ms to an hour.
    pub timeout: Duration,
    /// Failures in a row that count as one: 1 to 1,000.
    pub failures_count: u32,
    /// Successes in a row that count as one, for readiness: 1 to 1,000.
    pub successes_count: u32,
}

impl<P> Check<P> {
    /// With Diego's defaults.
    pub fn of(probe: P) -> Self {
        Self {
            probe,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(1),
            failures_count: 1,
            successes_count: 1,
        }
    }

    /// The same with another probe.
    pub fn map<Q>(self, change: impl FnOnce(P) -> Q) -> Check<Q> {
        let Self { probe, interval, timeout, failures_count, successes_count } = self;
        Check { probe: change(probe), interval, timeout, failures_count, successes_count }
    }
}

/// How an instance is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Startup {
    /// The longest pause between two looks: 10 ms to an hour.
    pub interval: Duration,
    /// It must be up by then; zero waits forever.
    pub timeout: Duration,
}

impl Default for Startup {
    /// Diego's.
    fn default() -> Self {
        Self { interval: Duration::from_secs(2), timeout: Duration::from_secs(60) }
    }
}

/// All that is checked of an instance.
#[derive(Clone, Debug)]
pub struct Checks<P = Probe> {
    /// How it is waited for, by the probe of liveness, or of readiness where there is none.
    pub startup: Startup,
    /// Ends the instance when it fails.
    pub liveness: Option<Check<P>>,
    /// Takes the instance off its routes while it fails.
    pub readiness: Option<Check<P>>,
}

impl<P> Checks<P> {
    /// Refuses what is out of its range.
    ///
    /// # Errors
    /// [`HealthError::Invalid`].
    pub fn check(&self) -> Result<()> {
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        let within = |what, value: Duration, min, max| {
            let is_within = (min..=max).contains(&value);
            if is_within {
                Ok(())
            } else {
                Err(HealthError::Invalid {
                    what,
                    why: format!("{value:?} is not within {min:?} and {max:?}"),
                })
            }
        };
        within("startup.interval", self.startup.interval, Duration::from_millis(10), hour)?;
        within("startup.timeout", self.startup.timeout, Duration::ZERO, day)?;
        for check in [&self.liveness, &self.readiness].into_iter().flatten() {
            within("interval", check.interval, Duration::from_millis(100), day)?;
            within("timeout", check.timeout, Duration::from_millis(10), hour)?;
            for (what, count) in
                [("failures_count", check.failures_count), ("successes_count", check.successes_count)]
            {
                if !(1..=1000).contains(&count) {
                    return Err(HealthError::Invalid {
                        what,
                        why: format!("{count} is not within 1 and 1,000"),
                    });
                }
            }
        }
        Ok(())
    }
}
