//! `oci:DIR` and `oci-archive:FILE`: an OCI image layout in a directory or in a tar.
//!
//! ```text
//! index.json            manifests, named by the annotation org.opencontainers.image.ref.name
//! oci-layout            {"imageLayoutVersion": "1.0.0"}
//! blobs/sha256/<hex>    indexes, manifests, configs, layers
//! ```
//!
//! OCI image-spec 1.1, image-layout.md. Blobs are found by digest only; no path in a document is ever followed.

use std::path::{Path, PathBuf};

use super::error::listed;
use super::section::{Section, open_regular};
use super::{Archive, Cancel, Sink, Source, SourceError, Stamp, Start, source_error, verify_document};
use crate::manifest::{self, Descriptor, Document};
use crate::{Limits, Result};

/// The annotation that names an image within a layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What containerd puts the full name in.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// An OCI image layout.
#[derive(Debug)]
pub struct OciLayout {
    path: PathBuf,
    tag: Option<String>,
    limits: Limits,
    cancel: Cancel,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Directory,
    Archive(Archive),
}

impl OciLayout {
    /// The layout in the directory `dir`.
    pub fn directory(dir: &Path, tag: Option<&str>, limits: &Limits, cancel: &Cancel) -> Self {
        Self {
            path: dir.to_owned(),
            tag: tag.map(str::to_owned),
            limits: limits.clone(),
            cancel: cancel.clone(),
            place: Place::Directory,
        }
    }

    /// The layout in the tar `file`.
    ///
    /// # Errors
    /// When the tar cannot be read.
    pub fn archive(file: &Path, tag: Option<&str>, limits: &Limits, cancel: &Cancel) -> Result<Self> {
        let place = Place::Archive(Archive::open(file, limits, cancel)?);
        Ok(Self { place, ..Self::directory(file, tag, limits, cancel) })
    }

    fn section(&self, name: &str) -> Result<Section> {
        let found = match &self.place {
            Place::Directory => open_regular(&self.path.join(name))?,
            Place::Archive(archive) => archive.section(name)?,
        };
        found.ok_or_else(|| {
            source_error(&self.path, SourceError::Missing(name.to_owned(), "an OCI image layout"))
        })
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Section> {
        let name = format!("blobs/sha256/{}", descriptor.digest.hex());
        let section = self.section(&name)?;
        if section.bytes != descriptor.size_bytes {
            let reason = SourceError::Length { name, expected: descriptor.size_bytes, actual: section.bytes };
            return Err(source_error(&self.path, reason));
        }
        Ok(section)
    }

    /// The manifests that the tag means; without a tag, all of them if they have one name at most.
    fn named(&self, manifests: Vec<Descriptor>) -> Result<Vec<Descriptor>, SourceError> {
        let names = |manifest: &Descriptor| {
            [REF_NAME, CONTAINERD_NAME].map(|key| manifest.annotations.get(key).cloned())
        };
        let mut available: Vec<String> =
            manifests.iter().filter_map(|manifest| names(manifest)[0].clone()).collect();
        available.sort();
        available.dedup();
        let Some(wanted) = &self.tag else {
            if available.len() > 1 {
                return Err(SourceError::Ambiguous { available: listed(available.into_iter()) });
            }
            return Ok(manifests);
        };
        let is_wanted = |manifest: &Descriptor| names(manifest).iter().flatten().any(|name| name == wanted);
        let chosen: Vec<Descriptor> = manifests.into_iter().filter(is_wanted).collect();
        if chosen.is_empty() {
            let available = listed(available.into_iter());
            return Err(SourceError::UnknownTag { wanted: wanted.clone(), available });
        }
        Ok(chosen)
    }
}

impl Source for OciLayout {
    fn start(&self) -> Result<Start> {
        let bytes =
            self.section("index.json")?.read_all(&self.path, "index.json", self.limits.manifest_bytes)?;
        let failed = |reason| source_error(&self.path, reason);
        match manifest::parse(&bytes, None, &self.limits).map_err(|error| failed(error.into()))? {
            Document::Index(manifests) => self.named(manifests).map(Start::Index).map_err(failed),
            Document::Image(_) => {
                Err(failed(SourceError::Shape("index.json is a manifest, not an index".into())))
            }
        }
    }

    fn document(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
        let bytes = self.blob(descriptor)?.read_all(&self.path, what, self.limits.manifest_bytes)?;
        verify_document(&bytes, descriptor, what)?;
        Ok(bytes)
    }

    fn layer(&self, blob: &Descriptor, _place: usize, sink: Sink<'_>) -> Result<()> {
        self.blob(blob)?.push(&self.path, &self.cancel, sink)
    }

    fn stamp(&self) -> Option<&Stamp> {
        match &self.place {
            Place::Directory => None,
            Place::Archive(archive) => Some(archive.stamp()),
        }
    }
}
