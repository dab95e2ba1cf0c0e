//! What was asked for on the command line, as meant: each flag already has its type.
//!
//! The types here are `FromStr`, so a command line parser can use them as its value types; what one flag
//! cannot know (the image's config, the host) is decided in [`super::build`].

use std::path::PathBuf;
use std::str::FromStr;

use crate::sandbox::idmap::Userns;
use crate::sandbox::rlimit::Ulimit;

use super::FlagError;
use super::size::{Cpus, DeviceRate, MemorySwap, Size};
use super::volume::{Tmpfs, Volume};

/// The flags of `celda run` that shape the container.
#[derive(Debug, Clone, Default)]
pub struct RunFlags {
    /// The container's id: 64 lower-case hex digits; the first twelve are the default hostname.
    pub id: String,
    /// `--name`.
    pub name: Option<String>,
    /// What stands after the image: replaces the image's `Cmd`.
    pub command: Vec<String>,
    /// `--entrypoint`: replaces the image's `Entrypoint` and clears its `Cmd`; the empty string clears both.
    pub entrypoint: Option<String>,
    /// `-e`: `NAME=value`, or `NAME` to take the host's value (nothing when the host has none).
    pub env: Vec<String>,
    /// `--env-file`, read in order, before `-e`.
    pub env_files: Vec<PathBuf>,
    /// `-u`: `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// `--group-add`: names or numbers.
    pub groups: Vec<String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--label`: `name=value` or `name`.
    pub labels: Vec<String>,
    /// `-t`.
    pub tty: bool,
    /// `--init`.
    pub init: bool,
    /// `--network`.
    pub network: Network,
    /// `-v`.
    pub volumes: Vec<Volume>,
    /// `--tmpfs`.
    pub tmpfs: Vec<Tmpfs>,
    /// `--shm-size`; [`super::SHM_BYTES`] when none.
    pub shm_size: Option<Size>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--privileged`.
    pub privileged: bool,
    /// `--cap-add`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--security-opt`.
    pub security: Vec<SecurityOpt>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--userns`.
    pub userns: Userns,
    /// `--memory`.
    pub memory: Option<Size>,
    /// `--memory-swap`: memory and swap together.
    pub memory_swap: Option<MemorySwap>,
    /// `--memory-reservation`.
    pub memory_reservation: Option<Size>,
    /// `--cpus`.
    pub cpus: Option<Cpus>,
    /// `--cpu-shares`, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
    /// `--pids-limit`; zero or less is no limit.
    pub pids_limit: Option<i64>,
    /// `--blkio-weight`, 10 to 1000; zero is none.
    pub blkio_weight: Option<u16>,
    /// `--device-read-bps`: bytes a second.
    pub device_read_bps: Vec<DeviceRate>,
    /// `--device-write-bps`: bytes a second.
    pub device_write_bps: Vec<DeviceRate>,
    /// `--device-read-iops`: operations a second.
    pub device_read_iops: Vec<DeviceRate>,
    /// `--device-write-iops`: operations a second.
    pub device_write_iops: Vec<DeviceRate>,
    /// `--oom-score-adj`, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// `--sysctl`: `name=value`.
    pub sysctls: Vec<String>,
    /// `--add-host`: `name:address`.
    pub add_hosts: Vec<String>,
    /// `--stop-signal`: a name or a number.
    pub stop_signal: Option<String>,
}

/// `--network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// A network namespace with nothing but its loopback.
    #[default]
    None,
    /// The host's own.
    Host,
    /// A namespace on the network of a cell.
    Cell,
}

impl FromStr for Network {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        match text {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            "cell" => Ok(Self::Cell),
            _ => Err(FlagError::new("--network", text, "it is none, host or cell")),
        }
    }
}

/// `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityOpt {
    /// `no-new-privileges[=true|=false]`.
    NoNewPrivileges(bool),
    /// `seccomp=unconfined`.
    SeccompUnconfined,
    /// `seccomp=FILE`: a profile in Docker's form or in that of the OCI runtime spec.
    SeccompFile(PathBuf),
    /// `seccomp=builtin`.
    SeccompBuiltin,
    /// `systempaths=unconfined`: neither masked nor read-only paths.
    SystemPathsUnconfined,
    /// `apparmor=unconfined`, `label=disable`: no label, and celda sets none.
    NoLabel,
}

impl FromStr for SecurityOpt {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        // Docker still takes its older `name:value`.
        let (name, value) = match text.split_once(['=', ':']) {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("no-new-privileges", None | Some("true")) => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", Some("false")) => Ok(Self::NoNewPrivileges(false)),
            ("seccomp", Some("unconfined")) => Ok(Self::SeccompUnconfined),
            ("seccomp", Some("builtin")) => Ok(Self::SeccompBuiltin),
            ("seccomp", Some(file)) if !file.is_empty() => Ok(Self::SeccompFile(file.into())),
            ("systempaths", Some("unconfined")) => Ok(Self::SystemPathsUnconfined),
            ("apparmor", Some("unconfined")) | ("label", Some("disable")) => Ok(Self::NoLabel),
            ("apparmor" | "label", Some(_)) => Err(FlagError::new(
                "--security-opt",
                text,
                "celda sets neither an AppArmor profile nor an SELinux label; leave it out",
            )),
            _ => Err(FlagError::new(
                "--security-opt",
                text,
                "it is seccomp=FILE, seccomp=unconfined, seccomp=builtin, no-new-privileges or systempaths=unconfined",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_as_docker_writes_them() {
        assert_eq!("no-new-privileges".parse(), Ok(SecurityOpt::NoNewPrivileges(true)));
        assert_eq!("no-new-privileges:false".parse(), Ok(SecurityOpt::NoNewPrivileges(false)));
        assert_eq!("seccomp=unconfined".parse(), Ok(SecurityOpt::SeccompUnconfined));
        assert_eq!("seccomp=a=b.json".parse(), Ok(SecurityOpt::SeccompFile("a=b.json".into())));
        // What asks for no label is asked of a runtime that sets none.
        assert_eq!("apparmor=unconfined".parse(), Ok(SecurityOpt::NoLabel));
        assert_eq!("label:disable".parse(), Ok(SecurityOpt::NoLabel));
        for wrong in ["", "seccomp", "seccomp=", "no-new-privileges=1", "apparmor=x", "label=type:x", "x"] {
            assert!(wrong.parse::<SecurityOpt>().is_err(), "{wrong}");
        }
        assert!("bridge".parse::<Network>().is_err());
    }
}
