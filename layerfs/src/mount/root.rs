//! A container's root: a writable layer and the overlay over it, which may serve one container after another.
//!
//! ```text
//! new -> settle (what is in the layer now is celda's own) -> mount -> container runs, ends -> is_untouched?
//!          ^                                                                                   |       |
//!          '------------------------ yes: as good as new, for the next one -------------------'   no: remove
//! ```
//!
//! Making and removing a layer and its overlay costs more than all else in a start: measured 2026-11-26 on 2 cores,
//! ext4, `benches start`: 2.4 ms of CPU a container with a new root and network each time, 1.3 ms with used ones.
//! Most containers write nothing outside their volumes.
//!
//! Whoever gives a root on must know that no process keeps a descriptor into it from its container's time: the layer
//! cannot tell.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::fingerprint::Fingerprint;
use super::overlay::clone_detached;
use super::writable::WritableLayer;
use crate::{Error, Result};

/// Spare roots that are kept of one image, where nothing else is said.
pub const SPARES_COUNT_MAX: usize = 64;

/// A writable layer with its overlay.
#[derive(Debug)]
pub struct Root {
    layer: WritableLayer,
    overlay: OwnedFd,
    settled: Option<Fingerprint>,
    /// The overlay itself was handed out, as before Linux 6.15 a detached mount cannot be cloned.
    is_spent: bool,
    /// Where the overlay is pinned, if it is: see [`Ladder::keep_root`](super::Ladder::keep_root).
    pub(super) pin: Option<PathBuf>,
}

impl Root {
    /// A root out of a new layer and the overlay over it.
    pub fn new(layer: WritableLayer, overlay: OwnedFd) -> Self {
        Self { layer, overlay, settled: None, is_spent: false, pin: None }
    }

    /// The directory of the writable layer.
    pub fn path(&self) -> &Path {
        self.layer.path()
    }

    /// Renames the writable layer to `containers/<id>`: whoever finds it knows whose it is.
    ///
    /// # Errors
    /// [`Error::Io`]: the id is taken, or no file name.
    pub fn rename(&mut self, containers: &Path, id: &str) -> Result<()> {
        self.layer.rename(containers, id)
    }

    /// The lock of the writable layer: who has the descriptor keeps the layer.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.layer.lock()
    }

    /// The overlay, to write into before a container runs.
    pub fn overlay(&self) -> &OwnedFd {
        &self.overlay
    }

    /// Remembers what the layer holds: all that is there now is of no container. Without it no root is spare, and one
    /// with a limit never is: the next container may have another.
    ///
    /// # Errors
    /// [`Error::Io`] where the layer cannot be read.
    pub fn settle(&mut self) -> Result<()> {
        if !self.layer.is_limited() {
            self.settled = self.look()?;
        }
        Ok(())
    }

    /// A detached mount of the overlay, to become a container's root.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn mount(&mut self) -> Result<OwnedFd> {
        let copy = clone_detached(self.overlay.as_fd()).or_else(|errno| {
            self.is_spent = errno == Errno::INVAL;
            if self.is_spent { rustix::io::fcntl_dupfd_cloexec(&self.overlay, 3) } else { Err(errno) }
        });
        copy.map_err(|errno| Error::io("mount again the overlay of", self.path())(errno.into()))
    }

    /// Whether the root can serve again: the layer is as it was when it was settled.
    pub fn is_untouched(&self) -> bool {
        !self.is_spent && self.settled.is_some() && self.look().is_ok_and(|now| now == self.settled)
    }

    fn look(&self) -> Result<Option<Fingerprint>> {
        let upper = self.path().join("upper");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let look =
            rustix::fs::open(&upper, flags, Mode::empty()).and_then(|directory| Fingerprint::of(&directory));
        look.map_err(|errno| Error::io("look at the writable layer", upper)(errno.into()))
    }

    /// Takes the pin away, if it has one: this root is given on no more.
    pub fn unpin(&self) {
        if let Some(pin) = &self.pin {
            super::pin::unpin(pin);
        }
    }

    pub(super) fn into_layer(self) -> WritableLayer {
        self.layer
    }

    /// Deletes the layer with all in it; the overlay goes with its last mount.
    ///
    /// # Errors
    /// As [`WritableLayer::remove`].
    pub fn remove(self) -> Result<()> {
        self.unpin();
        let Self { layer, overlay, .. } = self;
        drop(overlay);
        layer.remove()
    }
}

/// Spare roots of one image, of a process that stays up. Other processes do not see them.
///
/// To remove a layer costs twice: ext4 passes over the inodes of the last minute when it looks for a free one, so that
/// each that was removed makes all that are created after it slower. Measured 2026-11-27, 300 containers started and
/// stopped by turns, 2 cores: nearly half of all CPU time was that search when 64 roots were kept.
#[derive(Debug)]
pub struct RootPool {
    count_max: usize,
    shared: Mutex<Spares>,
}

#[derive(Debug, Default)]
struct Spares {
    roots: Vec<Root>,
    /// The fewest that there were since the last trim: nobody needed those.
    idle_count: usize,
}

impl Default for RootPool {
    fn default() -> Self {
        Self::new(SPARES_COUNT_MAX)
    }
}

impl RootPool {
    /// An empty one that keeps at most so many.
    pub fn new(count_max: usize) -> Self {
        Self { count_max, shared: Mutex::default() }
    }

    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A root that is as good as new, if there is one.
    pub fn take(&self) -> Option<Root> {
        let mut spares = self.spares();
        let root = spares.roots.pop();
        spares.idle_count = spares.idle_count.min(spares.roots.len());
        root
    }

    /// Keeps a root for the next container if the last one left it untouched, and removes it otherwise.
    ///
    /// # Errors
    /// As [`Root::remove`].
    pub fn give_back(&self, root: Root) -> Result<()> {
        if root.is_untouched() {
            let mut spares = self.spares();
            if spares.roots.len() < self.count_max {
                spares.roots.push(root);
                return Ok(());
            }
        }
        root.remove()
    }

    /// Removes those that nobody needed since the last call.
    ///
    /// # Errors
    /// As [`Root::remove`]; the others are removed all the same.
    pub fn trim(&self) -> Result<()> {
        let mut spares = self.spares();
        // Those that were given back first; those that were used last are in the caches.
        let count = spares.idle_count.min(spares.roots.len());
        let idle: Vec<Root> = spares.roots.drain(..count).collect();
        spares.idle_count = spares.roots.len();
        drop(spares);
        remove_all(idle)
    }

    /// Removes all of them.
    ///
    /// # Errors
    /// As [`Root::remove`]; the others are removed all the same.
    pub fn clear(&self) -> Result<()> {
        let spares = std::mem::take(&mut *self.spares());
        remove_all(spares.roots)
    }
}

fn remove_all(roots: Vec<Root>) -> Result<()> {
    roots.into_iter().map(Root::remove).fold(Ok(()), Result::and)
}
