//! `docker-archive:FILE`: what `docker save` writes.
//!
//! ```text
//! manifest.json   [{"Config": "<hex>.json", "RepoTags": ["nginx:1"], "Layers": ["<id>/layer.tar", ...]}]
//! <hex>.json      the image config
//! <id>/layer.tar  a layer, plain or compressed, or a link to another's
//! ```
//!
//! Docker's "Docker Image Specification v1.2". There is no manifest to take a digest of, so one is written from
//! the config and the diffIDs: the same image gives the same digest, whoever saved it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use super::error::listed;
use super::{
    Archive, Cancel, Fetched, Sink, Source, SourceError, Stamp, Start, source_error, verify_document,
};
use crate::manifest::{Descriptor, ImageConfig, media_type};
use crate::reference::RegistryReference;
use crate::{Digest, Error, Limits, Result};

/// An archive of Docker images.
#[derive(Debug)]
pub struct DockerArchive {
    path: PathBuf,
    tag: Option<String>,
    limits: Limits,
    cancel: Cancel,
    archive: Archive,
    image: OnceLock<Chosen>,
}

#[derive(Debug)]
struct Chosen {
    config: Vec<u8>,
    members: HashMap<Digest, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl DockerArchive {
    /// The archive at `file`.
    ///
    /// # Errors
    /// When the tar cannot be read.
    pub fn open(file: &Path, tag: Option<&str>, limits: &Limits, cancel: &Cancel) -> Result<Self> {
        Ok(Self {
            path: file.to_owned(),
            tag: tag.map(str::to_owned),
            limits: limits.clone(),
            cancel: cancel.clone(),
            archive: Archive::open(file, limits, cancel)?,
            image: OnceLock::new(),
        })
    }

    fn failed(&self, reason: SourceError) -> Error {
        source_error(&self.path, reason)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let missing = || self.failed(SourceError::Missing(name.to_owned(), "what `docker save` wrote"));
        self.archive.section(name)?.ok_or_else(missing)?.read_all(
            &self.path,
            name,
            self.limits.manifest_bytes,
        )
    }

    fn manifest(&self, saved: &Saved) -> Result<Fetched> {
        let config = self.read(&saved.config)?;
        let parsed = ImageConfig::parse(&config, &self.limits).map_err(|source| Error::Manifest {
            image: self.path.display().to_string(),
            source: Box::new(source),
        })?;
        let layers = saved.layers.as_deref().unwrap_or_default();
        if layers.len() != parsed.diff_ids.len() {
            let (has, wants) = (layers.len(), parsed.diff_ids.len());
            let reason = format!("manifest.json lists {has} layers, the config's rootfs.diff_ids {wants}");
            return Err(self.failed(SourceError::Shape(reason)));
        }
        let mut members = HashMap::new();
        let mut listed = Vec::with_capacity(layers.len());
        for (name, diff_id) in layers.iter().zip(&parsed.diff_ids) {
            let missing = || self.failed(SourceError::Missing(name.clone(), "a whole archive"));
            let section = self.archive.section(name)?.ok_or_else(missing)?;
            listed.push(serde_json::json!({
                "mediaType": media_type::OCI_LAYER, "digest": diff_id, "size": section.bytes,
            }));
            members.insert(*diff_id, name.clone());
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": {"mediaType": media_type::OCI_CONFIG, "digest": Digest::of(&config), "size": config.len()},
            "layers": listed,
        });
        let bytes = manifest.to_string().into_bytes();
        // A second `start` finds the same image, so the first one's stays.
        let _ = self.image.set(Chosen { config, members });
        let media_type = Some(media_type::OCI_MANIFEST.to_owned());
        Ok(Fetched { digest: Digest::of(&bytes), bytes, media_type })
    }
}

impl Source for DockerArchive {
    fn start(&self) -> Result<Start> {
        let text = self.read("manifest.json")?;
        let images: Vec<Saved> = serde_json::from_slice(&text)
            .map_err(|source| self.failed(SourceError::Json { name: "manifest.json", source }))?;
        let saved = choose(&images, self.tag.as_deref()).map_err(|reason| self.failed(reason))?;
        self.manifest(saved).map(Start::Document)
    }

    fn document(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
        let config = self.image.get().map(|image| image.config.clone()).unwrap_or_default();
        verify_document(&config, descriptor, what)?;
        Ok(config)
    }

    fn layer(&self, blob: &Descriptor, _place: usize, sink: Sink<'_>) -> Result<()> {
        let missing =
            || self.failed(SourceError::Missing(blob.digest.to_string(), "the same archive as before"));
        let name = self.image.get().and_then(|image| image.members.get(&blob.digest)).ok_or_else(missing)?;
        let section = self.archive.section(name)?.ok_or_else(missing)?;
        section.push(&self.path, &self.cancel, sink)
    }

    fn names_blobs(&self) -> bool {
        false
    }

    fn stamp(&self) -> Option<&Stamp> {
        Some(self.archive.stamp())
    }
}

/// The image that `tag` means: `@N`, or one of its names, compared as references are ("nginx" is "nginx:latest").
fn choose<'a>(images: &'a [Saved], tag: Option<&str>) -> Result<&'a Saved, SourceError> {
    let tags = |image: &'a Saved| image.repo_tags.iter().flatten();
    let available = || listed(images.iter().flat_map(tags).cloned());
    match tag {
        None => match images {
            [only] => Ok(only),
            [] => Err(SourceError::Shape("manifest.json lists no image".into())),
            _ => Err(SourceError::Ambiguous { available: available() }),
        },
        Some(tag) => {
            let unknown = || SourceError::UnknownTag { wanted: tag.to_owned(), available: available() };
            if let Some(number) = tag.strip_prefix('@') {
                return number.parse().ok().and_then(|at: usize| images.get(at)).ok_or_else(unknown);
            }
            let same = |name: &String| {
                name == tag
                    || matches!((name.parse::<RegistryReference>(), tag.parse()), (Ok(name), Ok(tag)) if name == tag)
            };
            images.iter().find(|image| tags(image).any(same)).ok_or_else(unknown)
        }
    }
}
