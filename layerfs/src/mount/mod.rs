//! From an index (or a directory) to a container's root, as detached mounts: nothing appears in the host's table.
//!
//! ```text
//!            Ladder::probe: mounts a tiny image for real, once; the answer is kept in RUN/ladder.json
//!                 |
//!   FileBacked    erofs  source=INDEX device=TAR device=TAR ...      Linux >= 6.12, root, not on tmpfs
//!   Loop          the same over /dev/loop*, read-only, direct I/O    Linux >= 6.4, root
//!   Directory     a clone of trees/<chain id>/rootfs, read-only      everything else
//!                 |
//!             lower mount fd --overlay(lowerdir+ = fd, upperdir, workdir, volatile)--> root mount fd
//!                              before Linux 6.15 by a thread that keeps the image attached: attic
//! ```
//!
//! A file-backed or loop mount has a page cache of its own: two mounts of one index share nothing, two overlays of
//! one mount share all. A process that starts many containers of an image keeps one lower mount; processes that start
//! one each share a mount that is pinned below RUN ([`Ladder::shared_image`]).

mod attic;
mod context;
mod fingerprint;
mod image;
mod ladder;
mod limit;
mod overlay;
mod pin;
mod probe;
mod quota;
mod root;
mod sized;
mod spare;
mod writable;

pub use image::{Reads, drop_cached_tars};
pub use ladder::{Ladder, LadderInfo, Rung};
pub use limit::{DiskLimit, DiskLimits, LIMIT_BYTES_MAX, LIMIT_BYTES_MIN, check as check_disk_limit};
pub use overlay::OverlayAbilities;
pub(crate) use probe::in_initial_user_namespace;
pub use root::{Root, RootPool, SPARES_COUNT_MAX};
pub use spare::Kept;
pub use writable::{WritableLayer, end_container, remove_container, sweep_containers};
