//! The index from end to end: golden files, random trees, broken bytes, and the kernel against other tools.
#![allow(clippy::unwrap_used)]

#[path = "../support/entries.rs"]
mod entries;
#[path = "../mount/snapshot.rs"]
#[allow(dead_code)]
mod snapshot;
#[path = "../support/tar_builder.rs"]
mod tar_builder;

mod golden;
mod image;
mod privileged_gnu;
mod privileged_mount;
mod privileged_umoci;
mod random;
