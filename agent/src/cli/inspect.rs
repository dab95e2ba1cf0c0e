//! `celda inspect`: an image's record with its config, or a container's, always as JSON.

use std::process::ExitCode;

use celda_layerfs::store::{ImageRecord, Store};

use celda_api::cell::v1;

use super::args::InspectArgs;
use super::cell::{self, Client};
use super::context::{self, Context};
use super::output;
use crate::container::State;
use crate::{Error, Result};

pub(super) fn main(context: &Context, args: &InspectArgs) -> Result<ExitCode> {
    let store = context.store()?;
    let mut values = Vec::new();
    for name in &args.names {
        let value = match image(&store, name)? {
            Some(record) => image_value(&store, &record),
            None => match State::find(&context.global.root, name) {
                Some(state) => serde_json::json!(state),
                None => instance(context, args, name)?.ok_or_else(|| Error::NotHere(name.clone()))?,
            },
        };
        values.push(value);
    }
    output::json(&values).map_err(Error::io("write to", "standard output"))?;
    Ok(ExitCode::SUCCESS)
}

/// The instance of that id, if a cell is up and has it.
fn instance(context: &Context, args: &InspectArgs, name: &str) -> Result<Option<serde_json::Value>> {
    let Some(client) = Client::connect_if_up(context, &args.cell)? else { return Ok(None) };
    let request = v1::ListRequest {
        ids: client.resolve(&[name.to_owned()])?,
        with_specs: true,
        ..v1::ListRequest::default()
    };
    Ok(client.list(request)?.instances.first().map(cell::instance_value))
}

fn image(store: &Store, name: &str) -> Result<Option<ImageRecord>> {
    let store_name = context::store_name(name);
    let named = store.images()?.into_iter().find(|image| image.name.as_deref() == Some(store_name.as_str()));
    match named {
        Some(image) => Ok(Some(image.record)),
        None => Ok(store.image_by_id(name)?),
    }
}

fn image_value(store: &Store, record: &ImageRecord) -> serde_json::Value {
    let layer = |layer: &celda_layerfs::store::LayerRecord| {
        serde_json::json!({
            "diffID": layer.diff_id,
            "blob": layer.blob,
            "blobBytes": layer.blob_bytes,
            "mediaType": layer.media_type,
            "tarBytes": layer.tar_bytes,
            "path": store.layer_path(&layer.diff_id),
        })
    };
    serde_json::json!({
        "reference": record.reference,
        "manifest": record.manifest,
        "configDigest": record.config,
        "platform": record.platform,
        "chainID": record.chain_id,
        "index": store.index_path(&record.chain_id),
        "bytes": record.bytes(),
        "layers": record.layers.iter().map(layer).collect::<Vec<_>>(),
        "config": record.config_json,
    })
}
