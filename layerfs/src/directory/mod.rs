//! The fallback of the mount ladder: an image's merged tree as a real directory.
//!
//! ```text
//! trees/<chain id>/                     0700: setuid files of an image are no business of the host's users
//!   .rootfs.<pid>-<n>.partial           being unpacked, held by flock; swept once nobody holds it
//!   rootfs                              published by rename, after syncfs
//! ```
//!
//! No path of the host is resolved for a name of the tree: every directory is opened beneath its parent's
//! descriptor, and every name is created with `O_EXCL` or its like.

mod content;
mod metadata;
mod remove;
mod unpack;

pub use remove::{remove_path, remove_tree};
pub use unpack::{Unpacked, unpack};
