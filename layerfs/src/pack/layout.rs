//! Writing the packed image into an OCI image layout, so that a reader sees the layout before or after, never between.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use super::tree::PackTree;
use super::{LayerCompression, PackError, PackOptions, Packed, config, tar};
use crate::digest::Hasher;
use crate::manifest::media_type;
use crate::platform::Platform;
use crate::transport::REF_NAME;
use crate::{Digest, Error, Result};

/// Bytes of an index that is already there.
const INDEX_BYTES_MAX: u64 = 4 << 20;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

pub(super) fn write(dir: &Path, tag: &str, options: &PackOptions, tree: &PackTree) -> Result<Packed> {
    let failed = |source| Error::Pack { layout: dir.to_owned(), source: Box::new(source) };
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::io("create directory", &blobs))?;
    // One writer at a time; readers need no lock, as all is renamed into place.
    let lock = File::open(dir).map_err(Error::io("open", dir))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|errno| Error::io("lock", dir)(errno.into()))?;
    let index_path = dir.join("index.json");
    let mut index = read_index(&index_path).map_err(failed)?;
    let (layer, diff_id, layer_bytes) = write_layer(&blobs, options.compression, tree, dir)?;
    let media_type = match options.compression {
        LayerCompression::Gzip => media_type::OCI_LAYER_GZIP,
        LayerCompression::Zstd => media_type::OCI_LAYER_ZSTD,
        LayerCompression::Plain => media_type::OCI_LAYER,
    };
    let config = config(options, &diff_id).to_string();
    let config_digest = put(&blobs, config.as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": media_type, "digest": layer, "size": layer_bytes}],
    })
    .to_string();
    let manifest_digest = put(&blobs, manifest.as_bytes())?;
    name(&mut index, tag, &manifest_digest, manifest.len()).map_err(failed)?;
    replace(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    replace(&index_path, index.to_string().as_bytes())?;
    let files = tree.iter().map(|(path, _)| Path::new("/").join(path)).collect();
    Ok(Packed { manifest: manifest_digest, diff_id, layer_bytes, files })
}

fn read_index(path: &Path) -> Result<Value, PackError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []}));
        }
        Err(error) => return Err(PackError::io("open", path)(error)),
    };
    let mut text = Vec::new();
    file.take(INDEX_BYTES_MAX).read_to_end(&mut text).map_err(PackError::io("read", path))?;
    let index: Value = serde_json::from_slice(&text).map_err(|error| PackError::Index(error.to_string()))?;
    match index.get("manifests") {
        Some(Value::Array(_)) => Ok(index),
        _ => Err(PackError::Index("it has no manifests".into())),
    }
}

/// Gives `tag` to the manifest and takes it from whatever had it.
fn name(index: &mut Value, tag: &str, manifest: &Digest, bytes: usize) -> Result<(), PackError> {
    let platform = Platform::host();
    let mut of = json!({"os": platform.os, "architecture": platform.architecture});
    if let Some(variant) = platform.variant {
        of["variant"] = variant.into();
    }
    let Some(Value::Array(manifests)) = index.get_mut("manifests") else {
        return Err(PackError::Index("it has no manifests".into()));
    };
    manifests.retain(|entry| entry["annotations"][REF_NAME] != tag);
    manifests.push(json!({
        "mediaType": media_type::OCI_MANIFEST, "digest": manifest, "size": bytes, "platform": of,
        "annotations": {REF_NAME: tag},
    }));
    Ok(())
}

/// Hashes and counts what it passes on.
struct Counted<W> {
    out: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Counted<W> {
    fn new(out: W) -> Self {
        Self { out, hasher: Hasher::new(), bytes: 0 }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes the layer's blob; gives its digest, its diffID and its length.
fn write_layer(
    blobs: &Path,
    compression: LayerCompression,
    tree: &PackTree,
    dir: &Path,
) -> Result<(Digest, Digest, u64)> {
    let staged = Staged::new(blobs);
    let path = &staged.path;
    let file = File::create(path).map_err(Error::io("create", path))?;
    let counted = Counted::new(BufWriter::new(file));
    let failed = |source| Error::Pack { layout: dir.to_owned(), source: Box::new(source) };
    let io = || Error::io("write", path);
    let (counted, diff_id) = match compression {
        LayerCompression::Plain => {
            let mut tar = Counted::new(counted);
            tar::write(tree, &mut tar).map_err(failed)?;
            (tar.out, tar.hasher.finish())
        }
        LayerCompression::Gzip => {
            let mut tar = Counted::new(GzEncoder::new(counted, flate2::Compression::default()));
            tar::write(tree, &mut tar).map_err(failed)?;
            (tar.out.finish().map_err(io())?, tar.hasher.finish())
        }
        LayerCompression::Zstd => {
            let encoder = zstd::stream::write::Encoder::new(counted, ZSTD_LEVEL).map_err(io())?;
            let mut tar = Counted::new(encoder);
            tar::write(tree, &mut tar).map_err(failed)?;
            (tar.out.finish().map_err(io())?, tar.hasher.finish())
        }
    };
    let file = counted.out.into_inner().map_err(|error| io()(error.into_error()))?;
    file.sync_data().map_err(io())?;
    let digest = counted.hasher.finish();
    staged.publish(&blobs.join(digest.hex()))?;
    Ok((digest, diff_id, counted.bytes))
}

fn put(blobs: &Path, bytes: &[u8]) -> Result<Digest> {
    let digest = Digest::of(bytes);
    replace(&blobs.join(digest.hex()), bytes)?;
    Ok(digest)
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let staged = Staged::new(path.parent().unwrap_or(Path::new("/")));
    let mut file = File::create(&staged.path).map_err(Error::io("create", &staged.path))?;
    file.write_all(bytes).and_then(|()| file.sync_data()).map_err(Error::io("write", &staged.path))?;
    staged.publish(path)
}

/// A file under another name until it is whole. The lock makes one name enough for each directory.
struct Staged {
    path: PathBuf,
}

impl Staged {
    fn new(directory: &Path) -> Self {
        Self { path: directory.join(".celda-pack") }
    }

    fn publish(self, to: &Path) -> Result<()> {
        fs::rename(&self.path, to).map_err(Error::io("rename to", to))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.path);
    }
}
