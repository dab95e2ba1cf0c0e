//! From an image's config and the flags of `celda run` to an OCI runtime spec, by Docker's rules.
//!
//! ```text
//! image config ─┐
//! RunFlags ─────┼─> build ─> Built { spec, preparation }
//! rootfs, Host ─┘             what sandbox::plan takes; files and directories that must be there first
//! ```
//! Nothing is written before [`Built::prepare`]; `build` itself only reads /etc/passwd, /etc/group and what the
//! image has at its volumes' mount points.

pub mod error;
pub mod flags;
pub mod prepare;
pub mod size;
pub mod volume;

use std::path::PathBuf;

use crate::sandbox::caps::CapSet;

pub use error::SpecError;
pub use flags::{Network, RunFlags, SecurityOpt};
pub use prepare::{Built, Step};

/// The default size of /dev/shm (Docker's).
pub const SHM_BYTES: u64 = 64 << 20;
/// How much of a wrong value an error repeats.
const SHOWN_CHARS_MAX: usize = 200;

/// A flag whose value has no meaning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {given:?}: {why}")]
pub struct FlagError {
    /// Which flag or kind of value.
    pub flag: &'static str,
    /// What was given, shortened.
    pub given: String,
    /// What is wrong and what would be right.
    pub why: &'static str,
}

impl FlagError {
    /// An error that repeats the start of what was given.
    pub fn new(flag: &'static str, given: &str, why: &'static str) -> Self {
        Self { flag, given: given.chars().take(SHOWN_CHARS_MAX).collect(), why }
    }
}

/// What a container's spec takes from the machine and from the process that starts it.
#[derive(Debug, Clone)]
pub struct Host {
    /// `RUN/containers/<id>`: where its hosts, hostname and resolv.conf are written.
    pub run_dir: PathBuf,
    /// `ROOT/containers/<id>`: where its anonymous volumes are.
    pub container_dir: PathBuf,
    /// `ROOT/volumes`: where named volumes are.
    pub volumes_dir: PathBuf,
    /// The host's name, for `--network host`.
    pub hostname: String,
    /// The environment that `-e NAME` and `--env-file` look names up in.
    pub env: Vec<(String, String)>,
    /// What celda itself may do (its permitted set): all that `--privileged` and `--cap-add` can give.
    pub caps: CapSet,
    /// The kernel's version, for profiles with `minKernel`.
    pub kernel: (u32, u32),
}
