//! The image that is started: one static busybox, as an OCI layout and as an unpacked bundle.
//!
//! ```text
//! WORK/image/   OCI layout, tags `bench` (busybox) and `big`
//! WORK/bundle/  rootfs/ and config.json for crun and runc
//! ```

use crate::Result;
use crate::machine;
use celda_layerfs::Digest;
use celda_layerfs::digest::Hasher;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The program that every start runs.
pub(crate) const PROGRAM: &str = "/bin/true";
/// Seconds since the epoch of everything in the images.
pub(crate) const MTIME: u64 = 1_700_000_000;
const DIRECTORIES: [&str; 7] = ["bin", "dev", "etc", "proc", "sys", "tmp", "root"];
/// Searched for a busybox that needs no library.
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/usr/bin/busybox-static"];
/// An ELF header and its program headers fit in here, and a static program has no interpreter among them.
const ELF_HEAD_BYTES: usize = 4096;

/// Makes layout and bundle under `work`.
///
/// # Errors
/// When no static busybox is found, or the disk refuses.
pub(crate) fn make(work: &Path) -> Result<()> {
    let busybox = find_busybox()?;
    make_bundle(&work.join("bundle"), &busybox)?;
    let layout = Layout::create(&work.join("image"))?;
    let mut layer = layout.layer(Compression::default())?;
    for directory in DIRECTORIES {
        layer.directory(directory)?;
    }
    layer.file("bin/busybox", 0o755, &fs::read(&busybox)?)?;
    layer.link("bin/true", "busybox")?;
    let layer = layer.finish()?;
    layout.name("bench", &[layer])
}

fn find_busybox() -> Result<PathBuf> {
    let is_static = |path: &Path| {
        let head = fs::read(path).unwrap_or_default();
        let head = &head[..head.len().min(ELF_HEAD_BYTES)];
        !head.is_empty() && !head.windows(7).any(|window| window == b"/ld-lin" || window == b"ld-musl")
    };
    let found = BUSYBOX.iter().map(Path::new).find(|path| is_static(path));
    Ok(found.ok_or("no static busybox on this machine: apt-get install busybox-static")?.to_owned())
}

fn make_bundle(bundle: &Path, busybox: &Path) -> Result<()> {
    let rootfs = bundle.join("rootfs");
    for directory in DIRECTORIES {
        fs::create_dir_all(rootfs.join(directory))?;
    }
    fs::copy(busybox, rootfs.join("bin/busybox"))?;
    fs::set_permissions(rootfs.join("bin/busybox"), fs::Permissions::from_mode(0o755))?;
    symlink("busybox", rootfs.join("bin/true"))?;
    fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&crate::bundle::config()?)?)?;
    Ok(())
}

/// An OCI image layout that is being written.
pub(crate) struct Layout {
    directory: PathBuf,
}

/// A finished layer.
pub(crate) struct LayerBlob {
    diff_id: Digest,
    blob: Digest,
    pub(crate) blob_bytes: u64,
    pub(crate) tar_bytes: u64,
}

impl Layout {
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory.join("blobs/sha256"))?;
        if !directory.join("index.json").exists() {
            fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
            fs::write(directory.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#)?;
        }
        Ok(Self { directory: directory.to_owned() })
    }

    pub(crate) fn layer(&self, level: Compression) -> Result<LayerWriter> {
        let path = self.directory.join("layer.partial");
        let file = Hashed::new(BufWriter::new(File::create(&path)?));
        let tar = tar::Builder::new(Hashed::new(GzEncoder::new(file, level)));
        Ok(LayerWriter { tar, path })
    }

    fn put(&self, value: &Value) -> Result<(Digest, usize)> {
        let bytes = serde_json::to_vec(value)?;
        let digest = Digest::of(&bytes);
        fs::write(self.directory.join("blobs/sha256").join(digest.hex()), &bytes)?;
        Ok((digest, bytes.len()))
    }

    /// Writes config and manifest over `layers` and enters them under `tag`.
    pub(crate) fn name(&self, tag: &str, layers: &[LayerBlob]) -> Result<()> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        let (config, config_bytes) = self.put(&json!({
            "architecture": machine::architecture(), "os": "linux",
            "config": {"Cmd": [PROGRAM], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))?;
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| {
                json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                       "digest": layer.blob.to_string(), "size": layer.blob_bytes})
            })
            .collect();
        let (manifest, manifest_bytes) = self.put(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": config.to_string(), "size": config_bytes},
            "layers": layers,
        }))?;
        let path = self.directory.join("index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest.to_string(),
            "size": manifest_bytes, "annotations": {"org.opencontainers.image.ref.name": tag}});
        index["manifests"].as_array_mut().ok_or("index.json without manifests")?.push(entry);
        fs::write(path, serde_json::to_vec(&index)?)?;
        Ok(())
    }
}

/// Writes one gzip layer, hashing both sides.
pub(crate) struct LayerWriter {
    tar: tar::Builder<Hashed<GzEncoder<Hashed<BufWriter<File>>>>>,
    path: PathBuf,
}

impl LayerWriter {
    fn header(kind: tar::EntryType, mode: u32, bytes: usize) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(MTIME);
        header.set_size(bytes as u64);
        header
    }

    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Directory, 0o755, 0);
        Ok(self.tar.append_data(&mut header, format!("{path}/"), std::io::empty())?)
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Regular, mode, content.len());
        Ok(self.tar.append_data(&mut header, path, content)?)
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        Ok(self.tar.append_link(&mut header, path, target)?)
    }

    pub(crate) fn finish(self) -> Result<LayerBlob> {
        let (tar_bytes, diff_id, encoder) = self.tar.into_inner()?.finish();
        let (blob_bytes, blob, mut file) = encoder.finish()?.finish();
        file.flush()?;
        fs::rename(&self.path, self.path.with_file_name("blobs/sha256").join(blob.hex()))?;
        Ok(LayerBlob { diff_id, blob, blob_bytes, tar_bytes })
    }
}

/// Counts and hashes what passes through to a writer.
struct Hashed<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new(), bytes: 0 }
    }

    fn finish(self) -> (u64, Digest, W) {
        (self.bytes, self.hasher.finish(), self.inner)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
