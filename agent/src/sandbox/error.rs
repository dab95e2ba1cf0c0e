//! What can go wrong between a request and a running program, a variant per kind of step.

use std::io;
use std::path::PathBuf;

/// What a function of the sandbox answers.
pub type Result<T> = std::result::Result<T, SandboxError>;

/// Why a container was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The spec asks for something that this runtime does not do; nothing was started.
    #[error("{what}: {why}")]
    Unsupported {
        /// The part of the spec, for instance `hooks`.
        what: String,
        /// Why, and what to do instead.
        why: String,
    },
    /// The spec is contradictory or has a value out of its range.
    #[error("{what}: {why}")]
    Invalid {
        /// The part of the spec.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of the host that the spec names could not be opened.
    #[error("{action} {path}: {source}", path = path.display())]
    Host {
        /// What was being done, for instance `open the bind mount's source`.
        action: &'static str,
        /// The path on the host.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A syscall of the parent's side failed.
    #[error("{action}: {source}")]
    Parent {
        /// What was being done.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A step of the child's side failed; the child is gone.
    #[error("{step}: {source}{hint}")]
    Step {
        /// The step as the plan prints it.
        step: String,
        /// The kernel's answer.
        source: io::Error,
        /// What to do next, with its own leading punctuation, or nothing.
        hint: &'static str,
    },
    /// The child was killed while it was still being set up.
    #[error("killed while the container was being set up, at: {step}; was its memory limit too small?")]
    Killed {
        /// The step as the plan prints it.
        step: String,
    },
    /// A program was to be run in a container that is no more.
    #[error("the container has ended, or is ending; nothing was run in it")]
    Ended,
    /// A program was to be run in a container whose processes are stopped.
    #[error("the container is frozen; let it go on first")]
    Frozen,
    /// A program did not come as far as its execution, and was killed.
    #[error("killed after {waited_ms} ms at: {step}; is the container frozen, or its filesystem stuck?")]
    Stuck {
        /// The step as the plan prints it.
        step: String,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// The container's cgroup could not be cleared away.
    #[error(transparent)]
    Cgroup(#[from] super::cgroup::CgroupError),
    /// The program is not in the container's root filesystem (Docker's status 127).
    #[error("{program}: {why}")]
    NotFound {
        /// The first argument.
        program: String,
        /// What was looked for, and where.
        why: String,
    },
    /// The program is there and cannot be executed (Docker's status 126).
    #[error("{program}: {why}")]
    CannotExecute {
        /// The first argument.
        program: String,
        /// Why, and what to do.
        why: String,
    },
}

impl SandboxError {
    /// The exit status by Docker's rule: 127 not found, 126 cannot execute, 125 for the rest.
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::CannotExecute { .. } => 126,
            _ => 125,
        }
    }

    pub(super) fn parent(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Parent { action, source }
    }

    pub(super) fn host(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Host { action, path, source }
    }

    pub(super) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }

    pub(super) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), why: why.into() }
    }
}
