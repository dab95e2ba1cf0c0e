//! What the tests of store and ingest share: small tars, stores in temporary directories, whole pulls.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

use crate::ingest::{Ingest, Ingested, LayerSpec};
use crate::io::IoChoice;
use crate::store::{ImageRecord, LayerRecord, PullGuard, Sink, Store, StoreOptions, chain_id};
use crate::{Digest, Result};

/// The platform of every image here.
pub(crate) const PLATFORM: &str = "linux/amd64";

/// A layer as it comes: its tar, and the tar compressed.
pub(crate) struct TestLayer {
    pub(crate) tar: Vec<u8>,
    pub(crate) blob: Vec<u8>,
}

impl TestLayer {
    /// A layer with one file of `bytes` not very compressible bytes, named and filled after `seed`.
    pub(crate) fn new(seed: u8, bytes: usize) -> Self {
        let mut state = u64::from(seed) + 1;
        let content: Vec<u8> = (0..bytes)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 60) as u8
            })
            .collect();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        builder.append_data(&mut header, format!("file-{seed}"), content.as_slice()).expect("tar");
        Self::of_tar(builder.into_inner().expect("tar"))
    }

    pub(crate) fn of_tar(tar: Vec<u8>) -> Self {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar).expect("gzip");
        Self { blob: encoder.finish().expect("gzip"), tar }
    }

    pub(crate) fn diff_id(&self) -> Digest {
        Digest::of(&self.tar)
    }

    pub(crate) fn spec(&self) -> LayerSpec {
        LayerSpec { blob: Some(Digest::of(&self.blob)), diff_id: self.diff_id(), label: "test layer".into() }
    }
}

pub(crate) fn options(io: IoChoice, sink: Sink) -> StoreOptions {
    StoreOptions { io, sink, ..StoreOptions::default() }
}

pub(crate) fn open(root: &Path) -> Store {
    Store::open(root, StoreOptions::default()).expect("store opens")
}

/// Feeds a layer in uneven pieces; `None` if it was there already.
pub(crate) fn ingest(
    store: &Store,
    guard: &PullGuard,
    spec: LayerSpec,
    blob: &[u8],
) -> Result<Option<Ingested>> {
    let Ingest::Started(mut layer) = store.ingest(guard, spec)? else { return Ok(None) };
    for piece in [&blob[..blob.len().min(3)], &blob[blob.len().min(3)..]] {
        for chunk in piece.chunks(70_001) {
            layer.feed(chunk)?;
        }
    }
    layer.finish().map(Some)
}

/// The record of an image made of `layers`.
pub(crate) fn record(name: &str, layers: &[TestLayer]) -> ImageRecord {
    let chain: Vec<Digest> = layers.iter().map(TestLayer::diff_id).collect();
    let config = config_bytes(name);
    ImageRecord {
        manifest: Digest::of(manifest_bytes(name).as_slice()),
        config: Digest::of(&config),
        config_json: serde_json::from_slice(&config).expect("JSON"),
        platform: PLATFORM.into(),
        chain_id: chain_id(&chain),
        layers: layers
            .iter()
            .map(|layer| LayerRecord {
                blob: Some(Digest::of(&layer.blob)),
                blob_bytes: layer.blob.len() as u64,
                media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
                diff_id: layer.diff_id(),
                tar_bytes: layer.tar.len() as u64,
            })
            .collect(),
        reference: name.into(),
    }
}

pub(crate) fn manifest_bytes(name: &str) -> Vec<u8> {
    format!("{{\"manifest of\":\"{name}\"}}").into_bytes()
}

pub(crate) fn config_bytes(name: &str) -> Vec<u8> {
    format!("{{\"config of\":\"{name}\"}}").into_bytes()
}

/// A whole pull, from the layers to the name.
pub(crate) fn pull(store: &Store, name: &str, layers: &[TestLayer]) -> Result<ImageRecord> {
    let guard = store.begin_pull()?;
    let mut fresh = HashMap::new();
    for layer in layers {
        if let Some(done) = ingest(store, &guard, layer.spec(), &layer.blob)? {
            fresh.insert(done.diff_id, done.entries);
        }
    }
    store.put_blob(&guard, &manifest_bytes(name))?;
    store.put_blob(&guard, &config_bytes(name))?;
    let record = record(name, layers);
    store.build_index(&guard, &record.diff_ids(), fresh)?;
    store.put_image(&guard, name, PLATFORM, &record)?;
    Ok(record)
}

/// What lies in the staging directory.
pub(crate) fn staged(store: &Store) -> Vec<String> {
    store.files_in("staging").expect("staging is listed").into_iter().map(|(name, _)| name).collect()
}
