//! Namespaces, masked paths, devices and sysctls: what stands between a container and the machine.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxIdMapping, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
};

use crate::sandbox::idmap::{self, IdRange, Userns};

use super::SpecError;
use super::flags::{Network, RunFlags, SecurityOpt};
use super::prepare::Owner;
use super::process::internal;

/// What Docker 28 hides: kernel memory, keys, timers, firmware, sensors that leak what other tenants do.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What Docker 28 makes read-only: a write there changes the machine.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Directories below /dev that a container has its own of.
const OWN_DEV: [&str; 4] = ["pts", "shm", "mqueue", "fd"];
/// Devices that `--privileged` hands over.
const DEVICES_COUNT_MAX: usize = 4096;

/// Masked and read-only paths.
pub(super) fn covered(flags: &RunFlags) -> (Vec<String>, Vec<String>) {
    let is_open = flags.privileged || flags.security.contains(&SecurityOpt::SystemPathsUnconfined);
    if is_open {
        return (Vec::new(), Vec::new());
    }
    (MASKED.map(str::to_owned).to_vec(), READ_ONLY.map(str::to_owned).to_vec())
}

/// The namespaces that the container has of its own.
pub(super) fn namespaces(flags: &RunFlags) -> Result<Vec<LinuxNamespace>, SpecError> {
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Cgroup,
    ];
    if flags.network != Network::Host {
        kinds.push(LinuxNamespaceType::Network);
    }
    if flags.userns != Userns::Host {
        kinds.push(LinuxNamespaceType::User);
    }
    let make = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    kinds.into_iter().map(|kind| make(kind).map_err(|error| internal("linux.namespaces", &error))).collect()
}

/// The user and group id mappings of `--userns`; none for the host's own namespace.
///
/// # Errors
/// [`SpecError`] when the subordinate ids of `auto` cannot be had.
pub fn id_mappings(userns: &Userns) -> Result<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>), SpecError> {
    let oci = |ranges: &[IdRange]| ranges.iter().map(|range| range.to_oci()).collect();
    match userns {
        Userns::Host => Ok((Vec::new(), Vec::new())),
        Userns::Map { uids, gids } => Ok((oci(uids), oci(gids))),
        Userns::Auto => Ok((oci(&subordinate("/etc/subuid")?), oci(&subordinate("/etc/subgid")?))),
    }
}

/// Who the container's root is on the host, when it is not celda's own user.
pub(super) fn root_owner(userns: &Userns) -> Result<Option<Owner>, SpecError> {
    let (uids, gids) = id_mappings(userns)?;
    let root = |ranges: &[LinuxIdMapping]| {
        ranges.iter().find(|range| range.container_id() == 0).map(LinuxIdMapping::host_id)
    };
    Ok(root(&uids).zip(root(&gids)).map(|(uid, gid)| Owner { uid, gid }))
}

fn subordinate(file: &str) -> Result<Vec<IdRange>, SpecError> {
    let text = fs::read_to_string(file).map_err(SpecError::io("read the subordinate ids in", file))?;
    idmap::from_subid(&text).ok_or_else(|| SpecError::Conflict {
        what: "--userns auto".into(),
        why: format!(
            "{file} has no range for root or celda; add `root:100000:65536`, or use --userns map:..."
        ),
    })
}

/// Every device may be used, for `--privileged`; in a user namespace the host's stay out of reach.
pub(super) fn device_rules(flags: &RunFlags) -> Option<Vec<LinuxDeviceCgroup>> {
    let all = || LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build();
    (flags.privileged && flags.userns == Userns::Host).then(|| all().into_iter().collect())
}

/// The host's device nodes, for `--privileged`.
pub(super) fn devices(flags: &RunFlags) -> Result<Vec<LinuxDevice>, SpecError> {
    let mut devices = Vec::new();
    if flags.privileged && flags.userns == Userns::Host {
        collect(Path::new("/dev"), &mut devices, true)?;
    }
    Ok(devices)
}

fn collect(directory: &Path, devices: &mut Vec<LinuxDevice>, is_top: bool) -> Result<(), SpecError> {
    let entries = fs::read_dir(directory).map_err(SpecError::io("list the devices in", directory))?;
    for entry in entries.flatten() {
        // A device may go away between the listing and the look at it.
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() && !(is_top && OWN_DEV.iter().any(|own| entry.file_name() == *own)) {
            collect(&entry.path(), devices, false)?;
        }
        let typ = match kind {
            kind if kind.is_char_device() => LinuxDeviceType::C,
            kind if kind.is_block_device() => LinuxDeviceType::B,
            _ => continue,
        };
        if devices.len() == DEVICES_COUNT_MAX {
            return Ok(());
        }
        let device = metadata.rdev();
        let built = LinuxDeviceBuilder::default()
            .path(entry.path())
            .typ(typ)
            .major(i64::from(rustix::fs::major(device)))
            .minor(i64::from(rustix::fs::minor(device)))
            .file_mode(metadata.mode() & 0o7777)
            .uid(metadata.uid())
            .gid(metadata.gid())
            .build();
        devices.push(built.map_err(|error| internal("linux.devices", &error))?);
    }
    Ok(())
}

/// `--sysctl`, which must be of a namespace that the container has of its own.
pub(super) fn sysctls(flags: &RunFlags) -> Result<HashMap<String, String>, SpecError> {
    let mut sysctls = HashMap::new();
    for text in &flags.sysctls {
        let wrong = |why: &str| SpecError::Conflict { what: format!("--sysctl {text:?}"), why: why.into() };
        let (name, value) = text.split_once('=').ok_or_else(|| wrong("write NAME=VALUE"))?;
        if name.starts_with("net.") && flags.network == Network::Host {
            return Err(wrong("the network is the host's; set it on the host, or use --network none"));
        }
        sysctls.insert(name.to_owned(), value.to_owned());
    }
    Ok(sysctls)
}
