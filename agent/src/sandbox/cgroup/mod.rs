//! Control groups, version 2 only: where a container is placed, limited, counted and killed.
//!
//! ```text
//! /sys/fs/cgroup            (or .../unified beside version 1)
//!   [own delegated subtree]
//!     celda/                controllers enabled in cgroup.subtree_control; holds no process itself
//!       <id>/               one container: the leaf
//! ```
//! A limit whose controller is not on version 2 is refused, never ignored.

mod dir;
mod error;
mod hierarchy;
mod limits;
mod locate;
pub mod read;
#[cfg(test)]
mod tests;

pub use dir::{CgroupDir, OomKills, REMOVE_WAIT};
pub use error::CgroupError;
pub use hierarchy::{Controller, Hierarchy};
