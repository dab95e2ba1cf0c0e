//! Looking images up: by name, by digest, by the start of a digest, and all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use crate::store::Store;
use crate::store::fault::fault;
use crate::store::layout::digest_of_name;
use crate::store::records::{self, ImageRecord, NameRecord};
use crate::{Digest, Error, Result};

/// The fewest digits of a digest that are taken as an id.
pub(crate) const SHORT_ID_MIN_DIGITS: usize = 4;

/// An image as a list shows it: once per name, or once without a name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedImage {
    /// The reference, unless its name was given to another image since.
    pub name: Option<String>,
    /// The platform it was pulled for.
    pub platform: String,
    /// The image.
    pub record: ImageRecord,
}

impl Store {
    /// The image that `name` (a canonical reference) means on `platform`. Two files are read, nothing else.
    ///
    /// # Errors
    /// [`Error::Record`] if one of the two is damaged.
    pub fn image(&self, name: &str, platform: &str) -> Result<Option<ImageRecord>> {
        match records::read::<NameRecord>(&self.layout().name(name, platform))? {
            Some(named) => self.image_by_manifest(&named.manifest),
            None => Ok(None),
        }
    }

    /// The image with this manifest.
    pub fn image_by_manifest(&self, manifest: &Digest) -> Result<Option<ImageRecord>> {
        let path = self.layout().image(manifest);
        let record = records::read::<ImageRecord>(&path)?;
        if record.as_ref().is_some_and(|record| record.manifest != *manifest) {
            return Err(Error::Record { path, reason: "it is the record of another image".into() });
        }
        Ok(record)
    }

    /// All images, sorted by name, those without one last. Damaged records are left out with a warning.
    pub fn images(&self) -> Result<Vec<NamedImage>> {
        let mut records = self.image_records()?;
        let mut named = Vec::new();
        let mut seen = BTreeSet::new();
        for (_, name) in self.name_records()? {
            if let Some(record) = records.get(&name.manifest) {
                seen.insert(name.manifest);
                let (name, platform) = (Some(name.reference), name.platform);
                named.push(NamedImage { name, platform, record: record.clone() });
            }
        }
        named.sort_by(|a, b| (&a.name, &a.platform).cmp(&(&b.name, &b.platform)));
        records.retain(|manifest, _| !seen.contains(manifest));
        named.extend(records.into_values().map(|record| NamedImage {
            name: None,
            platform: record.platform.clone(),
            record,
        }));
        Ok(named)
    }

    /// The image that the user's text means: `sha256:` and 64 digits, or the unique start of a manifest's digits.
    ///
    /// # Errors
    /// [`Error::AmbiguousImage`] if several images begin so.
    pub fn image_by_id(&self, id: &str) -> Result<Option<ImageRecord>> {
        if let Ok(manifest) = id.parse::<Digest>() {
            return self.image_by_manifest(&manifest);
        }
        let digits = id.strip_prefix("sha256:").unwrap_or(id);
        let is_short_id = (SHORT_ID_MIN_DIGITS..=64).contains(&digits.len())
            && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if !is_short_id {
            return Ok(None);
        }
        let fits: Vec<Digest> =
            self.manifests()?.into_iter().filter(|manifest| manifest.hex().starts_with(digits)).collect();
        match fits.as_slice() {
            [] => Ok(None),
            [manifest] => self.image_by_manifest(manifest),
            several => {
                let candidates: Vec<String> = several.iter().take(8).map(ToString::to_string).collect();
                Err(Error::AmbiguousImage { id: id.into(), candidates: candidates.join(", ") })
            }
        }
    }

    /// The manifests that have an image record, by their file names.
    pub(crate) fn manifests(&self) -> Result<BTreeSet<Digest>> {
        let names = self.files_in("images")?;
        Ok(names.iter().filter_map(|(name, _)| digest_of_name(name, ".json")).collect())
    }

    /// All readable image records.
    pub(crate) fn image_records(&self) -> Result<BTreeMap<Digest, ImageRecord>> {
        let mut images = BTreeMap::new();
        for manifest in self.manifests()? {
            match self.image_by_manifest(&manifest) {
                Ok(Some(record)) => drop(images.insert(manifest, record)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "an image is left out"),
            }
        }
        Ok(images)
    }

    /// All readable names with their files.
    pub(crate) fn name_records(&self) -> Result<Vec<(PathBuf, NameRecord)>> {
        let mut names = Vec::new();
        for (name, path) in self.files_in("names")? {
            if !name.ends_with(".json") {
                continue;
            }
            match records::read::<NameRecord>(&path) {
                Ok(Some(record)) => names.push((path, record)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a name is left out"),
            }
        }
        Ok(names)
    }

    /// Names and paths of what lies in a directory of the store. Names that are not UTF-8 are not ours.
    pub(crate) fn files_in(&self, directory: &str) -> Result<Vec<(String, PathBuf)>> {
        let path = self.layout().directory(directory);
        let mut files = Vec::new();
        for item in fs::read_dir(&path).map_err(|error| fault("list", &path, error))? {
            let item = item.map_err(Error::io("list", &path))?;
            if let Ok(name) = item.file_name().into_string() {
                files.push((name, item.path()));
            }
        }
        Ok(files)
    }
}
