//! Docker and OCI images to mounted root filesystems, without unpacking them.
//!
//! ```text
//! reference -> transport -> ingest -> store -> tree (whiteouts applied) -> index or directory -> mount
//!   name        registry,    one pass   layers/   pure                       erofs      directory    detached fd
//!               oci:, ...    per layer  index/
//! ```
//!
//! A layer is stored once, as its uncompressed tar, in a file named by its diffID. Beside the layers lies one
//! small EROFS metadata image per chain of layers, whose files point into those tars, so that mounting an image
//! is one file-backed EROFS mount. Where the kernel cannot do that, a [`directory`] is unpacked instead, from the
//! same [`tree`], so both sinks show identical trees.
//!
//! `unsafe` and raw `libc` calls live only in [`sys`].
#![deny(unsafe_code)]

mod cancel;
pub mod decompress;
pub mod digest;
pub mod directory;
pub mod erofs;
pub mod error;
pub mod ingest;
pub mod io;
pub mod limits;
pub mod manifest;
pub mod mount;
pub mod pack;
pub mod platform;
pub mod progress;
pub mod pull;
pub mod reference;
pub mod store;
pub mod sys;
pub mod tar;
pub mod transport;
pub mod tree;

pub use cancel::Cancel;
pub use digest::Digest;
pub use error::{Error, Result};
pub use limits::Limits;
pub use platform::Platform;
pub use reference::Reference;
pub use store::{ImageRecord, LayerRecord, Store, StoreOptions};
