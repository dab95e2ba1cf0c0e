//! Tars to a mounted index, by the same steps as the store.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use celda_layerfs::erofs::{self, Device};
use celda_layerfs::mount::{Ladder, Rung};
use celda_layerfs::tar::read_all;
use celda_layerfs::tree::{Merger, Tree};
use celda_layerfs::{Digest, Limits};

use crate::snapshot::{Shown, tree_of};

/// Devices that fsck.erofs has room for (erofs-utils 1.9: more overrun an array of it).
const FSCK_DEVICES_MAX: usize = 255;
/// What fsck.erofs of erofs-utils 1.5 reads at once.
const FSCK_READ_BYTES: usize = 4096;

/// Reads bytes of layers' tars.
pub(crate) fn content_of(tars: &[Vec<u8>]) -> impl FnMut(u16, u64, &mut [u8]) -> io::Result<()> {
    |layer, offset, into| {
        into.copy_from_slice(&tars[usize::from(layer)][offset as usize..][..into.len()]);
        Ok(())
    }
}

pub(crate) fn merge(tars: &[Vec<u8>]) -> Tree {
    let limits = Limits::default();
    let mut merger = Merger::new(&limits);
    for tar in tars {
        merger.add_layer(read_all(tar, &limits).unwrap()).unwrap();
    }
    merger.finish()
}

pub(crate) fn devices(tars: &[Vec<u8>]) -> Vec<Device> {
    tars.iter().map(|tar| Device { tar_bytes: tar.len() as u64, diff_id: Digest::of(tar) }).collect()
}

/// Merges and writes, and insists that what is read back is the tree.
pub(crate) fn index(tars: &[Vec<u8>]) -> Vec<u8> {
    let tree = merge(tars);
    let index = erofs::write(&tree, &devices(tars), &mut content_of(tars)).unwrap();
    let parsed = erofs::parse(&index, &Limits::default()).unwrap();
    assert_eq!(parsed.difference(&index, &tree, &mut content_of(tars)).unwrap(), None);
    index
}

/// Whether this process may mount; panics where it must.
pub(crate) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    assert!(
        is_root || std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none_or(|value| value != "1"),
        "needs root"
    );
    if !is_root {
        println!("skipped: needs root");
    }
    is_root
}

/// An index mounted, and its files.
pub(crate) struct Mounted {
    pub(crate) root: OwnedFd,
    pub(crate) index: PathBuf,
    pub(crate) tars: Vec<PathBuf>,
}

impl Mounted {
    /// Writes the index of `tars` beneath `store` and mounts it, detached. `None`, said: this kernel mounts none.
    pub(crate) fn new(store: &Path, tars: &[Vec<u8>]) -> Option<Self> {
        let ladder = Ladder::probe(store);
        if ladder.rung == Rung::Directory {
            println!("skipped: this kernel mounts no index: {:?}", ladder.why);
            return None;
        }
        let path = store.join("image.erofs");
        fs::write(&path, index(tars)).unwrap();
        let paths: Vec<PathBuf> =
            (0..tars.len()).map(|layer| store.join(format!("layer-{layer}.tar"))).collect();
        paths.iter().zip(tars).for_each(|(path, tar)| fs::write(path, tar).unwrap());
        let root = ladder.mount_image(&path, &paths).unwrap();
        Some(Self { root, index: path, tars: paths })
    }

    pub(crate) fn shown(&self) -> BTreeMap<PathBuf, Shown> {
        tree_of(self.root.as_fd())
    }

    /// Lets fsck.erofs look at every inode and its extents, where it is new enough to know devices and small blocks.
    pub(crate) fn fsck(&self) {
        if self.tars.len() > FSCK_DEVICES_MAX {
            return;
        }
        let mut command = Command::new("fsck.erofs");
        command.args(self.tars.iter().map(|tar| format!("--device={}", tar.display())));
        // The tool reads its first 4 KiB at once, which a small index does not have: it looks at a copy with zeros behind.
        let padded = self.index.with_extension("padded");
        let mut bytes = fs::read(&self.index).unwrap();
        bytes.resize(bytes.len().next_multiple_of(FSCK_READ_BYTES), 0);
        fs::write(&padded, bytes).unwrap();
        let Some(output) = run(command.arg(&padded)) else { return };
        // 1.8 ends by SIGSEGV on any of these indexes, which 1.9 finds right.
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&output.status) {
            return println!("skipped fsck.erofs, which died of signal {signal}");
        }
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        if ["blkszbits", "blksize", "block size"].iter().any(|word| said.contains(word)) {
            return println!("skipped fsck.erofs, which is too old: {said}");
        }
        assert!(output.status.success(), "{said}");
    }
}

/// Runs a tool; `None`, said, if it is not installed.
pub(crate) fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("skipped: {:?} is not installed", command.get_program());
            None
        }
        other => Some(other.unwrap()),
    }
}

/// Runs a tool that must succeed; `None`, said, if it is not installed.
pub(crate) fn succeed(command: &mut Command) -> Option<Vec<u8>> {
    let output = run(command)?;
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// Compares name by name, so that a failure names the first.
#[track_caller]
pub(crate) fn assert_same(got: &BTreeMap<PathBuf, Shown>, wanted: &BTreeMap<PathBuf, Shown>, what: &str) {
    let missing: Vec<_> = wanted.keys().filter(|path| !got.contains_key(*path)).collect();
    let extra: Vec<_> = got.keys().filter(|path| !wanted.contains_key(*path)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}: missing {missing:?}, extra {extra:?}");
    for (path, shown) in got {
        assert_eq!(shown, &wanted[path], "{what}: {}", path.display());
    }
}
