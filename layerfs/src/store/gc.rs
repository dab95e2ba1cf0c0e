//! Freeing what no name leads to and no container uses.
//!
//! ```text
//! mark:   names -> images (+ unnamed ones that are leased) -> chains, layers, blobs
//! sweep:  image records, then indexes and trees, then layers, blob maps, blobs      (names to leaves)
//! ```
//!
//! Killed anywhere, what is left is unreferenced, and the next gc takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::crash::{self, Step};
use crate::store::fault::fault;
use crate::store::layout::digest_of_name;
use crate::store::lock::{self, Mode, Wait};
use crate::store::pull::open_lock_file;
use crate::store::records::{self, ImageRecord, NameRecord};
use crate::store::remove::unlink;
use crate::store::{Store, publish, size};
use crate::{Digest, Error, Result, mount};

/// How long gc waits for pulls to end.
const GC_WAIT: Duration = Duration::from_secs(5);

/// Descriptors of removed layers kept at most; the files of more are freed where they are removed.
const UNFREED_COUNT_MAX: usize = 256;

/// Layers that have no name any more and whose space is free once this is dropped. For each gigabyte the kernel takes
/// some 150 ms to let go of the blocks and of the cached pages with their buffers.
#[derive(Debug, Default)]
pub struct Unfreed(Vec<File>);

impl Unfreed {
    /// How many files there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Lets another process drop it, which ends by itself: for commands, whose own end would wait. Whoever stays up
    /// drops it on a thread.
    pub fn free_behind(self) {
        if let Err(error) = crate::sys::close_behind::close_behind(self.0) {
            tracing::debug!(%error, "removed layers were freed here");
        }
    }
}

/// What a gc freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Bytes on the disk that are free once [`Unfreed`] is dropped (those of a removed layer that a container still
    /// runs from, when it ends).
    pub freed_bytes: u64,
    /// Images without a name that were removed.
    pub images: Vec<Digest>,
    /// Layers removed.
    pub layers: Vec<Digest>,
    /// Indexes and directory trees removed.
    pub indexes_count: usize,
    /// Manifests and configs removed.
    pub blobs_count: usize,
    /// Containers whose process is gone, and whose writable layers were removed.
    pub containers: Vec<String>,
    /// Images without a name that a container still runs from; a later gc takes them.
    pub leased: Vec<Digest>,
}

/// What is to stay.
#[derive(Default)]
struct Marked {
    chains: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
    blobs: BTreeSet<Digest>,
}

impl Store {
    /// Frees what no name leads to and no container uses: images, layers, dead containers, abandoned staging. For stores whose
    /// containers leave nothing running.
    ///
    /// # Errors
    /// [`crate::Error::Busy`] while a pull or verify runs, [`crate::Error::Record`] if a record is damaged: then
    /// nothing is freed, as its layers may be wanted.
    pub fn gc(&self) -> Result<GcReport> {
        self.gc_unfreed(&|_| Ok(())).map(|(report, _)| report)
    }

    /// [`gc`](Self::gc) that answers when the names are gone: nobody who waits for the store, or for the answer, waits
    /// for the kernel to free the space as well. `end` ends what runs in the directory of a container that no process holds;
    /// if it fails, that directory stays.
    ///
    /// # Errors
    /// As `gc`.
    pub fn gc_unfreed(&self, end: &dyn Fn(&Path) -> io::Result<()>) -> Result<(GcReport, Unfreed)> {
        let path = self.layout().store_lock();
        let file = open_lock_file(&path)?;
        let hint = "a pull or a verify is in progress: run `celda gc` again when it is done";
        let wait = Wait { at_most: GC_WAIT, what: "the store", hint };
        lock::lock(&file, &path, Mode::Exclusive, &wait)?;
        let _catalogue = self.lock_catalogue()?;
        let mut report = GcReport { freed_bytes: publish::sweep(self.layout())?, ..GcReport::default() };
        let marked = self.mark(&mut report)?;
        crash::reached(Step::GcRecordsSwept);
        self.sweep_sinks(&marked, &mut report)?;
        crash::reached(Step::GcIndexesSwept);
        let unfreed = self.sweep_layers(&marked, &mut report)?;
        crash::reached(Step::GcLayersSwept);
        self.sweep_blobs(&marked, &mut report)?;
        self.sweep_containers(&mut report, end)?;
        Ok((report, unfreed))
    }

    /// Drops the records of images without name and lease; marks what the others need.
    fn mark(&self, report: &mut GcReport) -> Result<Marked> {
        let (named, records) = self.strict_catalogue()?;
        let named_chains: BTreeSet<Digest> = records
            .values()
            .filter(|record| named.contains(&record.manifest))
            .map(|record| record.chain_id)
            .collect();
        crash::reached(Step::GcMarked);
        let mut marked = Marked::default();
        for (manifest, record) in records {
            let stays = named.contains(&manifest) || {
                let is_free =
                    named_chains.contains(&record.chain_id) || self.take_sinks(&record.chain_id, report)?;
                if !is_free {
                    report.leased.push(manifest);
                }
                !is_free
            };
            if stays {
                marked.chains.insert(record.chain_id);
                marked.layers.extend(record.diff_ids());
                marked.blobs.extend([record.manifest, record.config]);
            } else {
                let path = self.layout().image(&manifest);
                report.freed_bytes += size::bytes_of(&path);
                unlink(&path)?;
                report.images.push(manifest);
            }
        }
        Ok(marked)
    }

