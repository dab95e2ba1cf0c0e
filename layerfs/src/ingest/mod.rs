//! Taking a layer in: compressed bytes in, one verified tar in the store out, in one pass.
//!
//! ```text
//! caller's thread                         ingest thread                          writer
//! feed(bytes) -> sha-256(compressed)      sha-256(tar) = diffID
//!             -> inflate -> 1 MiB buffers -> tar headers -> entries  -> buffers -> staging/layer-<diffID>
//!                  ^                                                     |
//!                  '------------------ at most BUFFERS_COUNT ------------'
//! finish: both digests right?  ->  fsync  ->  rename  ->  layers/blobs/<compressed> = diffID
//! ```
//!
//! Write-back runs along with the download, so the fsync finds little left. A layer that another process is taking
//! in is waited for, and then simply there.

mod pipe;

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::decompress::{Compression, DecompressError, Decompressor};
use crate::digest::Hasher;
use crate::ingest::pipe::{Pipe, PipeClosed};
use crate::store::crash::{self, Step};
use crate::store::fault::fault;
use crate::store::lock::{self, Mode};
use crate::store::publish::{Durability, Staged, publish};
use crate::store::{PullGuard, Store};
use crate::tar::Entry;
use crate::{Cancel, Digest, Error, Result};

/// How long another process may hold a layer without writing a byte of it before the wait is given up.
pub const STALL_WAIT: Duration = Duration::from_secs(120);

/// Bytes by which a blob's compression is told.
const DETECT_BYTES: usize = 4;

/// Which layer is taken in.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    /// The digest of the compressed blob, if the image names it; checked then.
    pub blob: Option<Digest>,
    /// The digest of the uncompressed tar, from the image config; always checked.
    pub diff_id: Digest,
    /// The layer as an error names it: "sha256:... of docker.io/library/nginx:latest".
    pub label: String,
}

/// How an ingest begins.
#[derive(Debug)]
pub enum Ingest {
    /// The layer is in the store already, perhaps since another process has just put it there.
    AlreadyThere {
        /// Bytes of its tar.
        tar_bytes: u64,
    },
    /// Its bytes are to be fed.
    Started(Box<LayerIngest>),
}

/// A layer that is now in the store.
#[derive(Debug)]
pub struct Ingested {
    /// The digest of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub tar_bytes: u64,
    /// Bytes of the compressed blob.
    pub blob_bytes: u64,
    /// The digest of the compressed blob.
    pub blob: Digest,
    /// What the tar holds, in its order.
    pub entries: Vec<Entry>,
}

/// A layer that is being taken in. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct LayerIngest {
    store: Store,
    guard: PullGuard,
    what: LayerSpec,
    /// Declared before `staged`: its thread must have ended when the staging file goes.
    pipe: Pipe,
    staged: Staged,
    blob_hasher: Hasher,
    blob_bytes: u64,
    head: Vec<u8>,
    decompressor: Option<Decompressor>,
}

impl Store {
    /// Begins to take a layer in. Blocks while another process (or thread) takes the same layer in.
    ///
    /// # Errors
    /// [`Error::Busy`] if that other one makes no progress for [`STALL_WAIT`], [`Error::Cancelled`],
    /// [`Error::Layer`] if the layers of this pull are too much together, and I/O errors.
    pub fn ingest(&self, guard: &PullGuard, what: LayerSpec) -> Result<Ingest> {
        let path = self.layout().staging().join(format!("layer-{}", what.diff_id.hex()));
        loop {
            if let Some(tar_bytes) = self.layer_bytes(&what.diff_id) {
                let counted = guard.budget().take_bytes(tar_bytes);
                counted
                    .map_err(|source| Error::Layer { label: what.label.clone(), source: Box::new(source) })?;
                return Ok(Ingest::AlreadyThere { tar_bytes });
            }
            let file = open_staging(&path)?;
            if !wait_for_layer(&file, &path, &what, guard.cancel())? {
                continue;
            }
            let staged = Staged::adopt(path.clone(), file);
            // The other process may have published it between our look and our lock.
            if self.has_layer(&what.diff_id) {
                continue;
            }
            let file = staged.as_file();
            file.set_len(0).map_err(|error| fault("truncate", &path, error))?;
            crash::reached(Step::LayerStaged);
            let written = file.try_clone().map_err(Error::io("duplicate the descriptor of", &path))?;
            let pipe = Pipe::start(guard, written, self.limits())?;
            return Ok(Ingest::Started(Box::new(LayerIngest {
                store: self.clone(),
                guard: guard.clone(),
                what,
                pipe,
                staged,
                blob_hasher: Hasher::new(),
                blob_bytes: 0,
                head: Vec::with_capacity(DETECT_BYTES),
                decompressor: None,
            })));
        }
    }
}

fn open_staging(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| fault("create", path, error))
}

/// Locks the layer's staging file, waiting as long as its holder makes progress. `false`: what was locked is not
/// the staging file any more, look again.
fn wait_for_layer(file: &File, path: &Path, what: &LayerSpec, cancel: &Cancel) -> Result<bool> {
    let mut last_bytes = 0;
    let mut last_progress = Instant::now();
    loop {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { what: format!("layer {}", what.label) });
        }
        if lock::try_lock(file, Mode::Exclusive).map_err(Error::io("lock", path))? {
            return Ok(lock::is_still_at(file, path));
        }
        let bytes = file.metadata().map_err(Error::io("look at", path))?.len();
        if bytes != last_bytes {
            last_bytes = bytes;
            last_progress = Instant::now();
        }
        if last_progress.elapsed() > STALL_WAIT {
            return Err(Error::Busy {
                what: format!("layer {}", what.label),
                path: path.to_owned(),
                waited_s: STALL_WAIT.as_secs(),
                hint: "its pull makes no progress: end that process, or wait and try again",
            });
        }
        std::thread::sleep(lock::POLL);
    }
}

