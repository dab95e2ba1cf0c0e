//! Why a manifest, an index or a config is not taken.

use crate::digest::DigestError;
use crate::platform::Platform;

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// More bytes than any real image's.
    #[error("the document has {bytes} bytes or more, the limit is {limit}; nothing of it was used")]
    TooLong {
        /// How many, or how many were seen before reading stopped.
        bytes: u64,
        /// [`Limits::manifest_bytes`](crate::Limits::manifest_bytes).
        limit: u64,
    },
    /// Not JSON of the right types.
    #[error("the {what} is not valid JSON: {source}")]
    Json {
        /// `manifest`, `image config`, ...
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Docker's format of before 2016.
    #[error(
        "the image is in Docker's manifest schema 1, which has no verifiable layers; \
         push it again with a current tool, or convert it: skopeo copy --format oci"
    )]
    Schema1,
    /// A document of another kind.
    #[error("media type {0:?} is neither a manifest nor an index of an image")]
    UnknownDocument(String),
    /// JSON, but not what the specification says.
    #[error("the document contradicts the specification: {0}")]
    Shape(String),
    /// A digest that cannot be verified.
    #[error("{what}: {source}")]
    Digest {
        /// Of what.
        what: String,
        /// Why.
        source: DigestError,
    },
    /// The manifest is of a chart, a signature or another artifact.
    #[error("this is an artifact of type {0:?}, not a container image")]
    Artifact(String),
    /// More layers than any real image's.
    #[error("the image has {count} layers, the limit is {limit}")]
    TooManyLayers {
        /// How many.
        count: usize,
        /// [`Limits::layers_count`](crate::Limits::layers_count).
        limit: usize,
    },
    /// No layers at all.
    #[error("the image has no layers, so there is nothing to run in it")]
    NoLayers,
    /// A layer in a format celda does not read.
    #[error("layer {number} has the unknown media type {media_type:?}; tar, tar+gzip and tar+zstd are read")]
    UnknownLayer {
        /// From 1, lowest first.
        number: usize,
        /// As written.
        media_type: String,
    },
    /// A layer that needs a key.
    #[error(
        "layer {number} is encrypted ({media_type}); decrypt the image first: skopeo copy --decryption-key"
    )]
    EncryptedLayer {
        /// From 1, lowest first.
        number: usize,
        /// As written.
        media_type: String,
    },
    /// An index without a manifest for the wanted platform.
    #[error("the image is not available for {wanted}; it is for {available}; choose one with --platform")]
    NoPlatform {
        /// What was asked for.
        wanted: Platform,
        /// What there is, comma-separated.
        available: String,
    },
    /// Indexes in indexes without end.
    #[error("the index is nested more than {0} deep")]
    TooDeep(usize),
    /// Config and manifest disagree about the layers.
    #[error("the manifest has {layers} layers, the config's rootfs.diff_ids has {diff_ids}")]
    LayerCount {
        /// Of the manifest.
        layers: usize,
        /// Of the config.
        diff_ids: usize,
    },
}
