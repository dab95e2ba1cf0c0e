//! `celda pack`: a small image from programs of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use celda_layerfs::pack::{LayerCompression, PackOptions, pack};
use celda_layerfs::reference::Reference;

use super::args::{PackArgs, PackCompression};
use super::context::{self, Context};
use super::output;
use crate::{Error, Result};

pub(super) fn main(context: &Context, args: &PackArgs) -> Result<ExitCode> {
    let wrong = |what: &str, reason: &str| Error::Argument { what: what.into(), reason: reason.into() };
    let Reference::OciLayout { dir, tag } = context::reference(&args.destination)? else {
        return Err(wrong(&args.destination, "an image is packed into a layout: write oci:DIR:TAG"));
    };
    let files: Vec<_> = args.files.iter().map(|text| file(text)).collect::<Result<_>>()?;
    let mut cmd = args.cmd.clone();
    if cmd.is_empty() && args.entrypoint.is_empty() {
        cmd.extend(files.first().map(|(_, to)| to.to_string_lossy().into_owned()));
    }
    let label = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    let options = PackOptions {
        files,
        entrypoint: args.entrypoint.clone(),
        cmd,
        env: args.env.clone(),
        workdir: args.workdir.clone().unwrap_or_default(),
        labels: args.label.iter().map(label).collect::<BTreeMap<_, _>>(),
        compression: match args.compression {
            PackCompression::Gzip => LayerCompression::Gzip,
            PackCompression::Zstd => LayerCompression::Zstd,
            PackCompression::None => LayerCompression::Plain,
        },
    };
    let packed = pack(&dir, tag.as_deref().unwrap_or("latest"), &options)?;
    if context.global.json {
        let value = serde_json::json!({
            "manifest": packed.manifest,
            "diffID": packed.diff_id,
            "layer_bytes": packed.layer_bytes,
            "files": packed.files,
        });
        output::json(&value).map_err(Error::io("write to", "standard output"))?;
    } else {
        let (count, bytes) = (packed.files.len(), output::bytes(packed.layer_bytes));
        output::line(&format!("{}: {count} files, {bytes}, {}", args.destination, packed.manifest));
    }
    Ok(ExitCode::SUCCESS)
}

/// `PATH` or `PATH:PATH-IN-THE-IMAGE`.
fn file(text: &str) -> Result<(PathBuf, PathBuf)> {
    let (from, to) = match text.split_once(':') {
        Some((from, to)) => (PathBuf::from(from), PathBuf::from(to)),
        None => (PathBuf::from(text), std::path::absolute(text).map_err(Error::io("find", text))?),
    };
    if !to.starts_with("/") || to == Path::new("/") {
        let reason = "the path in the image must be absolute: FILE:/path/in/the/image".into();
        return Err(Error::Argument { what: text.into(), reason });
    }
    Ok((from, to))
}