/// Why feeding stopped.
enum FeedError {
    Decompress(DecompressError),
    Closed,
}

impl From<DecompressError> for FeedError {
    fn from(error: DecompressError) -> Self {
        Self::Decompress(error)
    }
}

impl From<PipeClosed> for FeedError {
    fn from(_: PipeClosed) -> Self {
        Self::Closed
    }
}

impl LayerIngest {
    /// Takes the next bytes of the blob, of any number. Blocks while the disk is slower than the network.
    ///
    /// # Errors
    /// [`Error::Layer`] for a corrupt or oversized blob or tar, [`Error::Cancelled`], [`Error::NoSpace`] and other
    /// I/O errors. Nothing of the layer is kept after one of them.
    pub fn feed(&mut self, compressed: &[u8]) -> Result<()> {
        if self.guard.cancel().is_cancelled() {
            return Err(Error::Cancelled { what: format!("layer {}", self.what.label) });
        }
        self.blob_hasher.update(compressed);
        self.blob_bytes += compressed.len() as u64;
        if self.decompressor.is_some() {
            return self.inflate(compressed);
        }
        let missing = DETECT_BYTES.saturating_sub(self.head.len()).min(compressed.len());
        self.head.extend_from_slice(&compressed[..missing]);
        if self.head.len() < DETECT_BYTES {
            return Ok(());
        }
        self.begin_inflating()?;
        self.inflate(&compressed[missing..])
    }

    /// Ends the blob: checks both digests and publishes the layer.
    ///
    /// # Errors
    /// Those of [`feed`](Self::feed), and [`Error::DigestMismatch`].
    pub fn finish(mut self) -> Result<Ingested> {
        if self.guard.cancel().is_cancelled() {
            return Err(Error::Cancelled { what: format!("layer {}", self.what.label) });
        }
        let blob = std::mem::take(&mut self.blob_hasher).finish();
        if let Some(expected) = self.what.blob
            && expected != blob
        {
            return Err(Error::DigestMismatch {
                what: format!("layer {}", self.what.label),
                expected,
                actual: blob,
            });
        }
        if self.decompressor.is_none() {
            self.begin_inflating()?;
        }
        if let Some(decompressor) = self.decompressor.take() {
            decompressor.finish().map_err(|error| self.refused(error))?;
        }
        let parsed = self.pipe.finish().map_err(|error| self.stage_error(error))?;
        if parsed.diff_id != self.what.diff_id {
            return Err(Error::DigestMismatch {
                what: format!("the uncompressed layer {}", self.what.label),
                expected: self.what.diff_id,
                actual: parsed.diff_id,
            });
        }
        crash::reached(Step::LayerVerified);
        let blob_bytes = self.blob_bytes;
        self.publish(&blob)?;
        Ok(Ingested {
            diff_id: parsed.diff_id,
            tar_bytes: parsed.tar_bytes,
            blob_bytes,
            blob,
            entries: parsed.entries,
        })
    }

    fn begin_inflating(&mut self) -> Result<()> {
        let kind = Compression::detect(&self.head);
        let decompressor =
            Decompressor::new(kind, self.store.limits()).map_err(|error| self.refused(error))?;
        self.decompressor = Some(decompressor);
        let head = std::mem::take(&mut self.head);
        self.inflate(&head)
    }

    fn inflate(&mut self, compressed: &[u8]) -> Result<()> {
        let Some(decompressor) = &mut self.decompressor else { return Ok(()) };
        let pipe = &mut self.pipe;
        let answer =
            decompressor.feed(compressed, &mut |bytes: &[u8]| pipe.push(bytes).map_err(FeedError::from));
        answer.map_err(|error| match error {
            FeedError::Decompress(error) => self.refused(error),
            FeedError::Closed => match self.pipe.finish() {
                Err(error) => self.stage_error(error),
                Ok(_) => self.refused(PipeClosed),
            },
        })
    }

    fn refused(&self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Layer { label: self.what.label.clone(), source: Box::new(source) }
    }

    fn stage_error(&self, error: pipe::StageError) -> Error {
        match error {
            pipe::StageError::Tar(source) => self.refused(source),
            pipe::StageError::Budget(source) => self.refused(source),
            pipe::StageError::Ended => self.refused(PipeClosed),
            pipe::StageError::Write { written_bytes, source } => {
                let needed = format!(", {written_bytes} bytes of layer {} were written", self.what.label);
                crate::store::fault::fault_needing("write layer to", self.staged.path(), source, needed)
            }
        }
    }

    /// Makes the layer durable, gives it its name, and notes which blob it came from.
    fn publish(self, blob: &Digest) -> Result<()> {
        let Self { store, guard, what, staged, pipe, .. } = self;
        drop(pipe);
        let path: PathBuf = staged.path().to_owned();
        staged.as_file().sync_data().map_err(|error| fault("fsync", &path, error))?;
        crash::reached(Step::LayerSynced);
        staged.rename_to(&store.layout().layer(&what.diff_id))?;
        let text = format!("{}\n", what.diff_id);
        let steps = (Step::LayerRenamed, Step::LayerMapped);
        publish(store.layout(), &store.layout().blob_map(blob), text.as_bytes(), Durability::Checked, steps)?;
        drop(guard);
        Ok(())
    }
}
