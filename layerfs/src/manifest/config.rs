//! What celda needs of an image config to fetch and check the layers. The rest is for whoever runs the image.

use serde::Deserialize;

use super::ManifestError;
use crate::platform::Platform;
use crate::{Digest, Limits};

/// The platform and the layers' diffIDs of an image config (OCI image-spec 1.1, config.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// What the image is for; none where the config does not say.
    pub platform: Option<Platform>,
    /// The digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    rootfs: Option<RawRootfs>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

impl ImageConfig {
    /// Parses a config.
    ///
    /// # Errors
    /// When it is too long, not JSON, or its `rootfs` is missing or of an unknown kind.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > limits.manifest_bytes {
            return Err(ManifestError::TooLong { bytes: bytes.len() as u64, limit: limits.manifest_bytes });
        }
        let raw: RawConfig = serde_json::from_slice(bytes)
            .map_err(|source| ManifestError::Json { what: "image config", source })?;
        let rootfs =
            raw.rootfs.ok_or_else(|| ManifestError::Shape("the image config has no rootfs".into()))?;
        if let Some(kind) = rootfs.kind.filter(|kind| kind != "layers") {
            let kind: String = kind.chars().take(64).collect();
            return Err(ManifestError::Shape(format!(
                "the config's rootfs.type is {kind:?}, not \"layers\""
            )));
        }
        let diff_ids = rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() > limits.layers_count {
            return Err(ManifestError::TooManyLayers { count: diff_ids.len(), limit: limits.layers_count });
        }
        let diff_ids = diff_ids.iter().zip(1..).map(|(text, number)| {
            text.parse().map_err(|source| ManifestError::Digest { what: format!("diffID {number}"), source })
        });
        let platform = match (raw.os.as_deref(), raw.architecture.as_deref()) {
            (None | Some(""), _) | (_, None | Some("")) => None,
            (Some(os), Some(architecture)) => Some(Platform::new(os, architecture, raw.variant.as_deref())),
        };
        Ok(Self { platform, diff_ids: diff_ids.collect::<Result<_, _>>()? })
    }
}
