//! From an image's config and the flags of `celda run` to an OCI runtime spec, by Docker's rules.
//!
//! ```text
//! image config ─┐
//! RunFlags ─────┼─> build ─> Built { spec, preparation }
//! rootfs, Host ─┘             what sandbox::plan takes; files and directories that must be there first
//! ```
//! Nothing is written before [`Built::prepare`]; `build` itself only reads /etc/passwd, /etc/group and what the
//! image has at its volumes' mount points.

mod build;
pub mod config;
mod copy_up;
mod env;
pub mod error;
mod files;
mod filter;
pub mod flags;
mod mounts;
pub mod prepare;
mod process;
mod resources;
mod security;
mod signal;
pub mod size;
pub mod volume;
mod volume_dir;

use std::path::{Path, PathBuf};

use crate::sandbox::caps::CapSet;

pub use build::{HEALTHCHECK, build};
pub use config::ImageConfig;
pub use env::read_file as read_env_file;
pub use error::SpecError;
pub use filter::{bounding, filter};
pub use flags::{Network, RunFlags, SecurityOpt};
pub use prepare::{Built, Owner, SeccompChoice, Step};
pub use security::id_mappings;
pub use volume_dir::sweep as sweep_volumes;

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
    /// What it has of a cell's network, with [`Network::Cell`].
    pub network: Option<OnNetwork>,
    /// Whether this kernel can swap at all: where it cannot, cgroups have no limit for it.
    pub has_swap: bool,
}

/// A container's part of a cell's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnNetwork {
    /// Its own address.
    pub address: std::net::Ipv4Addr,
    /// Text of its `/etc/resolv.conf`.
    pub resolver: String,
}

/// Where the store `root` has its named volumes.
pub fn volumes_dir(root: &Path) -> PathBuf {
    root.join("volumes")
}

impl Host {
    /// This machine and this process, for the container whose directory is `container_dir` in the store `root`.
    pub fn here(root: &Path, container_dir: &Path) -> Self {
        let uname = rustix::system::uname();
        let caps = rustix::thread::capabilities(None).map_or(0, |sets| sets.permitted.bits());
        Self {
            container_dir: container_dir.to_owned(),
            volumes_dir: volumes_dir(root),
            hostname: uname.nodename().to_string_lossy().into_owned(),
            env: std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
            caps: CapSet::from_bits(caps),
            network: None,
            has_swap: Path::new("/proc/swaps").exists(),
        }
    }
}
