//! Making an image's record anew.
//!
//! ```text
//! names/<...>.json --manifest--> blobs/<manifest> --config--> blobs/<config>      -> images/<manifest>.json
//!   reference, platform            layers' blobs                diffIDs, platform
//! ```
//!
//! Names are not derived from anything: one that is lost is given again by a pull, which finds the layers there.

use crate::manifest::{self, Document, ImageConfig};
use crate::store::Store;
use crate::store::crash::Step;
use crate::store::index::chain_id;
use crate::store::publish::{Durability, publish, sync_directory};
use crate::store::records::{self, ImageRecord, LayerRecord, NameRecord};
use crate::{Digest, Result};

impl Store {
    /// Makes the record of the image that `name` leads to and publishes it; `None` if its manifest or config is not
    /// here or is none. The layers need not be here.
    pub(crate) fn rebuild_record(&self, name: &NameRecord) -> Result<Option<ImageRecord>> {
        let Some(record) = self.record_from_blobs(name)? else { return Ok(None) };
        let _catalogue = self.lock_catalogue()?;
        let path = self.layout().image(&record.manifest);
        let text = records::text(&path, &record)?;
        let steps = (Step::RecordStaged, Step::RecordRenamed);
        publish(self.layout(), &path, &text, Durability::Synced, steps)?;
        sync_directory(&self.layout().directory("images"))?;
        Ok(Some(record))
    }

    fn record_from_blobs(&self, name: &NameRecord) -> Result<Option<ImageRecord>> {
        let Some(bytes) = self.blob(&name.manifest)? else { return Ok(None) };
        let Ok(Document::Image(image)) = manifest::parse(&bytes, None, self.limits()) else {
            return Ok(None);
        };
        let Some(config_bytes) = self.blob(&image.config.digest)? else { return Ok(None) };
        let Ok(config) = ImageConfig::parse(&config_bytes, self.limits()) else { return Ok(None) };
        let Ok(layers) = image.layers(&config) else { return Ok(None) };
        let Ok(config_json) = serde_json::from_slice(&config_bytes) else { return Ok(None) };
        let chain: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
        let layers = layers.into_iter().map(|layer| LayerRecord {
            blob: Some(layer.blob.digest),
            blob_bytes: layer.blob.size_bytes,
            media_type: layer.blob.media_type,
            diff_id: layer.diff_id,
            tar_bytes: self.layer_bytes(&layer.diff_id).unwrap_or(0),
        });
        Ok(Some(ImageRecord {
            manifest: name.manifest,
            config: image.config.digest,
            config_json,
            platform: config.platform.map_or_else(|| name.platform.clone(), |platform| platform.to_string()),
            chain_id: chain_id(&chain),
            layers: layers.collect(),
            reference: name.reference.clone(),
        }))
    }
}
