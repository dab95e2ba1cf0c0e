//! Where images come from: one trait, four sources.
//!
//! ```text
//! Reference --open--> Source   start()    -> an index, or a manifest with its digest
//!                              document() -> a manifest or config, verified against its descriptor
//!                              layer()    -> the blob's bytes in order, pushed into a sink; from one of its places
//! ```
//!
//! A source is synchronous: a worker thread asks for a layer and is given its bytes on the same thread, where they
//! are hashed, inflated and written. What is asynchronous (a registry) hides behind bounded channels.
//! Documents are verified here. Layers are not: whoever ingests them hashes them anyway.

mod archive;
mod docker_archive;
mod error;
mod oci_layout;
mod options;
#[cfg(feature = "registry")]
pub mod registry;
mod section;

use std::path::Path;

pub use crate::Cancel;
pub use archive::Archive;
pub use docker_archive::DockerArchive;
pub use error::SourceError;
pub use oci_layout::{OciLayout, REF_NAME};
pub use options::{Mirror, NetworkOptions};
pub use section::Stamp;

use crate::manifest::Descriptor;
use crate::{Digest, Result};

/// Bytes a local source hands over at once.
const READ_BYTES: usize = 1 << 20;

/// A manifest or index with what is known of it.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// As the source has it.
    pub bytes: Vec<u8>,
    /// Computed from the bytes.
    pub digest: Digest,
    /// What the source says it is.
    pub media_type: Option<String>,
}

/// What an image's name leads to.
#[derive(Debug, Clone)]
pub enum Start {
    /// Manifests to choose from.
    Index(Vec<Descriptor>),
    /// A document that is still to be parsed.
    Document(Fetched),
}

/// Takes the bytes of a layer in order. An error ends the transfer and is handed back as it is.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// Something that has an image.
pub trait Source: Send + Sync {
    /// Looks the name up.
    ///
    /// # Errors
    /// When the name means nothing here, or the source cannot be read.
    fn start(&self) -> Result<Start>;

    /// The manifest or config that `descriptor` points at; its digest has been verified, its length bounded.
    ///
    /// # Errors
    /// When it is missing, too long, or has another digest.
    fn document(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>>;

    /// Pushes the bytes of a layer into `sink`, from place number `place` of [`places_count`](Self::places_count).
    /// Their digest is NOT verified; their number is.
    ///
    /// # Errors
    /// The place's, or what `sink` answered.
    fn layer(&self, blob: &Descriptor, place: usize, sink: Sink<'_>) -> Result<()>;

    /// How many places have the layers, in the order to ask them: a registry may have mirrors. If one fails or gives
    /// wrong bytes, whoever takes the layer in starts anew at the next.
    fn places_count(&self) -> usize {
        1
    }

    /// Whether layers are named by the digest of the bytes this source delivers. A docker-archive's are not.
    fn names_blobs(&self) -> bool {
        true
    }

    /// What identifies the state of a file this source reads, so that an unchanged one need not be read again.
    fn stamp(&self) -> Option<&Stamp> {
        None
    }
}

/// Checks a document against the descriptor it was asked for by.
pub(crate) fn verify_document(bytes: &[u8], descriptor: &Descriptor, what: &str) -> Result<()> {
    let actual = Digest::of(bytes);
    if actual != descriptor.digest {
        return Err(crate::Error::DigestMismatch {
            what: what.to_owned(),
            expected: descriptor.digest,
            actual,
        });
    }
    Ok(())
}

/// Shapes a [`SourceError`] into the crate's error.
pub(crate) fn source_error(path: &Path, reason: SourceError) -> crate::Error {
    crate::Error::Source { path: path.to_owned(), source: Box::new(reason) }
}
