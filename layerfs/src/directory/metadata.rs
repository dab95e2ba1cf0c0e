//! Owner, attributes, mode and times of a new inode, in the one order that keeps them all.
//!
//! ```text
//! chown            clears setuid, setgid and security.capability, so it comes first
//! xattrs           may need a writable mode; an ACL sets the group bits, so it comes before
//! chmod            which is exact
//! utimens          last: everything before it touches the inode; a directory's after all that is in it
//! ```

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::tree::{Inode, Kind};

/// Who unpacks, and so what may be left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights {
    /// Without root, owners that cannot be given, `security.*` and `trusted.*` attributes and device nodes are
    /// left out and counted.
    pub(super) root: bool,
}

/// A new inode: by its own descriptor, or by its name where it has none that may be opened (links, devices).
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, &'a [u8]),
}

impl Target<'_> {
    /// A path of it that follows no symlink of its own: for the xattr calls, which have no `*at` form.
    fn path(&self) -> PathBuf {
        match self {
            Self::Open(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            Self::Named(parent, name) => PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()))
                .join(std::ffi::OsStr::from_bytes(name)),
        }
    }
}

/// Gives everything but times. Returns how many things were left out.
pub(super) fn apply(target: Target<'_>, inode: &Inode, rights: Rights) -> io::Result<u64> {
    let mut omitted_count = u64::from(!chown(target, inode, rights)?);
    let file_or_directory = matches!(inode.kind, Kind::File { .. } | Kind::Directory(_));
    for xattr in &inode.xattrs {
        // xattr(7): only files and directories have user attributes; no other filesystem could show these either.
        if !file_or_directory && xattr.name.starts_with(b"user.") {
            continue;
        }
        let set = match target {
            Target::Open(file) => {
                rustix::fs::fsetxattr(file, &*xattr.name, &xattr.value, XattrFlags::empty())
            }
            Target::Named(..) => {
                rustix::fs::lsetxattr(target.path(), &*xattr.name, &xattr.value, XattrFlags::empty())
            }
        };
        match set {
            Ok(()) => {}
            Err(Errno::PERM | Errno::OPNOTSUPP) if !rights.root => omitted_count += 1,
            Err(errno) => {
                let name = String::from_utf8_lossy(&xattr.name).into_owned();
                let hint = if errno == Errno::OPNOTSUPP {
                    ", which the store's filesystem cannot hold (a tmpfs has user.* attributes since Linux 6.6)"
                } else {
                    ""
                };
                return Err(step(&format!("set attribute {name}{hint}"), errno));
            }
        }
    }
    let mode = Mode::from_raw_mode(inode.mode & 0o7777);
    match (target, &inode.kind) {
        (_, Kind::Symlink(_)) => Ok(()),
        (Target::Open(file), _) => rustix::fs::fchmod(file, mode),
        (Target::Named(parent, name), _) => rustix::fs::chmodat(parent, name, mode, AtFlags::empty()),
    }
    .map_err(|errno| step("set mode", errno))?;
    Ok(omitted_count)
}

/// `false`: left out for want of rights.
fn chown(target: Target<'_>, inode: &Inode, rights: Rights) -> io::Result<bool> {
    let (uid, gid) = (Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)));
    let answer = match target {
        Target::Open(file) => rustix::fs::fchown(file, uid, gid),
        Target::Named(parent, name) => rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
    };
    match answer {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::INVAL) if !rights.root => Ok(false),
        Err(errno) => Err(step("set owner", errno)),
    }
}

/// Gives the modification time; access time is the same, as EROFS shows it.
pub(super) fn set_times(target: Target<'_>, inode: &Inode) -> io::Result<()> {
    let time = Timespec { tv_sec: inode.mtime.seconds, tv_nsec: inode.mtime.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    match target {
        Target::Open(file) => rustix::fs::futimens(file, &times),
        Target::Named(parent, name) => rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW),
    }
    .map_err(|errno| step("set times", errno))
}

/// An errno with what was being done.
fn step(what: &str, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
