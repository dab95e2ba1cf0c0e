//! Which images go when the disk fills: the least recently used first, until enough is free.
//!
//! ```text
//! Store::image_uses ──> [ImageUse] ──choose(wanted bytes)──> manifests ──> Store::evict ──> Store::gc
//!   leases, files' sizes          pure                                       names, then records
//! ```
//! When an image was used last is the modification time of the file that its leases are on. Whoever leases it, or lets go
//! after long, moves that ([`Store::touch`]); a crash loses nothing but the last move.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use crate::store::crash::{self, Step};
use crate::store::publish::sync_directory;
use crate::store::remove::unlink;
use crate::store::{Store, size};
use crate::{Digest, Result};

/// Uses within so many seconds of each other are one: a start of a container need not write to the disk.
const USE_GRAIN_S: i64 = 600;

/// An image as the choice sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// Which.
    pub manifest: Digest,
    /// What it is mounted from.
    pub chain_id: Digest,
    /// Seconds since 1970; 0: never, as far as is known.
    pub last_use_s: i64,
    /// What it takes of the disk: layers and index, each with its bytes. Images share them.
    pub parts: BTreeMap<Digest, u64>,
    /// It stays, whatever is short.
    pub is_kept: bool,
}

/// What is to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The images, the one that was used longest ago first.
    pub manifests: Vec<Digest>,
    /// Bytes that nobody needs without them.
    pub freed_bytes: u64,
}

/// Chooses images that together free `wanted_bytes`, or all that can go where that is less. None is chosen that frees
/// nothing.
pub fn choose(images: &[ImageUse], wanted_bytes: u64) -> Choice {
    let mut users_count: BTreeMap<Digest, usize> = BTreeMap::new();
    for part in images.iter().flat_map(|image| image.parts.keys()) {
        *users_count.entry(*part).or_default() += 1;
    }
    let mut free: Vec<&ImageUse> = images.iter().filter(|image| !image.is_kept).collect();
    free.sort_by_key(|image| (image.last_use_s, image.manifest));
    let (mut chosen, mut freed_bytes) = (Vec::new(), 0_u64);
    for image in free {
        if freed_bytes >= wanted_bytes {
            break;
        }
        for (part, bytes) in &image.parts {
            let left = users_count.entry(*part).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                freed_bytes = freed_bytes.saturating_add(*bytes);
            }
        }
        chosen.push(image);
    }
    // One whose parts others keep would go for nothing.
    let frees = |image: &&ImageUse| {
        image.parts.iter().any(|(part, bytes)| *bytes > 0 && users_count.get(part) == Some(&0))
    };
    let manifests = chosen.into_iter().filter(frees).map(|image| image.manifest).collect();
    Choice { manifests, freed_bytes }
}

