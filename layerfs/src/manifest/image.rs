//! The manifest of one image.

use std::collections::HashMap;

use super::media_type::{self, LayerKind};
use super::{Descriptor, ImageConfig, ManifestError, RawDescriptor};
use crate::{Digest, Limits};

/// One image: its config and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Points at the [`ImageConfig`].
    pub config: Descriptor,
    /// Points at the compressed layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// A layer with both its names: of the bytes that travel, and of the tar they inflate to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What travels; none where an archive holds the tar itself.
    pub blob: Descriptor,
    /// The digest of the uncompressed tar, from the config.
    pub diff_id: Digest,
}

impl Image {
    pub(super) fn check(
        config: RawDescriptor,
        layers: Vec<RawDescriptor>,
        limits: &Limits,
    ) -> Result<Self, ManifestError> {
        let config = config.check("config")?;
        if !media_type::is_image_config(&config.media_type) {
            return Err(ManifestError::Artifact(config.media_type.chars().take(128).collect()));
        }
        if config.size_bytes > limits.manifest_bytes {
            return Err(ManifestError::TooLong { bytes: config.size_bytes, limit: limits.manifest_bytes });
        }
        if layers.is_empty() {
            return Err(ManifestError::NoLayers);
        }
        if layers.len() > limits.layers_count {
            return Err(ManifestError::TooManyLayers { count: layers.len(), limit: limits.layers_count });
        }
        let layers = layers.into_iter().zip(1..).map(|(raw, number)| check_layer(raw, number, limits));
        Ok(Self { config, layers: layers.collect::<Result<_, _>>()? })
    }

    /// Joins the layers with their diffIDs.
    ///
    /// # Errors
    /// When their counts differ, or when one blob would have to inflate to two different tars.
    pub fn layers(&self, config: &ImageConfig) -> Result<Vec<Layer>, ManifestError> {
        if self.layers.len() != config.diff_ids.len() {
            return Err(ManifestError::LayerCount {
                layers: self.layers.len(),
                diff_ids: config.diff_ids.len(),
            });
        }
        let mut seen: HashMap<Digest, Digest> = HashMap::new();
        let mut layers = Vec::with_capacity(self.layers.len());
        for (blob, &diff_id) in self.layers.iter().zip(&config.diff_ids) {
            let first = *seen.entry(blob.digest).or_insert(diff_id);
            if first != diff_id {
                let blob = blob.digest;
                return Err(ManifestError::Shape(format!(
                    "blob {blob} is listed with two diffIDs, {first} and {diff_id}"
                )));
            }
            layers.push(Layer { blob: blob.clone(), diff_id });
        }
        Ok(layers)
    }
}

fn check_layer(raw: RawDescriptor, number: usize, limits: &Limits) -> Result<Descriptor, ManifestError> {
    let layer = raw.check(&format!("layer {number}"))?;
    let media_type = || layer.media_type.chars().take(128).collect();
    match media_type::layer_kind(&layer.media_type) {
        LayerKind::Tar | LayerKind::NonDistributable => {}
        LayerKind::Encrypted => {
            return Err(ManifestError::EncryptedLayer { number, media_type: media_type() });
        }
        LayerKind::Unknown => return Err(ManifestError::UnknownLayer { number, media_type: media_type() }),
    }
    if layer.size_bytes > limits.layer_bytes {
        let (size, limit) = (layer.size_bytes, limits.layer_bytes);
        return Err(ManifestError::Shape(format!("layer {number} has {size} bytes, the limit is {limit}")));
    }
    Ok(layer)
}
