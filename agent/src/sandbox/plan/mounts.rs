//! Mounts: filesystems made detached, then moved in one after the other; masks and read-only paths over them.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, Mount, Spec};

use super::builder::{Bind, Draft, Open, target, text};
use super::namespaces::{Namespaces, State, id_map, maps};
use super::options::{self, MS_PRIVATE, MS_REC, MountOptions};
use crate::sandbox::error::{Result, SandboxError};
use crate::sandbox::step::{Slot, Step};
use crate::sys::MountAttributes;

/// Mounts that a container may have: a bound on the plan's size.
const MOUNTS_COUNT_MAX: usize = 4096;
/// Masked and read-only paths, each.
const PATHS_COUNT_MAX: usize = 4096;

/// One mount of the spec, ready to be placed.
pub(super) struct Prepared<'a> {
    mount: &'a Mount,
    slot: Slot,
    what: String,
    propagation: u64,
    /// A new filesystem, whose root is a directory.
    is_new: bool,
}

/// The filesystems that other steps work in.
#[derive(Default)]
pub(super) struct Known {
    pub(super) proc: Option<Slot>,
    pub(super) pts: Option<Slot>,
    /// A fresh tmpfs on `/dev`.
    pub(super) devices: Option<Slot>,
    /// Directories that a fresh `/dev` needs for the mounts below it.
    pub(super) below_devices: Vec<CString>,
    /// Something of the host's on `/dev`: no device is made there.
    pub(super) devices_are_bound: bool,
}

/// Writes the steps that make every filesystem, detached, while the host's tree is still there: in a user
/// namespace the kernel gives a `proc` only to who can see one.
pub(super) fn prepare<'a>(
    draft: &mut Draft,
    spec: &'a Spec,
    namespaces: &Namespaces,
) -> Result<(Vec<Prepared<'a>>, Known)> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    if mounts.len() > MOUNTS_COUNT_MAX {
        return Err(SandboxError::invalid("mounts", format!("more than {MOUNTS_COUNT_MAX}")));
    }
    let mut known = Known::default();
    let mut prepared = Vec::with_capacity(mounts.len());
    for mount in mounts {
        prepared.push(prepare_one(draft, spec, mount, namespaces, &mut known)?);
        if let (Some(_), Some(name)) = (known.devices, below_devices(mount)) {
            known.below_devices.push(text("mounts", name)?);
        }
    }
    Ok((prepared, known))
}

/// The name of a directory right below `/dev` that a filesystem of the kernel's is mounted on. Made while `/dev` has no
/// place yet, it spares a search from the root.
fn below_devices(mount: &Mount) -> Option<&str> {
    let is_directory = matches!(mount.typ().as_deref(), Some("devpts" | "tmpfs" | "mqueue"));
    let name = mount.destination().strip_prefix("/dev").ok().filter(|_| is_directory)?.to_str()?;
    let is_one = !name.is_empty() && !name.contains('/') && name != "..";
    is_one.then_some(name)
}

fn prepare_one<'a>(
    draft: &mut Draft,
    spec: &Spec,
    mount: &'a Mount,
    namespaces: &Namespaces,
    known: &mut Known,
) -> Result<Prepared<'a>> {
    let on = mount.destination().display().to_string();
    let what = format!("mount on {on}");
    let parsed = options::parse(&on, mount.options().as_deref().unwrap_or_default())?;
    let kind = mount.typ().as_deref().unwrap_or("bind");
    let propagation = parsed.propagation;
    if parsed.bind.is_some() || kind == "bind" {
        known.devices_are_bound |= mount.destination() == Path::new("/dev");
        let source = mount
            .source()
            .clone()
            .ok_or_else(|| SandboxError::invalid(&what, "a bind mount needs a source"))?;
        if !source.is_absolute() {
            return Err(SandboxError::invalid(what, format!("source {} is not absolute", source.display())));
        }
        let shown = source.display().to_string();
        let ids = ids(&what, spec, mount, &parsed)?;
        let slot = draft.open(bind(source, &parsed, ids));
        return Ok(Prepared { mount, slot, what: shown, propagation, is_new: false });
    }
    if kind == "sysfs" && namespaces.user.is_own() && namespaces.network == State::Shared {
        // The kernel gives a sysfs only to the owner of the network namespace; the host's own serves as well.
        let read_only = MountOptions { set_below: options::RDONLY, ..MountOptions::default() };
        let slot = draft.open(bind("/sys".into(), &read_only, None));
        return Ok(Prepared { mount, slot, what: "the host's /sys".to_owned(), propagation, is_new: false });
    }
    let mut parsed = parsed;
    if kind == "devpts" && namespaces.user == State::New {
        parsed
            .parameters
            .retain(|(key, value)| key.as_c_str() != c"gid" || is_mapped(spec, value.as_deref()));
    }
    let slot = new_filesystem(draft, mount, kind, parsed)?;
    match kind {
        "proc" => known.proc = Some(slot),
        "devpts" => known.pts = Some(slot),
        "tmpfs" if mount.destination() == Path::new("/dev") => known.devices = Some(slot),
        _ => {}
    }
    Ok(Prepared { mount, slot, what: kind.to_owned(), propagation, is_new: true })
}

/// True when a group is in a range of the new user namespace: the terminals' usual group 5 need not be.
fn is_mapped(spec: &Spec, group: Option<&CStr>) -> bool {
    let group = group.and_then(|group| group.to_str().ok()).and_then(|group| group.parse().ok());
    let ranges = spec.linux().as_ref().and_then(|linux| linux.gid_mappings().as_deref()).unwrap_or_default();
    group.is_some_and(|group| maps(ranges, group))
}

