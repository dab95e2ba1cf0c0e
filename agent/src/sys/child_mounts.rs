//! Steps that build the container's tree of mounts.
//!
//! Every path of the container is opened by `openat2` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS` to an `O_PATH`
//! descriptor first, and mounted on by that descriptor, so no symlink of the image can lead outside or be swapped
//! between check and use.

use std::ffi::{CStr, CString};

use super::abi::{self, MOUNT_ATTR_RDONLY, MountAttr};
use super::calls::{self, Answer, IN_ROOT};
use super::child::{Child, Slots};
use super::report::{MESSAGE_BYTES_MAX, Report};
use crate::sandbox::step::{Node, Slot, Step, Target};

/// `makedev(1, 3)`, see null(4).
const NULL_DEVICE: (u32, u32) = (1, 3);
/// Mode of directories made for mounts, and of the working directory.
const DIRECTORY_MODE: u32 = 0o755;
/// Mode of the empty files made for mounts of files.
const FILE_MODE: u32 = 0o644;
/// How directories are opened that are only walked through or mounted on.
const DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY;

pub(super) fn take(child: &mut Child<'_>, step: &Step) -> Answer {
    let root = child.root;
    let slots = &mut child.slots;
    match step {
        Step::Propagation { flags, .. } => calls::propagate(c"/", *flags),
        Step::NewFilesystem { into, kind, options, attributes, .. } => {
            let mount = new_filesystem(kind, options, *attributes, child.report)?;
            slots.set(*into, mount)
        }
        Step::MoveRoot { root } => {
            child.root = move_root(slots.get(*root)?)?;
            Ok(())
        }
        Step::OpenDirectory { into, at } => slots.set(*into, ensure_directory(root, at)?),
        Step::MakeDirectory { within, name } => {
            accept_existing(calls::mkdirat(slots.get(*within)?, name, DIRECTORY_MODE))
        }
        Step::MakeNode { within, node } => make_node(slots.get(*within)?, node),
        Step::MakeSymlink { within, name, target } => {
            accept_existing(calls::symlinkat(target, slots.get(*within)?, name))
        }
        Step::PlaceNode { mount, within, name } => place_node(slots, *mount, *within, name),
        Step::Place { mount, at, propagation, is_directory, .. } => {
            place(root, slots.get(*mount)?, at, *propagation, *is_directory)
        }
        Step::OpenNull { into, devices } => slots.set(*into, open_null(slots.get(*devices)?)?),
        Step::Mask { path, null, empty } => {
            let (null, empty) = (slots.get(*null)?, slots.get(*empty)?);
            mask(child, path, null, empty)
        }
        Step::ReadOnly { path } => make_read_only(root, path),
        Step::RootPropagation { flags } => calls::propagate(c"/", *flags),
        Step::RootReadOnly => {
            let read_only = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
            calls::mount_setattr(root, false, &read_only)
        }
        Step::WorkingDirectory { at, is_made } => enter(root, at, *is_made),
        Step::OpenRoot => {
            child.root = calls::openat(libc::AT_FDCWD, c"/", DIRECTORY)?;
            Ok(())
        }
        Step::OpenTerminals { into, at } => slots.set(*into, open_terminals(root, at)?),
        console => super::child_console::take(slots, console),
    }
}

/// `fsopen`, `fsconfig` and `fsmount`: a detached mount of a new filesystem.
fn new_filesystem(
    kind: &CStr,
    options: &[(CString, Option<CString>)],
    attributes: u32,
    report: &Report,
) -> Answer<i32> {
    let context = calls::fsopen(kind)?;
    let build = || {
        for (key, value) in options {
            calls::fsconfig(context, key, value.as_deref())?;
        }
        calls::fscreate(context, attributes)
    };
    let answer = build();
    if answer.is_err() {
        let mut message = [0; MESSAGE_BYTES_MAX];
        if let Ok(count) = calls::read(context, &mut message) {
            report.set_message(message.get(..count).unwrap_or_default());
        }
    }
    calls::close(context);
    answer
}

