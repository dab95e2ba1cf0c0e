//! Spare roots between processes: what one `celda run` leaves untouched, the next takes.
//!
//! ```text
//! RUN/mounts/root-<key>            the overlay, pinned                 (pin.rs)
//! RUN/mounts/net-<key>             whatever else the caller pins beside it
//! RUN/spares/<chain id>/<key>      a token: a link to the layer; whoever unlinks it owns the root
//! ROOT/containers/<name>           the writable layer, locked while a process has it
//! ```
//!
//! A process that is killed holds no token, so what it had is never given on: its layer is unlocked and swept as any
//! dead container's, its pin goes with the others. A restart of the machine takes tokens and pins, and leaves layers to
//! the sweep.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::MoveMountFlags;

use super::ladder::Ladder;
use super::pin::{OVERLAYFS_SUPER_MAGIC, clone_of, set_privileges};
use super::root::{Root, SPARES_COUNT_MAX};
use super::writable::WritableLayer;
use crate::Digest;

/// Tokens looked at before a new root is made instead: others may be taking them as well.
const ATTEMPTS_COUNT_MAX: usize = SPARES_COUNT_MAX;

impl Ladder {
    /// A spare root of the image, its layer renamed to `containers/<id>`. `None`: there is none, make one.
    pub fn take_root(&self, chain_id: &Digest, containers: &Path, id: &str) -> Option<Root> {
        let tokens = fs::read_dir(self.spares(chain_id)).ok()?;
        let mut tokens = tokens.take(ATTEMPTS_COUNT_MAX).flatten().map(|token| token.path());
        tokens.find_map(|token| {
            // Another store may share RUN: its tokens are left to it.
            if fs::read_link(&token).ok()?.parent() != Some(containers) {
                return None;
            }
            let pin = self.pinned("root", &key_of(&token)?);
            let layer = claim(&token)?;
            let layer = WritableLayer::adopt(&layer, containers, id).ok()?;
            match clone_of(&pin, OVERLAYFS_SUPER_MAGIC) {
                Some(overlay) => {
                    let mut root = Root::new(layer, overlay);
                    root.pin = Some(pin);
                    Some(root)
                }
                None => {
                    let _ = layer.remove();
                    None
                }
            }
        })
    }

    /// Keeps a root for the next container of the image, if the last one left it untouched; removes it otherwise.
    /// Answers its key: the caller may keep what belongs to it at [`pinned`](Self::pinned).
    ///
    /// # Errors
    /// As [`Root::remove`].
    pub fn keep_root(&self, chain_id: &Digest, root: Root) -> crate::Result<Option<Kept>> {
        match self.pin_root(chain_id, &root) {
            Some(kept) => {
                // Unlocked first: whoever has the token must be able to lock it.
                drop(root.into_layer());
                Ok(Some(kept))
            }
            None => root.remove().map(|()| None),
        }
    }

    fn pin_root(&self, chain_id: &Digest, root: &Root) -> Option<Kept> {
        if self.needs_private_namespace() || !root.is_untouched() {
            return None;
        }
        let directory = self.spares(chain_id);
        fs::create_dir_all(&directory).ok()?;
        if fs::read_dir(&directory).ok()?.count() >= SPARES_COUNT_MAX {
            return None;
        }
        let key = match &root.pin {
            Some(pin) => {
                // A `celda gc` may have taken the pin away meanwhile.
                clone_of(pin, OVERLAYFS_SUPER_MAGIC)?;
                pin_key(pin)?
            }
            None => {
                let key = root.path().file_name()?.to_str()?.to_owned();
                let pin = self.pinned("root", &key);
                let _lock = self.lock_pins().ok()?;
                fs::create_dir(&pin).ok()?;
                set_privileges(root.overlay(), false).ok()?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                rustix::mount::move_mount(root.overlay(), "", rustix::fs::CWD, &pin, flags).ok()?;
                key
            }
        };
        Some(Kept { token: directory.join(&key), layer: root.path().to_owned(), key })
    }

    /// Where something of the spare root `key` is pinned: `RUN/mounts/<what>-<key>`.
    pub fn pinned(&self, what: &str, key: &str) -> PathBuf {
        self.pins().join(format!("{what}-{key}"))
    }

    /// The layers of all spare roots, which are nobody's from now on.
    pub(super) fn drop_spares(&self) {
        let Ok(chains) = fs::read_dir(self.run().join("spares")) else { return };
        for chain in chains.flatten().map(|chain| chain.path()) {
            self.drop_spares_of(&chain);
        }
    }

    /// The layers of one chain's spare roots; answers the keys that their pins are named by.
    pub(super) fn drop_spares_of(&self, chain: &Path) -> Vec<String> {
        let mut keys = Vec::new();
        for token in fs::read_dir(chain).into_iter().flatten().flatten() {
            if let Some(layer) = claim(&token.path())
                && let (Some(containers), Some(name)) = (layer.parent(), layer.file_name())
            {
                keys.extend(key_of(&token.path()));
                if let Err(error) = super::remove_container(containers, &name.to_string_lossy()) {
                    tracing::warn!(%error, "a spare root's writable layer was left behind");
                }
            }
        }
        let _ = fs::remove_dir(chain);
        keys
    }

    pub(super) fn spares(&self, chain_id: &Digest) -> PathBuf {
        self.run().join("spares").join(chain_id.hex())
    }
}

/// A root that is pinned and on nobody's hands until it is offered.
#[derive(Debug)]
pub struct Kept {
    key: String,
    token: PathBuf,
    layer: PathBuf,
}

impl Kept {
    /// What its pins are named by.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Offers it to whoever starts the image's next container. Where that fails, a sweep takes it.
    pub fn offer(self) {
        let _ = std::os::unix::fs::symlink(&self.layer, &self.token);
    }
}

impl Root {
    /// What this root's pins are named by, if it was spare before.
    pub fn key(&self) -> Option<String> {
        self.pin.as_deref().and_then(pin_key)
    }
}

/// Takes a token; the layer that it stands for is the caller's. `None`: somebody else was faster.
fn claim(token: &Path) -> Option<PathBuf> {
    let layer = fs::read_link(token).ok()?;
    fs::remove_file(token).ok()?;
    Some(layer)
}

fn key_of(token: &Path) -> Option<String> {
    let name = token.file_name()?;
    let is_plain = name.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    is_plain.then(|| name.to_string_lossy().into_owned())
}

fn pin_key(pin: &Path) -> Option<String> {
    pin.file_name()?.to_str()?.strip_prefix("root-").map(str::to_owned)
}