/// The ranges of an id-mapped mount: its own, or those of the container's user namespace.
fn ids(
    what: &str,
    spec: &Spec,
    mount: &Mount,
    options: &MountOptions,
) -> Result<Option<([String; 2], bool)>> {
    let own = mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
    if !own && options.id_map.is_none() {
        return Ok(None);
    }
    let linux = spec.linux().as_ref();
    let (uids, gids) = if own {
        (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref())
    } else {
        (
            linux.and_then(|linux| linux.uid_mappings().as_deref()),
            linux.and_then(|linux| linux.gid_mappings().as_deref()),
        )
    };
    let maps = [id_map(what, uids.unwrap_or_default())?, id_map(what, gids.unwrap_or_default())?];
    Ok(Some((maps, options.id_map.unwrap_or(false))))
}

fn bind(source: PathBuf, options: &MountOptions, ids: Option<([String; 2], bool)>) -> Open {
    let top = MountAttributes { set: options.set, clear: options.clear, propagation: 0 };
    // A clone stays in its source's peer group unless told otherwise: nothing mounted inside may show outside.
    let propagation = if options.propagation == 0 { MS_PRIVATE } else { options.propagation & !MS_REC };
    let below = MountAttributes { set: options.set_below, clear: options.clear_below, propagation };
    let recursive = options.bind.unwrap_or(true);
    Open::Bind(Bind { source, recursive, top, below, ids })
}

fn new_filesystem(draft: &mut Draft, mount: &Mount, kind: &str, parsed: MountOptions) -> Result<Slot> {
    let on = mount.destination().display().to_string();
    let what = format!("mount on {on}");
    let kernel_kind = if kind == "cgroup" { "cgroup2" } else { kind };
    let source = match mount.source() {
        Some(source) => source.to_string_lossy().into_owned(),
        None => kernel_kind.to_owned(),
    };
    let mut all: Vec<(CString, Option<CString>)> = vec![(c"source".to_owned(), Some(text(&what, source)?))];
    all.extend(parsed.parameters);
    let into = draft.slot();
    draft.step(Step::NewFilesystem {
        into,
        kind: text(&what, kernel_kind)?,
        on,
        options: all,
        attributes: (parsed.set | parsed.set_below) as u32,
    });
    Ok(into)
}

/// A `proc` that is used and never placed, for a container without one.
pub(super) fn private_proc(draft: &mut Draft) -> Slot {
    let into = draft.slot();
    let (kind, on) = (c"proc".to_owned(), "sysctls and labels".to_owned());
    draft.step(Step::NewFilesystem { into, kind, on, options: Vec::new(), attributes: 0 });
    into
}

/// Writes the steps that move every mount to its place, in the spec's order.
pub(super) fn place(draft: &mut Draft, prepared: Vec<Prepared<'_>>) -> Result<()> {
    for Prepared { mount, slot, what, propagation, is_new } in prepared {
        let at = target("mounts", mount.destination())?;
        if at.names.is_empty() {
            return Err(SandboxError::invalid("mounts", "a mount on / would hide the root filesystem"));
        }
        draft.step(Step::Place { mount: slot, what, at, propagation, is_directory: is_new });
    }
    Ok(())
}

/// The read-only, empty filesystem that masked directories show.
pub(super) fn prepare_empty(draft: &mut Draft, linux: &Linux) -> Option<Slot> {
    linux.masked_paths().as_ref().filter(|paths| !paths.is_empty())?;
    let into = draft.slot();
    draft.step(Step::NewFilesystem {
        into,
        kind: c"tmpfs".to_owned(),
        on: "masked directories".to_owned(),
        options: vec![
            (c"nr_inodes".to_owned(), Some(c"1".to_owned())),
            (c"mode".to_owned(), Some(c"755".to_owned())),
        ],
        attributes: options::RDONLY as u32,
    });
    Some(into)
}

/// Writes the steps that mask paths and make paths read-only.
pub(super) fn cover(draft: &mut Draft, linux: &Linux, empty: Option<Slot>, devices: Slot) -> Result<()> {
    let masked = linux.masked_paths().as_deref().unwrap_or_default();
    let read_only = linux.readonly_paths().as_deref().unwrap_or_default();
    if masked.len() > PATHS_COUNT_MAX || read_only.len() > PATHS_COUNT_MAX {
        return Err(SandboxError::invalid("linux.maskedPaths", format!("more than {PATHS_COUNT_MAX}")));
    }
    for path in read_only {
        draft.step(Step::ReadOnly { path: whole("linux.readonlyPaths", path)? });
    }
    let Some(empty) = empty else { return Ok(()) };
    let null = draft.slot();
    draft.step(Step::OpenNull { into: null, devices });
    for path in masked {
        draft.step(Step::Mask { path: whole("linux.maskedPaths", path)?, null, empty });
    }
    Ok(())
}

fn whole(what: &str, path: &str) -> Result<CString> {
    let cut = target(what, Path::new(path))?;
    cut.prefixes.into_iter().next_back().ok_or_else(|| SandboxError::invalid(what, "names the root itself"))
}

/// How the copies of the host's mounts, and at the end the root, propagate.
pub(super) fn propagation(linux: &Linux) -> Result<u64> {
    match linux.rootfs_propagation().as_deref() {
        None | Some("") => Ok(MS_PRIVATE | MS_REC),
        Some(name) => options::propagation(name).ok_or_else(|| {
            SandboxError::invalid("linux.rootfsPropagation", format!("{name} is not a propagation"))
        }),
    }
}
