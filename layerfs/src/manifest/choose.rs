//! Which manifest of an index this machine runs.

use super::{Descriptor, ManifestError, media_type};
use crate::platform::Platform;

/// Platforms that an error lists before it says "and others".
const LISTED_COUNT_MAX: usize = 16;

/// The manifest for `wanted`: the best variant, and of equals the first (OCI image-spec 1.1, image-index.md).
///
/// Attestations (`unknown/unknown`) are never chosen. Manifests without a platform are, when they are the only
/// ones there are: their config will say what they are for.
///
/// # Errors
/// [`ManifestError::NoPlatform`] with what there is.
pub fn choose<'a>(manifests: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor, ManifestError> {
    let images = || manifests.iter().filter(|manifest| is_image(manifest));
    let ranked = images().filter_map(|manifest| Some((wanted.rank(manifest.platform.as_ref()?)?, manifest)));
    // `min_by_key` answers the first of equals.
    if let Some((_, best)) = ranked.min_by_key(|(rank, _)| *rank) {
        return Ok(best);
    }
    if let Some(unnamed) = images().find(|manifest| manifest.platform.is_none()) {
        return Ok(unnamed);
    }
    let mut names: Vec<String> =
        images().filter_map(|manifest| Some(manifest.platform.as_ref()?.to_string())).collect();
    names.dedup();
    if names.len() > LISTED_COUNT_MAX {
        names.truncate(LISTED_COUNT_MAX);
        names.push("others".to_owned());
    }
    let available =
        if names.is_empty() { "nothing: the index is empty".to_owned() } else { names.join(", ") };
    Err(ManifestError::NoPlatform { wanted: wanted.clone(), available })
}

fn is_image(manifest: &Descriptor) -> bool {
    let attestation = manifest
        .annotations
        .get("vnd.docker.reference.type")
        .is_some_and(|kind| kind == "attestation-manifest");
    let unknown = manifest
        .platform
        .as_ref()
        .is_some_and(|platform| platform.os == "unknown" || platform.architecture == "unknown");
    media_type::is_document(&manifest.media_type) && !attestation && !unknown
}
