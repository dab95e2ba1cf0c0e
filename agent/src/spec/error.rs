//! Why an image and its flags don't make a container.

use std::path::PathBuf;

use crate::sandbox::caps::UnknownCapability;
use crate::sandbox::seccomp::SeccompError;
use crate::sandbox::users::UserError;

use super::FlagError;

/// Why no spec can be built, or what it needs can't be laid out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A flag's value.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// A capability's name.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// `--user`, the image's `User`, or `--group-add`.
    #[error(transparent)]
    User(#[from] UserError),
    /// The profile of `--security-opt seccomp=FILE`.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// Neither the image nor the command line says what to run.
    #[error(
        "no command specified: the image has neither Entrypoint nor Cmd; write one after the image's name"
    )]
    NoCommand,
    /// Something in the image's config can't be used.
    #[error("image config, {field}: {why}")]
    Image {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Two flags that don't go together, or one that can't be kept here.
    #[error("{what}: {why}")]
    Conflict {
        /// Which ones.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// A syscall on a path failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl SpecError {
    /// Shapes an [`std::io::Error`] into [`SpecError::Io`]; made for `map_err`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
