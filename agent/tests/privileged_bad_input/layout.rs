//! What lies on this disk.

use std::fs;
use std::path::{Path, PathBuf};

use celda_layerfs::Digest;
use serde_json::Value;

use crate::command::{Celda, busybox, privileged};

/// A layout with one image of busybox, not pulled, and the paths of its parts.
struct Layout {
    celda: Celda,
    dir: PathBuf,
}

impl Layout {
    fn new(test: &str) -> Option<Self> {
        if !privileged(test) {
            return None;
        }
        let busybox = busybox(test)?;
        let celda = Celda::new();
        celda.ok(&["pack", &celda.image(), &format!("{}:/bin/busybox", busybox.display())]);
        let dir = celda.directory().join("layout");
        Some(Self { celda, dir })
    }

    fn blob(&self, digest: &Value) -> PathBuf {
        self.dir.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
    }

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn manifest(&self) -> Value {
        let index = Self::read(&self.dir.join("index.json"));
        Self::read(&self.blob(&index["manifests"][0]["digest"]))
    }

    fn layer(&self) -> PathBuf {
        self.blob(&self.manifest()["layers"][0]["digest"])
    }

    /// Stores `document` as a blob; its digest and size.
    fn put(&self, document: &Value) -> (String, usize) {
        let bytes = serde_json::to_vec(document).unwrap();
        let digest = Digest::of(&bytes);
        fs::write(self.dir.join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
        (digest.to_string(), bytes.len())
    }

    /// Changes the config and makes manifest and index name the changed one.
    fn change_config(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest();
        let mut config = Self::read(&self.blob(&manifest["config"]["digest"]));
        change(&mut config);
        let (digest, size) = self.put(&config);
        manifest["config"]["digest"] = digest.into();
        manifest["config"]["size"] = size.into();
        let (digest, size) = self.put(&manifest);
        let path = self.dir.join("index.json");
        let mut index = Self::read(&path);
        index["manifests"][0]["digest"] = digest.into();
        index["manifests"][0]["size"] = size.into();
        fs::write(&path, serde_json::to_vec(&index).unwrap()).unwrap();
    }

    fn is_refused(&self, words: &[&str]) {
        crate::is_refused(&self.celda, &self.celda.image(), words);
    }
}

#[test]
fn privileged_a_truncated_layer_is_refused() {
    let Some(layout) = Layout::new("truncated_layer") else { return };
    let path = layout.layer();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    layout.is_refused(&["blobs/sha256/", "its descriptor says"]);
}

#[test]
fn privileged_a_changed_layer_is_refused() {
    let Some(layout) = Layout::new("changed_layer") else { return };
    let path = layout.layer();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let digest = layout.manifest()["layers"][0]["digest"].as_str().unwrap().to_owned();
    layout.is_refused(&[&digest]);
}

#[test]
fn privileged_a_wrong_diff_id_is_refused() {
    let Some(layout) = Layout::new("wrong_diff_id") else { return };
    let wrong = Digest::of(b"something else").to_string();
    layout.change_config(|config| config["rootfs"]["diff_ids"][0] = wrong.clone().into());
    layout.is_refused(&[&wrong, "expected"]);
}

#[test]
fn privileged_a_config_that_does_not_fit_is_refused() {
    let Some(layout) = Layout::new("config_misfit") else { return };
    layout.change_config(|config| config["rootfs"]["diff_ids"] = Value::Array(Vec::new()));
    layout.is_refused(&["1 layers", "rootfs.diff_ids has 0"]);
}

#[test]
fn privileged_another_architecture_is_refused_by_name() {
    let Some(layout) = Layout::new("other_architecture") else { return };
    layout.change_config(|config| config["architecture"] = "riscv64".into());
    layout.is_refused(&["linux/riscv64", "--platform"]);
}
