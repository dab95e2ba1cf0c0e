//! `celda images`.

use std::process::ExitCode;

use super::args::ImagesArgs;
use super::context::Context;
use super::output;
use crate::{Error, Result};

/// Digits of a manifest digest that a table shows, as Docker's.
const SHORT_ID_DIGITS: usize = 12;

pub(super) fn main(context: &Context, args: &ImagesArgs) -> Result<ExitCode> {
    let images = context.store()?.images()?;
    let id = |image: &celda_layerfs::store::NamedImage| match args.no_trunc {
        true => image.record.manifest.to_string(),
        false => image.record.manifest.hex()[..SHORT_ID_DIGITS].to_owned(),
    };
    if context.global.json {
        let value = |image: &celda_layerfs::store::NamedImage| {
            serde_json::json!({
                "name": image.name,
                "platform": image.platform,
                "manifest": image.record.manifest,
                "config": image.record.config,
                "created": image.record.config_json.get("created"),
                "layers_count": image.record.layers.len(),
                "bytes": image.record.bytes(),
            })
        };
        let values: Vec<_> = images.iter().map(value).collect();
        output::json(&values).map_err(Error::io("write to", "standard output"))?;
    } else if args.quiet {
        images.iter().for_each(|image| output::line(&id(image)));
    } else {
        let row = |image: &celda_layerfs::store::NamedImage| {
            vec![
                image.name.clone().unwrap_or_else(|| "<none>".into()),
                id(image),
                image.platform.clone(),
                image.record.layers.len().to_string(),
                output::bytes(image.record.bytes()),
            ]
        };
        let rows: Vec<_> = images.iter().map(row).collect();
        let text = output::table(&["IMAGE", "ID", "PLATFORM", "LAYERS", "SIZE"], &rows);
        output::line(text.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}
