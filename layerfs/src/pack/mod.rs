//! A small image from what this machine has: some files, and the shared libraries they need.
//!
//! ```text
//! files --elf--> interpreter and libraries --tree--> sorted entries --tar--> gzip | zstd | plain
//!                                                                      v
//!                    DIR/blobs/sha256/{layer,config,manifest}, DIR/index.json with the tag (image-layout.md)
//! ```
//!
//! The same files give the same bytes: entries are sorted, owned by root, and of 1970. Libraries keep the paths
//! they have here, with the symbolic links on the way to them, so that a loader finds them as it does here.
//! What a program loads by name at run time (NSS, plug-ins) is not seen; name those files as well.

mod elf;
mod error;
mod layout;
mod tar;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use error::PackError;

use self::tree::PackTree;
use crate::platform::Platform;
use crate::{Digest, Error, Result};

/// Files that one image may be packed of.
const FILES_COUNT_MAX: usize = 10_000;
/// What programs are looked for in, unless the image's environment says otherwise. Docker's default.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How the layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerCompression {
    /// What every tool reads.
    #[default]
    Gzip,
    /// Smaller and faster to read; needs tools of 2021 or newer.
    Zstd,
    /// Not compressed.
    Plain,
}

/// What to make an image of.
#[derive(Debug, Clone, Default)]
pub struct PackOptions {
    /// A file of this machine, and where it goes in the image.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// The image's entrypoint.
    pub entrypoint: Vec<String>,
    /// The image's default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`; a PATH is added if there is none.
    pub env: Vec<String>,
    /// Where the program starts; the root directory if empty.
    pub workdir: String,
    /// The image's labels.
    pub labels: BTreeMap<String, String>,
    /// How the layer is stored.
    pub compression: LayerCompression,
}

/// An image that was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The digest of its layer's tar.
    pub diff_id: Digest,
    /// Bytes of the layer as stored.
    pub layer_bytes: u64,
    /// The files in it, those found by themselves included.
    pub files: Vec<PathBuf>,
}

/// Packs `options` into the OCI image layout in `dir`, which is made if it is not there, under `tag`. An image
/// that had the tag loses it; the layout's other images stay.
///
/// # Errors
/// [`Error::Pack`] for files that cannot be packed; I/O errors. The layout is as before then.
pub fn pack(dir: &Path, tag: &str, options: &PackOptions) -> Result<Packed> {
    let failed = |source| Error::Pack { layout: dir.to_owned(), source: Box::new(source) };
    check(tag, options).map_err(failed)?;
    let tree = tree_of(options).map_err(failed)?;
    layout::write(dir, tag, options, &tree)
}

fn check(tag: &str, options: &PackOptions) -> Result<(), PackError> {
    if options.files.len() > FILES_COUNT_MAX {
        return Err(PackError::TooManyFiles(options.files.len(), FILES_COUNT_MAX));
    }
    if tag.is_empty() || tag.len() > 255 || tag.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(PackError::Tag(tag.chars().take(64).collect()));
    }
    match options.env.iter().find(|variable| !variable.contains('=') || variable.starts_with('=')) {
        Some(variable) => Err(PackError::Variable(variable.clone())),
        None => Ok(()),
    }
}

fn tree_of(options: &PackOptions) -> Result<PackTree, PackError> {
    let mut tree = PackTree::with_base();
    for (from, to) in &options.files {
        for needed in elf::needed(from)? {
            tree.add_host(&needed)?;
        }
        tree.add_file(from, to)?;
    }
    Ok(tree)
}

fn config(options: &PackOptions, diff_id: &Digest) -> serde_json::Value {
    let platform = Platform::host();
    let mut env = options.env.clone();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.to_owned());
    }
    let mut run = serde_json::Map::new();
    run.insert("Env".into(), env.into());
    let mut put = |name: &str, values: &[String]| {
        if !values.is_empty() {
            run.insert(name.into(), values.into());
        }
    };
    put("Entrypoint", &options.entrypoint);
    put("Cmd", &options.cmd);
    let workdir = if options.workdir.is_empty() { "/" } else { &options.workdir };
    run.insert("WorkingDir".into(), workdir.into());
    if !options.labels.is_empty() {
        run.insert("Labels".into(), serde_json::json!(options.labels));
    }
    let mut config = serde_json::json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": EPOCH, "created_by": "celda pack"}],
        "created": EPOCH,
    });
    if let Some(variant) = platform.variant {
        config["variant"] = variant.into();
    }
    config
}

/// When every packed image was made.
const EPOCH: &str = "1970-01-01T00:00:00Z";

#[cfg(test)]
mod tests;