/// Lays the root over `/`, makes it the root, and lets the host's tree go.
fn move_root(root: i32) -> Answer<i32> {
    let slash = calls::openat(libc::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY)?;
    calls::move_mount(root, slash)?;
    calls::close(slash);
    calls::call_plain(libc::SYS_fchdir, [root as usize])?;
    calls::pivot_here()?;
    calls::call_plain(libc::SYS_fchdir, [root as usize])?;
    calls::openat(libc::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY)
}

fn accept_existing(answer: Answer) -> Answer {
    if answer == Err(libc::EEXIST) { Ok(()) } else { answer }
}

/// A device node with exactly the mode asked for; an existing one must be the same device.
fn make_node(within: i32, node: &Node) -> Answer {
    match calls::mknodat(within, &node.name, node.mode, node.device) {
        Err(libc::EEXIST) => {
            let facts = calls::facts(within, &node.name, libc::AT_SYMLINK_NOFOLLOW)?;
            let device = (libc::major(node.device), libc::minor(node.device));
            let same = facts.is_kind(node.mode & libc::S_IFMT) && facts.device == device;
            return if same { Ok(()) } else { Err(libc::EEXIST) };
        }
        answer => answer?,
    }
    if node.uid != 0 || node.gid != 0 {
        calls::chown(within, &node.name, node.uid, node.gid, libc::AT_SYMLINK_NOFOLLOW)?;
        calls::chmod(within, &node.name, node.mode & 0o7777)?;
    }
    Ok(())
}

/// Mounts a device of the host on an empty file, where `mknod` is not allowed.
fn place_node(slots: &Slots<'_>, mount: Slot, within: Slot, name: &CStr) -> Answer {
    let within = slots.get(within)?;
    accept_existing(calls::mknodat(within, name, libc::S_IFREG | FILE_MODE, 0))?;
    let target = calls::openat(within, name, libc::O_PATH | libc::O_NOFOLLOW)?;
    let answer = calls::move_mount(slots.get(mount)?, target);
    calls::close(target);
    answer
}

/// Opens a directory of the container, made piece by piece where it is missing.
fn ensure_directory(root: i32, at: &Target) -> Answer<i32> {
    match open_directory(root, at) {
        Err(libc::ENOENT) => make_directories(root, at, at.prefixes.len()),
        answer => answer,
    }
}

/// Makes the first `count` components of a target where they are missing; opens the last of them.
fn make_directories(root: i32, at: &Target, count: usize) -> Answer<i32> {
    let mut parent = calls::openat2(root, c".", DIRECTORY, 0, IN_ROOT)?;
    for (prefix, name) in at.prefixes.iter().zip(&at.names).take(count) {
        let next = match calls::openat2(root, prefix, DIRECTORY, 0, IN_ROOT) {
            Err(libc::ENOENT) => accept_existing(calls::mkdirat(parent, name, DIRECTORY_MODE))
                .and_then(|()| calls::openat2(root, prefix, DIRECTORY, 0, IN_ROOT)),
            answer => answer,
        };
        calls::close(parent);
        parent = next?;
    }
    Ok(parent)
}

/// Opens a file of the container, made empty where it is missing; a dangling symlink's target is made inside.
fn ensure_file(root: i32, at: &Target) -> Answer<i32> {
    let Some(whole) = at.prefixes.last() else { return Err(libc::EISDIR) };
    match calls::openat2(root, whole, libc::O_PATH, 0, IN_ROOT) {
        Err(libc::ENOENT) => {}
        answer => return answer,
    }
    calls::close(make_directories(root, at, at.prefixes.len().saturating_sub(1))?);
    let create = libc::O_CREAT | libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    calls::close(calls::openat2(root, whole, create, u64::from(FILE_MODE), IN_ROOT)?);
    calls::openat2(root, whole, libc::O_PATH, 0, IN_ROOT)
}

/// Moves a detached mount to its place, on a file or a directory as the mount's own root is.
fn place(root: i32, mount: i32, at: &Target, propagation: u64, is_directory: bool) -> Answer {
    let is_directory = is_directory || calls::facts_of(mount)?.is_kind(libc::S_IFDIR);
    let target = if is_directory { ensure_directory(root, at)? } else { ensure_file(root, at)? };
    let answer = calls::move_mount(mount, target);
    calls::close(target);
    answer?;
    if propagation == 0 {
        return Ok(());
    }
    let attributes = MountAttr { propagation: propagation & !libc::MS_REC, ..MountAttr::default() };
    calls::mount_setattr(mount, propagation & libc::MS_REC != 0, &attributes)
}

