//! Mount attributes on the parent's side: what rustix has no name for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::abi::MountAttr;
use super::calls;

/// What to set and clear on a mount, `MOUNT_ATTR_*` bits, and its propagation (`MS_PRIVATE` and the like).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountAttributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
}

/// `MOUNT_ATTR_IDMAP` of linux/mount.h.
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// `int mount_setattr(...)` with `MOUNT_ATTR_IDMAP`, see mount_setattr(2): owners are shown as `namespace` maps them.
///
/// # Errors
/// `EINVAL` (the filesystem cannot), `EPERM` (the mount is attached, or mapped already).
pub(crate) fn map_ids(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let userns_fd = namespace.as_raw_fd() as u64;
    let raw = MountAttr { attr_set: MOUNT_ATTR_IDMAP, userns_fd, ..MountAttr::default() };
    calls::mount_setattr(mount.as_raw_fd(), recursive, &raw).map_err(io::Error::from_raw_os_error)
}

/// `int mount_setattr(fd, "", AT_EMPTY_PATH [| AT_RECURSIVE], attr, size)`, see mount_setattr(2).
///
/// # Errors
/// `EPERM` (a flag locked by another user namespace), `EINVAL` (a contradiction), `ENOSYS` (before Linux 5.12).
pub(crate) fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: MountAttributes,
) -> io::Result<()> {
    let raw = MountAttr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    calls::mount_setattr(mount.as_raw_fd(), recursive, &raw).map_err(io::Error::from_raw_os_error)
}
