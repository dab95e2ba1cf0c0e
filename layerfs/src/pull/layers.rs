//! The layers of an image, taken in side by side.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Cancel;
use crate::ingest::{Ingest, Ingested, LayerSpec};
use crate::manifest::{Descriptor, Layer};
use crate::progress::{Event, Progress};
use crate::pull::PullOptions;
use crate::pull::fetch::Resolved;
use crate::reference::Reference;
use crate::store::{PullGuard, Store};
use crate::tar::Entry;
use crate::transport::Source;
use crate::{Digest, Error, Result};

/// Compressed bytes between two reports of progress.
const REPORT_EVERY_BYTES: u64 = 512 << 10;

/// A layer that is in the store.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) blob: Option<Digest>,
    pub(super) blob_bytes: u64,
    pub(super) tar_bytes: u64,
    /// Those of a layer that was not there before.
    pub(super) entries: Option<Vec<Entry>>,
}

/// What the workers share.
struct Work<'a> {
    store: &'a Store,
    guard: &'a PullGuard,
    source: &'a dyn Source,
    reference: &'a Reference,
    progress: &'a dyn Progress,
    stop: &'a Cancel,
    waiting: Mutex<VecDeque<&'a Layer>>,
    taken: Mutex<HashMap<Digest, Taken>>,
    failed: Mutex<Option<Error>>,
}

/// Takes in each layer that is not there, by at most as many threads as the options say. Ends with the guard's cancel,
/// which the first layer that fails calls.
pub(super) fn take_in(
    store: &Store,
    guard: &PullGuard,
    source: &dyn Source,
    reference: &Reference,
    image: &Resolved,
    options: &PullOptions,
    progress: &Arc<dyn Progress>,
) -> Result<HashMap<Digest, Taken>> {
    let mut seen = HashSet::new();
    // A layer may come several times in a chain; it is fetched once.
    let waiting: VecDeque<&Layer> = image.layers.iter().filter(|layer| seen.insert(layer.diff_id)).collect();
    let workers_count = options.workers().min(waiting.len());
    let work = Work {
        store,
        guard,
        source,
        reference,
        progress: progress.as_ref(),
        stop: guard.cancel(),
        waiting: Mutex::new(waiting),
        taken: Mutex::default(),
        failed: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers_count).map(|_| scope.spawn(|| work.run())).collect();
        let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>();
        if let Some(panic) = joined.into_iter().find_map(std::result::Result::err) {
            std::panic::resume_unwind(panic);
        }
    });
    match work.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(work.taken.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

impl Work<'_> {
    fn run(&self) {
        while !self.stop.is_cancelled() {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(layer) = next else { return };
            match self.take(layer) {
                Ok(taken) => {
                    self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.diff_id, taken);
                }
                Err(error) => {
                    // Only the first failure is the reason; the later ones are its consequences.
                    self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    self.stop.cancel();
                }
            }
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert_with(|| Error::Cancelled { what: format!("pull of {}", self.reference) });
    }

    fn take(&self, layer: &Layer) -> Result<Taken> {
        let digest = layer.blob.digest;
        let (taken, event) = match fetch_layer(self, layer)? {
            (taken, true) => (taken, Event::LayerDone(digest)),
            (taken, false) => (taken, Event::LayerPresent(digest)),
        };
        self.progress.event(event);
        Ok(taken)
    }
}

/// Takes one layer in; the second value tells whether it had to be fetched.
fn fetch_layer(work: &Work<'_>, layer: &Layer) -> Result<(Taken, bool)> {
    let blob = work.source.names_blobs().then_some(layer.blob.digest);
    let label = format!("{} of {}", layer.blob.digest, work.reference);
    let spec = LayerSpec { blob, diff_id: layer.diff_id, label };
    let there = from_any_place(work.store, work.guard, work.source, &layer.blob, &spec, work.progress)?;
    Ok(match there {
        There::Before { tar_bytes } => {
            (Taken { blob, blob_bytes: layer.blob.size_bytes, tar_bytes, entries: None }, false)
        }
        There::Now(done) => {
            let (blob_bytes, tar_bytes) = (done.blob_bytes, done.tar_bytes);
            (Taken { blob, blob_bytes, tar_bytes, entries: Some(done.entries) }, true)
        }
    })
}

/// A layer that is in the store.
pub(super) enum There {
    Before { tar_bytes: u64 },
    Now(Ingested),
}

/// Takes a layer in from the first place of the source that gives its right bytes. What a place has given before it
/// failed is dropped: only the digest of the whole tells which bytes were right.
pub(super) fn from_any_place(
    store: &Store,
    guard: &PullGuard,
    source: &dyn Source,
    blob: &Descriptor,
    spec: &LayerSpec,
    progress: &dyn Progress,
) -> Result<There> {
    let count = source.places_count().max(1);
    let mut place = 0;
    loop {
        let error = match from_place(store, guard, (source, place), blob, spec, progress) {
            Ok(there) => return Ok(there),
            Err(error) => error,
        };
        place += 1;
        if place >= count || guard.cancel().is_cancelled() || !is_of_the_place(&error) {
            return Err(error);
        }
        tracing::warn!(%error, "asking the next one");
        let attempt = u32::try_from(place).unwrap_or(u32::MAX);
        progress.event(Event::LayerRetry { layer: blob.digest, attempt, reason: error.to_string() });
    }
}

/// Whether another place may do better.
fn is_of_the_place(error: &Error) -> bool {
    match error {
        Error::DigestMismatch { .. } | Error::Layer { .. } => true,
        #[cfg(feature = "registry")]
        Error::Registry(_) => true,
        _ => false,
    }
}

fn from_place(
    store: &Store,
    guard: &PullGuard,
    (source, place): (&dyn Source, usize),
    blob: &Descriptor,
    spec: &LayerSpec,
    progress: &dyn Progress,
) -> Result<There> {
    let mut ingest = match store.ingest(guard, spec.clone())? {
        Ingest::AlreadyThere { tar_bytes } => return Ok(There::Before { tar_bytes }),
        Ingest::Started(ingest) => ingest,
    };
    let (mut bytes, mut reported) = (0, 0);
    let report =
        |bytes| progress.event(Event::LayerProgress { layer: blob.digest, bytes, total: blob.size_bytes });
    source.layer(blob, place, &mut |chunk| {
        ingest.feed(chunk)?;
        bytes += chunk.len() as u64;
        if bytes - reported >= REPORT_EVERY_BYTES {
            reported = bytes;
            report(bytes);
        }
        Ok(())
    })?;
    report(bytes);
    ingest.finish().map(There::Now)
}
