//! Leases: while a container lives, gc keeps what it is mounted from. A lease is a flock; `kill -9` ends it.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::store::fault::fault;
use crate::store::lock::{self, Mode, Wait};
use crate::store::records::ImageRecord;
use crate::store::{Sink, Store};
use crate::{Digest, Error, Result};

/// How long a lease waits for a gc that is just deciding about this very image.
const LEASE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// The right to mount an image, until it is dropped.
#[derive(Debug)]
pub struct ImageLease {
    file: File,
    source: PathBuf,
    sink: Sink,
    tars: Vec<PathBuf>,
}

impl ImageLease {
    /// Whether [`source`](Self::source) is an index or a directory tree.
    pub fn sink(&self) -> Sink {
        self.sink
    }

    /// The index file, or the root of the directory tree.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The layers' tars, lowest first: the index's devices in order.
    pub fn tars(&self) -> &[PathBuf] {
        &self.tars
    }

    /// The descriptor that holds the lease; a process that inherits it keeps the lease. For an index it is the
    /// index itself, opened for reading.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Store {
    /// Leases an image: opens its index (or tree) and takes the shared flock on it.
    ///
    /// # Errors
    /// [`Error::Missing`] if the index or a layer is not there: pull again.
    pub fn lease(&self, record: &ImageRecord) -> Result<ImageLease> {
        let path = self.lease_path(&record.chain_id);
        let missing = |what| Error::Missing { what, image: record.reference.clone(), path: path.clone() };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing("the index")),
            Err(error) => return Err(fault("open", &path, error)),
        };
        let wait =
            Wait { at_most: LEASE_WAIT, what: &record.reference, hint: "a `celda gc` is running: try again" };
        lock::lock(&file, &path, Mode::Shared, &wait)?;
        if !lock::is_still_at(&file, &path) {
            return Err(missing("the index"));
        }
        self.check_whole(record)?;
        // Image collection goes by it; also what the hot path pays for that, one fstat(2).
        if let Ok(facts) = file.metadata() {
            self.touch_if_old(&record.chain_id, facts.mtime());
        }
        let source = match self.options.sink {
            Sink::Index => path,
            Sink::Directory => self.tree_path(&record.chain_id),
        };
        let tars = record.layers.iter().map(|layer| self.layer_path(&layer.diff_id)).collect();
        Ok(ImageLease { file, source, sink: self.options.sink, tars })
    }

    /// Whether a living process leases this chain, by index or by tree.
    pub(crate) fn is_leased(&self, chain_id: &Digest) -> bool {
        [self.layout().index(chain_id), self.layout().tree_lease(chain_id)].iter().any(|path| {
            File::open(path).is_ok_and(|file| !lock::try_lock(&file, Mode::Exclusive).unwrap_or(false))
        })
    }
}
