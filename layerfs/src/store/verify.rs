//! Looking at every byte of the store, and mending what can be mended.
//!
//! ```text
//! layer   hash the tar, compare with its name     broken: put aside, fetched again through `Heal`, or put back
//! blob    hash, compare with its name             broken: fetched again through `Heal`
//! index   parse, compare with one made anew       broken: replaced by the one made anew
//! record  parse, are all its parts there          missing parts: fetched or made again; a lost one of a name:
//!                                                 made again from manifest and config
//! ```
//!
//! Nothing is taken away for which there is no better: a layer that cannot be fetched stays as it is, and one that
//! cannot be read (too many open files, a disk that fails) is not touched. [`Store::check`] only looks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::store::crash::{self, Step};
use crate::store::fault::fault;
use crate::store::index::chain_id;
use crate::store::layout::digest_of_name;
use crate::store::publish::{Durability, Staged, publish, sync_directory};
use crate::store::pull::PullGuard;
use crate::store::records::{ImageRecord, NameRecord};
use crate::store::{Sink, Store};
use crate::{Digest, Result, erofs};

/// Fetches again what `verify` found broken. The transports implement it.
pub trait Heal {
    /// Fetches layer `layer` (an index into `image.layers`) and ingests it; `false` if this healer cannot.
    ///
    /// # Errors
    /// Why the fetch failed; `verify` reports it and goes on.
    fn fetch_layer(
        &self,
        store: &Store,
        guard: &PullGuard,
        image: &ImageRecord,
        layer: usize,
    ) -> Result<bool>;

    /// Fetches the manifest or config `blob` and puts it; `false` if this healer cannot.
    ///
    /// # Errors
    /// Why the fetch failed; `verify` reports it and goes on.
    fn fetch_blob(
        &self,
        store: &Store,
        guard: &PullGuard,
        image: &ImageRecord,
        blob: &Digest,
    ) -> Result<bool>;
}

/// Heals nothing: what is broken is named.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHeal;

impl Heal for NoHeal {
    fn fetch_layer(&self, _: &Store, _: &PullGuard, _: &ImageRecord, _: usize) -> Result<bool> {
        Ok(false)
    }

    fn fetch_blob(&self, _: &Store, _: &PullGuard, _: &ImageRecord, _: &Digest) -> Result<bool> {
        Ok(false)
    }
}

/// What kind of thing was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A layer's tar.
    Layer,
    /// A manifest or config.
    Blob,
    /// A merged index.
    Index,
    /// A directory tree. Only its presence is looked at.
    Tree,
    /// An image record or a name.
    Record,
}

/// How it was found and left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// It was broken or missing as told, and is good now.
    Healed(String),
    /// It is broken as told, and as it was.
    Broken(String),
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyItem {
    /// What kind of thing.
    pub part: Part,
    /// Its file.
    pub path: PathBuf,
    /// The images that need it, by reference; empty if none does.
    pub images: Vec<String>,
    /// How many bytes of it were looked at.
    pub bytes: u64,
    /// How it is.
    pub outcome: Outcome,
}

/// What a verify saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Everything that was looked at.
    pub items: Vec<VerifyItem>,
}

impl VerifyReport {
    /// Whether nothing is broken now.
    pub fn is_good(&self) -> bool {
        !self.items.iter().any(|item| matches!(item.outcome, Outcome::Broken(_)))
    }
}

/// What a look at a layer found.
enum Look {
    /// So many bytes, the right ones.
    Good(u64),
    /// No such file.
    Missing,
    /// So many bytes, which have another digest as told.
    Wrong(u64, String),
    /// Whether it is right could not be seen.
    Unreadable(String),
}

/// The images that need a part, and one of them with the part's place in it, to fetch it by.
struct Wanted<'a> {
    images: Vec<String>,
    by: Option<(&'a ImageRecord, usize)>,
}

struct Verifier<'a> {
    store: &'a Store,
    guard: PullGuard,
    /// Who fetches again; none if nothing is to be changed.
    heal: Option<&'a dyn Heal>,
    images: BTreeMap<Digest, ImageRecord>,
    /// Layers that are not as they should be: nothing is made of them.
    broken: BTreeSet<Digest>,
    report: VerifyReport,
}

impl Store {
    /// Looks at every layer, blob, index and record; mends what can be made again, and asks `heal` for the rest.
    /// gc waits while this runs; pulls and runs do not.
    ///
    /// # Errors
    /// Only what keeps it from looking at all; what is broken is in the report.
    pub fn verify(&self, heal: &dyn Heal) -> Result<VerifyReport> {
        self.look(self.begin_pull()?, Some(heal))
    }

    /// [`verify`](Self::verify) without changing anything: what it would mend is broken in the report.
    ///
    /// # Errors
    /// As `verify`.
    pub fn check(&self) -> Result<VerifyReport> {
        self.look(self.hold()?, None)
    }

    fn look(&self, guard: PullGuard, heal: Option<&dyn Heal>) -> Result<VerifyReport> {
        let images = self.image_records()?;
        let (broken, report) = (BTreeSet::new(), VerifyReport::default());
        let mut verifier = Verifier { store: self, guard, heal, images, broken, report };
        verifier.records()?;
        verifier.layers()?;
        verifier.blobs()?;
        verifier.sinks();
        Ok(verifier.report)
    }
}

