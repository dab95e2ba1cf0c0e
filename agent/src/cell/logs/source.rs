//! A log that is being written, as the rest of the agent sees it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;

use super::NAME_BYTES_MAX;
use super::error::{LogsError, Result};
use super::files::Limits;
use super::follow::{Follower, From};
use super::rate::Rate;

/// A log to be written.
#[derive(Debug)]
pub struct Source {
    /// The log's directory, below that of all logs: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Logs of the same app share its rate.
    pub app: String,
    /// How much the app may log; the first of its logs decides for all.
    pub rate: Option<Rate>,
    /// How much is kept.
    pub limits: Limits,
    /// What has no end yet is written as soon as it is seen: somebody may be waiting for a prompt.
    pub is_prompt: bool,
    /// The read end of the instance's standard output.
    pub output: Option<OwnedFd>,
    /// The read end of its standard error.
    pub error: Option<OwnedFd>,
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name =
        (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_allowed);
    if is_name { Ok(()) } else { Err(LogsError::Name { name: name.chars().take(NAME_BYTES_MAX).collect() }) }
}

/// How far a log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) next_sequence: u64,
    pub(super) has_ended: bool,
}

/// Counts of all logs of a cell since the agent came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// As [`Tally::lines`].
    pub lines: u64,
    /// As [`Tally::bytes`].
    pub bytes: u64,
    /// As [`Tally::dropped_lines`].
    pub dropped_lines: u64,
}

/// The same, as the thread counts them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) lines: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped_lines: AtomicU64,
}

impl Counts {
    pub(super) fn totals(&self) -> Totals {
        Totals {
            lines: self.lines.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            dropped_lines: self.dropped_lines.load(Relaxed),
        }
    }
}

/// What the thread tells of a log.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) progress: watch::Sender<Progress>,
    /// Of this log.
    pub(super) counts: Counts,
    /// Of all logs.
    pub(super) all: Arc<Counts>,
    pub(super) is_stalled: AtomicBool,
}

impl Shared {
    pub(super) fn new(next_sequence: u64, all: Arc<Counts>) -> Self {
        Self {
            progress: watch::Sender::new(Progress { next_sequence, has_ended: false }),
            counts: Counts::default(),
            all,
            is_stalled: AtomicBool::new(false),
        }
    }
}

/// Counts since this agent took the log up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Lines, or parts of long ones, that were written.
    pub lines: u64,
    /// Bytes that were taken from the instance.
    pub bytes: u64,
    /// Lines, or parts of long ones, that the rate limit dropped.
    pub dropped_lines: u64,
    /// The file cannot be written, so nothing is taken from the instance for now.
    pub is_stalled: bool,
}

/// A log that is being written.
#[derive(Clone, Debug)]
pub struct Log {
    pub(super) directory: PathBuf,
    pub(super) shared: Arc<Shared>,
}

impl Log {
    /// Where its segments are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether it is the same writing of the same log.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Sequence of the record that comes next.
    pub fn next_sequence(&self) -> u64 {
        self.shared.progress.borrow().next_sequence
    }

    /// Counts.
    pub fn tally(&self) -> Tally {
        let Totals { lines, bytes, dropped_lines } = self.shared.counts.totals();
        Tally { lines, bytes, dropped_lines, is_stalled: self.shared.is_stalled.load(Relaxed) }
    }

    /// Reads it, from there on.
    ///
    /// # Errors
    /// [`LogsError::Io`] when the directory cannot be listed.
    pub fn follower(&self, from: From) -> Result<Follower> {
        Follower::of(&self.directory, self.shared.progress.subscribe(), from)
    }

    /// Whether both streams have ended and everything of them is in the file.
    pub fn has_ended(&self) -> bool {
        self.shared.progress.borrow().has_ended
    }

    /// Waits until both streams have ended and everything of them is in the file.
    pub async fn ended(&self) {
        // The sender lives in `shared`, so that this cannot fail.
        let _ = self.shared.progress.subscribe().wait_for(|progress| progress.has_ended).await;
    }
}
