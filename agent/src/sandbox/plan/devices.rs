//! `/dev`: the devices and links that every container has, and those of the spec.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};

use super::builder::{Draft, Open, target, text};
use super::namespaces::{Namespaces, State};
use super::options::NODEV;
use crate::sandbox::error::{Result, SandboxError};
use crate::sandbox::step::{Node, Slot, Step};

const CHARACTER: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;
const PIPE: u32 = 0o010_000;

/// OCI runtime spec 1.2, config-linux.md, "Default Devices"; numbers by the kernel's devices.txt.
const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// OCI runtime spec 1.2, runtime-linux.md, "Dev symbolic links".
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Devices that a spec may add.
const DEVICES_COUNT_MAX: usize = 4096;

/// Writes the steps that fill a directory of devices, which may be detached still.
///
/// In a user namespace `mknod` is refused by the kernel: the answer is then what must be mounted there instead,
/// once the directory has its place.
pub(super) fn fill(
    draft: &mut Draft,
    spec: &Spec,
    namespaces: &Namespaces,
    within: Slot,
    has_pts: bool,
) -> Result<Vec<Step>> {
    let mut bound = Vec::new();
    let may_make = namespaces.user == State::Shared;
    for node in nodes(spec)? {
        for prefix in above(&node) {
            draft.step(Step::MakeDirectory { within, name: text("linux.devices", prefix)? });
        }
        let is_device = node.mode & 0o170_000 != PIPE;
        if may_make || !is_device {
            draft.step(Step::MakeNode { within, node });
            continue;
        }
        let name = node.name.clone();
        let path = PathBuf::from("/dev").join(name.to_string_lossy().as_ref());
        let mount = draft.open(Open::Device { path, device: node.device });
        bound.push(Step::PlaceNode { mount, within, name });
    }
    let pts = has_pts.then_some(("ptmx", "pts/ptmx"));
    for (name, to) in LINKS.iter().copied().chain(pts) {
        let (name, target) = (text("dev", name)?, text("dev", to)?);
        draft.step(Step::MakeSymlink { within, name, target });
    }
    Ok(bound)
}

/// Changes a plan so that the container can use no device node beside those of its own `/dev`, for when no filter
/// over its devices can be had: it makes none, and those of its image and of what is bound in are dead. What the
/// caller binds from the host's `/dev` stays alive.
pub(crate) fn without_nodes(draft: &mut Draft) {
    /// CAP_MKNOD of linux/capability.h.
    const MKNOD: u64 = 1 << 27;
    for step in &mut draft.steps {
        match step {
            Step::BoundingSet { keep } => *keep &= !MKNOD,
            Step::Capabilities(masks) => *masks = masks.without(MKNOD),
            _ => {}
        }
    }
    for (_, open) in &mut draft.opens {
        match open {
            Open::Rootfs { nodes } => *nodes = false,
            Open::Bind(bind) if !bind.source.starts_with("/dev") => bind.below.set |= NODEV,
            _ => {}
        }
    }
}

/// The directories between `/dev` and a device, outermost first.
fn above(node: &Node) -> Vec<String> {
    let name = node.name.to_string_lossy();
    name.match_indices('/').filter_map(|(end, _)| name.get(..end)).map(str::to_owned).collect()
}

fn nodes(spec: &Spec) -> Result<Vec<Node>> {
    let mut nodes = Vec::with_capacity(DEFAULTS.len());
    for (name, major, minor) in DEFAULTS {
        let device = rustix::fs::makedev(major, minor);
        nodes.push(Node { name: text("dev", name)?, mode: CHARACTER | 0o666, device, uid: 0, gid: 0 });
    }
    let added = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    if added.len() > DEVICES_COUNT_MAX {
        return Err(SandboxError::invalid("linux.devices", format!("more than {DEVICES_COUNT_MAX}")));
    }
    for device in added {
        let node = node(device)?;
        nodes.retain(|known| known.name != node.name); // the spec's word over the default's
        nodes.push(node);
    }
    Ok(nodes)
}

fn node(device: &LinuxDevice) -> Result<Node> {
    let shown = device.path().display();
    let refuse = |why: &str| Err(SandboxError::invalid("linux.devices", format!("{shown}: {why}")));
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => CHARACTER,
        LinuxDeviceType::B => BLOCK,
        LinuxDeviceType::P => PIPE,
        LinuxDeviceType::A => return refuse("`a` is not a type of device node"),
    };
    let Ok(below) = device.path().strip_prefix("/dev") else { return refuse("not below /dev") };
    let cut = target("linux.devices", &Path::new("/").join(below))?;
    let Some(name) = cut.prefixes.into_iter().next_back() else { return refuse("names /dev itself") };
    let number = |value: i64| u32::try_from(value).ok();
    let (Some(major), Some(minor)) = (number(device.major()), number(device.minor())) else {
        return refuse("device number out of range");
    };
    Ok(Node {
        name,
        mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
        device: rustix::fs::makedev(major, minor),
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}
