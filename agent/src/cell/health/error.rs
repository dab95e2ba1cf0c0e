//! What can go wrong with health checks themselves; what goes wrong with an instance is an outcome.

use std::io;

/// What a function of the health checks answers.
pub type Result<T> = std::result::Result<T, HealthError>;

/// Why an instance cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// A syscall failed.
    #[error("{action}: {source}")]
    Kernel {
        /// What was being done.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A check has a value out of its range.
    #[error("health check, {what}: {why}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// The engine's thread is gone.
    #[error("the health checks' thread has ended; restart the agent")]
    Ended,
}

impl HealthError {
    pub(super) fn kernel<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel { action, source: source.into() }
    }
}