impl Store {
    /// All images with what they take and when they were used last. Those that somebody leases are kept, and those of
    /// `kept`.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn image_uses(&self, kept: &BTreeSet<Digest>) -> Result<Vec<ImageUse>> {
        let image_use = |(manifest, record): (Digest, super::ImageRecord)| {
            let leased_file = self.lease_path(&record.chain_id);
            let layers =
                record.diff_ids().into_iter().map(|layer| (layer, size::bytes_of(&self.layer_path(&layer))));
            let sink = match self.options.sink {
                super::Sink::Index => size::bytes_of(&leased_file),
                super::Sink::Directory => size::bytes_of_tree(&self.tree_path(&record.chain_id)),
            };
            let mut parts: BTreeMap<Digest, u64> = layers.collect();
            // A chain of one layer is named as the layer is.
            *parts.entry(record.chain_id).or_default() += sink;
            ImageUse {
                manifest,
                chain_id: record.chain_id,
                last_use_s: fs::metadata(&leased_file).map_or(0, |file| file.mtime()),
                parts,
                is_kept: kept.contains(&manifest) || self.is_leased(&record.chain_id),
            }
        };
        Ok(self.image_records()?.into_iter().map(image_use).collect())
    }

    /// Notes that the images of a chain are used now. Nothing happens where that cannot be written: it is a hint.
    pub fn touch(&self, chain_id: &Digest) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times =
            Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: now };
        let _ = rustix::fs::utimensat(CWD, self.lease_path(chain_id), &times, AtFlags::empty());
    }

    /// [`touch`](Self::touch) of a file whose modification time is known, if it is old.
    pub(crate) fn touch_if_old(&self, chain_id: &Digest, modified_s: i64) {
        let now_s = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        if !(0..USE_GRAIN_S).contains(&(now_s - modified_s)) {
            self.touch(chain_id);
        }
    }

    /// Takes images away with all their names, but for those that are leased by now. Their bytes are freed by gc.
    /// Answers those that went, with their names.
    ///
    /// # Errors
    /// I/O errors of the store; those that went before stay away.
    pub fn evict(&self, manifests: &[Digest]) -> Result<Vec<(Digest, Vec<String>)>> {
        let _catalogue = self.lock_catalogue()?;
        let names = self.name_records()?;
        let mut evicted = Vec::new();
        for manifest in manifests {
            let Some(record) = self.image_by_manifest(manifest)? else { continue };
            if self.is_leased(&record.chain_id) {
                continue;
            }
            let own: Vec<_> = names.iter().filter(|(_, name)| name.manifest == *manifest).collect();
            for (path, _) in &own {
                unlink(path)?;
            }
            sync_directory(&self.layout().directory("names"))?;
            crash::reached(Step::NameRemoved);
            unlink(&self.layout().image(manifest))?;
            crash::reached(Step::RecordRemoved);
            evicted.push((*manifest, own.iter().map(|(_, name)| name.reference.clone()).collect()));
        }
        Ok(evicted)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::testing::{TestLayer, open, pull};

    fn digest(number: u8) -> Digest {
        Digest::of(&[number])
    }

    fn image(number: u8, last_use_s: i64, parts: &[u8], is_kept: bool) -> ImageUse {
        let parts = parts.iter().map(|part| (digest(100 + part), u64::from(*part) * 10)).collect();
        ImageUse { manifest: digest(number), chain_id: digest(50 + number), last_use_s, parts, is_kept }
    }

    /// What is on the disk with these images.
    fn bytes_of(images: &[ImageUse], without: &[Digest]) -> u64 {
        let left = images.iter().filter(|image| !without.contains(&image.manifest));
        left.flat_map(|image| image.parts.clone()).collect::<BTreeMap<_, _>>().values().sum()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let images = [image(1, 30, &[1], false), image(2, 10, &[2], false), image(3, 20, &[3], false)];
        assert_eq!(choose(&images, 1).manifests, [digest(2)]);
        let choice = choose(&images, 21);
        assert_eq!((choice.manifests, choice.freed_bytes), (vec![digest(2), digest(3)], 50));
        assert_eq!(choose(&images, 0), Choice::default());
    }

    #[test]
    fn what_another_image_keeps_is_not_freed() {
        let images = [image(1, 10, &[1, 2], false), image(2, 20, &[1, 2], true), image(3, 30, &[3], false)];
        let choice = choose(&images, 1);
        assert_eq!((choice.manifests, choice.freed_bytes), (vec![digest(3)], 30), "the oldest frees nothing");
        let twins = [image(1, 10, &[5], false), image(2, 20, &[5], false)];
        assert_eq!(choose(&twins, 1).manifests, [digest(1), digest(2)], "only together");
    }

    proptest! {
        #[test]
        fn the_choice_frees_what_it_says_and_takes_nothing_in_use(
            given in proptest::collection::vec((0..50_i64, proptest::collection::btree_set(1..9_u8, 0..5), any::<bool>()), 0..12),
            wanted_bytes in 0..400_u64,
        ) {
            let images: Vec<ImageUse> = (0..).zip(&given).map(|(number, (last_use_s, parts, is_kept))| {
                image(number, *last_use_s, &parts.iter().copied().collect::<Vec<_>>(), *is_kept)
            }).collect();
            let Choice { manifests, freed_bytes } = choose(&images, wanted_bytes);
            let gone = |image: &&ImageUse| manifests.contains(&image.manifest);
            prop_assert!(!images.iter().filter(gone).any(|image| image.is_kept));
            prop_assert_eq!(freed_bytes, bytes_of(&images, &[]) - bytes_of(&images, &manifests));
            // Enough, or all there is.
            let all: Vec<Digest> = images.iter().filter(|image| !image.is_kept).map(|image| image.manifest).collect();
            let possible_bytes = bytes_of(&images, &[]) - bytes_of(&images, &all);
            prop_assert!(freed_bytes >= wanted_bytes.min(possible_bytes));
            // Without the last of them it would not be enough: nothing more went than had to.
            if let Some((_, but_last)) = manifests.split_last() {
                prop_assert!(bytes_of(&images, &[]) - bytes_of(&images, but_last) < wanted_bytes);
            }
            // What stays though it could go was used later, or would free nothing.
            let latest_s = images.iter().filter(gone).map(|image| image.last_use_s).max().unwrap_or(i64::MIN);
            for stays in images.iter().filter(|image| !image.is_kept && !gone(image) && image.last_use_s < latest_s) {
                let with = [&manifests[..], &[stays.manifest]].concat();
                prop_assert_eq!(bytes_of(&images, &with), bytes_of(&images, &manifests));
            }
        }
    }

    #[test]
    fn an_evicted_image_is_gone_and_a_leased_one_stays() {
        let place = tempfile::tempdir().expect("a directory");
        let store = open(place.path());
        let records: Vec<_> = (0..2_u8)
            .map(|seed| {
                pull(&store, &format!("image:{seed}"), &[TestLayer::new(seed, 9000)]).expect("pulled")
            })
            .collect();
        let lease = store.lease(&records[0]).expect("leased");
        let manifests: Vec<Digest> = records.iter().map(|record| record.manifest).collect();
        let uses = store.image_uses(&BTreeSet::new()).expect("read");
        let used = |manifest: &Digest| uses.iter().find(|one| one.manifest == *manifest).expect("there");
        assert!(used(&manifests[0]).is_kept && !used(&manifests[1]).is_kept);
        assert!(used(&manifests[1]).parts.values().sum::<u64>() >= 9000);
        assert_eq!(choose(&uses, u64::MAX).manifests, [manifests[1]]);
        let kept: BTreeSet<Digest> = [manifests[1]].into();
        assert!(store.image_uses(&kept).expect("read").iter().all(|one| one.is_kept));
        let evicted = store.evict(&manifests).expect("evicted");
        assert_eq!(evicted, [(manifests[1], vec!["image:1".to_owned()])]);
        let report = store.gc().expect("collected");
        assert_eq!(report.layers.len(), 1);
        assert!(store.image_by_manifest(&manifests[0]).expect("read").is_some());
        drop(lease);
        assert_eq!(store.evict(&manifests).expect("evicted").len(), 1);
    }

    #[test]
    fn a_use_is_noted_once_in_a_while() {
        let place = tempfile::tempdir().expect("a directory");
        let store = open(place.path());
        let record = pull(&store, "image:1", &[TestLayer::new(1, 100)]).expect("pulled");
        let path = store.lease_path(&record.chain_id);
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        fs::File::open(&path).and_then(|file| file.set_modified(old)).expect("set");
        let last_use_s = || store.image_uses(&BTreeSet::new()).expect("read")[0].last_use_s;
        assert_eq!(last_use_s(), 1000);
        drop(store.lease(&record).expect("leased"));
        let used_s = last_use_s();
        assert!(used_s > 1_000_000);
        let recent = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        fs::File::open(&path).and_then(|file| file.set_modified(recent)).expect("set");
        let before_s = last_use_s();
        drop(store.lease(&record).expect("leased"));
        assert_eq!(last_use_s(), before_s, "a use a minute later is no other");
        store.touch(&record.chain_id);
        assert!(last_use_s() > before_s);
    }
}
