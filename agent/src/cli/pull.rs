//! `celda pull`, and the pull that `celda run` does when its image is not here.

use std::process::ExitCode;
use std::sync::Arc;

use celda_layerfs::progress::Progress;
use celda_layerfs::pull::{self, PullOptions, PullPolicy};
use celda_layerfs::reference::Reference;
use celda_layerfs::store::{ImageRecord, Store};

use super::args::PullArgs;
use super::context::{self, Context};
use super::{output, progress, signals};
use crate::{Error, Result};

pub(super) fn main(context: &Context, args: &PullArgs) -> Result<ExitCode> {
    let store = context.store()?;
    let options = context::pull_options(&args.source, PullPolicy::Always)?;
    let watcher = progress::watcher(context.global.json, args.quiet);
    let mut values = Vec::new();
    for image in &args.images {
        let reference = context::reference(image)?;
        let record = fetch(&store, &reference, &options, &watcher)?;
        if context.global.json {
            values.push(serde_json::json!({
                "reference": record.reference,
                "manifest": record.manifest,
                "platform": record.platform,
                "layers_count": record.layers.len(),
                "bytes": record.bytes(),
            }));
        } else {
            output::line(&record.manifest.to_string());
        }
    }
    if context.global.json {
        output::json(&values).map_err(Error::io("write to", "standard output"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Pulls with progress on standard error; Ctrl-C ends it with nothing left behind.
pub(super) fn fetch(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    watcher: &Arc<dyn Progress>,
) -> Result<ImageRecord> {
    let cancelling = signals::Cancelling::begin()?;
    Ok(pull::pull(store, reference, options, watcher, cancelling.cancel())?)
}
