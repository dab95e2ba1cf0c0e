//! Images that are there: the way of every second run. No thread, no socket, no layer is touched.

use crate::manifest::{self, Document, ImageConfig};
use crate::platform::Platform;
use crate::pull::{PullOptions, fetch};
use crate::reference::Reference;
use crate::store::{ImageRecord, PullGuard, Store};
use crate::transport::{Cancel, OciLayout, Source as _, Stamp, Start};
use crate::{Digest, Error, Result};

/// The image, if it is in the store and whole.
///
/// A registry's image is what its name meant when it was pulled last. A layout is looked at: its index says which
/// manifest its tag means now. An archive is not read as long as its file is the same.
///
/// # Errors
/// A damaged record, a path that leads nowhere, or a layout that cannot be read.
pub fn resolve_local(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
) -> Result<Option<ImageRecord>> {
    let platform = &options.platform;
    let found = match reference {
        Reference::Registry(name) => {
            let by_name = store.image(&reference.to_string(), &platform.to_string())?;
            match (by_name, name.digest()) {
                (None, Some(digest)) => {
                    store.image_by_manifest(&digest)?.filter(|record| suits(record, platform))
                }
                (by_name, _) => by_name,
            }
        }
        Reference::OciLayout { .. } => in_layout(store, reference, options)?,
        Reference::OciArchive { file, .. } | Reference::DockerArchive { file, .. } => {
            let stamp = Stamp::of(file).map_err(Error::io("open", file))?;
            let record = store.image(&store_name(reference)?, &platform.to_string())?;
            match record {
                Some(record) if store.blob(&note(&stamp, &record).1)?.is_some() => Some(record),
                _ => None,
            }
        }
    };
    Ok(found.filter(|record| store.is_whole(record)))
}

/// The name of `reference` in the store.
pub(super) fn store_name(reference: &Reference) -> Result<String> {
    reference.store_name().map_err(Error::io("find the directory of", reference.to_string()))
}

/// Keeps in the store that the archive in this state means this image. A small blob that nobody refers to: gc
/// drops it, and the archive's headers are read once more.
pub(super) fn remember(
    store: &Store,
    guard: &PullGuard,
    stamp: Option<&Stamp>,
    record: &ImageRecord,
) -> Result<()> {
    match stamp {
        Some(stamp) => store.put_blob(guard, note(stamp, record).0.as_bytes()).map(drop),
        None => Ok(()),
    }
}

fn note(stamp: &Stamp, record: &ImageRecord) -> (String, Digest) {
    let text = format!("celda: archive {stamp} is {}\n", record.manifest);
    let digest = Digest::of(text.as_bytes());
    (text, digest)
}

/// Whether the image of `record` runs where `platform` does.
pub(super) fn suits(record: &ImageRecord, platform: &Platform) -> bool {
    record.platform.parse::<Platform>().is_ok_and(|of| platform.runs(&of))
}

fn in_layout(store: &Store, reference: &Reference, options: &PullOptions) -> Result<Option<ImageRecord>> {
    let Reference::OciLayout { dir, tag } = reference else { return Ok(None) };
    let layout = OciLayout::directory(dir, tag.as_deref(), store.limits(), &Cancel::new());
    let mut start = layout.start()?;
    let failed = |source| fetch::manifest_error(reference, source);
    for _ in 0..manifest::INDEX_DEPTH_MAX {
        let Start::Index(manifests) = start else { return Ok(None) };
        let chosen = manifest::choose(&manifests, &options.platform).map_err(failed)?;
        if let Some(record) = store.image_by_manifest(&chosen.digest)? {
            return Ok(Some(record).filter(|record| suits(record, &options.platform)));
        }
        if !manifest::media_type::is_index(&chosen.media_type) {
            return Ok(None);
        }
        let bytes = layout.document(chosen, "index")?;
        match manifest::parse(&bytes, Some(&chosen.media_type), store.limits()).map_err(failed)? {
            Document::Index(manifests) => start = Start::Index(manifests),
            Document::Image(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// The platform that an image is for, by its config, or the wanted one where the config does not say.
pub(super) fn platform_of(config: &ImageConfig, wanted: &Platform) -> Platform {
    config.platform.clone().unwrap_or_else(|| wanted.clone())
}
