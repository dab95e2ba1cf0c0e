//! What can go wrong with logs.

use std::io;
use std::path::{Path, PathBuf};

/// What a function of the logs answers.
pub type Result<T> = std::result::Result<T, LogsError>;

/// Why a log cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogsError {
    /// A syscall on a path failed.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A syscall without a path failed.
    #[error("{action}: {source}")]
    Kernel {
        /// What was being done.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A name that cannot be a directory's.
    #[error("log name {name:?}: 1 to 64 letters, digits, `-`, `_` and `.`, not beginning with a dot")]
    Name {
        /// What was given.
        name: String,
    },
    /// A bound that is out of its range.
    #[error("{what}: {why}")]
    Limit {
        /// Which bound.
        what: &'static str,
        /// Its range.
        why: &'static str,
    },
    /// Another agent writes these logs.
    #[error("{path}: another agent writes the logs here; end it first", path = path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// A log of that name is being written.
    #[error("the log {name} is being written already")]
    Attached {
        /// Its name.
        name: String,
    },
    /// The thread that serves the pipes is gone.
    #[error("the logs' thread has ended; restart the agent")]
    Ended,
}

impl LogsError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn kernel<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel { action, source: source.into() }
    }
}
