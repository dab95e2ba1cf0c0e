//! Bad images through the command: exit status 125, words that name what is wrong, nothing kept.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use celda_layerfs::Digest;
use common::{Celda, busybox, describe, privileged};
use serde_json::Value;

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
        let dir = celda.files().parent().unwrap().join("layout");
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

    /// The image must be refused with these words, and leave neither image nor layer nor staging.
    fn is_refused(&self, words: &[&str]) {
        let image = self.celda.image();
        let error = self.celda.fails(125, &["run", "--rm", &image, "/bin/busybox", "true"]);
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not in: {error}");
        let images: Value = serde_json::from_str(&self.celda.ok(&["images", "--json"])).unwrap();
        assert_eq!(images.as_array().map(Vec::len), Some(0), "{images}");
        for kept in ["layers/sha256", "index/sha256", "staging", "containers"] {
            let count = fs::read_dir(self.celda.root().join(kept)).map_or(0, Iterator::count);
            assert_eq!(count, 0, "{kept} is not empty");
        }
    }
}

#[test]
fn privileged_a_truncated_layer_is_refused() {
    let Some(layout) = Layout::new("truncated_layer") else { return };
    let path = layout.layer();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    layout.is_refused(&["sha256:"]);
}

#[test]
fn privileged_a_changed_layer_is_refused() {
    let Some(layout) = Layout::new("changed_layer") else { return };
    let path = layout.layer();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    layout.is_refused(&[]);
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
    layout.is_refused(&[]);
}

#[test]
fn privileged_another_architecture_is_refused_by_name() {
    let Some(layout) = Layout::new("other_architecture") else { return };
    layout.change_config(|config| config["architecture"] = "riscv64".into());
    let image = layout.celda.image();
    layout.celda.fails(125, &["run", "--rm", &image, "/bin/busybox", "true"]);
}

#[test]
fn privileged_without_permission_it_says_what_to_do() {
    let Some(layout) = Layout::new("no_permission") else { return };
    let folder = layout.celda.files();
    let binary = folder.join("celda");
    fs::copy(env!("CARGO_BIN_EXE_celda"), &binary).unwrap();
    for path in [&binary, &folder, folder.parent().unwrap()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let root = folder.parent().unwrap().join("not-mine");
    fs::create_dir(&root).unwrap();
    let mut command = Command::new(&binary);
    command.uid(65_534).gid(65_534).env_clear().current_dir("/");
    let output = command.arg("--root").arg(&root).arg("images").output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", describe(&output));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("root") && error.contains("not-mine"), "{error}");
}

#[test]
fn privileged_a_pull_killed_at_any_time_leaves_nothing_to_repair() {
    let Some(layout) = Layout::new("killed_pull") else { return };
    let celda = &layout.celda;
    let image = celda.image();
    for delay_ms in (0..60).step_by(6) {
        let mut pull = celda.command(&["pull", "--quiet", &image]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        let _ = pull.kill();
        pull.wait().unwrap();
        let report: Value = serde_json::from_str(&celda.ok(&["verify", "--json", "--dry-run"])).unwrap();
        assert!(report.as_array().unwrap().iter().all(|item| item["outcome"] == "good"), "{report}");
        celda.output(&["rmi", "--force", &image]);
        celda.ok(&["gc"]);
        assert_eq!(fs::read_dir(celda.root().join("staging")).unwrap().count(), 0);
    }
    assert_eq!(celda.ok(&["run", "--rm", &image, "/bin/busybox", "echo", "whole"]), "whole\n");
}
