//! A container's writable layer: `containers/<id>/{upper,work}`, held by a lock while the container lives.
//!
//! The lock is a flock(2) on the directory itself: it ends with its last holder however that dies, so a layer
//! whose lock is free belongs to nobody and can be swept. One with a limit has its `upper` and `work` where limit.rs says.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::limit::{DiskLimit, Space};
use super::{quota, sized};
use crate::directory::remove_path;
use crate::{Error, Result};

/// How often a layer is made anew that a sweep took between its creation and its lock, or whose parent was missing.
const CREATE_ATTEMPTS_COUNT: u32 = 4;

/// Layers looked at by one sweep.
const SWEEP_COUNT: usize = 65_536;

/// A writable layer that is locked by this process (and by those it gives the fd to).
#[derive(Debug)]
pub struct WritableLayer {
    path: PathBuf,
    lock: OwnedFd,
    space: Space,
}

impl WritableLayer {
    /// Creates `containers/<id>` with `upper` and `work`: five syscalls where `containers` is there.
    ///
    /// # Errors
    /// [`Error::Io`]: the id is taken (`EEXIST`) or no file name, the disk is full, no permission.
    pub fn create(containers: &Path, id: &str) -> Result<Self> {
        let fill = |lock: &OwnedFd| make_places(lock.as_fd());
        let (path, lock) = Self::begin(containers, id, fill)?;
        Ok(Self { path, lock, space: Space::Free })
    }

    /// [`create`](Self::create) for a layer that may hold so much and no more.
    ///
    /// # Errors
    /// As `create`; [`Error::Io`] where a limit is not possible or cannot be kept here, with what would mend it,
    /// [`Error::Mount`]. Nothing is left behind.
    pub fn create_limited(containers: &Path, id: &str, limit: DiskLimit) -> Result<Self> {
        let is_there = |lock: &OwnedFd| match rustix::fs::fstat(lock)?.st_nlink {
            0 => Err(Errno::NOENT),
            _ => Ok(()),
        };
        let (path, lock) = Self::begin(containers, id, is_there)?;
        let mut layer = Self { path, lock, space: Space::Free };
        let made = Space::limited(layer.lock(), &layer.path, limit).and_then(|space| {
            layer.space = space;
            let filled = make_places(layer.space.mount().unwrap_or(layer.lock()));
            filled.map_err(|errno| Error::io("create writable layer", &layer.path)(errno.into()))
        });
        match made {
            Ok(()) => Ok(layer),
            Err(error) => {
                layer.remove()?;
                Err(error)
            }
        }
    }

    /// `containers/<id>`, locked and begun by `fill`.
    fn begin(
        containers: &Path,
        id: &str,
        fill: impl Fn(&OwnedFd) -> rustix::io::Result<()>,
    ) -> Result<(PathBuf, OwnedFd)> {
        let path = layer_path(containers, id)?;
        let mut answer = Err(Errno::NOENT);
        for _ in 0..CREATE_ATTEMPTS_COUNT {
            answer = make_locked(&path, &fill);
            match answer {
                Ok(lock) => return Ok((path, lock)),
                Err(Errno::NOENT) => {}
                Err(_) => break,
            }
            fs::create_dir_all(containers).map_err(Error::io("create directory", containers))?;
        }
        let errno = answer.err().unwrap_or(Errno::NOENT);
        Err(Error::io("create writable layer", path)(errno.into()))
    }

    /// Takes over the layer at `path`, which nobody holds, and renames it to `containers/<id>`.
    ///
    /// # Errors
    /// [`Error::LayerInUse`] when somebody does hold it, [`Error::Io`] when it is gone.
    pub(super) fn adopt(path: &Path, containers: &Path, id: &str) -> Result<Self> {
        let name = layer_path(containers, id)?;
        let lock = open_directory(CWD, path).map_err(|errno| Error::io("open", path)(errno.into()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(Error::LayerInUse { path: path.to_owned() }),
            answer => answer.map_err(|errno| Error::io("lock", path)(errno.into()))?,
        }
        // Locked, so no sweep removes it any more; one that was faster leaves nothing to rename.
        fs::rename(path, &name).map_err(Error::io("rename writable layer", path))?;
        Ok(Self { path: name, lock, space: Space::Free }) // spare: one without a limit
    }

    /// Renames the layer to `containers/<id>`. What is mounted from it stays so.
    ///
    /// # Errors
    /// [`Error::Io`]: the id is taken, or no file name.
    pub(super) fn rename(&mut self, containers: &Path, id: &str) -> Result<()> {
        let name = layer_path(containers, id)?;
        fs::rename(&self.path, &name).map_err(Error::io("rename writable layer", &self.path))?;
        self.path = name;
        Ok(())
    }

    /// `containers/<id>`: what [`Ladder::overlay`](super::Ladder::overlay) takes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The locked directory. A process that inherits it keeps the layer alive.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Whether it may hold so much and no more.
    pub fn is_limited(&self) -> bool {
        !matches!(self.space, Space::Free)
    }

    /// Where `upper` is, for `*at` system calls.
    pub fn upper(&self) -> (BorrowedFd<'_>, PathBuf) {
        self.place("upper")
    }

    /// Where `upper` or `work` is.
    pub(super) fn place(&self, name: &str) -> (BorrowedFd<'_>, PathBuf) {
        match self.space.mount() {
            Some(mount) => (mount, name.into()),
            None => (CWD, self.path.join(name)),
        }
    }

    /// The filesystem that `upper` and `work` are in, if they have one of their own.
    pub(super) fn mount(&self) -> Option<BorrowedFd<'_>> {
        self.space.mount()
    }

