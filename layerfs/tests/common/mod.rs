//! Images made in memory, and what a store must look like after a failure.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use celda_layerfs::manifest::media_type;
use celda_layerfs::progress::{Event, Progress};
use celda_layerfs::pull::{PullOptions, PullPolicy, pull};
use celda_layerfs::transport::Cancel;
use celda_layerfs::{Digest, ImageRecord, Platform, Reference, Result, Store, StoreOptions};
use serde_json::{Value, json};

/// A tar with one file of `bytes` that hardly compress.
pub fn tar(name: &str, bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ name.len() as u64;
    let content: Vec<u8> = (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content.as_slice()).unwrap();
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Documents and layers by digest.
#[derive(Clone, Default)]
pub struct Image {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub media_types: BTreeMap<String, String>,
    pub manifest: String,
    pub layers: Vec<String>,
}

impl Image {
    /// An image for this machine with one gzipped layer for each of `tars`.
    pub fn of(tars: &[Vec<u8>]) -> Self {
        let layers = tars.iter().map(|tar| (gzip(tar), Digest::of(tar).to_string()));
        Self::with(layers.collect(), &Platform::host())
    }

    /// An image with these blobs and diffIDs.
    pub fn with(layers: Vec<(Vec<u8>, String)>, platform: &Platform) -> Self {
        let mut image = Self::default();
        let diff_ids: Vec<&String> = layers.iter().map(|(_, diff_id)| diff_id).collect();
        let config = json!({
            "os": platform.os, "architecture": platform.architecture, "variant": platform.variant,
            "config": {"Cmd": ["/hello"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let mut descriptors = Vec::new();
        for (blob, _) in layers {
            descriptors.push(json!({"mediaType": media_type::OCI_LAYER_GZIP, "size": blob.len(), "digest": Digest::of(&blob)}));
            let digest = image.put(blob);
            image.layers.push(digest);
        }
        let config = config.to_string().into_bytes();
        let config =
            json!({"mediaType": media_type::OCI_CONFIG, "size": config.len(), "digest": image.put(config)});
        image.set_manifest(&json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": descriptors,
        }));
        image
    }

    pub fn put(&mut self, bytes: Vec<u8>) -> String {
        let digest = Digest::of(&bytes).to_string();
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    /// Makes `manifest` the image's manifest or index.
    pub fn set_manifest(&mut self, manifest: &Value) {
        self.manifest = self.put(manifest.to_string().into_bytes());
        let media_type = manifest["mediaType"].as_str().unwrap_or("text/plain").to_owned();
        self.media_types.insert(self.manifest.clone(), media_type);
    }

    pub fn manifest_value(&self) -> Value {
        serde_json::from_slice(&self.blobs[&self.manifest]).unwrap()
    }

    /// Changes the manifest.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest_value();
        change(&mut manifest);
        self.set_manifest(&manifest);
    }

    /// Puts an index in front of the manifest, with the platform it is for.
    pub fn wrap(&mut self, platform: Option<&str>) {
        let (manifest, size) = (self.manifest.clone(), self.blobs[&self.manifest].len());
        let mut entry = json!({"mediaType": self.media_types[&manifest], "digest": manifest, "size": size});
        if let Some((os, architecture)) = platform.and_then(|platform| platform.split_once('/')) {
            entry["platform"] = json!({"os": os, "architecture": architecture});
        }
        self.set_manifest(
            &json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry]}),
        );
    }

    /// Writes an OCI layout.
    pub fn write_layout(&self, dir: &Path, tag: &str) {
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        for (digest, bytes) in &self.blobs {
            std::fs::write(dir.join("blobs/sha256").join(&digest[7..]), bytes).unwrap();
        }
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": self.media_types[&self.manifest], "digest": self.manifest,
            "size": self.blobs[&self.manifest].len(),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }]});
        std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}

/// Keeps what it is told.
#[derive(Default)]
pub struct Watcher(pub Mutex<Vec<Event>>);

impl Progress for Watcher {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Watcher {
    pub fn count(&self, is_wanted: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| is_wanted(event)).count()
    }
}

/// A store in a directory of its own.
pub struct Place {
    pub directory: tempfile::TempDir,
    pub store: Store,
    pub watcher: Arc<Watcher>,
    pub cancel: Cancel,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), StoreOptions::default()).unwrap();
        Self { directory, store, watcher: Arc::default(), cancel: Cancel::new() }
    }

    pub fn pull(&self, reference: &str, options: &PullOptions) -> Result<ImageRecord> {
        let reference: Reference = reference.parse().unwrap();
        let watcher: Arc<dyn Progress> = Arc::clone(&self.watcher) as Arc<dyn Progress>;
        pull(&self.store, &reference, options, &watcher, &self.cancel)
    }

    /// Pulls what must fail; gives the error's text, having seen that nothing was published.
    pub fn refuses(&self, reference: &str, options: &PullOptions) -> String {
        let error = match self.pull(reference, options) {
            Ok(record) => panic!("pulled {}", record.manifest),
            Err(error) => error.to_string(),
        };
        assert!(self.store.images().unwrap().is_empty(), "an image was published: {error}");
        for directory in ["layers/sha256", "layers/blobs", "index/sha256", "staging"] {
            let left: Vec<_> = std::fs::read_dir(self.store.root().join(directory))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert!(left.is_empty(), "{directory} holds {left:?} after: {error}");
        }
        error
    }
}

/// Options that ask the source.
pub fn always() -> PullOptions {
    PullOptions { policy: PullPolicy::Always, ..PullOptions::default() }
}
