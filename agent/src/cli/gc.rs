//! `celda gc`.

use std::process::ExitCode;

use super::context::Context;
use super::output;
use crate::{Error, Result, orphan, spec};

pub(super) fn main(context: &Context) -> Result<ExitCode> {
    let (store, ladder) = context.store_and_ladder()?;
    // First, as a mounted image would keep the space of its files.
    ladder.unpin_all()?;
    let volumes_count = spec::sweep_volumes(&spec::volumes_dir(store.root()))?;
    let (report, unfreed) = store.gc_unfreed(&orphan::end)?;
    unfreed.free_behind();
    if context.global.json {
        let value = serde_json::json!({
            "freed_bytes": report.freed_bytes,
            "images": report.images,
            "layers": report.layers,
            "indexes_count": report.indexes_count,
            "blobs_count": report.blobs_count,
            "containers": report.containers,
            "leased": report.leased,
            "unfinished_volumes_count": volumes_count,
        });
        output::json(&value).map_err(Error::io("write to", "standard output"))?;
        return Ok(ExitCode::SUCCESS);
    }
    for container in &report.containers {
        output::line(&format!("container {container}"));
    }
    if volumes_count > 0 {
        output::line(&format!("{volumes_count} unfinished volumes"));
    }
    for layer in &report.layers {
        output::line(&format!("layer {layer}"));
    }
    for image in &report.leased {
        output::line(&format!("image {image} is kept: a container runs from it"));
    }
    output::line(&format!("freed {}", output::bytes(report.freed_bytes)));
    Ok(ExitCode::SUCCESS)
}
