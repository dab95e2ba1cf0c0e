//! Taking names and images away, as `docker rmi` does. Bytes are freed by gc.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::store::Store;
use crate::store::crash::{self, Step};
use crate::store::fault::fault;
use crate::store::publish::sync_directory;
use crate::store::records::{ImageRecord, NameRecord};
use crate::{Digest, Error, Result};

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The references that name nothing any more.
    pub untagged: Vec<String>,
    /// The image that has no name any more; gc frees what only it used.
    pub deleted: Option<Digest>,
    /// Whether the image is kept for now, as a container runs from it (only when forced).
    pub is_kept_by_lease: bool,
}

impl Store {
    /// Removes a name (a canonical reference, on all its platforms), and the image with its last name; or, by
    /// manifest digest or the unique start of one, an image with its one name.
    ///
    /// With `force`, an image goes with all its names, and the name of an image that runs is taken too: its
    /// record stays until the last container is gone and gc comes by.
    ///
    /// # Errors
    /// [`Error::UnknownImage`], [`Error::AmbiguousImage`], [`Error::ImageInUse`]; I/O errors of the store.
    pub fn remove(&self, name_or_id: &str, force: bool) -> Result<Removed> {
        let _catalogue = self.lock_catalogue()?;
        let all_names = self.name_records()?;
        let by_name: BTreeSet<Digest> = all_names
            .iter()
            .filter(|(_, name)| name.reference == name_or_id)
            .map(|(_, name)| name.manifest)
            .collect();
        let mut removed = Removed::default();
        if by_name.is_empty() {
            let Some(record) = self.image_by_id(name_or_id)? else {
                return Err(Error::UnknownImage(name_or_id.into()));
            };
            let names: Vec<_> =
                all_names.iter().filter(|(_, name)| name.manifest == record.manifest).collect();
            if names.len() > 1 && !force {
                let list: Vec<&str> = names.iter().map(|(_, name)| name.reference.as_str()).collect();
                let reason = format!(
                    "it has several names ({}); remove them one by one, or use --force",
                    list.join(", ")
                );
                return Err(Error::ImageInUse { image: name_or_id.into(), reason });
            }
            self.remove_names(&names, Some(&record), force, &mut removed)?;
            return Ok(removed);
        }
        for manifest in by_name {
            let (names, others): (Vec<_>, Vec<_>) = all_names
                .iter()
                .filter(|(_, name)| name.manifest == manifest)
                .partition(|(_, name)| name.reference == name_or_id);
            // A damaged record must not keep its name from being removed.
            let record = self.image_by_manifest(&manifest).ok().flatten();
            self.remove_names(&names, record.as_ref().filter(|_| others.is_empty()), force, &mut removed)?;
        }
        Ok(removed)
    }

    /// Unlinks name files, and the record of `doomed` if nothing leases it.
    fn remove_names(
        &self,
        names: &[&(std::path::PathBuf, NameRecord)],
        doomed: Option<&ImageRecord>,
        force: bool,
        removed: &mut Removed,
    ) -> Result<()> {
        let is_leased = doomed.is_some_and(|record| self.is_leased(&record.chain_id));
        if let Some(record) = doomed
            && is_leased
            && !force
        {
            let reason =
                "a container runs from it; stop the container first, or use --force to take its name only";
            return Err(Error::ImageInUse { image: record.reference.clone(), reason: reason.into() });
        }
        for (path, name) in names {
            unlink(path)?;
            removed.untagged.push(name.reference.clone());
        }
        sync_directory(&self.layout().directory("names"))?;
        crash::reached(Step::NameRemoved);
        let Some(record) = doomed else { return Ok(()) };
        if is_leased {
            removed.is_kept_by_lease = true;
            return Ok(());
        }
        unlink(&self.layout().image(&record.manifest))?;
        crash::reached(Step::RecordRemoved);
        removed.deleted = Some(record.manifest);
        Ok(())
    }
}

/// Removes a file; one that is gone already is fine.
pub(crate) fn unlink(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(fault("remove", path, error)),
        _ => Ok(()),
    }
}
