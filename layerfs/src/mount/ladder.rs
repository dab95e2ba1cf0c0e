//! Which way of mounting images this kernel, this user and this store allow, and why not a better one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::attic::Attic;
use super::overlay::OverlayAbilities;
use super::probe;

/// Bytes of `ladder.json` that are read at most; a larger one is rubbish.
const CACHE_BYTES: u64 = 64 << 10;

/// The cached answer's place beneath the run directory.
const CACHE_NAME: &str = "ladder.json";

/// A way of showing an image as a mount, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Rung {
    /// EROFS straight from the index file, with the tars as its devices.
    FileBacked {
        /// Mounts share one page cache by `inode_share` and `domain_id=` (Linux 7.0).
        inode_share: bool,
        /// The tars can be read past the page cache at 512-byte offsets (`directio`, Linux 6.15).
        directio: bool,
    },
    /// EROFS over loop devices.
    Loop,
    /// A directory, unpacked from the merged tree.
    Directory,
}

/// What was probed, and for whom it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ladder {
    /// How images are mounted.
    pub rung: Rung,
    /// Why not by a higher rung, or with less than is possible: what failed, what is lost, what would mend it.
    pub why: Vec<String>,
    /// What the kernel's overlayfs takes.
    pub overlay: OverlayAbilities,
    /// What the answer depends on.
    key: Key,
    /// Where the run directory is: a private mount point is made there where one is needed.
    #[serde(skip)]
    run: PathBuf,
    /// Where images are attached, if overlayfs wants that.
    #[serde(skip)]
    attic: Attic,
}

/// What a probe's answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    /// `uname -r`.
    kernel: String,
    /// `/proc/sys/kernel/random/boot_id`: modules and sysctls may differ after a boot.
    boot_id: String,
    /// `st_dev` of the store.
    store_device: u64,
    /// Effective user: the rungs need root.
    uid: u32,
    /// The user namespace, by its inode.
    user_namespace: u64,
    /// Changes when the probe learns something new.
    version: u32,
}

/// What `celda info` shows of a ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LadderInfo {
    /// Such as `file-backed EROFS index`.
    pub rung: &'static str,
    /// The kernel release that was probed.
    pub kernel: String,
    /// Page cache shared between mounts of an image.
    pub inode_share: bool,
    /// Tars read past the page cache on request.
    pub directio: bool,
    /// What the kernel's overlayfs takes.
    pub overlay: OverlayAbilities,
    /// Why not better, and what would mend it.
    pub why: Vec<String>,
}

impl Ladder {
    /// Probes for the store at `root`, without a cache. Never fails: the lowest rung needs nothing.
    pub fn probe(root: &Path) -> Self {
        Self::probe_with(root, Key::here(root), PathBuf::from("/run/celda")).0
    }

    /// The cached answer in `run` if it is about this kernel, boot, user and store; otherwise a probe, cached.
    ///
    /// A cache that cannot be read or written costs a probe (tens of milliseconds, as it really mounts) and nothing else.
    pub fn load(root: &Path, run: &Path) -> Self {
        let key = Key::here(root);
        if let Some(mut ladder) = read_cache(&run.join(CACHE_NAME))
            && ladder.key == key
        {
            ladder.run = run.to_path_buf();
            return ladder;
        }
        let (ladder, is_tried) = Self::probe_with(root, key, run.to_path_buf());
        // On a full disk nothing is found out: the next one tries again.
        if is_tried {
            write_cache(run, &ladder);
        }
        ladder
    }

    fn probe_with(root: &Path, key: Key, run: PathBuf) -> (Self, bool) {
        let found = probe::probe(root);
        let is_tried = found.is_tried;
        (
            Self {
                rung: found.rung,
                why: found.why,
                overlay: found.overlay,
                key,
                run,
                attic: Attic::default(),
            },
            is_tried,
        )
    }

    /// This ladder with another rung, for tests and for `--rung`-like choices of a caller.
    #[must_use]
    pub fn with_rung(mut self, rung: Rung) -> Self {
        self.rung = rung;
        self
    }

    /// Whether overlays are made by a thread that has a mount namespace of its own: before Linux 6.15 overlayfs takes no
    /// detached lower mounts.
    pub fn needs_private_namespace(&self) -> bool {
        self.overlay.usable && !self.overlay.detached_lower
    }

    /// The run directory given to [`load`](Self::load).
    pub(super) fn run(&self) -> &Path {
        &self.run
    }

    /// An image's mount is not used any more. It is dropped next: where images are attached to lay overlays over them, it
    /// would be kept until the ladder is dropped.
    pub fn release(&self, lower: BorrowedFd<'_>) {
        self.attic.release(lower);
    }

    /// Where images are attached.
    pub(super) fn attic(&self) -> &Attic {
        &self.attic
    }

    /// What `celda info` shows.
    pub fn info(&self) -> LadderInfo {
        let (rung, inode_share, directio) = match self.rung {
            Rung::FileBacked { inode_share, directio } => ("file-backed EROFS index", inode_share, directio),
            Rung::Loop => ("EROFS index over loop devices", false, true),
            Rung::Directory => ("unpacked directory", true, false),
        };
        let (kernel, overlay, why) = (self.key.kernel.clone(), self.overlay, self.why.clone());
        LadderInfo { rung, kernel, inode_share, directio, overlay, why }
    }
}

impl Key {
    /// What holds here and now. Parts that cannot be found out are empty, and so equal next time.
    fn here(root: &Path) -> Self {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let store_device = fs::metadata(root).map_or(0, |store| store.dev());
        let user_namespace = fs::metadata("/proc/self/ns/user").map_or(0, |namespace| namespace.ino());
        let uid = rustix::process::geteuid().as_raw();
        Self { kernel, boot_id: boot_id.trim().to_owned(), store_device, uid, user_namespace, version: 1 }
    }
}

/// The ladder in the file, or `None` where there is none or it is rubbish.
fn read_cache(path: &Path) -> Option<Ladder> {
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(CACHE_BYTES + 1).read_to_end(&mut text).ok()?;
    if text.len() as u64 > CACHE_BYTES {
        return None;
    }
    serde_json::from_slice(&text).ok()
}

/// Publishes the ladder by rename, so that a reader sees all or nothing. Best effort.
fn write_cache(run: &Path, ladder: &Ladder) {
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(run)?;
        let staging = run.join(format!(".{CACHE_NAME}.{}", std::process::id()));
        let mut file = fs::File::create(&staging)?;
        file.write_all(&serde_json::to_vec(ladder)?)?;
        fs::rename(&staging, run.join(CACHE_NAME))
    };
    if let Err(error) = write() {
        tracing::debug!(run = %run.display(), %error, "the mount ladder was not cached; it is probed again next time");
    }
}
