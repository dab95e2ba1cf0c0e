//! The catalogue's JSON files: which image a name means, and what an image consists of.
//!
//! ```text
//! names/<sha256 of "reference|platform">.json   { reference, platform, manifest }
//! images/<manifest>.json                        { manifest, config, config_json, platform, chain_id, layers, reference }
//! ```
//!
//! Readers ignore fields they do not know, so a newer celda's records stay readable.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::fault::fault;
use crate::{Digest, Error, Result};

/// Bytes of a record at most: a config as large as a manifest may be, twice for JSON's escapes, and the layers.
pub const RECORD_MAX_BYTES: u64 = 16 << 20;

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The digest of the compressed blob, where the image came with one (docker-archives do not).
    pub blob: Option<Digest>,
    /// Bytes of the compressed blob.
    pub blob_bytes: u64,
    /// The descriptor's media type, to fetch the blob again.
    pub media_type: String,
    /// The digest of the uncompressed tar: its name in the store.
    pub diff_id: Digest,
    /// Bytes of the uncompressed tar.
    pub tar_bytes: u64,
}

/// All that is needed to mount and run an image, in one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The digest of the image's manifest for its platform.
    pub manifest: Digest,
    /// The digest of the image config.
    pub config: Digest,
    /// The image config itself, so that a run reads one file.
    pub config_json: serde_json::Value,
    /// The platform in the form `os/architecture[/variant]`.
    pub platform: String,
    /// The chain id of all layers: the name of the index and of the directory tree.
    pub chain_id: Digest,
    /// The layers, lowest first.
    pub layers: Vec<LayerRecord>,
    /// The canonical reference it was pulled by last.
    pub reference: String,
}

impl ImageRecord {
    /// The diffIDs, lowest layer first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// Bytes of all uncompressed layers.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.tar_bytes).sum()
    }
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    pub(crate) reference: String,
    pub(crate) platform: String,
    pub(crate) manifest: Digest,
}

/// Reads a record; `None` if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let damaged = |reason: String| Error::Record { path: path.to_owned(), reason };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault("open", path, error)),
    };
    let size = file.metadata().map_err(Error::io("look at", path))?.len();
    if size > RECORD_MAX_BYTES {
        return Err(damaged(format!("{size} bytes, more than the {RECORD_MAX_BYTES} a record may have")));
    }
    let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    // Bounded even if the file grows while it is read.
    file.by_ref().take(RECORD_MAX_BYTES).read_to_end(&mut text).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| damaged(error.to_string()))
}

/// The text of a record.
pub(crate) fn text<T: Serialize>(path: &Path, record: &T) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(record)
        .map_err(|error| Error::Record { path: path.to_owned(), reason: error.to_string() })?;
    if text.len() as u64 > RECORD_MAX_BYTES {
        let reason =
            format!("the record would have {} bytes, more than {RECORD_MAX_BYTES} allowed", text.len());
        return Err(Error::Record { path: path.to_owned(), reason });
    }
    Ok(text)
}
