//! The documents of an image: fetched, checked, and at the end published.

use std::collections::HashMap;

use super::local::{platform_of, store_name, suits};
use crate::manifest::{self, Descriptor, Document, ImageConfig, Layer, ManifestError};
use crate::platform::Platform;
use crate::pull::PullOptions;
use crate::pull::layers::Taken;
use crate::reference::Reference;
use crate::store::{ImageRecord, LayerRecord, PullGuard, Store};
use crate::transport::{Source, Start};
use crate::{Digest, Error, Limits, Result};

/// An image whose layers can be fetched.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) manifest: Digest,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) config: Digest,
    pub(super) config_bytes: Vec<u8>,
    pub(super) platform: Platform,
    pub(super) layers: Vec<Layer>,
}

pub(super) fn manifest_error(reference: &Reference, source: ManifestError) -> Error {
    Error::Manifest { image: reference.to_string(), source: Box::new(source) }
}

/// The manifest of an image, whose config was not looked at yet.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) digest: Digest,
    bytes: Vec<u8>,
    image: manifest::Image,
}

/// Follows the name through indexes to one manifest.
pub(super) fn manifest(
    source: &dyn Source,
    reference: &Reference,
    options: &PullOptions,
    limits: &Limits,
) -> Result<Found> {
    let failed = |source| manifest_error(reference, source);
    let mut document = match source.start()? {
        Start::Document(fetched) => {
            let parsed =
                manifest::parse(&fetched.bytes, fetched.media_type.as_deref(), limits).map_err(failed)?;
            (parsed, fetched.digest, fetched.bytes)
        }
        Start::Index(manifests) => (Document::Index(manifests), Digest::of(b""), Vec::new()),
    };
    for _ in 0..=manifest::INDEX_DEPTH_MAX {
        match document {
            (Document::Image(image), digest, bytes) => return Ok(Found { digest, bytes, image }),
            (Document::Index(manifests), ..) => {
                let chosen = manifest::choose(&manifests, &options.platform).map_err(failed)?;
                document = follow(source, reference, chosen, limits)?;
            }
        }
    }
    Err(failed(ManifestError::TooDeep(manifest::INDEX_DEPTH_MAX)))
}

fn follow(
    source: &dyn Source,
    reference: &Reference,
    chosen: &Descriptor,
    limits: &Limits,
) -> Result<(Document, Digest, Vec<u8>)> {
    let what = format!("manifest {} of {reference}", chosen.digest);
    let bytes = source.document(chosen, &what)?;
    let parsed = manifest::parse(&bytes, Some(&chosen.media_type), limits);
    Ok((parsed.map_err(|source| manifest_error(reference, source))?, chosen.digest, bytes))
}

/// Fetches the config and holds it against the manifest and the wanted platform.
pub(super) fn with_config(
    source: &dyn Source,
    reference: &Reference,
    options: &PullOptions,
    limits: &Limits,
    found: Found,
) -> Result<Resolved> {
    let failed = |source| manifest_error(reference, source);
    let Found { digest: manifest, bytes: manifest_bytes, image } = found;
    let config_bytes = source.document(&image.config, &format!("config of {reference}"))?;
    let config = ImageConfig::parse(&config_bytes, limits).map_err(failed)?;
    let platform = platform_of(&config, &options.platform);
    if !options.platform.runs(&platform) {
        let available = platform.to_string();
        return Err(failed(ManifestError::NoPlatform { wanted: options.platform.clone(), available }));
    }
    let layers = image.layers(&config).map_err(failed)?;
    Ok(Resolved { manifest, manifest_bytes, config: image.config.digest, config_bytes, platform, layers })
}

/// The image under this name, if all of it is in the store already; names it if only the name was missing.
pub(super) fn present(
    store: &Store,
    guard: &PullGuard,
    reference: &Reference,
    options: &PullOptions,
    found: &Found,
) -> Result<Option<ImageRecord>> {
    // A damaged record is pulled over rather than stumbled upon.
    let Ok(Some(record)) = store.image_by_manifest(&found.digest) else { return Ok(None) };
    let documents = [&found.digest, &found.image.config.digest];
    let has_documents = documents.iter().all(|digest| matches!(store.blob(digest), Ok(Some(_))));
    if !has_documents || !store.is_whole(&record) || !suits(&record, &options.platform) {
        return Ok(None);
    }
    name(store, guard, reference, options, record).map(Some)
}

fn name(
    store: &Store,
    guard: &PullGuard,
    reference: &Reference,
    options: &PullOptions,
    mut record: ImageRecord,
) -> Result<ImageRecord> {
    record.reference = store_name(reference)?;
    store.put_image(guard, &record.reference, &options.platform.to_string(), &record)?;
    Ok(record)
}

/// Builds what the image is mounted from and publishes documents, record and name, in this order.
pub(super) fn publish(
    store: &Store,
    guard: &PullGuard,
    reference: &Reference,
    options: &PullOptions,
    image: &Resolved,
    taken: HashMap<Digest, Taken>,
) -> Result<ImageRecord> {
    let chain: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
    let mut fresh = HashMap::new();
    let mut layers = HashMap::new();
    for (diff_id, taken) in taken {
        layers.insert(diff_id, (taken.blob, taken.blob_bytes, taken.tar_bytes));
        if let Some(entries) = taken.entries {
            fresh.insert(diff_id, entries);
        }
    }
    let chain_id = store.build_index(guard, &chain, fresh)?;
    store.put_blob(guard, &image.manifest_bytes)?;
    store.put_blob(guard, &image.config_bytes)?;
    let config_json = serde_json::from_slice(&image.config_bytes)
        .map_err(|source| manifest_error(reference, ManifestError::Json { what: "image config", source }))?;
    let layers = image.layers.iter().map(|layer| {
        let (blob, blob_bytes, tar_bytes) = layers.get(&layer.diff_id).copied().unwrap_or_default();
        let media_type = layer.blob.media_type.clone();
        LayerRecord { blob, blob_bytes, media_type, diff_id: layer.diff_id, tar_bytes }
    });
    let record = ImageRecord {
        manifest: image.manifest,
        config: image.config,
        config_json,
        platform: image.platform.to_string(),
        chain_id,
        layers: layers.collect(),
        reference: String::new(),
    };
    name(store, guard, reference, options, record)
}
