//! What a pull tells whoever watches: a plain trait, so that the library draws nothing.

use crate::Digest;

/// One thing that happened to a layer (named by the digest of its compressed blob) or to the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The manifest was resolved: what will be pulled.
    Resolved {
        /// The image as the user would write it.
        image: String,
        /// The manifest's digest.
        manifest: Digest,
        /// Compressed blob digests and sizes in bytes, lowest layer first.
        layers: Vec<(Digest, u64)>,
    },
    /// The layer is in the store already; nothing is fetched.
    LayerPresent(Digest),
    /// `bytes` of the layer's compressed blob have arrived in all, of `total`.
    LayerProgress {
        /// Which layer.
        layer: Digest,
        /// Compressed bytes so far.
        bytes: u64,
        /// Compressed bytes expected.
        total: u64,
    },
    /// A request for the layer failed and is tried again.
    LayerRetry {
        /// Which layer.
        layer: Digest,
        /// The number of the attempt that failed, from 1.
        attempt: u32,
        /// Why, as the user should read it.
        reason: String,
    },
    /// Both digests are right and the layer is published.
    LayerDone(Digest),
    /// The image can be mounted.
    Ready {
        /// The image as the user would write it.
        image: String,
        /// The manifest's digest.
        manifest: Digest,
    },
}

/// A watcher of a pull. Called from any thread; must return quickly.
pub trait Progress: Send + Sync {
    /// `event` has happened.
    fn event(&self, event: Event);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event) {}
}
