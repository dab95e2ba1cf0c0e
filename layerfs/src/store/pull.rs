//! What a pull does to the store, but for the layers themselves (`ingest`) and the index.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::io::Workshop;
use crate::limits::Budget;
use crate::store::Store;
use crate::store::crash::Step;
use crate::store::fault::fault;
use crate::store::lock::{self, Mode, Wait};
use crate::store::publish::{self, Durability, publish, sync_directory};
use crate::store::records::{self, ImageRecord, NameRecord};
use crate::{Cancel, Digest, Error, Limits, Result};

/// How long one process waits while another changes names: that takes a few fsyncs.
const CATALOGUE_WAIT: Duration = Duration::from_secs(30);

/// How long a pull waits for a gc that is running. A gc only unlinks; it takes milliseconds.
const PULL_WAIT: Duration = Duration::from_secs(30);

/// While one of these lives, gc leaves the store alone. Cheap to clone, shared by all layers of a pull.
#[derive(Debug, Clone)]
pub struct PullGuard {
    held: Arc<Held>,
    budget: Arc<Budget>,
    cancel: Cancel,
}

#[derive(Debug)]
struct Held {
    /// Holds the shared flock on `store.lock`.
    _lock: File,
    workshop: Workshop,
}

impl PullGuard {
    /// What ends the waits and ingests under this guard early: each of them answers [`Error::Cancelled`] then.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// This guard, ended by `cancel`.
    #[must_use]
    pub fn stopped_by(self, cancel: &Cancel) -> Self {
        Self { cancel: cancel.clone(), ..self }
    }

    /// This guard for another image: what its layers may cost is counted anew.
    pub(crate) fn for_another_image(&self, limits: &Limits) -> Self {
        Self { budget: Arc::new(Budget::new(limits)), ..self.clone() }
    }

    /// What the layers of this pull may cost together.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The I/O path, chosen once per pull.
    pub(crate) fn workshop(&self) -> &Workshop {
        &self.held.workshop
    }
}

/// Opens a lock file of the store, making it if it is missing.
pub(crate) fn open_lock_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| fault("open", path, error))
}

impl Store {
    /// Starts a pull: takes the shared lock and sweeps what dead pulls left in staging.
    ///
    /// # Errors
    /// [`Error::Busy`] if a gc does not end, [`Error::NoPermission`] or [`Error::ReadOnly`] where the store may
    /// not be written.
    pub fn begin_pull(&self) -> Result<PullGuard> {
        let guard = self.hold()?;
        let swept_bytes = publish::sweep(self.layout())?;
        if swept_bytes > 0 {
            tracing::info!(swept_bytes, "removed what an interrupted pull had left");
        }
        Ok(guard)
    }

    /// Takes the shared lock, and changes nothing.
    pub(crate) fn hold(&self) -> Result<PullGuard> {
        let path = self.layout().store_lock();
        let file = open_lock_file(&path)?;
        let wait = Wait { at_most: PULL_WAIT, what: "the store", hint: "a `celda gc` is running: try again" };
        lock::lock(&file, &path, Mode::Shared, &wait)?;
        let held = Held { _lock: file, workshop: Workshop::new(self.options.io) };
        let (held, budget) = (Arc::new(held), Arc::new(Budget::new(self.limits())));
        Ok(PullGuard { held, budget, cancel: Cancel::new() })
    }

    /// Keeps a manifest or config under the digest of its bytes.
    pub fn put_blob(&self, _guard: &PullGuard, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if matches!(self.blob(&digest), Ok(Some(_))) {
            return Ok(digest);
        }
        let steps = (Step::BlobStaged, Step::BlobRenamed);
        publish(self.layout(), &self.layout().blob(&digest), bytes, Durability::Checked, steps)?;
        Ok(digest)
    }

    /// A manifest or config. One whose bytes do not have its digest counts as not there.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.layout().blob(digest);
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault("look at", &path, error)),
        };
        if size > self.limits().manifest_bytes {
            tracing::warn!(path = %path.display(), size, "a blob is larger than a manifest may be; ignored");
            return Ok(None);
        }
        let bytes = fs::read(&path).map_err(|error| fault("read", &path, error))?;
        if Digest::of(&bytes) != *digest {
            tracing::warn!(path = %path.display(), "a blob does not have its digest; it will be fetched again");
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// Publishes an image under a name, after everything it consists of. The last step of a pull.
    ///
    /// # Errors
    /// [`Error::Missing`] if a layer or the index of `record` is not in the store.
    pub fn put_image(
        &self,
        _guard: &PullGuard,
        name: &str,
        platform: &str,
        record: &ImageRecord,
    ) -> Result<()> {
        self.check_whole(record)?;
        let _catalogue = self.lock_catalogue()?;
        let layout = self.layout();
        let name_path = layout.name(name, platform);
        let image_path = layout.image(&record.manifest);
        let named =
            NameRecord { reference: name.into(), platform: platform.into(), manifest: record.manifest };
        let is_same_name = matches!(records::read::<NameRecord>(&name_path), Ok(Some(old)) if old == named);
        let is_same_image =
            matches!(records::read::<ImageRecord>(&image_path), Ok(Some(old)) if old == *record);
        if is_same_name && is_same_image {
            return Ok(());
        }
        // One journal commit covers all the renames since the last one, so the later of these are nearly free.
        for directory in ["layers/sha256", "layers/blobs", "blobs/sha256", "index/sha256", "trees"] {
            sync_directory(&layout.directory(directory))?;
        }
        if !is_same_image {
            let text = records::text(&image_path, record)?;
            let steps = (Step::RecordStaged, Step::RecordRenamed);
            publish(layout, &image_path, &text, Durability::Synced, steps)?;
            sync_directory(&layout.directory("images"))?;
        }
        if !is_same_name {
            let text = records::text(&name_path, &named)?;
            let steps = (Step::NameStaged, Step::NameRenamed);
            publish(layout, &name_path, &text, Durability::Synced, steps)?;
            sync_directory(&layout.directory("names"))?;
        }
        Ok(())
    }

    /// Keeps others from changing names and image records until the file is dropped: a name must not be given to
    /// an image whose last name is just being taken.
    pub(crate) fn lock_catalogue(&self) -> Result<File> {
        let path = self.layout().catalogue_lock();
        let file = open_lock_file(&path)?;
        let wait = Wait { at_most: CATALOGUE_WAIT, what: "the list of images", hint: "try again" };
        lock::lock(&file, &path, Mode::Exclusive, &wait)?;
        Ok(file)
    }

    /// Names the first thing the image lacks.
    pub(crate) fn check_whole(&self, record: &ImageRecord) -> Result<()> {
        let missing = |what, path: &Path| {
            Err(Error::Missing { what, image: record.reference.clone(), path: path.to_owned() })
        };
        for layer in &record.layers {
            if !self.has_layer(&layer.diff_id) {
                return missing("a layer", &self.layer_path(&layer.diff_id));
            }
        }
        if !self.has_sink(&record.chain_id) {
            return missing("the index", &self.lease_path(&record.chain_id));
        }
        Ok(())
    }
}
