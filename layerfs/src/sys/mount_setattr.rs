//! `mount_setattr(2)`, which rustix does not wrap.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Which properties of a detached mount to change.
#[derive(Debug, Default, Clone, Copy)]
pub struct MountAttributes<'a> {
    /// Nothing beneath the mount can be written.
    pub read_only: bool,
    /// Whether setuid bits, file capabilities and device nodes beneath the mount count; as before if none.
    pub privileges: Option<bool>,
    /// Ids are shown as this user namespace maps them.
    pub idmap: Option<BorrowedFd<'a>>,
}

/// `mount_setattr(mount, "", AT_EMPTY_PATH, &attributes, sizeof(attributes))`: changes a mount held by fd.
///
/// Manual: mount_setattr(2), Linux 5.12.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` where the filesystem cannot be id-mapped or is no longer detached,
/// `ENOSYS` before 5.12.
pub fn mount_setattr(mount: BorrowedFd<'_>, attributes: MountAttributes<'_>) -> Result<(), Errno> {
    let mut raw = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };
    if attributes.read_only {
        raw.attr_set |= libc::MOUNT_ATTR_RDONLY;
    }
    let privileges = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    match attributes.privileges {
        Some(true) => raw.attr_clr |= privileges,
        Some(false) => raw.attr_set |= privileges,
        None => {}
    }
    if let Some(user_namespace) = attributes.idmap {
        raw.attr_set |= libc::MOUNT_ATTR_IDMAP;
        raw.userns_fd = u64::from(user_namespace.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `mount` and the namespace fd are borrowed for the whole call, the path is a static NUL-terminated
    // string, and the kernel reads exactly `size_of::<mount_attr>()` bytes of `raw`, which outlives the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const raw,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(crate::sys::last_errno()) }
}
