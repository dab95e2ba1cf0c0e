//! One mount of an image for all who start containers of it, kept below RUN.
//!
//! ```text
//! RUN/mounts                a private mount of itself, so that nothing in it shows in another mount namespace; 0700
//! RUN/mounts/<chain id>     the image, mounted once; a container gets a detached clone of it (open_tree(2))
//! RUN/mounts/root-<key>     a spare root: see spare.rs
//! ```
//!
//! A pin is in the host's tree, where a setuid program of an image would serve the host's users: nobody but its owner
//! can enter, and it is mounted `nosuid,nodev`. The clones are not: what is setuid in an image is so in its containers.
//!
//! Without it every `celda run` would mount the image anew, with an empty page cache: measured 1.2 ms of a start of
//! 6 ms, and every container of an image would hold its own copy of each page it reads. A pin is a cache: whoever
//! uses a clone keeps the filesystem alive by itself, so [`Ladder::unpin_all`] disturbs no container.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_change, move_mount,
    unmount,
};

use super::ladder::{Ladder, Rung};
use crate::sys::mount_setattr::{MountAttributes, mount_setattr};
use crate::{Digest, Error, Result};

/// `EROFS_SUPER_MAGIC_V1`, linux/magic.h: what tells a pin from the empty directory beneath it.
const EROFS_SUPER_MAGIC: u64 = 0xE0F5_E1E2;
/// `OVERLAYFS_SUPER_MAGIC`, linux/magic.h: the same for a spare root.
pub(super) const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

impl Ladder {
    /// A detached clone of the one mount of this image, which is made and pinned if it is not there yet. On
    /// [`Rung::Directory`], and where nothing can be pinned (no privilege, RUN is read-only), a mount of its own.
    ///
    /// # Errors
    /// As [`mount_image`](Self::mount_image).
    pub fn shared_image(&self, chain_id: &Digest, index: &Path, tars: &[PathBuf]) -> Result<OwnedFd> {
        if self.rung == Rung::Directory {
            return self.mount_image(index, tars);
        }
        let pin = self.pins().join(chain_id.hex());
        if let Some(clone) = clone_of(&pin, EROFS_SUPER_MAGIC) {
            return Ok(clone);
        }
        match self.lock_pins() {
            // Another process may have pinned it meanwhile.
            Ok(_lock) => match clone_of(&pin, EROFS_SUPER_MAGIC) {
                Some(clone) => Ok(clone),
                None => {
                    let mount = self.mount_image(index, tars)?;
                    Ok(pin_down(&mount, &pin).unwrap_or(mount))
                }
            },
            Err(_) => self.mount_image(index, tars),
        }
    }

    /// Takes one pin away, as [`pinned`](Self::pinned) names it; containers that run keep what they have of it.
    pub fn unpin(&self, pin: &Path) {
        unpin(pin);
    }

    /// Takes every pin away, and the spare roots; answers how many pins there were. Containers that run keep their
    /// clones.
    ///
    /// # Errors
    /// [`Error::Io`] where RUN cannot be read.
    pub fn unpin_all(&self) -> Result<usize> {
        self.drop_spares();
        let pins = self.pins();
        let entries = match fs::read_dir(&pins) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(Error::io("list image mounts in", pins)(error)),
        };
        let mut count = 0;
        for path in entries.flatten().map(|entry| entry.path()) {
            count += usize::from(unpin(&path));
        }
        // Not mounted on itself, or used by another process right now: then it stays for the next time.
        let _ = unmount(&pins, UnmountFlags::DETACH);
        Ok(count)
    }

    /// Takes the pin of one chain of layers away, and the spare roots over it, so that nothing keeps the space of its
    /// files but containers that run.
    pub fn unpin_image(&self, chain_id: &Digest) {
        let keys = self.drop_spares_of(&self.spares(chain_id));
        for pin in fs::read_dir(self.pins()).into_iter().flatten().flatten().map(|pin| pin.path()) {
            let name = pin.file_name().unwrap_or_default().to_string_lossy();
            if keys.iter().any(|key| name.strip_suffix(key.as_str()).is_some_and(|what| what.ends_with('-')))
            {
                unpin(&pin);
            }
        }
        unpin(&self.pins().join(chain_id.hex()));
    }

    pub(super) fn pins(&self) -> PathBuf {
        self.run().join("mounts")
    }

    /// `RUN/mounts`, mounted on itself and private, locked until the file is closed.
    pub(super) fn lock_pins(&self) -> std::result::Result<File, Errno> {
        let pins = self.pins();
        make_private(&pins).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        // The lock is on RUN, which a mount on RUN/mounts does not hide.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = rustix::fs::open(self.run(), flags, Mode::empty())?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        if !is_mount_point(&pins)? {
            mount_bind(&pins, &pins)?;
            mount_change(&pins, MountPropagationFlags::PRIVATE)?;
        }
        Ok(lock.into())
    }
}

/// Makes a directory for its owner alone, or makes one so that is there.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mode = 0o700;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
        }
        made => made,
    }
}

/// Whether something is mounted on `path`: statx(2), `STATX_ATTR_MOUNT_ROOT`.
fn is_mount_point(path: &Path) -> std::result::Result<bool, Errno> {
    let answer =
        rustix::fs::statx(CWD, path, rustix::fs::AtFlags::empty(), rustix::fs::StatxFlags::BASIC_STATS)?;
    Ok(answer.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}

/// A detached clone of what is mounted on `pin`, if that is a filesystem of the kind wanted; setuid programs of it work.
pub(super) fn clone_of(pin: &Path, magic: u64) -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(CWD, pin, flags).ok()?;
    let filesystem = rustix::fs::fstatfs(&clone).ok()?;
    if filesystem.f_type as u64 != magic {
        return None;
    }
    set_privileges(&clone, true).ok()?;
    Some(clone)
}

/// Takes one pin away; answers whether something was mounted there.
pub(super) fn unpin(pin: &Path) -> bool {
    let was_mounted = unmount(pin, UnmountFlags::DETACH).is_ok();
    let _ = fs::remove_dir(pin).or_else(|_| fs::remove_file(pin));
    was_mounted
}

/// Whether setuid bits and device nodes beneath the mount count.
pub(super) fn set_privileges(mount: &OwnedFd, privileges: bool) -> std::result::Result<(), Errno> {
    let attributes = MountAttributes { privileges: Some(privileges), ..MountAttributes::default() };
    mount_setattr(mount.as_fd(), attributes)
}

/// Moves `mount` to `pin` and answers a clone of it; `None` where that cannot be done, and `mount` is as it was.
fn pin_down(mount: &OwnedFd, pin: &Path) -> Option<OwnedFd> {
    fs::create_dir_all(pin).ok()?;
    set_privileges(mount, false).ok()?;
    if move_mount(mount.as_fd(), "", CWD, pin, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).is_err() {
        let _ = set_privileges(mount, true);
        return None;
    }
    clone_of(pin, EROFS_SUPER_MAGIC)
}
