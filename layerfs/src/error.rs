//! The crate's one error: a variant per step, saying what was being done, to what, and what to do next.

use std::path::PathBuf;

use crate::Digest;

/// What a function of this crate answers.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between an image's name and its mounted root filesystem.
///
/// The rooms' own reasons (`TarError`, `ReferenceError`, ...) are kept as sources.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A syscall on a path failed.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done: "create directory", "rename".
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A blob's bytes do not have the digest they were asked for by.
    #[error(
        "{what}: expected {expected}, the bytes have {actual}; the source is corrupt or lying, nothing was kept"
    )]
    DigestMismatch {
        /// Which blob of which image.
        what: String,
        /// The digest of the descriptor or of the config's `rootfs.diff_ids`.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// A text names no image.
    #[error(transparent)]
    Reference(#[from] crate::reference::ReferenceError),
    /// A manifest, index or config is refused.
    #[error("image {image}: {source}")]
    Manifest {
        /// Of which image.
        image: String,
        /// Why.
        source: crate::manifest::ManifestError,
    },
    /// The kernel refused a step of making a mount.
    #[error(
        "{action} {path}: {source}{}{kernel}; {hint}",
        if kernel.is_empty() { "" } else { ": the kernel says " },
        path = path.display()
    )]
    Mount {
        /// What was being done: "mount index", "mount overlay with upper directory".
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel wrote to the mount's context, lines joined by `, `; empty if nothing.
        kernel: String,
        /// The kernel's answer.
        source: std::io::Error,
        /// What to do next.
        hint: &'static str,
    },
    /// A tree cannot be laid out as a directory.
    #[error("unpack {path}: {reason}", path = path.display())]
    Unpack {
        /// Where in the tree.
        path: PathBuf,
        /// Why, and what to do next.
        reason: String,
    },
    /// A container's writable layer is in use by a live process.
    #[error("{path} is in use by a running container; stop it first", path = path.display())]
    LayerInUse {
        /// The layer's directory.
        path: PathBuf,
    },
}

impl Error {
    /// Shapes an [`std::io::Error`] into [`Error::Io`]; made for `map_err`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
