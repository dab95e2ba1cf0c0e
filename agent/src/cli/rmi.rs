//! `celda rmi`.

use std::process::ExitCode;

use super::args::RmiArgs;
use super::context::{self, Context};
use super::output;
use crate::{Error, Result};

pub(super) fn main(context: &Context, args: &RmiArgs) -> Result<ExitCode> {
    let store = context.store()?;
    let mut values = Vec::new();
    for image in &args.images {
        let name = context::store_name(image);
        let removed = match store.remove(&name, args.force) {
            Err(celda_layerfs::Error::UnknownImage(_)) if name != *image => {
                store.remove(image, args.force)?
            }
            other => other?,
        };
        if context.global.json {
            values.push(serde_json::json!({
                "untagged": removed.untagged,
                "deleted": removed.deleted,
                "kept_by_lease": removed.is_kept_by_lease,
            }));
            continue;
        }
        removed.untagged.iter().for_each(|name| output::line(&format!("untagged: {name}")));
        if let Some(manifest) = removed.deleted {
            output::line(&format!("deleted: {manifest}"));
        }
    }
    if context.global.json {
        output::json(&values).map_err(Error::io("write to", "standard output"))?;
    }
    Ok(ExitCode::SUCCESS)
}