impl Verifier<'_> {
    fn add(&mut self, part: Part, path: PathBuf, images: Vec<String>, bytes: u64, outcome: Outcome) {
        self.report.items.push(VerifyItem { part, path, images, bytes, outcome });
    }

    /// Every name must lead to a record, and every record parse.
    fn records(&mut self) -> Result<()> {
        for (path, name) in self.store.name_records()? {
            let outcome = match self.images.get(&name.manifest) {
                Some(_) => Outcome::Good,
                None => self.mend_record(&name)?,
            };
            self.add(Part::Record, path, vec![name.reference], 0, outcome);
        }
        for manifest in self.store.manifests()? {
            let path = self.store.layout().image(&manifest);
            let outcome = match self.store.image_by_manifest(&manifest) {
                Ok(_) => Outcome::Good,
                Err(error) => Outcome::Broken(error.to_string()),
            };
            self.add(Part::Record, path, vec![], 0, outcome);
        }
        Ok(())
    }

    fn mend_record(&mut self, name: &NameRecord) -> Result<Outcome> {
        let lost = format!("it names image {}, which has no record", name.manifest);
        if self.heal.is_none() {
            return Ok(Outcome::Broken(format!("{lost}; `celda verify` tries to make it again")));
        }
        Ok(match self.store.rebuild_record(name)? {
            Some(record) => {
                self.images.insert(name.manifest, record);
                Outcome::Healed(format!("{lost}; made again from its manifest and config"))
            }
            None => Outcome::Broken(format!("{lost}, and its manifest or config is missing; pull it again")),
        })
    }

    fn layers(&mut self) -> Result<()> {
        let images = std::mem::take(&mut self.images);
        let mut wanted: BTreeMap<Digest, Wanted<'_>> = BTreeMap::new();
        for (name, _) in self.store.files_in("layers/sha256")? {
            if let Some(diff_id) = digest_of_name(&name, ".tar") {
                wanted.insert(diff_id, Wanted { images: vec![], by: None });
            }
        }
        for image in images.values() {
            for (position, layer) in image.layers.iter().enumerate() {
                let entry = wanted.entry(layer.diff_id).or_insert(Wanted { images: vec![], by: None });
                entry.images.push(image.reference.clone());
                entry.by.get_or_insert((image, position));
            }
        }
        for (diff_id, wanted) in wanted {
            let path = self.store.layer_path(&diff_id);
            let (bytes, outcome) = match self.look_at_layer(&diff_id, &path) {
                Look::Good(bytes) => (bytes, Outcome::Good),
                Look::Unreadable(reason) => (0, Outcome::Broken(reason)),
                Look::Missing => (0, self.mend_layer("missing", wanted.by)),
                Look::Wrong(bytes, reason) => (bytes, self.replace_layer(&path, &reason, wanted.by)?),
            };
            if matches!(outcome, Outcome::Broken(_)) {
                self.broken.insert(diff_id);
            }
            self.add(Part::Layer, path, wanted.images, bytes, outcome);
        }
        if self.heal.is_some() {
            sync_directory(&self.store.layout().directory("layers/sha256"))?;
        }
        self.images = images;
        Ok(())
    }

    fn look_at_layer(&self, diff_id: &Digest, path: &Path) -> Look {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Look::Missing,
            Err(error) => return Look::Unreadable(format!("cannot be opened: {error}")),
        };
        match self.guard.workshop().hash(file) {
            Ok((actual, bytes)) if actual == *diff_id => Look::Good(bytes),
            Ok((actual, bytes)) => Look::Wrong(bytes, format!("its bytes have {actual}")),
            Err(error) => Look::Unreadable(format!("cannot be read: {error}")),
        }
    }

    /// Puts a layer whose bytes are wrong aside, so that the right ones can be ingested; and back if none come.
    fn replace_layer(&self, path: &Path, reason: &str, by: Option<(&ImageRecord, usize)>) -> Result<Outcome> {
        if self.heal.is_none() || by.is_none() {
            return Ok(self.mend_layer(reason, by));
        }
        let aside = Staged::aside(self.store.layout(), "broken", path)?;
        crash::reached(Step::BrokenRemoved);
        let outcome = self.mend_layer(reason, by);
        if !path.exists() {
            aside.rename_to(path)?;
        }
        Ok(outcome)
    }

    fn mend_layer(&self, reason: &str, by: Option<(&ImageRecord, usize)>) -> Outcome {
        self.mend(reason, |heal| match by {
            Some((image, layer)) => heal.fetch_layer(self.store, &self.guard, image, layer),
            None => Ok(false),
        })
    }

    /// Runs a fetch, if anything is to be changed, and tells what came of it.
    fn mend(&self, reason: &str, fetch: impl FnOnce(&dyn Heal) -> Result<bool>) -> Outcome {
        match self.heal.map(fetch) {
            None => Outcome::Broken(format!("{reason}; `celda verify` tries to fetch it again")),
            Some(Ok(true)) => Outcome::Healed(format!("{reason}; fetched again")),
            Some(Ok(false)) => Outcome::Broken(format!("{reason}; nobody has it any more")),
            Some(Err(error)) => Outcome::Broken(format!("{reason}; fetching it again failed: {error}")),
        }
    }

    fn blobs(&mut self) -> Result<()> {
        let images = std::mem::take(&mut self.images);
        let mut wanted: BTreeMap<Digest, Vec<&ImageRecord>> = BTreeMap::new();
        for (name, _) in self.store.files_in("blobs/sha256")? {
            if let Some(digest) = digest_of_name(&name, "") {
                wanted.insert(digest, vec![]);
            }
        }
        for image in images.values() {
            for digest in [image.manifest, image.config] {
                wanted.entry(digest).or_default().push(image);
            }
        }
        for (digest, by) in wanted {
            let path = self.store.layout().blob(&digest);
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            let references = by.iter().map(|image| image.reference.clone()).collect();
            let outcome = match self.store.blob(&digest) {
                Ok(Some(_)) => Outcome::Good,
                Err(error) => Outcome::Broken(error.to_string()),
                Ok(None) => {
                    let reason = if path.exists() { "its bytes have another digest" } else { "missing" };
                    self.mend(reason, |heal| match by.first() {
                        Some(image) => heal.fetch_blob(self.store, &self.guard, image, &digest),
                        None => Ok(false),
                    })
                }
            };
            self.add(Part::Blob, path, references, bytes, outcome);
        }
        self.images = images;
        Ok(())
    }

    /// Every image's chain must have its index (or tree), and the index must be what celda would write now.
    fn sinks(&mut self) {
        let images = std::mem::take(&mut self.images);
        let mut chains: BTreeMap<Digest, (Vec<Digest>, Vec<String>)> = BTreeMap::new();
        for image in images.values() {
            let chain = chains.entry(image.chain_id).or_insert_with(|| (image.diff_ids(), vec![]));
            chain.1.push(image.reference.clone());
        }
        for (id, (chain, references)) in chains {
            let path = self.store.lease_path(&id);
            let (part, looked) = match self.store.options().sink {
                Sink::Index => (Part::Index, self.look_at_index(&id, &chain)),
                Sink::Directory => (Part::Tree, self.look_at_tree(&id, &chain)),
            };
            let (bytes, outcome) = match looked {
                Ok(found) => found,
                Err(error) => (0, Outcome::Broken(error.to_string())),
            };
            self.add(part, path, references, bytes, outcome);
        }
        self.images = images;
    }

    fn look_at_index(&self, id: &Digest, chain: &[Digest]) -> Result<(u64, Outcome)> {
        let store = self.store;
        if chain_id(chain) != *id {
            return Ok((0, Outcome::Broken("its record names layers of another chain".into())));
        }
        let path = store.index_path(id);
        let found = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(fault("read", &path, error)),
        };
        if let Some(layer) = chain.iter().find(|diff_id| self.broken.contains(*diff_id)) {
            return Ok((
                0,
                Outcome::Broken(format!("it cannot be checked: layer {layer} is broken or missing")),
            ));
        }
        let tree = store.merge(id, chain, HashMap::new())?;
        let right = store.index_bytes(id, chain, &tree)?;
        let bytes = found.as_ref().map_or(0, Vec::len) as u64;
        let wrong = match found {
            None => Some("missing".to_owned()),
            Some(found) if found == right => None,
            Some(found) => Some(match erofs::parse(&found, store.limits()) {
                Ok(_) => "it is not what its layers say".to_owned(),
                Err(error) => error.to_string(),
            }),
        };
        let Some(wrong) = wrong else { return Ok((bytes, Outcome::Good)) };
        if self.heal.is_none() {
            let reason = format!("{wrong}; `celda verify` makes it again from its layers");
            return Ok((bytes, Outcome::Broken(reason)));
        }
        // Containers that run keep the old file, which the rename only unlinks.
        let steps = (Step::IndexStaged, Step::IndexRenamed);
        publish(store.layout(), &path, &right, Durability::Synced, steps)?;
        sync_directory(&store.layout().directory("index/sha256"))?;
        Ok((bytes, Outcome::Healed(format!("{wrong}; made again from its layers"))))
    }

    fn look_at_tree(&self, id: &Digest, chain: &[Digest]) -> Result<(u64, Outcome)> {
        if self.store.has_sink(id) {
            return Ok((0, Outcome::Good));
        }
        if self.heal.is_none() {
            let reason = "missing; `celda verify` unpacks it again from its layers";
            return Ok((0, Outcome::Broken(reason.into())));
        }
        if let Some(layer) = chain.iter().find(|diff_id| self.broken.contains(*diff_id)) {
            return Ok((0, Outcome::Broken(format!("missing; its layer {layer} is broken or missing"))));
        }
        let tree = self.store.layout().tree(id);
        if tree.exists() {
            self.store.discard_tree(&tree)?;
        }
        self.store.build_index(&self.guard, chain, HashMap::new())?;
        Ok((0, Outcome::Healed("missing; unpacked again from its layers".into())))
    }
}
