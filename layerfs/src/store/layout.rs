//! Where everything lies below the store's root. Paths only, no I/O.

use std::path::{Path, PathBuf};

use crate::Digest;

/// The directories of a store, in the order they are made; the last one tells that all of them are there.
///
/// All are for the store's owner alone: what containers wrote, what images unpack to and what volumes hold may be
/// setuid, and tars and configs may hold what is not for every user of the machine.
pub(crate) const DIRECTORIES: [&str; 13] = [
    "layers",
    "layers/sha256",
    "layers/blobs",
    "blobs",
    "blobs/sha256",
    "index",
    "index/sha256",
    "trees",
    "names",
    "images",
    "containers",
    "staging",
    "volumes",
];

/// Permissions of [`DIRECTORIES`].
pub(crate) const DIRECTORY_MODE: u32 = 0o700;

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn store_lock(&self) -> PathBuf {
        self.root.join("store.lock")
    }

    pub(crate) fn catalogue_lock(&self) -> PathBuf {
        self.root.join("catalogue.lock")
    }

    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join(format!("layers/sha256/{}.tar", diff_id.hex()))
    }

    pub(crate) fn blob_map(&self, blob: &Digest) -> PathBuf {
        self.root.join(format!("layers/blobs/{}", blob.hex()))
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join(format!("blobs/sha256/{}", digest.hex()))
    }

    pub(crate) fn index(&self, chain_id: &Digest) -> PathBuf {
        self.root.join(format!("index/sha256/{}.erofs", chain_id.hex()))
    }

    pub(crate) fn tree(&self, chain_id: &Digest) -> PathBuf {
        self.root.join(format!("trees/{}", chain_id.hex()))
    }

    pub(crate) fn tree_rootfs(&self, chain_id: &Digest) -> PathBuf {
        self.tree(chain_id).join("rootfs")
    }

    pub(crate) fn tree_lease(&self, chain_id: &Digest) -> PathBuf {
        self.tree(chain_id).join(".lease")
    }

    pub(crate) fn image(&self, manifest: &Digest) -> PathBuf {
        self.root.join(format!("images/{}.json", manifest.hex()))
    }

    /// Names are hashed: a reference may hold `/` and be longer than NAME_MAX.
    pub(crate) fn name(&self, reference: &str, platform: &str) -> PathBuf {
        let key = Digest::of(format!("{reference}|{platform}").as_bytes());
        self.root.join(format!("names/{}.json", key.hex()))
    }
}

/// The digest a file of the store is named by: `<64 hex digits><suffix>`.
pub(crate) fn digest_of_name(name: &str, suffix: &str) -> Option<Digest> {
    format!("sha256:{}", name.strip_suffix(suffix)?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_digests() {
        let layout = Layout::new(Path::new("/r"));
        let digest = Digest::of(b"x");
        let name = layout.layer(&digest).file_name().expect("has a name").to_string_lossy().into_owned();
        assert_eq!(digest_of_name(&name, ".tar"), Some(digest));
        assert_eq!(digest_of_name(&name, ".erofs"), None);
        assert_eq!(digest_of_name("lost+found", ""), None);
    }

    #[test]
    fn one_name_on_two_platforms_is_two_files() {
        let layout = Layout::new(Path::new("/r"));
        assert_ne!(layout.name("a:1", "linux/amd64"), layout.name("a:1", "linux/arm64"));
    }
}
