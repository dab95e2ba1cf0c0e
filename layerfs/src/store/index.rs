//! From layers to what an image is mounted from: the merged index, or the directory tree.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::store::crash::{self, Step};
use crate::store::fault::fault;
use crate::store::publish::{Durability, Staged, publish};
use crate::store::pull::PullGuard;
use crate::store::{Sink, Store};
use crate::sys::map::Map;
use crate::tar::{self, Entry};
use crate::tree::{Merger, Tree};
use crate::{Digest, Error, Result, directory, erofs};

/// The chain id of a whole chain; for an image without layers the digest of nothing.
pub fn chain_id(chain: &[Digest]) -> Digest {
    let id = chain.iter().fold(None, |parent, diff_id| Some(Digest::chain(parent.as_ref(), diff_id)));
    id.unwrap_or_else(|| Digest::of(b""))
}

impl Store {
    /// Makes what the chain (diffIDs, lowest first) is mounted from, unless it is there; gives the chain id.
    ///
    /// `fresh` holds the entries of layers that were just ingested; those of the others are read from their tars.
    ///
    /// # Errors
    /// [`Error::Index`] with the reason of the tar reader, the merger or the writer; I/O errors of the store.
    pub fn build_index(
        &self,
        _guard: &PullGuard,
        chain: &[Digest],
        fresh: HashMap<Digest, Vec<Entry>>,
    ) -> Result<Digest> {
        let id = chain_id(chain);
        if self.has_sink(&id) {
            return Ok(id);
        }
        let tree = self.merge(&id, chain, fresh)?;
        match self.options.sink {
            Sink::Index => {
                let index = self.index_bytes(&id, chain, &tree)?;
                let steps = (Step::IndexStaged, Step::IndexRenamed);
                publish(self.layout(), &self.layout().index(&id), &index, Durability::Synced, steps)?;
            }
            Sink::Directory => self.unpack_tree(&id, chain, &tree)?,
        }
        Ok(id)
    }

    /// The tree of a chain, whiteouts applied.
    pub(crate) fn merge(
        &self,
        id: &Digest,
        chain: &[Digest],
        mut fresh: HashMap<Digest, Vec<Entry>>,
    ) -> Result<Tree> {
        let mut merger = Merger::new(self.limits());
        for (position, diff_id) in chain.iter().enumerate() {
            // The empty layer often comes several times in one chain.
            let comes_again = chain[position + 1..].contains(diff_id);
            let known = if comes_again { fresh.get(diff_id).cloned() } else { fresh.remove(diff_id) };
            let entries = match known {
                Some(entries) => entries,
                None => self.entries(diff_id)?,
            };
            merger
                .add_layer(entries)
                .map_err(|source| Error::Index { chain_id: *id, source: Box::new(source) })?;
        }
        Ok(merger.finish())
    }

    /// The entries of a published layer, read from its tar: headers only.
    pub(crate) fn entries(&self, diff_id: &Digest) -> Result<Vec<Entry>> {
        let path = self.layer_path(diff_id);
        let file = File::open(&path).map_err(|error| fault("open", &path, error))?;
        let map = Map::of(&file).map_err(|error| fault("map", &path, error))?;
        tar::read_all(&map, self.limits())
            .map_err(|source| Error::Layer { label: diff_id.to_string(), source: Box::new(source) })
    }

    /// The bytes of the chain's index.
    pub(crate) fn index_bytes(&self, id: &Digest, chain: &[Digest], tree: &Tree) -> Result<Vec<u8>> {
        let mut files = Vec::with_capacity(chain.len());
        let mut devices = Vec::with_capacity(chain.len());
        for diff_id in chain {
            let path = self.layer_path(diff_id);
            let tar_bytes = fs::metadata(&path).map_err(|error| fault("look at", &path, error))?.len();
            devices.push(erofs::Device { tar_bytes, diff_id: *diff_id });
            files.push((path, None::<File>));
        }
        let mut content = |layer: u16, offset: u64, buffer: &mut [u8]| -> std::io::Result<()> {
            let (path, file) = files
                .get_mut(usize::from(layer))
                .ok_or_else(|| std::io::Error::other("the tree names a layer its chain has not"))?;
            let file = match file {
                Some(file) => file,
                None => file.insert(File::open(path)?),
            };
            file.read_exact_at(buffer, offset)
        };
        erofs::write(tree, &devices, &mut content)
            .map_err(|source| Error::Index { chain_id: *id, source: Box::new(source) })
    }

    /// Unpacks the tree in staging and publishes it with its lease file.
    fn unpack_tree(&self, id: &Digest, chain: &[Digest], tree: &Tree) -> Result<()> {
        let staged = Staged::directory(self.layout(), "tree")?;
        let rootfs = staged.path().join("rootfs");
        let tars: Vec<PathBuf> = chain.iter().map(|diff_id| self.layer_path(diff_id)).collect();
        directory::unpack(tree, &tars, &rootfs, self.limits()).map_err(|error| match error {
            Error::Io { action, path, source } => fault(action, &path, source),
            other => other,
        })?;
        crash::reached(Step::TreeStaged);
        let lease = staged.path().join(".lease");
        File::create(&lease).map_err(|error| fault("create", &lease, error))?;
        // The unpacking ends with a syncfs; this is the rest of what the rename will publish.
        staged.as_file().sync_all().map_err(|error| fault("fsync", staged.path(), error))?;
        publish_directory(staged, &self.layout().tree(id))?;
        crash::reached(Step::TreeRenamed);
        Ok(())
    }
}

/// Renames a staged directory into place; one that somebody else published first is as good.
fn publish_directory(staged: Staged, target: &Path) -> Result<()> {
    match staged.rename_to(target) {
        // Not looked for before: another process may be faster than the look.
        Err(Error::Io { source, .. })
            if matches!(source.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) =>
        {
            Ok(())
        }
        renamed => renamed.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::store::testing::open;

    #[test]
    fn whoever_publishes_a_tree_second_finds_the_firsts_as_good() {
        let place = tempfile::tempdir().expect("temporary directory");
        let store = open(place.path());
        for round in 0..100 {
            let (target, barrier) = (place.path().join(round.to_string()), Barrier::new(2));
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let staged = Staged::directory(store.layout(), "tree").expect("staged");
                        fs::create_dir(staged.path().join("rootfs")).expect("filled");
                        barrier.wait();
                        publish_directory(staged, &target).expect("one of the two is there");
                    });
                }
            });
            assert!(target.join("rootfs").exists());
            assert!(store.files_in("staging").expect("listed").is_empty());
        }
    }
}
