//! Fetching again what `verify` found broken.

use std::sync::Arc;

use crate::ingest::LayerSpec;
use crate::manifest::Descriptor;
use crate::progress::{Progress, Silent};
use crate::pull::{self, PullOptions, fetch, layers};
use crate::reference::Reference;
use crate::store::{Heal, ImageRecord, LayerRecord, PullGuard, Store};
use crate::transport::{Cancel, Source};
use crate::{Digest, Result};

/// Heals from the place that the image was pulled from.
#[derive(Debug, Clone)]
pub struct Refetch {
    options: PullOptions,
    cancel: Cancel,
}

impl Refetch {
    /// Reaches registries as `options` say.
    pub fn new(options: PullOptions) -> Self {
        Self { options, cancel: Cancel::new() }
    }

    /// Stops with `cancel`.
    #[must_use]
    pub fn with_cancel(self, cancel: &Cancel) -> Self {
        Self { cancel: cancel.clone(), ..self }
    }

    /// The registry the image came from, without asking it what the tag means now.
    fn registry(&self, store: &Store, image: &ImageRecord) -> Result<Option<Box<dyn Source>>> {
        match image.reference.parse::<Reference>() {
            Ok(reference @ Reference::Registry(_)) => {
                let progress: Arc<dyn Progress> = Arc::new(Silent);
                pull::open(&reference, &self.options, store, &progress, &self.cancel).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The image's source, and what of it is at the source now; none if that is another image by now.
    fn source(
        &self,
        store: &Store,
        image: &ImageRecord,
    ) -> Result<Option<(Box<dyn Source>, fetch::Resolved)>> {
        let Ok(reference) = image.reference.parse::<Reference>() else { return Ok(None) };
        let mut options = self.options.clone();
        if let Ok(platform) = image.platform.parse() {
            options.platform = platform;
        }
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        let source = pull::open(&reference, &options, store, &progress, &self.cancel)?;
        let found = fetch::manifest(source.as_ref(), &reference, &options, store.limits())?;
        if found.digest != image.manifest {
            return Ok(None);
        }
        let found = fetch::with_config(source.as_ref(), &reference, &options, store.limits(), found)?;
        Ok(Some((source, found)))
    }
}

impl Heal for Refetch {
    fn fetch_layer(
        &self,
        store: &Store,
        guard: &PullGuard,
        image: &ImageRecord,
        layer: usize,
    ) -> Result<bool> {
        let Some(record) = image.layers.get(layer) else { return Ok(false) };
        let (source, blob) = match self.source(store, image)? {
            Some((source, found)) => {
                let same = found.layers.into_iter().find(|layer| layer.diff_id == record.diff_id);
                let Some(same) = same else { return Ok(false) };
                (source, same.blob)
            }
            // The tag has moved on; a registry keeps the blobs of images that were pushed to it.
            None => match (self.registry(store, image)?, record.blob) {
                (Some(source), Some(digest)) => (source, descriptor(record, digest)),
                _ => return Ok(false),
            },
        };
        let named = source.names_blobs().then_some(blob.digest);
        let label = format!("{} of {}", blob.digest, image.reference);
        let spec = LayerSpec { blob: named, diff_id: record.diff_id, label };
        let guard = guard.for_another_image(store.limits());
        layers::from_any_place(store, &guard, source.as_ref(), &blob, &spec, &Silent).map(|_| true)
    }

    fn fetch_blob(
        &self,
        store: &Store,
        guard: &PullGuard,
        image: &ImageRecord,
        blob: &Digest,
    ) -> Result<bool> {
        let Some((_, found)) = self.source(store, image)? else { return Ok(false) };
        for bytes in [&found.manifest_bytes, &found.config_bytes] {
            if Digest::of(bytes) == *blob {
                return store.put_blob(guard, bytes).map(|_| true);
            }
        }
        Ok(false)
    }
}

fn descriptor(layer: &LayerRecord, digest: Digest) -> Descriptor {
    Descriptor {
        media_type: layer.media_type.clone(),
        digest,
        size_bytes: layer.blob_bytes,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    }
}
