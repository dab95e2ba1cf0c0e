//! The crate's one error; the rooms' own reasons are its sources and speak for themselves.

use std::path::PathBuf;

use crate::cell::CellError;
use crate::sandbox::SandboxError;
use crate::sandbox::cgroup::CgroupError;
use crate::sandbox::seccomp::SeccompError;
use crate::spec::SpecError;

/// What a function of this crate answers.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between a command line and a container's exit status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Images: naming, fetching, storing, mounting.
    #[error(transparent)]
    Image(#[from] celda_layerfs::Error),
    /// From flags and the image's config to a spec.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// From a spec to a running program.
    #[error("cannot start the container: {0}")]
    Sandbox(#[from] SandboxError),
    /// Limits and placement.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The system call filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// A cell, on either side of its socket.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// How instances are watched.
    #[error(transparent)]
    Health(#[from] crate::cell::health::HealthError),
    /// The cell's network.
    #[error(transparent)]
    Network(#[from] crate::cell::network::NetworkError),
    /// What instances write.
    #[error(transparent)]
    Logs(#[from] crate::cell::logs::LogsError),
    /// A syscall on a path failed.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A container's name cannot be had.
    #[error("container name {name:?}: {reason}")]
    Name {
        /// What was asked for.
        name: String,
        /// Why not, and what would do.
        reason: String,
    },
    /// A command's argument has no meaning.
    #[error("{what}: {reason}")]
    Argument {
        /// Which argument.
        what: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Nothing here has that name.
    #[error("{0}: no such image or container; `celda images` lists what is here")]
    NotHere(String),
}

impl Error {
    /// Shapes an [`std::io::Error`] into [`Error::Io`]; made for `map_err`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// The exit status by Docker's rule: 127 not found, 126 cannot execute, 125 for the rest.
    pub fn status(&self) -> u8 {
        match self {
            Self::Sandbox(error) => error.status(),
            _ => 125,
        }
    }
}