    /// Deletes the layer and all in it.
    ///
    /// # Errors
    /// As [`remove_container`], less the lock.
    pub fn remove(self) -> Result<()> {
        let Self { path, lock, space } = self;
        let project = match space {
            Space::Free => None,
            Space::Project(project) => Some(project),
            Space::Sized(mount) => {
                sized::end(&mount); // first, as it has the blocks of its file
                None
            }
        };
        remove_layer_at(path, &lock, project)
    }
}

/// Deletes the writable layer `containers/<id>`, whatever a container made of it. One that is gone is fine.
///
/// # Errors
/// [`Error::LayerInUse`] while a live process holds it, [`Error::Io`] where something cannot be deleted.
pub fn remove_container(containers: &Path, id: &str) -> Result<()> {
    remove_layer(layer_path(containers, id)?, |_| Ok(()))
}

/// As [`remove_container`], but that `end` is called with the directory before, when it is locked and will be nobody's: what
/// its container has left running is to end first.
///
/// # Errors
/// As [`remove_container`], and those of `end`, after which the layer stays.
pub fn end_container(
    containers: &Path,
    id: &str,
    end: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<()> {
    remove_layer(layer_path(containers, id)?, end)
}

fn remove_layer(path: PathBuf, end: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let lock = match open_directory(CWD, &path) {
        Ok(lock) => lock,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(Error::io("open", path)(errno.into())),
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            end(&path).map_err(Error::io("end what runs in", &path))?;
            remove_layer_at(path, &lock, quota::project(lock.as_fd()))
        }
        Err(Errno::WOULDBLOCK) => Err(Error::LayerInUse { path }),
        Err(errno) => Err(Error::io("lock", path)(errno.into())),
    }
}

/// Deletes a layer that is locked; a project that it was is free then.
fn remove_layer_at(path: PathBuf, lock: &OwnedFd, project: Option<u32>) -> Result<()> {
    let removed = remove_path(&path).map_err(Error::io("delete writable layer", path));
    if let (Some(project), Ok(())) = (project, &removed) {
        quota::end(lock.as_fd(), project);
    }
    removed
}

/// Deletes every writable layer that no live process holds; returns how many.
///
/// # Errors
/// [`Error::Io`] where `containers` cannot be read. A layer that cannot be deleted is passed over with a warning.
pub fn sweep_containers(containers: &Path) -> Result<usize> {
    let entries = match fs::read_dir(containers) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::io("read directory", containers)(error)),
    };
    let mut swept_count = 0;
    for entry in entries.take(SWEEP_COUNT) {
        let entry = entry.map_err(Error::io("read directory", containers))?;
        match remove_layer(entry.path(), |_| Ok(())) {
            Ok(()) => swept_count += 1,
            Err(Error::LayerInUse { .. }) => {}
            Err(error) => tracing::warn!(%error, "a dead container's writable layer was left behind"),
        }
    }
    Ok(swept_count)
}

/// Creates, locks and fills one layer. `ENOENT`: no parent, or a sweep was faster than the lock.
fn make_locked(
    path: &Path,
    fill: impl Fn(&OwnedFd) -> rustix::io::Result<()>,
) -> rustix::io::Result<OwnedFd> {
    rustix::fs::mkdir(path, Mode::RWXU)?;
    let lock = open_directory(CWD, path)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Err(Errno::NOENT),
        answer => answer?,
    }
    match fill(&lock) {
        Ok(()) => Ok(lock),
        Err(errno) => {
            if errno != Errno::NOENT {
                let _ = remove_path(path); // a full disk; otherwise a sweep takes it
            }
            Err(errno)
        }
    }
}

/// `upper` and `work`.
fn make_places(place: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::fs::mkdirat(place, "upper", Mode::from_raw_mode(0o755))?;
    rustix::fs::mkdirat(place, "work", Mode::RWXU)
}

/// `containers/<id>`, if the id is one plain file name.
fn layer_path(containers: &Path, id: &str) -> Result<PathBuf> {
    if id.is_empty() || id.starts_with('.') || id.contains(['/', '\0']) {
        let not_a_name = std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "a container id must be one file name without a leading dot",
        );
        return Err(Error::io("use container id", id)(not_a_name));
    }
    Ok(containers.join(id))
}

fn open_directory(parent: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, path, flags, Mode::empty())
}
