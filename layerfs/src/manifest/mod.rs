//! Manifests, indexes and configs: from hostile bytes to checked values. No I/O.
//!
//! ```text
//! index (OCI image index, Docker manifest list) -- choose by platform --> manifest --> config  (rootfs.diff_ids)
//!    nested at most INDEX_DEPTH_MAX deep                                      \------> layers  (compressed blobs)
//! ```
//!
//! Sources: OCI image-spec 1.1 (descriptor.md, image-index.md, manifest.md, config.md) and Docker's
//! "Image Manifest Version 2, Schema 2". A document that can be read as both an index and a manifest is refused
//! (CVE-2021-41190), and so is one whose declared and written media types contradict each other.

mod choose;
mod config;
mod error;
mod image;
pub mod media_type;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use choose::choose;
pub use config::ImageConfig;
pub use error::ManifestError;
pub use image::{Image, Layer};

use crate::platform::Platform;
use crate::{Digest, Limits};

/// Indexes in indexes that are followed. One is usual; nested ones are allowed by the image-spec and rare.
pub const INDEX_DEPTH_MAX: usize = 4;

/// What points at a blob or at another document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What the bytes are said to be; empty where a descriptor says nothing.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// How many bytes there are.
    pub size_bytes: u64,
    /// What the manifest is for, in an index that says so.
    pub platform: Option<Platform>,
    /// Free-form notes, `org.opencontainers.image.ref.name` among them.
    pub annotations: BTreeMap<String, String>,
}

/// A parsed document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Several manifests to choose from.
    Index(Vec<Descriptor>),
    /// One image.
    Image(Image),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: Option<i64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Option<Vec<RawDescriptor>>,
    #[serde(default, rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl RawDescriptor {
    pub(crate) fn check(self, what: &str) -> Result<Descriptor, ManifestError> {
        let digest =
            self.digest.parse().map_err(|source| ManifestError::Digest { what: what.to_owned(), source })?;
        let size_bytes = u64::try_from(self.size).map_err(|_| {
            ManifestError::Shape(format!("{what} {digest} has the negative size {}", self.size))
        })?;
        let platform = self
            .platform
            .filter(|platform| !(platform.os.is_empty() && platform.architecture.is_empty()))
            .map(|platform| Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref()));
        Ok(Descriptor {
            media_type: self.media_type,
            digest,
            size_bytes,
            platform,
            annotations: self.annotations.unwrap_or_default(),
        })
    }
}

/// Parses an index or a manifest. `declared` is what the registry's Content-Type or the parent's descriptor said.
///
/// # Errors
/// When the document is too long, is not one of the supported kinds, contradicts itself, or has a layer that
/// cannot be read. Nothing is fetched for a document that fails here.
pub fn parse(bytes: &[u8], declared: Option<&str>, limits: &Limits) -> Result<Document, ManifestError> {
    if bytes.len() as u64 > limits.manifest_bytes {
        return Err(ManifestError::TooLong { bytes: bytes.len() as u64, limit: limits.manifest_bytes });
    }
    let declared = declared.map(media_type::essence).filter(|declared| media_type::is_document(declared));
    if declared.is_some_and(media_type::is_schema_1) {
        return Err(ManifestError::Schema1);
    }
    let raw: RawDocument =
        serde_json::from_slice(bytes).map_err(|source| ManifestError::Json { what: "manifest", source })?;
    if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
        return Err(ManifestError::Schema1);
    }
    if raw.schema_version != Some(2) {
        let version = raw.schema_version.map_or("none".to_owned(), |version| version.to_string());
        return Err(ManifestError::Shape(format!("schemaVersion is {version}, not 2")));
    }
    let is_index = kind(&raw, declared)?;
    if is_index {
        let manifests = raw.manifests.unwrap_or_default();
        return manifests
            .into_iter()
            .map(|raw| raw.check("manifest"))
            .collect::<Result<_, _>>()
            .map(Document::Index);
    }
    let config = raw.config.ok_or_else(|| ManifestError::Shape("a manifest without a config".into()))?;
    Image::check(config, raw.layers.unwrap_or_default(), limits).map(Document::Image)
}

/// Whether the document is an index; an error where its signs disagree.
fn kind(raw: &RawDocument, declared: Option<&str>) -> Result<bool, ManifestError> {
    let looks_like_index = raw.manifests.is_some();
    let looks_like_image = raw.layers.is_some() || raw.config.is_some();
    if looks_like_index && looks_like_image {
        return Err(ManifestError::Shape("it is an index and a manifest at once".into()));
    }
    if !looks_like_index && !looks_like_image {
        return Err(ManifestError::Shape("it has neither manifests nor a config with layers".into()));
    }
    for named in [raw.media_type.as_deref(), declared].into_iter().flatten() {
        if media_type::is_schema_1(named) {
            return Err(ManifestError::Schema1);
        }
        if !media_type::is_document(named) {
            return Err(ManifestError::UnknownDocument(named.chars().take(128).collect()));
        }
        if media_type::is_index(named) != looks_like_index {
            let shape = if looks_like_index { "an index" } else { "a manifest" };
            return Err(ManifestError::Shape(format!("it is called {named} and has the shape of {shape}")));
        }
    }
    Ok(looks_like_index)
}

#[cfg(test)]
mod tests;