    /// Named manifests and all image records; a damaged file is an error here, as what it meant would be freed.
    fn strict_catalogue(&self) -> Result<(BTreeSet<Digest>, BTreeMap<Digest, ImageRecord>)> {
        let mut named = BTreeSet::new();
        for (name, path) in self.files_in("names")? {
            if name.ends_with(".json") {
                named.extend(records::read::<NameRecord>(&path)?.map(|name| name.manifest));
            }
        }
        let mut images = BTreeMap::new();
        for manifest in self.manifests()? {
            images.extend(self.image_by_manifest(&manifest)?.map(|record| (manifest, record)));
        }
        Ok((named, images))
    }

    /// Removes index and tree of a chain; `false` if a living process leases one of them.
    ///
    /// A lease taken between our lock and the unlink is not possible: its taker waits for our lock, then sees
    /// that the file has gone.
    fn take_sinks(&self, chain_id: &Digest, report: &mut GcReport) -> Result<bool> {
        let index = self.layout().index(chain_id);
        let lease = self.layout().tree_lease(chain_id);
        let mut held = Vec::new();
        for path in [&index, &lease] {
            let file = match publish::open_to_lock(path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(fault("open", path, error)),
            };
            if !lock::try_lock(&file, Mode::Exclusive).map_err(|error| fault("lock", path, error))? {
                return Ok(false);
            }
            held.push(file);
        }
        let freed_bytes = size::bytes_of(&index);
        if freed_bytes > 0 {
            unlink(&index)?;
            report.freed_bytes += freed_bytes;
            report.indexes_count += 1;
        }
        let tree = self.layout().tree(chain_id);
        if tree.exists() {
            report.freed_bytes += size::bytes_of_tree(&tree);
            report.indexes_count += 1;
            self.discard_tree(&tree)?;
        }
        Ok(true)
    }

    /// Takes a tree out of its place by one rename, then removes it: a crash leaves it in staging, to be swept.
    pub(crate) fn discard_tree(&self, tree: &std::path::Path) -> Result<()> {
        let staged = publish::Staged::directory(self.layout(), "trash")?;
        let inside = staged.path().join("tree");
        std::fs::rename(tree, &inside).map_err(|error| fault("move away", tree, error))
    }

    /// Drops indexes and trees of chains that no image has.
    fn sweep_sinks(&self, marked: &Marked, report: &mut GcReport) -> Result<()> {
        let mut chains = BTreeSet::new();
        for (directory, suffix) in [("index/sha256", ".erofs"), ("trees", "")] {
            let names = self.files_in(directory)?;
            chains.extend(names.iter().filter_map(|(name, _)| digest_of_name(name, suffix)));
        }
        for chain_id in chains.difference(&marked.chains) {
            self.take_sinks(chain_id, report)?;
        }
        Ok(())
    }

    fn sweep_layers(&self, marked: &Marked, report: &mut GcReport) -> Result<Unfreed> {
        let mut unfreed = Unfreed::default();
        for (name, path) in self.files_in("layers/sha256")? {
            let Some(diff_id) = digest_of_name(&name, ".tar") else { continue };
            if !marked.layers.contains(&diff_id) {
                report.freed_bytes += size::bytes_of(&path);
                if unfreed.count() < UNFREED_COUNT_MAX {
                    unfreed.0.extend(publish::open_to_lock(&path));
                }
                unlink(&path)?;
                report.layers.push(diff_id);
            }
        }
        Ok(unfreed)
    }

    /// Drops manifests and configs of no image, and blob maps of no layer.
    fn sweep_blobs(&self, marked: &Marked, report: &mut GcReport) -> Result<()> {
        let mut doomed: Vec<PathBuf> = Vec::new();
        for (name, path) in self.files_in("blobs/sha256")? {
            if digest_of_name(&name, "").is_some_and(|digest| !marked.blobs.contains(&digest)) {
                doomed.push(path);
                report.blobs_count += 1;
            }
        }
        for (name, path) in self.files_in("layers/blobs")? {
            if digest_of_name(&name, "").is_some_and(|blob| self.diff_id_of_blob(&blob).is_none()) {
                doomed.push(path);
            }
        }
        for path in doomed {
            report.freed_bytes += size::bytes_of(&path);
            unlink(&path)?;
        }
        Ok(())
    }

    /// Removes the writable layers that no process holds.
    fn sweep_containers(&self, report: &mut GcReport, end: &dyn Fn(&Path) -> io::Result<()>) -> Result<()> {
        let containers = self.layout().directory("containers");
        for (id, path) in self.files_in("containers")? {
            let bytes = size::bytes_of_tree(&path);
            match mount::end_container(&containers, &id, end) {
                Ok(()) => {
                    report.freed_bytes += bytes;
                    report.containers.push(id);
                }
                Err(Error::LayerInUse { .. }) => {}
                Err(error) => tracing::warn!(%error, "a dead container's writable layer was left behind"),
            }
        }
        Ok(())
    }
}
