//! The crate's one error: a variant per step, saying what was being done, to what, and what to do next.

use std::path::PathBuf;

use crate::Digest;

/// What a function of this crate answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

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
        source: Box<crate::manifest::ManifestError>,
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
    /// The filesystem of the store is full, or the user's quota is.
    #[error(
        "{action} {path}: no space left on its filesystem ({free_bytes} of {total_bytes} bytes free{needed}); \
         free some space, or drop the images nothing uses with `celda gc`",
        path = path.display()
    )]
    NoSpace {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Bytes that filesystem has left for this user.
        free_bytes: u64,
        /// Bytes that filesystem has in all.
        total_bytes: u64,
        /// What the step still wanted, as a clause to append: empty, or ", layer ... needs ...".
        needed: String,
    },
    /// The user may not do this to the store.
    #[error(
        "{action} {path}: permission denied; run celda as root (sudo), or give it a directory of yours with --root DIR",
        path = path.display()
    )]
    NoPermission {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// The store lies on a filesystem that is mounted read-only.
    #[error(
        "{action} {path}: the filesystem is read-only; images that are there can run, but pulling and removing \
         need a writable directory: give one with --root DIR",
        path = path.display()
    )]
    ReadOnly {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// Someone else holds what this step needs, for longer than a named wait.
    #[error("{what} is held by another celda process (waited {waited_s} s at {path}); {hint}", path = path.display())]
    Busy {
        /// What is held: "the store", "layer sha256:...".
        what: String,
        /// The lock file.
        path: PathBuf,
        /// How long was waited, in seconds.
        waited_s: u64,
        /// What to do next.
        hint: &'static str,
    },
    /// The pull was cancelled; nothing of the layer was kept.
    #[error("{what}: cancelled")]
    Cancelled {
        /// What was given up.
        what: String,
    },
    /// A layer's bytes could not be taken in; nothing of it was kept.
    #[error("layer {label}: {source}")]
    Layer {
        /// The layer as the user knows it: its blob digest, or the archive's member.
        label: String,
        /// The reader's own reason: a compression, tar or limits error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tree or index of a chain of layers could not be made.
    #[error("index of image layers {chain_id}: {source}")]
    Index {
        /// The chain id of the layers.
        chain_id: Digest,
        /// The merger's or the writer's own reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the catalogue does not say what such a file must.
    #[error(
        "{path}: {reason}; the record is damaged: delete the file and pull the image again (its layers are kept)",
        path = path.display()
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something an image needs is not in the store (any more).
    #[error("{what} of image {image} is not in the store: {path}; `celda pull {image}` fetches it again", path = path.display())]
    Missing {
        /// "a layer", "the index".
        what: &'static str,
        /// The image's reference.
        image: String,
        /// Where it should lie.
        path: PathBuf,
    },
    /// No image has this name or id.
    #[error("no image {0:?} in the store; `celda images` lists what is there")]
    UnknownImage(String),
    /// A short id fits several images.
    #[error("image id {id:?} is ambiguous: {candidates}; give more of its digits")]
    AmbiguousImage {
        /// What was given.
        id: String,
        /// The digests it fits, separated by commas.
        candidates: String,
    },
    /// The image is not removed, as something would be lost by it.
    #[error("image {image} is not removed: {reason}")]
    ImageInUse {
        /// The image as it was named.
        image: String,
        /// Who uses it and what to do.
        reason: String,
    },
    /// The image is not there, and nobody may be asked for it.
    #[error(
        "image {image} for {platform} is not in the store, and pulling was forbidden; `celda pull {image}` fetches it"
    )]
    NotPresent {
        /// As the user would write it.
        image: String,
        /// For what it was wanted.
        platform: String,
    },
    /// A build without the network.
    #[error(
        "image {image} is in a registry, and this build has no registry client; give an oci: or docker-archive: path"
    )]
    NoRegistries {
        /// As the user would write it.
        image: String,
    },
    /// An image could not be made of files of this machine.
    #[error("pack into {layout}: {source}", layout = layout.display())]
    Pack {
        /// The layout's directory.
        layout: PathBuf,
        /// Why.
        source: Box<crate::pack::PackError>,
    },
    /// A layout or an archive on this machine cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Source {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: Box<crate::transport::SourceError>,
    },
    /// A registry did not give what was asked for.
    #[cfg(feature = "registry")]
    #[error(transparent)]
    Registry(#[from] Box<crate::transport::registry::RegistryError>),
}

impl Error {
    /// Shapes an [`std::io::Error`] into [`Error::Io`]; made for `map_err`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
