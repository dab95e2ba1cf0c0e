//! The store: layers, indexes and names on a disk, safe against crashes, full disks and other celdas.
//!
//! ```text
//! ROOT/layers/sha256/<diffID>.tar     uncompressed tar, the only copy of a layer
//! ROOT/layers/blobs/<compressed>      text: the diffID that blob inflates to; written after both were verified
//! ROOT/blobs/sha256/<digest>          manifests and configs as fetched, verified whenever read
//! ROOT/index/sha256/<chain id>.erofs  merged index of a chain of layers; its flock is the image's lease
//! ROOT/trees/<chain id>/rootfs        the same tree as directories, where the kernel cannot mount an index
//! ROOT/names/<hash>.json              reference and platform -> manifest
//! ROOT/images/<manifest>.json         all a run needs: config, layers, chain id
//! ROOT/containers/<id>/{upper,work}   writable layers; the flock of <id> is held while the container lives
//! ROOT/volumes/<name>                 named volumes: whoever runs containers fills and removes them
//! ROOT/staging/                       unpublished; swept at the next pull unless its flock is held
//! ROOT/store.lock                     shared by pulls and verify, exclusive for gc
//! ROOT/catalogue.lock                 exclusive while names and image records change
//! ```
//!
//! Everything but `names` can be rebuilt: blobs and layers are fetched again, indexes and blob maps are made from
//! layers, image records from manifests and configs. Every file is published by rename when whole, in the order leaves to names (layer, index, image, name),
//! and removed in the reverse order, so a crash at any [`Step`] leaves whole images only.

pub(crate) mod crash;
mod evict;
pub(crate) mod fault;
mod gc;
mod images;
mod index;
pub(crate) mod layout;
mod lease;
pub(crate) mod lock;
pub(crate) mod publish;
mod pull;
mod rebuild;
mod records;
mod remove;
mod size;
mod verify;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verify_tests;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::io::IoChoice;
use crate::{Digest, Limits, Result};

pub use crash::Step;
pub use evict::{Choice, ImageUse, choose};
pub use gc::{GcReport, Unfreed};
pub use images::NamedImage;
pub use index::chain_id;
pub use lease::ImageLease;
pub use pull::PullGuard;
pub use records::{ImageRecord, LayerRecord, RECORD_MAX_BYTES};
pub use remove::Removed;
pub use verify::{Heal, NoHeal, Outcome, Part, VerifyItem, VerifyReport};

use fault::fault;
use layout::Layout;

/// What an image's tree is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sink {
    /// An EROFS index that points into the layers.
    #[default]
    Index,
    /// Directories and files, for kernels without file-backed EROFS.
    Directory,
}

/// How a store is used by this process.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Which I/O path writes layers and reads them for `verify`.
    pub io: IoChoice,
    /// What images may cost.
    pub limits: Limits,
    /// What images are mounted from on this kernel.
    pub sink: Sink,
}

/// An opened store. Cheap to open and to clone paths from; any number of processes may have it open.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Layout,
    options: StoreOptions,
}

impl Store {
    /// Opens the store at `root` (absolute), making its directories if they are missing. One syscall if they are
    /// there: nothing is scanned, nothing is locked.
    ///
    /// # Errors
    /// [`crate::Error::NoPermission`] or [`crate::Error::ReadOnly`] where the directories cannot be made.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Self> {
        let layout = Layout::new(root);
        let last = layout.directory(layout::DIRECTORIES[layout::DIRECTORIES.len() - 1]);
        if rustix::fs::access(last, rustix::fs::Access::EXISTS).is_err() {
            make_directories(&layout)?;
        }
        Ok(Self { layout, options })
    }

    /// The directory the store lies in.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// What images may cost here.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// How this process uses the store.
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where the layer with this diffID lies, or would lie.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.layout.layer(diff_id)
    }

    /// Whether the layer is published.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        rustix::fs::access(self.layout.layer(diff_id), rustix::fs::Access::EXISTS).is_ok()
    }

    /// Bytes of the published layer's tar.
    pub fn layer_bytes(&self, diff_id: &Digest) -> Option<u64> {
        fs::metadata(self.layout.layer(diff_id)).ok().map(|metadata| metadata.len())
    }

    /// The diffID that the compressed `blob` was seen to inflate to, if that layer is here.
    pub fn diff_id_of_blob(&self, blob: &Digest) -> Option<Digest> {
        let text = fs::read_to_string(self.layout.blob_map(blob)).ok()?;
        text.trim_end().parse().ok().filter(|diff_id| self.has_layer(diff_id))
    }

    /// Where the index of this chain lies, or would lie.
    pub fn index_path(&self, chain_id: &Digest) -> PathBuf {
        self.layout.index(chain_id)
    }

    /// Where the unpacked root filesystem of this chain lies, or would lie.
    pub fn tree_path(&self, chain_id: &Digest) -> PathBuf {
        self.layout.tree_rootfs(chain_id)
    }

    /// Whether the image can be mounted as it stands: its layers, and its index or tree, are all here.
    pub fn is_whole(&self, record: &ImageRecord) -> bool {
        self.has_sink(&record.chain_id) && record.layers.iter().all(|layer| self.has_layer(&layer.diff_id))
    }

    /// Whether what images are mounted from is there for this chain.
    pub(crate) fn has_sink(&self, chain_id: &Digest) -> bool {
        rustix::fs::access(self.lease_path(chain_id), rustix::fs::Access::EXISTS).is_ok()
    }

    /// The file whose flock is the lease on a chain: the index, or the tree's own lease file.
    pub(crate) fn lease_path(&self, chain_id: &Digest) -> PathBuf {
        match self.options.sink {
            Sink::Index => self.layout.index(chain_id),
            Sink::Directory => self.layout.tree_lease(chain_id),
        }
    }
}

fn make_directories(layout: &Layout) -> Result<()> {
    fs::create_dir_all(layout.root()).map_err(|error| fault("create directory", layout.root(), error))?;
    let private = fs::Permissions::from_mode(layout::DIRECTORY_MODE);
    for name in layout::DIRECTORIES {
        let path = layout.directory(name);
        match fs::DirBuilder::new().mode(layout::DIRECTORY_MODE).create(&path) {
            Ok(()) => {}
            // Another process makes the store as well, or whoever made it let others in.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::set_permissions(&path, private.clone()).map_err(|error| fault("chmod", &path, error))?;
            }
            Err(error) => return Err(fault("create directory", &path, error)),
        }
    }
    Ok(())
}