/// Opens `null` among the devices just made, and makes sure that it is the null device and no link.
fn open_null(devices: i32) -> Answer<i32> {
    let null = calls::openat(devices, c"null", libc::O_PATH | libc::O_NOFOLLOW)?;
    let facts = calls::facts_of(null)?;
    if facts.is_kind(libc::S_IFCHR) && facts.device == NULL_DEVICE {
        Ok(null)
    } else {
        calls::close(null);
        Err(libc::ENODEV)
    }
}

/// Hides a file under the null device, a directory under an empty one; a path that is not there needs no mask.
///
/// The empty filesystem itself covers the first directory, and clones of it the rest: before Linux 6.15 only a
/// mount that has a place can be cloned.
fn mask(child: &mut Child<'_>, path: &CStr, null: i32, empty: i32) -> Answer {
    let target = match calls::openat2(child.root, path, libc::O_PATH, 0, IN_ROOT) {
        Err(libc::ENOENT | libc::ENOTDIR) => return Ok(()),
        answer => answer?,
    };
    let answer = cover(child, target, null, empty);
    calls::close(target);
    answer
}

fn cover(child: &mut Child<'_>, target: i32, null: i32, empty: i32) -> Answer {
    let is_directory = calls::facts_of(target)?.is_kind(libc::S_IFDIR);
    if is_directory && !child.empty_is_placed {
        child.empty_is_placed = true;
        return calls::move_mount(empty, target);
    }
    let clone = calls::clone_mount(if is_directory { empty } else { null }, false)?;
    let answer = calls::move_mount(clone, target);
    calls::close(clone);
    answer
}

/// Lays a read-only clone of a path over itself; a path that is not there needs none.
fn make_read_only(root: i32, path: &CStr) -> Answer {
    let target = match calls::openat2(root, path, libc::O_PATH, 0, IN_ROOT) {
        Err(libc::ENOENT | libc::ENOTDIR) => return Ok(()),
        answer => answer?,
    };
    let cover = || {
        let clone = calls::clone_mount(target, true)?;
        let read_only = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        let answer =
            calls::mount_setattr(clone, true, &read_only).and_then(|()| calls::move_mount(clone, target));
        calls::close(clone);
        answer
    };
    let answer = cover();
    calls::close(target);
    answer
}

fn open_directory(root: i32, at: &Target) -> Answer<i32> {
    let whole = at.prefixes.last().map_or(c".", |path| path.as_c_str());
    calls::openat2(root, whole, DIRECTORY, 0, IN_ROOT)
}

/// Opens the directory of terminals of a container that had time to change it, and makes sure that the kernel's own
/// filesystem for them is there: only then is what it calls `ptmx` a terminal.
fn open_terminals(root: i32, at: &Target) -> Answer<i32> {
    let directory = open_directory(root, at)?;
    if calls::filesystem_of(directory) == Ok(abi::DEVPTS_MAGIC) {
        return Ok(directory);
    }
    calls::close(directory);
    Err(libc::ENODEV)
}

/// Changes to the working directory and makes sure that it lies inside the root.
fn enter(root: i32, at: &Target, is_made: bool) -> Answer {
    let directory = if is_made { ensure_directory(root, at)? } else { open_directory(root, at)? };
    let answer = calls::call_plain(libc::SYS_fchdir, [directory as usize]);
    calls::close(directory);
    answer?;
    let mut path = [0_u8; libc::PATH_MAX as usize];
    let arguments = [path.as_mut_ptr() as usize, path.len()];
    // SAFETY: `path` is writable for the size given.
    unsafe { calls::call(libc::SYS_getcwd, arguments) }?;
    // The kernel writes "(unreachable)..." for a directory outside the root.
    if path.first() == Some(&b'/') { Ok(()) } else { Err(libc::EXDEV) }
}
