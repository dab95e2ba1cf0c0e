//! Forwarders: what instances write, sent on to a syslog server or an OTLP collector.
//!
//! ```text
//! log files ──Follower──> reader: a batch of at most BATCH_LINES_MAX ──> syslog | otlp ──acknowledged──> places
//!   of all instances       round robin over logs           ^                  │                       on disk
//!                                                          └── again, after a back-off ──┘
//! ```
//! A forwarder reads the files that followers read, so an instance never waits for it, and what it keeps in memory is one
//! batch, and some notices of what went away. A log's place moves only when the other side has what is before it; a batch
//! that may or may not have come is sent again, so that lines are there once or twice, and not never. What rotation or an
//! instance's removal took away before it was sent is counted, in a notice in its place.

mod catalog;
pub mod config;
mod error;
mod gone;
mod otlp;
mod places;
mod reader;
mod run;
mod syslog;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub use catalog::{Catalog, OfCore};
pub use config::{Forward, Otlp, Syslog};
pub use error::{ForwardError, Result};
pub use run::Forwarder;
pub use syslog::message;

use super::logs::{Entry, Stream};

/// Lines of a batch.
pub const BATCH_LINES_MAX: usize = 1024;
/// Bytes of lines of a batch, beyond which no other is added.
pub const BATCH_BYTES: usize = 256 << 10;
/// How often logs are looked at, also while a batch is on its way or waits: one that comes and goes meanwhile is counted.
const TICK: Duration = Duration::from_millis(200);
/// How often places are written down, at most.
const PLACES_INTERVAL: Duration = Duration::from_secs(1);
/// From a failure to the next try: twice as long each time.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the other side has to take a batch. One that stalls is left, and the batch sent again.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

/// One line, or a notice of what is missing before those that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The instance.
    pub id: Arc<str>,
    /// Its app.
    pub app: Arc<str>,
    /// Its number in the app.
    pub index: u32,
    /// What it wrote.
    pub entry: Entry,
}

impl Line {
    /// A word for where it was written.
    pub fn stream(&self) -> &'static str {
        match self.entry.stream {
            Stream::Output => "stdout",
            Stream::Error => "stderr",
            Stream::Notice => "notice",
        }
    }
}

/// What a forwarder has done since the agent came up.
#[derive(Debug, Default)]
pub struct Tally {
    sent_lines: AtomicU64,
    lost_lines: AtomicU64,
    is_connected: AtomicBool,
}

impl Tally {
    /// Lines that the other side has.
    pub fn sent_lines(&self) -> u64 {
        self.sent_lines.load(Relaxed)
    }

    /// Lines that were gone before they were sent, or that the other side refused.
    pub fn lost_lines(&self) -> u64 {
        self.lost_lines.load(Relaxed)
    }

    /// Whether the last batch came through, or the connection for the next one stands.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Relaxed)
    }
}
